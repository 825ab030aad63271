"""Facts about reading emotions by way of action units: what is the teacher's, what the clips', and nothing of theirs
that is held out."""

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

A = 5  # units


def teacher(mode: str = "multi-label", units: int = A) -> Ensemble:
    """A network with chance weights: what it calls units differs between clips, and its emotions are no use."""
    config = ModelConfig(classes=3, views=1, phases=1, size=8, units=units)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = {name: value.clone() for name, value in config.build().state_dict().items()}
    return Ensemble(
        config, TrainConfig(mode=mode), ("a", "b", "c"), (TrainedNetwork(state, (1.0, 1.0), (), 0),), None, 0
    )


def named(mode: str = "multi-label"):
    """Clips and a teacher by whose units two emotions are named; of one unit each, which zero-shot cannot know."""
    clips, one = make_samples(150), teacher(mode)
    units = forward_all(one, clips.x)[2].mean(0).numpy()
    y = units[:, :3] > np.quantile(units[:, :3], 0.7, axis=0)
    if mode == "single-label":
        y = np.eye(3)[units[:, :3].argmax(1)]
    return replace(clips, y=y.astype(np.float32)), one


def test_emotions_that_units_tell_are_learnt_whatever_the_teacher_calls_them():
    clips, one = named()
    folds = grouped_folds(clips.y, clips.subjects, 3)
    by_units, by_emotions = (
        pooled_score(cross_validate(clips, units_first_estimator(one, source), folds))
        for source in ("units", "emotions")
    )
    assert by_units["map"] > 0.9 and by_units["map"] > by_emotions["map"] + 0.1


def test_what_comes_out_is_the_teacher_with_another_head():
    clips, one = named()
    inner = grouped_folds(clips.y, clips.subjects, 3)
    ensemble = fit_units_first(clips, inner, one)
    emotions, _, units = (part.double().numpy() for part in forward_all(one, clips.x))
    table, _ = learn_table(units, emotions, clips.y, inner, single=False)
    expected = ensemble.calibration((1 / (1 + np.exp(-table.logits(units)))).mean(0))
    np.testing.assert_allclose(predict(ensemble, clips.x)[0], expected, atol=1e-4)
    theirs, ours = one.members[0].state, ensemble.members[0].state
    changed = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert changed == {"head.weight", "head.bias"}


def test_much_shrinkage_leaves_the_teachers_table_and_little_the_datas(monkeypatch):
    clips, one = named()
    emotions, _, units = (part.double().numpy() for part in forward_all(one, clips.x))
    away = []
    for strength in (1e-3, 1e3):
        monkeypatch.setattr(units_first, "STRENGTHS", (strength,))
        table, _ = learn_table(units, emotions, clips.y, grouped_folds(clips.y, clips.subjects, 2), single=False)
        away.append(np.abs(table.weights - table.prior).max())
    assert away[0] > 0.5 and away[1] < 0.01


def test_the_inner_folds_decide_by_clips_that_a_table_did_not_see(monkeypatch):
    clips, one = named()
    inner = grouped_folds(clips.y, clips.subjects, 3)
    emotions, _, units = (part.double().numpy() for part in forward_all(one, clips.x))
    monkeypatch.setattr(units_first, "STRENGTHS", (0.01,))
    judged = inner[0][1]
    other = clips.y.copy()
    other[judged] = 1 - other[judged]
    before, after = (learn_table(units, emotions, y, inner, single=False)[1] for y in (clips.y, other))
    np.testing.assert_allclose(before[judged], after[judged])
    assert np.abs(before - after).max() > 0.1  # of the folds that learnt from them


def test_single_labels_get_probabilities_that_add_up_and_no_thresholds():
    clips, one = named("single-label")
    ensemble = fit_units_first(clips, grouped_folds(clips.y, clips.subjects, 3), one)
    probability = predict(ensemble, clips.x)[0]
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(ensemble.held_out.sum(1), 1, atol=1e-5)
    assert ensemble.thresholds is None and (decide(probability, None) == (clips.y > 0)).all(1).mean() > 0.8


def test_it_is_kept_in_files_like_any_network(tmp_path):
    clips, one = named()
    ensemble = fit_units_first(clips, grouped_folds(clips.y, clips.subjects, 3), one)
    save_ensemble(ensemble, tmp_path)
    np.testing.assert_array_equal(predict(load_ensemble(tmp_path), clips.x)[0], predict(ensemble, clips.x)[0])


@pytest.mark.parametrize(
    "one, source, word",
    [
        (teacher(), "faces", "source is 'faces'"),
        (teacher(units=0), "units", "unit head"),
        (replace(teacher(), members=teacher().members * 2), "units", "one network"),
    ],
)
def test_what_is_no_teacher_and_no_source_is_refused(one, source, word):
    clips = make_samples(40)
    with pytest.raises(ValueError, match=word):
        fit_units_first(clips, grouped_folds(clips.y, clips.subjects, 2), one, source)
