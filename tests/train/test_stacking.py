"""Facts about stacking: weights come from inner folds alone, and what is averaged is kept."""

import numpy as np
import pytest
from helpers.data import make_samples

from utils.evaluate.baselines import lda, rbf_svm
from utils.evaluate.protocol import OutOfFold, average_predictions, cross_validate, grouped_folds
from utils.train.ensemble import predict
from utils.train.network import ModelConfig
from utils.train.settings import TrainConfig
from utils.train.stacking import Learner, fit_stack, load_stack, log_losses, predict_stack, save_stack, stacking_weights


def of(quality, truth, rng):
    """Probabilities that tell the truth as well as `quality` says: 0 nothing."""
    return 1 / (1 + np.exp(-(quality * (2 * truth - 1) + rng.normal(0, 1, truth.shape))))


def test_the_better_part_weighs_more_and_equal_ones_share():
    rng = np.random.default_rng(0)
    truth, subjects = rng.integers(0, 2, (120, 3)), np.repeat(np.arange(12), 10)
    good, other, bad = of(2.0, truth, rng), of(2.0, truth, rng), of(0.0, truth, rng)
    weights = stacking_weights(truth, np.stack([good, other, bad]), subjects)
    assert weights.sum() == pytest.approx(1) and weights[2] < 0.05 and weights[:2].min() > 0.15
    assert stacking_weights(truth, good[None], subjects) == pytest.approx([1])
    assert stacking_weights(truth, np.stack([good] * 3), subjects) == pytest.approx([1 / 3] * 3)


def test_weights_of_a_fold_look_at_its_training_clips_alone():
    samples = make_samples()
    folds = grouped_folds(samples.y, samples.subjects, 3)
    one, other = (cross_validate(samples, estimator, folds) for estimator in (lda(), rbf_svm()))
    found = average_predictions(one, other, weighting=stacking_weights)
    for f, (train, test) in enumerate(folds):
        inner = np.stack([part.inner[0, f, train] for part in (one, other)])
        weights = stacking_weights(samples.y[train], inner, samples.subjects[train])
        np.testing.assert_allclose(found.notes[0][f]["weights"], weights)
        expected = np.tensordot(weights, np.stack([part.probability[0, test] for part in (one, other)]), 1)
        np.testing.assert_allclose(found.probability[0, test], expected)
    assert isinstance(found, OutOfFold) and np.isfinite(found.thresholds).all()


@pytest.fixture(scope="module")
def stack():
    samples = make_samples()
    inner = grouped_folds(samples.y, samples.subjects, 2)
    _, views, phases, _, size, _ = samples.x.shape
    model = ModelConfig(classes=samples.y.shape[1], size=size, views=views, phases=phases)
    learners = {
        "plain": Learner(model, TrainConfig(epochs=2)),
        "fast": Learner(model, TrainConfig(epochs=2, lr=1e-2, patience=0)),
    }
    return samples, inner, learners, fit_stack(samples, inner, learners)


def test_a_blend_predicts_the_weighted_mean_of_its_parts_and_is_kept_whole(stack, tmp_path):
    samples, _, _, ensemble = stack
    probability, streams = predict_stack(ensemble, samples.x)
    each = np.stack([predict(part, samples.x)[0] for part in ensemble.parts.values()])
    np.testing.assert_allclose(probability, np.tensordot(list(ensemble.weights.values()), each, 1), atol=1e-6)
    np.testing.assert_allclose(streams.sum(1), 1, atol=1e-5)
    save_stack(ensemble, tmp_path)
    again = load_stack(tmp_path)
    np.testing.assert_array_equal(predict_stack(again, samples.x)[0], probability)
    np.testing.assert_array_equal(again.thresholds.values, ensemble.thresholds.values)
    assert again.weights == ensemble.weights and again.losses == ensemble.losses


def test_what_an_earlier_stack_left_in_a_folder_goes(stack, tmp_path):
    samples, inner, learners, ensemble = stack
    (tmp_path / "model-notes.md").write_text("somebody's")
    save_stack(ensemble, tmp_path)
    assert (tmp_path / "model-1.json").exists()
    save_stack(fit_stack(samples, inner, {"plain": learners["plain"]}), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.json", "model-0.json", "model-0.safetensors"} <= names and not any("-1" in name for name in names)
    assert "model-notes.md" in names


def test_what_is_said_of_a_part_is_its_loss_on_inner_held_out_clips(stack):
    samples, _, _, ensemble = stack
    for name, part in ensemble.parts.items():
        assert ensemble.losses[name] == pytest.approx(log_losses(samples.y, part.held_out).mean())


def test_one_way_alone_keeps_its_thresholds(stack):
    samples, inner, learners, ensemble = stack
    alone = fit_stack(samples, inner, {"plain": learners["plain"]})
    assert alone.weights == {"plain": 1.0} and alone.leading is alone.parts["plain"]
    np.testing.assert_array_equal(alone.thresholds.values, ensemble.parts["plain"].thresholds.values)
