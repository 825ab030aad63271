"""Facts about emotions from action units: the teacher's part, the part learnt from the clips, and no leak."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.data import make_samples

import utils.train.units_first as units_first
from utils.evaluate.protocol import cross_validate, grouped_folds
from utils.evaluate.scores import pooled_score
from utils.train.decision import decide
from utils.train.ensemble import Ensemble, TrainedNetwork, forward_all, load_ensemble, predict, save_ensemble
from utils.train.network import ModelConfig
from utils.train.settings import TrainConfig
from utils.train.units_first import fit_units_first, learn_table, units_first_estimator


def make_teacher(mode: str = "multi-label", units: int = 5) -> Ensemble:
    """A network with random weights: its units differ between clips, and its emotions are useless."""
    config = ModelConfig(classes=3, views=1, phases=1, size=8, units=units)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = {name: value.clone() for name, value in config.build().state_dict().items()}
    network = TrainedNetwork(state, (1.0, 1.0), (), 0)
    return Ensemble(config, TrainConfig(mode=mode), ("a", "b", "c"), (network,), None, 0)


def clips_and_teacher(mode: str = "multi-label"):
    """Clips, three inner folds, and a teacher. Each emotion of the clips is one unit of the teacher."""
    clips, teacher = make_samples(150), make_teacher(mode)
    units = forward_all(teacher, clips.x)[2].mean(0).numpy()[:, :3]
    y = units > np.quantile(units, 0.7, axis=0)
    if mode == "single-label":
        y = np.eye(3)[units.argmax(1)]
    return replace(clips, y=y.astype(np.float32)), grouped_folds(clips.y, clips.subjects, 3), teacher


def outputs(teacher, clips):
    """The teacher's unit logits (2, N, A) and emotion logits (2, N, K)."""
    emotions, _, units = (output.double().numpy() for output in forward_all(teacher, clips.x))
    return units, emotions


def test_emotions_that_units_determine_are_learnt_whatever_the_teachers_emotions_are():
    clips, folds, teacher = clips_and_teacher()
    by_units, by_emotions = (
        pooled_score(cross_validate(clips, units_first_estimator(teacher, source), folds))
        for source in ("units", "emotions")
    )
    assert by_units["map"] > 0.9 and by_units["map"] > by_emotions["map"] + 0.1


def test_the_result_is_the_teacher_with_another_head_and_survives_its_files(tmp_path):
    clips, inner, teacher = clips_and_teacher()
    ensemble = fit_units_first(clips, inner, teacher)
    units, emotions = outputs(teacher, clips)
    table, _ = learn_table(units, emotions, clips.y, inner, single=False)
    expected = ensemble.calibration((1 / (1 + np.exp(-table.logits(units)))).mean(0))
    np.testing.assert_allclose(predict(ensemble, clips.x)[0], expected, atol=1e-4)
    before, after = teacher.members[0].state, ensemble.members[0].state
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"head.weight", "head.bias"}
    save_ensemble(ensemble, tmp_path)
    np.testing.assert_array_equal(predict(load_ensemble(tmp_path), clips.x)[0], predict(ensemble, clips.x)[0])


def test_strong_shrinkage_gives_the_teachers_table_and_weak_shrinkage_does_not(monkeypatch):
    clips, inner, teacher = clips_and_teacher()
    units, emotions = outputs(teacher, clips)
    emotions = 1000 * emotions  # the random network's own table is nearly zero
    scaled = (units - units.mean((0, 1))) / units.std((0, 1))
    centred = emotions - emotions.mean((0, 1))
    teachers = np.linalg.lstsq(scaled.reshape(-1, 5), centred.reshape(-1, 3), rcond=None)[0]
    monkeypatch.setattr(units_first, "RIDGE", 0.0)
    distances = []
    for strength in (1e-3, 1e3):
        monkeypatch.setattr(units_first, "STRENGTHS", (strength,))
        table, _ = learn_table(units, emotions, clips.y, inner, single=False)
        distances.append(np.abs(table.weights - teachers).max())
    assert np.abs(teachers).max() > 0.5 and distances[0] > 0.5 and distances[1] < 0.01


def test_the_held_out_probabilities_of_a_fold_do_not_depend_on_its_labels(monkeypatch):
    clips, inner, teacher = clips_and_teacher()
    units, emotions = outputs(teacher, clips)
    monkeypatch.setattr(units_first, "STRENGTHS", (0.01,))
    test = inner[0][1]
    changed = clips.y.copy()
    changed[test] = 1 - changed[test]
    before, after = (learn_table(units, emotions, y, inner, single=False)[1] for y in (clips.y, changed))
    np.testing.assert_allclose(before[test], after[test])
    assert np.abs(before - after).max() > 0.1  # the other folds learn from these labels


def test_single_labels_get_probabilities_that_sum_to_one_and_no_thresholds():
    clips, inner, teacher = clips_and_teacher("single-label")
    ensemble = fit_units_first(clips, inner, teacher)
    probability = predict(ensemble, clips.x)[0]
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(ensemble.held_out.sum(1), 1, atol=1e-5)
    assert ensemble.thresholds is None and (decide(probability, None) == (clips.y > 0)).all(1).mean() > 0.8


@pytest.mark.parametrize(
    "teacher, source, message",
    [
        (make_teacher(), "faces", "source is 'faces'"),
        (make_teacher(units=0), "units", "unit head"),
        (replace(make_teacher(), members=make_teacher().members * 2), "units", "one network"),
    ],
)
def test_another_teacher_or_source_is_refused(teacher, source, message):
    clips = make_samples(40)
    with pytest.raises(ValueError, match=message):
        fit_units_first(clips, grouped_folds(clips.y, clips.subjects, 2), teacher, source)
