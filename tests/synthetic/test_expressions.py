"""Facts about what a face does: units, expressions of emotions, and their course in time."""

from collections import defaultdict

import numpy as np
import pytest
from helpers.data import plan_of

from utils.config import load_config
from utils.synthetic.action_units import ACTION_UNITS, sides_of
from utils.synthetic.expressions import (
    BLINK,
    EMFACS,
    GAZE,
    LITERATURE,
    REPERTOIRES,
    Course,
    envelope,
    rotation,
    sample_blink,
    sample_course,
    sample_drift,
    sample_expression,
)
from utils.synthetic.face_model import load_face_model
from utils.train.samples import CLASSES

COURSE = Course(2, 8, 20, 22)


both = pytest.mark.parametrize("repertoire", REPERTOIRES.values(), ids=list(REPERTOIRES))


def peaks(emotions, seed, repertoire):
    """The largest contraction of each AU's sides in one clip."""
    contraction = sample_expression(emotions, np.random.default_rng(seed), repertoire)
    return {
        au: max(contraction.get(side, 0.0) for unit in units for side in sides_of(unit))
        for au, units in ACTION_UNITS.items()
    }


@pytest.mark.parametrize("au", ACTION_UNITS)
def test_every_unit_of_an_au_is_in_the_face_model(au):
    assert {side for unit in ACTION_UNITS[au] for side in sides_of(unit)} <= set(load_face_model().shape_names)


def test_blinks_and_gaze_are_units_of_the_face_model_that_no_expression_uses():
    confounders = {*BLINK} | {f"eyeLook{way}{side}" for way in GAZE for side in ("Left", "Right")}
    assert confounders <= set(load_face_model().shape_names)
    assert not confounders & {side for units in ACTION_UNITS.values() for unit in units for side in sides_of(unit)}


def test_no_unit_belongs_to_two_aus():
    units = [side for units in ACTION_UNITS.values() for unit in units for side in sides_of(unit)]
    assert len(units) == len(set(units))


@both
def test_every_class_has_expressions_of_known_aus_and_every_au_is_used(repertoire):
    assert set(repertoire.combinations) == set(CLASSES)
    used = {au for combinations in repertoire.combinations.values() for _, aus in combinations for au in aus}
    assert used == set(ACTION_UNITS)


def test_the_challenge_shows_much_that_its_teacher_was_not_told():
    """By how often they are drawn, of a class at most about three combinations in four are also the teacher's for it,
    and in the mean less than half."""
    shared = []
    for emotion, combinations in LITERATURE.combinations.items():
        known = {frozenset(aus) for _, aus in EMFACS.combinations[emotion]}
        same = sum(odds for odds, aus in combinations if frozenset(aus) in known)
        shared.append(same / sum(odds for odds, _ in combinations))
    assert max(shared) <= 0.77 and np.mean(shared) < 0.5


@both
def test_every_class_shares_aus_with_others_and_most_of_it_can_do_without_its_own(repertoire):
    classes_of = defaultdict(set)
    for emotion, combinations in repertoire.combinations.items():
        for _, aus in combinations:
            for au in aus:
                classes_of[au].add(emotion)
    for emotion, combinations in repertoire.combinations.items():
        own = sum(odds for odds, aus in combinations if any(classes_of[au] == {emotion} for au in aus))
        assert own / sum(odds for odds, _ in combinations) < 0.55


@both
def test_no_class_is_given_away_by_one_au(repertoire):
    """The best threshold on any one true AU intensity stays below F1 0.95 for every class of the demo set."""
    labels = plan_of(load_config("demo"))[list(CLASSES)].to_numpy()
    strength = np.array(
        [
            list(peaks([name for name, on in zip(CLASSES, row, strict=True) if on], seed, repertoire).values())
            for seed, row in enumerate(labels)
        ]
    )
    guesses = strength[:, :, None] >= [0.01, 0.2, 0.45, 0.6, 0.8]  # (N, AU, threshold)
    for column in labels.T:
        hits = (guesses & (column == 1)[:, None, None]).sum(0)
        f1 = 2 * hits / (guesses.sum(0) + column.sum())
        assert 0.2 < f1.max() < 0.95


@both
def test_an_expression_is_one_combination_of_its_emotion_and_at_most_one_weaker_distractor(repertoire):
    distracted = []
    combinations = [set(aus) for _, aus in repertoire.combinations["Surprise"]]
    for seed in range(300):
        strength = {au: value for au, value in peaks(["Surprise"], seed, repertoire).items() if value}
        fitting = [aus for aus in combinations if aus <= set(strength) and len(set(strength) - aus) <= 1]
        assert any(min(strength[au] for au in aus) >= repertoire.intensity[0] for aus in fitting)
        distracted += [strength[au] for au in set(strength) - set.union(*combinations)]
    assert 0.15 < len(distracted) / 300 < 0.6 and max(distracted) < 0.7  # an expression's own go up to 1


