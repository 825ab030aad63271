"""Facts about stacking: the inner folds alone choose the weights, and a saved stack is whole."""

import numpy as np
import pytest
from helpers.data import make_samples

from utils.evaluate.baselines import lda, rbf_svm
from utils.evaluate.protocol import average_predictions, cross_validate, grouped_folds
from utils.train.ensemble import predict
from utils.train.network import ModelConfig
from utils.train.settings import TrainConfig
from utils.train.stacking import Learner, fit_stack, load_stack, log_losses, predict_stack, save_stack, stacking_weights


def probability_of(truth, quality, rng):
    """Probabilities that separate the truth better with larger `quality`; 0 is chance."""
    return 1 / (1 + np.exp(-(quality * (2 * truth - 1) + rng.normal(0, 1, truth.shape))))


def test_better_parts_get_larger_weights_and_equal_parts_get_equal_weights():
    rng = np.random.default_rng(0)
    truth, subjects = rng.integers(0, 2, (120, 3)), np.repeat(np.arange(12), 10)
    parts = np.stack([probability_of(truth, quality, rng) for quality in (2.0, 2.0, 0.0)])
    weights = stacking_weights(truth, parts, subjects)
    assert weights.sum() == pytest.approx(1) and weights[2] < 0.05 and weights[:2].min() > 0.15
    assert stacking_weights(truth, parts[:1], subjects) == pytest.approx([1])
    assert stacking_weights(truth, np.stack([parts[0]] * 3), subjects) == pytest.approx([1 / 3] * 3)


def test_the_weights_of_a_fold_come_from_its_training_clips():
    samples = make_samples()
    folds = grouped_folds(samples.y, samples.subjects, 3)
    parts = [cross_validate(samples, estimator, folds) for estimator in (lda(), rbf_svm())]
    mean = average_predictions(*parts, weighting=stacking_weights)
    for f, (train, test) in enumerate(folds):
        inner = np.stack([part.inner[0, f, train] for part in parts])
        weights = stacking_weights(samples.y[train], inner, samples.subjects[train])
        np.testing.assert_allclose(mean.notes[0][f]["weights"], weights)
        expected = np.tensordot(weights, np.stack([part.probability[0, test] for part in parts]), 1)
        np.testing.assert_allclose(mean.probability[0, test], expected)
    assert np.isfinite(mean.thresholds).all()


@pytest.fixture(scope="module")
def fitted():
    """Samples, inner folds, two learners, and their stack."""
    samples = make_samples()
    inner = grouped_folds(samples.y, samples.subjects, 2)
    _, views, phases, _, size, _ = samples.x.shape
    model = ModelConfig(classes=samples.y.shape[1], size=size, views=views, phases=phases)
    learners = {
        "plain": Learner(model, TrainConfig(epochs=2)),
        "fast": Learner(model, TrainConfig(epochs=2, lr=1e-2, patience=0)),
    }
    return samples, inner, learners, fit_stack(samples, inner, learners)


def test_a_stack_predicts_the_weighted_mean_of_its_parts_and_survives_its_files(fitted, tmp_path):
    samples, _, _, stack = fitted
    probability, streams = predict_stack(stack, samples.x)
    parts = np.stack([predict(part, samples.x)[0] for part in stack.parts.values()])
    np.testing.assert_allclose(probability, np.tensordot(list(stack.weights.values()), parts, 1), atol=1e-6)
    np.testing.assert_allclose(streams.sum(1), 1, atol=1e-5)
    save_stack(stack, tmp_path)
    loaded = load_stack(tmp_path)
    np.testing.assert_array_equal(predict_stack(loaded, samples.x)[0], probability)
    np.testing.assert_array_equal(loaded.thresholds.values, stack.thresholds.values)
    assert loaded.weights == stack.weights and loaded.losses == stack.losses


def test_the_loss_of_a_part_is_its_loss_on_the_clips_that_the_inner_folds_hold_out(fitted):
    samples, _, _, stack = fitted
    for name, part in stack.parts.items():
        assert stack.losses[name] == pytest.approx(log_losses(samples.y, part.held_out).mean())


def test_a_single_learner_keeps_its_thresholds_and_replaces_the_files_of_a_larger_stack(fitted, tmp_path):
    samples, inner, learners, stack = fitted
    single = fit_stack(samples, inner, {"plain": learners["plain"]})
    assert single.weights == {"plain": 1.0} and single.leading is single.parts["plain"]
    np.testing.assert_array_equal(single.thresholds.values, stack.parts["plain"].thresholds.values)
    (tmp_path / "model-notes.md").write_text("a file of the user")
    save_stack(stack, tmp_path)
    assert (tmp_path / "model-1.json").exists()
    save_stack(single, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.json", "model-0.json", "model-0.safetensors"} <= names and not any("-1" in name for name in names)
    assert "model-notes.md" in names
