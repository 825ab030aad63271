"""Facts about how a face moves: blend shapes of the AUs, expressions of emotions, and their course in time."""

from collections import defaultdict

import numpy as np
import pytest
from helpers.data import plan_of

from utils.config import load_config
from utils.synthetic.action_units import ACTION_UNITS, shapes_of
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
    return {au: max(contraction.get(shape, 0.0) for shape in shapes_of(au)) for au in ACTION_UNITS}


def test_aus_blinks_and_gaze_have_blend_shapes_of_their_own_in_the_face_model():
    confounders = [*BLINK, *(f"eyeLook{direction}{side}" for direction in GAZE for side in ("Left", "Right"))]
    shapes = [shape for au in ACTION_UNITS for shape in shapes_of(au)] + confounders
    assert len(shapes) == len(set(shapes)) and set(shapes) <= set(load_face_model().shape_names)


@both
def test_every_class_has_expressions_of_known_aus_and_every_au_is_used(repertoire):
    assert set(repertoire.combinations) == set(CLASSES)
    used = {au for combinations in repertoire.combinations.values() for _, aus in combinations for au in aus}
    assert used == set(ACTION_UNITS)


def test_the_challenge_shows_much_that_its_teacher_was_not_told():
    """By frequency, EMFACS has at most three quarters of the combinations of a class, and less than half on average."""
    shared = []
    for emotion, combinations in LITERATURE.combinations.items():
        taught = {frozenset(aus) for _, aus in EMFACS.combinations[emotion]}
        same = sum(odds for odds, aus in combinations if frozenset(aus) in taught)
        shared.append(same / sum(odds for odds, _ in combinations))
    assert max(shared) <= 0.77 and np.mean(shared) < 0.5


@both
def test_about_half_of_every_class_or_more_shows_only_aus_that_other_classes_show_too(repertoire):
    classes_of = defaultdict(set)
    for emotion, combinations in repertoire.combinations.items():
        for _, aus in combinations:
            for au in aus:
                classes_of[au].add(emotion)
    for emotion, combinations in repertoire.combinations.items():
        revealing = sum(odds for odds, aus in combinations if any(classes_of[au] == {emotion} for au in aus))
        assert revealing / sum(odds for odds, _ in combinations) < 0.55


@both
def test_no_class_is_revealed_by_one_au(repertoire):
    """The best threshold on any single true AU intensity stays below F1 0.95 for every class of the demo set."""
    labels = plan_of(load_config("demo"))[list(CLASSES)].to_numpy()
    emotions = [[name for name, present in zip(CLASSES, row, strict=True) if present] for row in labels]
    strength = np.array([list(peaks(names, seed, repertoire).values()) for seed, names in enumerate(emotions)])
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
    assert 0.15 < len(distracted) / 300 < 0.6 and max(distracted) < 0.7  # AUs of the emotion go up to 1


@both
def test_two_emotions_contract_the_aus_of_both(repertoire):
    strong = {au for au, value in peaks(["Positive", "Surprise"], 0, repertoire).items() if value}
    for emotion in ("Positive", "Surprise"):
        assert any(set(aus) <= strong for _, aus in repertoire.combinations[emotion])


def test_some_smiles_are_one_sided():
    clips = [sample_expression(["Positive"], np.random.default_rng(seed), LITERATURE) for seed in range(200)]
    sides = np.array([[clip["mouthSmileLeft"], clip["mouthSmileRight"]] for clip in clips if "mouthSmileLeft" in clip])
    ratios = sides.min(1) / sides.max(1)
    assert 0.1 < (ratios < 0.2).mean() < 0.6
    assert (ratios > 0.6).mean() > 0.4


def test_courses_last_8_to_30_frames_about_18_on_average_with_the_apex_inside():
    courses = [sample_course(np.random.default_rng(seed)) for seed in range(3000)]
    frames = np.array([course.n_frames for course in courses])
    assert frames.min() == 8 and frames.max() == 30
    assert abs(frames.mean() - 18) < 1
    assert all(0 <= c.onset < c.apex < c.offset < c.n_frames for c in courses)
    share = np.array([(c.apex - c.onset) / (c.offset - c.onset) for c in courses])
    assert 0.65 < (share < 0.5).mean() < 0.9  # mostly, the rise is faster than the fall


def test_an_envelope_rises_from_zero_to_a_peak_near_the_apex_and_falls_to_at_most_a_rest():
    curves = np.stack([envelope(COURSE, np.random.default_rng(seed)) for seed in range(100)])
    assert curves.shape == (100, COURSE.n_frames) and curves.dtype == np.float32
    assert np.abs(curves.argmax(1) - COURSE.apex).max() == 1  # a lag of up to a sixth of the rise of 6 frames
    assert curves.max() <= 1 and curves.max(1).min() > 0.8
    assert (curves[:, : COURSE.onset + 1] == 0).all()
    assert 0.1 < curves[:, COURSE.offset :].max() <= 0.15
    for curve in curves:
        assert (np.diff(curve[COURSE.onset : curve.argmax() + 1]) > 0).all()
        assert (np.diff(curve[curve.argmax() : COURSE.offset + 1]) < 0).all()


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


def test_rotations_turn_about_x_then_y_then_z():
    turns = rotation(np.array([[90, 0, 0], [0, 90, 0], [0, 0, 90], [10, 20, 30.0]]))
    assert np.allclose(turns @ np.swapaxes(turns, 1, 2), np.eye(3)) and np.allclose(np.linalg.det(turns), 1)
    assert np.allclose(turns[0] @ [0, 1, 0], [0, 0, 1])
    assert np.allclose(turns[1] @ [0, 0, 1], [1, 0, 0])
    assert np.allclose(turns[2] @ [1, 0, 0], [0, 1, 0])
    x, y, z = rotation(np.diag([10, 20, 30.0]))
    assert np.allclose(turns[3], z @ y @ x)
