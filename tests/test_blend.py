"""Facts about averages of several ways of training: their weights come from inner folds alone, and they are kept."""

import numpy as np
import pytest
from test_evaluate import make

from utils.train.baselines import lda, rbf_svm
from utils.train.blend import Way, blend_weights, fit_blend, load_blend, log_losses, predict_blend, save_blend
from utils.train.fitted import predict
from utils.train.network import ModelConfig
from utils.train.protocol import OutOfFold, average_predictions, cross_validate, grouped_folds
from utils.train.settings import TrainConfig


def of(quality, truth, rng):
    """Probabilities that tell the truth as well as `quality` says: 0 nothing."""
    return 1 / (1 + np.exp(-(quality * (2 * truth - 1) + rng.normal(0, 1, truth.shape))))


def test_the_better_part_weighs_more_and_equal_ones_share():
    rng = np.random.default_rng(0)
    truth, subjects = rng.integers(0, 2, (120, 3)), np.repeat(np.arange(12), 10)
    good, other, bad = of(2.0, truth, rng), of(2.0, truth, rng), of(0.0, truth, rng)
    weights = blend_weights(truth, np.stack([good, other, bad]), subjects)
    assert weights.sum() == pytest.approx(1) and weights[2] < 0.05 and weights[:2].min() > 0.15
    assert blend_weights(truth, good[None], subjects) == pytest.approx([1])


def test_weights_of_a_fold_look_at_its_training_clips_alone():
    samples = make()
    folds = grouped_folds(samples.y, samples.subjects, 3)
    one, other = (cross_validate(samples, predictor, folds) for predictor in (lda(), rbf_svm()))
    found = average_predictions(one, other, weigh=blend_weights)
    for f, (train, test) in enumerate(folds):
        inner = np.stack([part.inner[0, f, train] for part in (one, other)])
        weights = blend_weights(samples.y[train], inner, samples.subjects[train])
        np.testing.assert_allclose(found.notes[0][f]["weights"], weights)
        expected = np.tensordot(weights, np.stack([part.probability[0, test] for part in (one, other)]), 1)
        np.testing.assert_allclose(found.probability[0, test], expected)
    assert isinstance(found, OutOfFold) and np.isfinite(found.thresholds).all()


@pytest.fixture(scope="module")
def blend():
    samples = make()
    inner = grouped_folds(samples.y, samples.subjects, 2)
    _, views, phases, _, size, _ = samples.x.shape
    model = ModelConfig(classes=samples.y.shape[1], size=size, views=views, phases=phases)
    ways = {"plain": Way(model, TrainConfig(epochs=2)), "fast": Way(model, TrainConfig(epochs=2, lr=1e-2, patience=0))}
    return samples, inner, ways, fit_blend(samples, inner, ways)


def test_a_blend_predicts_the_weighted_mean_of_its_parts_and_is_kept_whole(blend, tmp_path):
    samples, _, _, fitted = blend
    probability, streams = predict_blend(fitted, samples.x)
    each = np.stack([predict(part, samples.x)[0] for part in fitted.parts.values()])
    np.testing.assert_allclose(probability, np.tensordot(list(fitted.weights.values()), each, 1), atol=1e-6)
    np.testing.assert_allclose(streams.sum(1), 1, atol=1e-5)
    save_blend(fitted, tmp_path)
    again = load_blend(tmp_path)
    np.testing.assert_array_equal(predict_blend(again, samples.x)[0], probability)
    np.testing.assert_array_equal(again.thresholds.values, fitted.thresholds.values)
    assert again.weights == fitted.weights and again.losses == fitted.losses


def test_what_is_said_of_a_part_is_its_loss_on_inner_held_out_clips(blend):
    samples, _, _, fitted = blend
    for name, part in fitted.parts.items():
        assert fitted.losses[name] == pytest.approx(log_losses(samples.y, part.held_out).mean())


def test_one_way_alone_keeps_its_thresholds(blend):
    samples, inner, ways, fitted = blend
    alone = fit_blend(samples, inner, {"plain": ways["plain"]})
    assert alone.weights == {"plain": 1.0} and alone.leading is alone.parts["plain"]
    np.testing.assert_array_equal(alone.thresholds.values, fitted.parts["plain"].thresholds.values)
