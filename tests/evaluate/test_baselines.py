"""Facts about the baselines: they learn obvious classes, and their features have a known form."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from utils.evaluate.baselines import OffApexNetConfig, STSTNetConfig, averaged_flow, baselines, bi_woof
from utils.evaluate.protocol import cross_validate, grouped_folds, run_fold
from utils.evaluate.rows import EVERY_LABEL, SVM
from utils.evaluate.scores import pooled_score
from utils.train.fit import network_estimator
from utils.train.network import count_parameters
from utils.train.samples import Samples


def make(single: bool = False, n: int = 90) -> Samples:
    """Class a moves the upper half down, class b the lower half up."""
    rng = np.random.default_rng(0)
    y = np.eye(2)[rng.integers(0, 2, n)] if single else (rng.random((n, 2)) < 0.35).astype(float)
    x = rng.normal(0, 0.6, (n, 1, 1, 3, 28, 28))
    x[:, 0, 0, 1, :14] += y[:, 0, None, None]
    x[:, 0, 0, 1, 14:] -= y[:, 1, None, None]
    ids = [f"c{i}" for i in range(n)]
    return Samples(x, y, ids, [f"s{i % 6}" for i in range(n)], ("a", "b"))


@pytest.mark.parametrize("mode", ["multi-label", "single-label"])
@pytest.mark.parametrize("name", ["LDA", SVM, "Bi-WOOF + linear SVM"])
def test_classical_baselines_learn_obvious_classes(name, mode):
    samples = make(mode == "single-label")
    folds = grouped_folds(samples.y, samples.subjects, 2)
    oof = cross_validate(samples, baselines(mode)[name], folds, inner_folds=2)
    assert pooled_score(oof)["macro_uf1"] > 0.8
    assert np.isnan(oof.thresholds).all() == (mode == "single-label")


@pytest.mark.parametrize("mode", ["multi-label", "single-label"])
def test_every_baseline_runs_through_the_protocol(mode, monkeypatch):
    def shortened(model, train, how):
        return network_estimator(model, replace(train, epochs=2), how)

    monkeypatch.setattr("utils.evaluate.baselines.network_estimator", shortened)
    samples = make(mode == "single-label", n=36)
    fold = grouped_folds(samples.y, samples.subjects, 2)[0]
    for estimator in baselines(mode).values():
        result = run_fold(samples, estimator, fold, seed=0, inner_folds=2)
        assert result.probability.shape == (len(fold[1]), 2) and np.isfinite(result.probability).all()
        assert mode == "multi-label" or (result.decision.sum(axis=1) == 1).all()


def test_every_label_for_every_clip_has_a_known_score():
    samples = make()
    folds = grouped_folds(samples.y, samples.subjects, 3)
    prevalence = samples.y.mean(axis=0)
    scores = pooled_score(cross_validate(samples, baselines()[EVERY_LABEL], folds))
    assert scores["macro_uf1"] == pytest.approx(np.mean(2 * prevalence / (1 + prevalence)))
    assert EVERY_LABEL not in baselines("single-label")


@pytest.mark.parametrize("mode", ["multi-label", "single-label"])
def test_prior_random_gives_labels_with_their_prevalence_and_independent_of_the_truth(mode):
    samples = make(mode == "single-label", n=600)
    oof = cross_validate(samples, baselines(mode)["prior-random"], grouped_folds(samples.y, samples.subjects, 3))
    assert oof.decision[0].mean(axis=0) == pytest.approx(samples.y.mean(axis=0), abs=0.07)
    assert abs(np.corrcoef(oof.decision[0, :, 0], samples.y[:, 0])[0, 1]) < 0.15


def test_the_best_constant_for_single_labels_is_the_majority_class():
    samples = make(single=True)
    estimator = baselines("single-label")["best constant"]
    oof = cross_validate(samples, estimator, grouped_folds(samples.y, samples.subjects, 3))
    assert oof.decision[0].sum(axis=0).max() == len(samples)


def test_flow_is_averaged_block_by_block():
    x = np.zeros((1, 1, 1, 3, 8, 8))
    x[0, 0, 0, 0, :4, 4:] = 2.0
    np.testing.assert_allclose(averaged_flow(x, 2, 2)[0], [0, 2, 0, 0, 0, 0, 0, 0])


def test_bi_woof_counts_directions_and_weights_blocks_by_strain():
    x = np.zeros((1, 1, 1, 3, 8, 8))
    x[0, 0, 0, 1, :4] = np.arange(8) + 1.0  # downward motion that grows to the right, in the upper half
    histograms = bi_woof(x, 2, bins=4).reshape(4, 2, 2)  # bins, rows, columns
    assert (histograms[1, 0] > 0).all() and np.allclose(histograms[[0, 2, 3]], 0, atol=1e-6)
    assert np.allclose(histograms[:, 1], 0)


def test_the_small_networks_have_as_many_parameters_as_in_their_papers():
    assert 1600 < count_parameters(STSTNetConfig(classes=3, views=1, phases=1)) < 1800
    assert 2.6e6 < count_parameters(OffApexNetConfig(classes=3, views=1, phases=1)) < 2.8e6


def test_held_out_probabilities_do_not_know_the_labels_of_pure_noise():
    rng = np.random.default_rng(1)
    samples = replace(make(), x=rng.normal(size=(90, 1, 1, 3, 28, 28)))
    classifier = baselines()[SVM](samples, grouped_folds(samples.y, samples.subjects, 3), 0)
    trained_on = average_precision_score(samples.y, classifier.probabilities(samples.x))
    assert average_precision_score(samples.y, classifier.held_out) < trained_on - 0.1
