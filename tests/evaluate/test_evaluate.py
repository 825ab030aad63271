"""Facts about the protocol (`protocol`, `scores`) and the decisions (`utils.train.decision`)."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.data import make_samples
from sklearn.metrics import f1_score, recall_score

from utils.evaluate.baselines import best_constant, lda, rbf_svm
from utils.evaluate.protocol import (
    Variant,
    average_predictions,
    cross_validate,
    cross_validate_variants,
    grouped_folds,
    leave_one_subject_out,
    run_fold,
    run_leaking_fold,
)
from utils.evaluate.scores import (
    compare,
    confusion_counts,
    interval,
    pooled_score,
    reliability,
    results_table,
    score,
    verdicts,
)
from utils.train.decision import Thresholds, choose_thresholds, decide, fit_calibration
from utils.train.estimator import Classifier

CLASSES = ("a", "b", "c")


def mean_estimator(train, inner, seed):
    """An estimator that learns a centre and thresholds: probabilities are the sigmoid of the centred channel means."""
    centre = train.x.mean(axis=(0, 1, 2, 4, 5))

    def probabilities(x):
        return 1 / (1 + np.exp(-10 * (x.mean(axis=(1, 2, 4, 5)) - centre)))

    stop_on = inner[0][1]
    thresholds = choose_thresholds(train.y[stop_on], probabilities(train.x[stop_on]), train.y.mean(axis=0))
    return Classifier(probabilities, thresholds, {"parameters": 3})


def folds_of(samples, k=4):
    return grouped_folds(samples.y, samples.subjects, k)


# Folds


@pytest.mark.parametrize("k", [2, 5, 12])
def test_no_subject_is_on_two_sides_of_a_fold_and_every_clip_is_held_out_once(k):
    samples = make_samples()
    folds = folds_of(samples, k)
    assert len(folds) == k and all(len(test) for _, test in folds)
    assert np.array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(len(samples)))
    for train, test in folds:
        assert not set(samples.subjects[train]) & set(samples.subjects[test])
        assert len(train) + len(test) == len(samples)


def test_grouped_folds_share_every_label_more_evenly_than_chance():
    samples = make_samples(400, 24)
    names, subject_of = np.unique(samples.subjects, return_inverse=True)

    def spread(fold_of_clip):
        return sum(np.std([samples.y[fold_of_clip == f].sum(0) for f in range(5)], axis=0))

    ours = np.empty(len(samples), dtype=int)
    for f, (_, test) in enumerate(folds_of(samples, 5)):
        ours[test] = f
    rng = np.random.default_rng(1)
    chance = [spread(rng.permutation(np.arange(len(names)) % 5)[subject_of]) for _ in range(200)]
    assert spread(ours) < np.percentile(chance, 2)


def test_leave_one_subject_out_holds_out_each_subject_alone():
    folds = leave_one_subject_out(np.array(["b", "a", "b", "c"]))
    assert [test.tolist() for _, test in folds] == [[1], [0, 2], [3]]


def test_too_few_subjects_are_refused():
    with pytest.raises(ValueError, match="4 folds of 3 subjects"):
        grouped_folds(np.ones((6, 1)), np.array(list("aabbcc")), 4)
    with pytest.raises(ValueError, match="nothing is left to train on"):
        leave_one_subject_out(np.array(["a", "a"]))


# Protocol


def test_permuting_held_out_labels_leaves_predictions_unchanged_unless_the_estimator_leaks():
    samples = make_samples()
    fold = folds_of(samples)[0]
    y = samples.y.copy()
    y[fold[1]] = 1 - y[fold[1]][::-1]
    both = samples, replace(samples, y=y)
    a, b = (run_fold(clips, mean_estimator, fold, seed=0) for clips in both)
    np.testing.assert_array_equal(a.probability, b.probability)
    np.testing.assert_array_equal(a.decision, b.decision)
    leak_a, leak_b = (run_leaking_fold(clips, mean_estimator, fold, seed=0) for clips in both)
    assert not np.array_equal(leak_a.thresholds, leak_b.thresholds)


def test_an_estimator_never_receives_a_held_out_subject_and_its_inner_folds_are_subject_disjoint():
    samples = make_samples()
    held_out = []

    def spy(train, inner, seed):
        assert len(inner) == 4
        for fit_on, stop_on in inner:
            assert not set(train.subjects[fit_on]) & set(train.subjects[stop_on])
        held_out.append(set(samples.subjects) - set(train.subjects))
        return mean_estimator(train, inner, seed)

    cross_validate(samples, spy, leave_one_subject_out(samples.subjects))
    assert sorted(name for names in held_out for name in names) == sorted(set(samples.subjects))
    assert all(len(names) == 1 for names in held_out)


def test_predictions_are_joined_by_id_whatever_the_order_of_the_folds():
    samples = make_samples()
    folds = folds_of(samples)
    oof, reordered = (cross_validate(samples, mean_estimator, order) for order in (folds, folds[::-1]))
    np.testing.assert_array_equal(oof.ids, samples.ids)
    np.testing.assert_array_equal(oof.probability, reordered.probability)
    table = oof.table()
    assert (table["Id"].value_counts() == 1).all() and len(table) == len(samples)


def test_folds_that_do_not_partition_clips_and_subjects_are_refused():
    samples, positions = make_samples(), np.arange(120)
    folds = folds_of(samples)
    for wrong in (folds[:3], [*folds, folds[0]]):
        with pytest.raises(ValueError, match="not held out exactly once"):
            cross_validate(samples, mean_estimator, wrong)
    with pytest.raises(ValueError, match="stands on two sides of a fold"):
        run_fold(samples, mean_estimator, (positions[:60], positions[60:]), seed=0)


def test_variants_through_one_pool_give_the_results_of_each_variant_alone():
    samples = make_samples()
    folds = folds_of(samples, 3)
    variants = {"mean": Variant(mean_estimator), "lda": Variant(lda())}
    together = cross_validate_variants(samples, variants, folds, (0, 1), n_jobs=2)
    for name, variant in variants.items():
        alone = cross_validate(samples, variant.estimator, folds, (0, 1))
        np.testing.assert_array_equal(together[name].probability, alone.probability)
        np.testing.assert_array_equal(together[name].decision, alone.decision)
        assert alone.probability.shape == (2, 120, 3)


# Scores


def test_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(3)
    truth, decision = rng.random((2, 300, 3)) < 0.3
    scores = score(truth, decision, rng.random((300, 3)), CLASSES)
    assert scores["macro_uf1"] == pytest.approx(f1_score(truth, decision, average="macro"))
    assert scores["uar"] == pytest.approx(recall_score(truth, decision, average="macro"))
    both = np.mean([f1_score(truth[:, k], decision[:, k], average="macro") for k in range(3)])
    assert scores["macro_f1_both"] == pytest.approx(both)
    assert scores["subset_accuracy"] == pytest.approx((truth == decision).all(1).mean())
    np.testing.assert_array_equal(confusion_counts(truth, decision).sum(-1), np.full(3, 300))


def test_an_absent_class_lowers_the_mean_and_is_named():
    truth = np.array([[1, 0, 0], [0, 1, 0]])
    scores = score(truth, truth, truth.astype(float), CLASSES)
    assert scores["macro_uf1"] == pytest.approx(2 / 3) and scores["absent"] == ["c"]


def test_the_decision_for_single_labels_is_the_arg_max():
    np.testing.assert_array_equal(decide(np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]), None), [[0, 1, 0], [1, 0, 0]])


def test_calibrated_probabilities_have_a_small_calibration_error_and_squared_ones_a_large_one():
    rng = np.random.default_rng(0)
    probability = rng.random((5000, 2))
    truth = rng.random((5000, 2)) < probability
    assert score(truth, truth, probability, ("a", "b"))["ece"] < 0.02
    assert score(truth, truth, probability**2, ("a", "b"))["ece"] > 0.1
    curve = reliability(truth, probability)
    assert curve["count"].sum() == 10000 and np.abs(curve["observed"] - curve["predicted"]).max() < 0.05


# Thresholds and calibration


def test_with_few_positives_a_bagged_cut_beats_the_best_cut_and_the_expected_cut_improves_it(monkeypatch):
    """Calibrated probabilities of 40 clips with 2 to 4 positives; F1 on 4,000 test clips."""
    rng, scores = np.random.default_rng(0), []

    def draw(n):
        p = 1 / (1 + np.exp(-(rng.normal(0, 2, n) - 4)))
        return p, rng.random(n) < p

    def f1(p, y, cut):
        return 2 * (y & (p > cut)).sum() / max(y.sum() + (p > cut).sum(), 1)

    test_clips = draw(4000)
    while len(scores) < 60:
        p, y = draw(40)
        if 2 <= y.sum() <= 4:
            cuts = [max(p - 1e-9, key=lambda cut, p=p, y=y: f1(p, y, cut))]
            for few in (0, 10):
                monkeypatch.setattr("utils.train.decision.FEW", few)
                cuts.append(choose_thresholds(y[:, None], p[:, None], y.mean(keepdims=True)).values[0])
            scores.append([f1(*test_clips, cut) for cut in cuts])
    best, bagged, both = np.mean(scores, 0)
    assert bagged > best + 0.005 and both > bagged + 0.005


def test_classes_without_positives_follow_the_stated_rule():
    probability = np.linspace(0.01, 0.99, 50)[:, None].repeat(2, axis=1)
    thresholds = choose_thresholds(np.zeros((50, 2)), probability, np.array([0.2, 0.0]))
    decision = decide(probability, thresholds.values)
    assert decision[:, 0].sum() == 10 and "training prevalence 0.200" in thresholds.sources[0]
    assert not decision[:, 1].any() and "never predicted" in thresholds.sources[1]


def test_perfect_probabilities_get_a_perfect_threshold():
    y = np.array([0, 0, 1, 1, 1])[:, None]
    probability = y * 0.8 + 0.1
    np.testing.assert_array_equal(decide(probability, choose_thresholds(y, probability, y.mean(0)).values), y)


def test_calibration_turns_scores_into_frequencies_and_keeps_their_order():
    rng = np.random.default_rng(0)
    frequency = rng.random((2000, 2)) * (0.9, 0.3)
    truth = rng.random((2000, 2)) < frequency
    logit = np.log(frequency / (1 - frequency))
    squashed = 1 / (1 + np.exp(-(0.3 * logit + 1.0)))  # the right order, but not frequencies
    calibrated = fit_calibration(truth[:1000], squashed[:1000])(squashed)
    assert np.abs(calibrated - frequency).mean() < 0.05 < np.abs(squashed - frequency).mean()
    np.testing.assert_array_equal(calibrated.argsort(axis=0), squashed.argsort(axis=0))
    assert fit_calibration(~truth[:1000], squashed[:1000]).slope == 0.1


# Averages


def test_the_average_of_single_label_predictions_is_their_mean():
    samples = make_samples()

    def single(shift):
        def estimator(train, inner, seed):
            return Classifier(lambda x: np.abs(x.mean(axis=(1, 2, 4, 5)) + shift), None)

        return estimator

    folds = folds_of(samples)
    a, b = (cross_validate(samples, single(shift), folds) for shift in (0.0, (1.0, 0.0, 0.0)))
    mean = average_predictions(a, b)
    np.testing.assert_allclose(mean.probability, (a.probability + b.probability) / 2)
    np.testing.assert_array_equal(mean.decision[0].argmax(1), mean.probability[0].argmax(1))
    with pytest.raises(ValueError, match="differ in fold"):
        average_predictions(a, cross_validate(samples, single(0.0), folds[::-1]))
    with pytest.raises(ValueError, match="single labels do not average with several"):
        average_predictions(a, cross_validate(samples, mean_estimator, folds))


def test_the_average_of_multi_label_predictions_chooses_its_thresholds_on_mean_inner_probabilities():
    samples = make_samples()
    folds = folds_of(samples, 3)
    a, b = (cross_validate(samples, estimator, folds, (0, 1)) for estimator in (lda(), rbf_svm()))
    same, mean = average_predictions(a, a), average_predictions(a, b)
    np.testing.assert_allclose(same.thresholds, a.thresholds, atol=1e-6)
    np.testing.assert_array_equal(same.decision, a.decision)
    for r, f in np.ndindex(2, 3):
        train, test = folds[f]
        inner, truth = (a.inner + b.inner)[r, f, train] / 2, a.truth[train]
        expected = choose_thresholds(truth, inner, truth.mean(0)).values
        np.testing.assert_allclose(mean.thresholds[r, f], expected)
        np.testing.assert_array_equal(mean.decision[r, test], mean.probability[r, test] > expected)
        assert np.isnan(a.inner[r, f, test]).all()
    with pytest.raises(ValueError, match="no out-of-fold probabilities.*Remedy"):
        average_predictions(a, cross_validate(samples, best_constant(), folds, (0, 1)))


# Intervals


def test_the_interval_covers_the_pooled_score_and_shrinks_with_more_subjects():
    few, many = (
        cross_validate(clips, mean_estimator, folds_of(clips)) for clips in (make_samples(80, 8), make_samples(640, 64))
    )
    for oof in (few, many):
        bounds = interval(oof)
        assert bounds.low < bounds.value < bounds.high
        assert bounds.value == pytest.approx(pooled_score(oof)["macro_uf1"])
    assert interval(many).high - interval(many).low < interval(few).high - interval(few).low


def test_the_interval_is_that_of_scoring_each_resample(monkeypatch):
    monkeypatch.setattr("utils.evaluate.scores.RESAMPLES", 300)
    samples = make_samples()
    oof = cross_validate(samples, mean_estimator, folds_of(samples), seeds=(0, 1))
    names = np.unique(oof.subjects)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=300)
    values = []
    for counts in drawn:
        rows = np.concatenate([np.flatnonzero(oof.subjects == s).repeat(n) for s, n in zip(names, counts, strict=True)])
        by_seed = (f1_score(oof.truth[rows], oof.decision[r, rows], average="macro", zero_division=0) for r in range(2))
        values.append(np.mean(list(by_seed)))
    assert interval(oof).low == pytest.approx(np.percentile(values, 2.5))


def test_a_result_does_not_differ_from_itself_and_unpaired_results_are_refused():
    samples = make_samples()
    folds = folds_of(samples)
    oof = cross_validate(samples, mean_estimator, folds)
    same = compare(oof, oof)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="differ in fold"):
        compare(oof, cross_validate(samples, mean_estimator, folds[::-1]))


def test_the_table_has_a_row_per_variant_with_its_cost():
    samples = make_samples()
    folds = folds_of(samples)

    def all_ones(train, inner, seed):
        return Classifier(lambda x: np.ones((len(x), 3)), Thresholds(np.full(3, 0.5), ("fixed",) * 3))

    results = {"mean": cross_validate(samples, mean_estimator, folds), "ones": cross_validate(samples, all_ones, folds)}
    table = results_table(results, reference="ones")
    assert table.loc["ones", "difference"] == 0 and table.loc["mean", "difference"] > 0
    assert table.loc["mean", "parameters"] == 3 and table.loc["mean", "folds"] == 4
    assert table.loc["ones", "uar"] == 1 and table.loc["ones", "balanced_accuracy"] == 0.5


def test_verdicts_say_what_the_intervals_show():
    columns = ["difference", "difference_low", "difference_high"]
    rows = {"ours": (0, 0, 0), "a": (0.1, 0.01, 0.2), "b": (-0.1, -0.2, -0.01), "c": (0.1, -0.01, 0.2)}
    a, b, c = verdicts(pd.DataFrame.from_dict(rows, orient="index", columns=columns), "ours")
    assert a.startswith("a ") and a.endswith("+0.100 [+0.010, +0.200]  better than ours")
    assert b.endswith("worse than ours") and c.endswith("no difference shown")