@both
def test_two_emotions_contract_both_their_aus(repertoire):
    strong = {au for au, value in peaks(["Positive", "Surprise"], 0, repertoire).items() if value}
    for emotion in ("Positive", "Surprise"):
        assert any(set(aus) <= strong for _, aus in repertoire.combinations[emotion])


def test_some_smiles_are_one_sided():
    pairs = [sample_expression(["Positive"], np.random.default_rng(seed)) for seed in range(200)]
    ratios = np.array(
        [
            min(p["mouthSmileLeft"], p["mouthSmileRight"]) / max(p["mouthSmileLeft"], p["mouthSmileRight"])
            for p in pairs
            if "mouthSmileLeft" in p
        ]
    )
    assert 0.1 < (ratios < 0.2).mean() < 0.6
    assert (ratios > 0.6).mean() > 0.4


def test_courses_last_8_to_30_frames_about_18_on_average_with_the_apex_inside():
    courses = [sample_course(np.random.default_rng(seed)) for seed in range(3000)]
    frames = np.array([course.n_frames for course in courses])
    assert frames.min() == 8 and frames.max() == 30
    assert abs(frames.mean() - 18) < 1
    assert all(0 <= c.onset < c.apex < c.offset < c.n_frames for c in courses)
    share = np.array([(c.apex - c.onset) / (c.offset - c.onset) for c in courses])
    assert 0.65 < (share < 0.5).mean() < 0.9  # a faster rise than fall, most often


def test_the_envelope_rises_from_zero_to_one_at_the_apex_and_returns():
    shape = envelope(COURSE)
    assert shape.shape == (COURSE.n_frames,) and shape.dtype == np.float32
    assert shape.argmax() == COURSE.apex and shape.max() == 1
    assert (shape[: COURSE.onset + 1] == 0).all() and np.allclose(shape[COURSE.offset :], 0, atol=1e-6)
    assert (np.diff(shape[COURSE.onset : COURSE.apex + 1]) > 0).all()
    assert (np.diff(shape[COURSE.apex : COURSE.offset + 1]) < 0).all()


def test_a_units_own_envelope_peaks_near_the_apex_and_leaves_at_most_a_rest():
    shapes = np.stack([envelope(COURSE, np.random.default_rng(seed)) for seed in range(100)])
    assert np.abs(shapes.argmax(1) - COURSE.apex).max() == 1  # a lag of up to a sixth of the rise of 6 frames
    assert shapes.max() <= 1 and shapes.max(1).min() > 0.8
    assert 0.1 < shapes[:, COURSE.offset :].max() <= 0.15
    assert (shapes[:, : COURSE.onset] == 0).all()


def test_a_blink_closes_faster_than_it_opens():
    lids = next(lids for seed in range(50) if 8 < (lids := sample_blink(30, np.random.default_rng(seed))).argmax() < 20)
    t = lids.argmax()
    assert 0.3 < lids[t] <= 1
    assert (lids[:t] > lids[t] / 2).sum() < (lids[t + 1 :] > lids[t] / 2).sum()
    assert lids[[0, -1]].max() < 0.01


def test_a_drift_starts_at_zero_and_grows_with_its_amplitude():
    path, twice = (sample_drift(20, amplitude, np.random.default_rng(4)) for amplitude in (1.0, 2.0))
    assert path.shape == (20,) and path[0] == 0 and np.abs(path).max() > 0.1
    assert np.allclose(twice, 2 * path, atol=1e-6)
    assert np.abs(np.diff(path)).max() < 0.5  # a slow wander


def test_rotations_are_rotations_about_the_named_axes():
    turns = rotation(np.array([[90, 0, 0], [0, 90, 0], [0, 0, 90], [10, 20, 30.0]]))
    assert np.allclose(turns @ np.swapaxes(turns, 1, 2), np.eye(3)) and np.allclose(np.linalg.det(turns), 1)
    assert np.allclose(turns[0] @ [0, 1, 0], [0, 0, 1])
    assert np.allclose(turns[1] @ [0, 0, 1], [1, 0, 0])
    assert np.allclose(turns[2] @ [1, 0, 0], [0, 1, 0])


def test_rotations_are_applied_in_the_order_x_y_z():
    together = rotation(np.array([10, 20, 30.0]))
    x, y, z = rotation(np.diag([10, 20, 30.0]))
    assert np.allclose(together, z @ y @ x)
