"""Facts about apex spotting: on people who blink and move their heads, and on synthetic motion."""

from itertools import count, islice
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.one_camera import film

from utils.dataset.readers import open_sequence
from utils.dataset.writers import write_clip
from utils.flow.apex import EYES, Spotting, find_eyes, mean_of_largest, motion_curve, motion_masks, spot_apex
from utils.render.crops import crop_image, frontal_mask
from utils.render.faces import frontal_face
from utils.render.views import make_views
from utils.synthetic.performance import perform, pose_vertices, true_motion_curve
from utils.synthetic.photography import photograph, scanner_surface, scanner_uv
from utils.train.samples import CLASSES

SIZE = 64
SMALL = {"size": SIZE, "method": "dis"}  # for pictures that are not faces


@pytest.fixture(scope="module", params=range(2))
def blinker(request, person, tmp_path_factory):
    """The first or the second of the short clips in which the person blinks and moves the head: views, true apex."""
    acts = ((seed, perform(person.identity, [CLASSES[seed % 5]], np.random.default_rng(seed))) for seed in count())
    short = ((seed, act) for seed, act in acts if act.course.n_frames <= 16)
    blinks = ((seed, act) for seed, act in short if act.confounders["blink"] and act.confounders["drift"])
    seed, act = next(islice(blinks, request.param, None))
    vertices = pose_vertices(person.identity, act.contraction, act.angles, act.shift)
    source, camera, faces = scanner_surface()
    photos = photograph(vertices, person.albedo, np.random.default_rng(person.light), np.random.default_rng(seed), True)
    folder, uv = tmp_path_factory.mktemp("blink") / "S01_001", scanner_uv(vertices, source, camera)
    views = make_views(open_sequence(write_clip(folder, vertices[:, source], faces, uv, 60.0, photos)), size=128)
    return SimpleNamespace(views=views, apex=int(true_motion_curve(person.identity, act.expression).argmax()))


def still(n_frames):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8), (0, 0), 1.5)
    return np.repeat(np.stack([image] * 2)[None], n_frames, axis=0), np.ones((2, SIZE, SIZE), bool)


@pytest.mark.parametrize("method", ["faceflow", "dis"])
def test_the_apex_of_a_person_who_blinks_is_found_within_two_frames(blinker, method):
    views = blinker.views
    spotting = spot_apex(views.frames, views.masks, 128, method)
    assert abs(spotting.apex - blinker.apex) <= 2
    assert spotting.curve.shape == (len(views.frames),) and spotting.curve.dtype == np.float32


def test_the_eyes_are_masked(blinker):
    """The eyes of the synthetic faces, detected or not, are within a few pixels of their mean places."""
    for v, places in enumerate(EYES[2]):
        image, face = blinker.views.frames[0, v], blinker.views.masks[v]
        assert np.abs(find_eyes(image, places) / 128 - places).max() < 0.12
        skin, eyes = motion_masks(image, face, places)
        assert not ((skin | eyes) & ~face).any() and not (skin & eyes).any()
        for x, y in np.rint(find_eyes(image, places)).astype(int):
            assert eyes[y, x - 8 : x + 9].sum() > 10 and not skin[y, x - 8 : x + 9].any()
        assert skin.sum() > 0.7 * face.sum()


def test_eyes_that_are_not_detected_are_at_their_mean_places():
    blank = np.full((SIZE, SIZE, 3), 128, np.uint8)
    for places in (*EYES[1], *EYES[2]):
        assert np.allclose(find_eyes(blank, places), np.array(places) * SIZE)


@pytest.mark.parametrize("n_frames", [2, 3, 12])
def test_a_motionless_sequence_has_an_apex_inside_and_no_motion(n_frames):
    spotting = spot_apex(*still(n_frames), **SMALL)
    onset, apex, offset = spotting.moments(longer=False)
    assert 0 == onset < apex <= offset == n_frames - 1
    assert n_frames == 2 or apex < offset
    assert np.abs(spotting.curve).max() < 0.02


def test_the_apex_is_never_the_last_of_three_frames_or_more():
    frames, masks = still(5)
    frames[4] = np.roll(frames[4], 1, axis=2)
    frames[4, :, :32] = frames[0, :, :32]  # half of the face moves in the last frame
    assert spot_apex(frames, masks, **SMALL).apex == 3


def test_the_curve_starts_at_zero_and_adds_the_views():
    frames, masks = still(7)
    frames[2:4, 1, 40:] = np.roll(frames[0, 1, 40:], 1, axis=1)
    curve = motion_curve(frames, masks, **SMALL)
    frames[:, 0] = frames[:, 1]
    both = motion_curve(frames, masks, **SMALL)
    assert curve.shape == (7,) and curve[0] == 0
    assert curve[[2, 3]].min() > 0.3 and np.abs(curve[[1, 4, 5, 6]]).max() < 0.02
    assert both[2] == pytest.approx(2 * curve[2], rel=0.1)


def apex_of_numbers(monkeypatch, n_frames, flows):
    """The apex of frames that show only their number, with the flows (N, S, S, 2) of `flows(numbers, face masks)`."""

    def estimate(pairs, method, faces):
        return flows(np.array([int(later[0, 0]) for _, later in pairs]), np.array(faces))

    monkeypatch.setattr("utils.flow.apex.estimate_flows", estimate)
    frames = np.repeat(np.arange(n_frames, dtype=np.uint8), 2 * SIZE * SIZE * 3).reshape(-1, 2, SIZE, SIZE, 3)
    return spot_apex(frames, np.ones((2, SIZE, SIZE), bool), **SMALL).apex


@pytest.mark.parametrize(("apex", "n_frames", "most"), [*((apex, 20, 19) for apex in range(2, 19)), (31, 60, 28)])
def test_the_peak_is_found_at_any_place_and_no_frame_is_measured_twice(apex, n_frames, most, monkeypatch):
    measured = []

    def flows(numbers, faces):
        measured.extend(numbers)
        return np.ones((1, SIZE, SIZE, 2)) * np.exp(-(((numbers - apex) / 7) ** 2))[:, None, None, None]

    assert apex_of_numbers(monkeypatch, n_frames, flows) == apex
    assert len(measured) == 2 * len(set(measured)) <= 2 * most


@pytest.mark.parametrize(("skin_px", "expected"), [(0.02, 5), (1.0, 12)])
def test_upward_motion_at_the_eyes_counts_only_if_the_skin_is_still(skin_px, expected, monkeypatch):
    """The lids move up in frame 5 and, as in a blink, down in frame 9. The skin moves most in frame 12."""
    up, down, skin = (-np.exp(-((np.arange(16) - t) ** 2 / 4)) for t in (5, 9, 12))

    def flows(numbers, faces):
        lids, rest = (v[numbers][:, None, None] for v in (up - 3 * down, -skin_px * skin))
        return np.stack([np.zeros((len(numbers), SIZE, SIZE)), np.where(faces, rest, lids)], -1)

    assert apex_of_numbers(monkeypatch, 16, flows) == expected


@pytest.mark.parametrize("view", [0, 1])
def test_each_view_counts(view):
    frames, masks = still(7)
    frames[2, 1 - view, 40:] = np.roll(frames[2, 1 - view, 40:], 1, axis=1)
    frames[4, view, 40:] = np.roll(frames[4, view, 40:], 2, axis=1)  # the larger motion
    assert spot_apex(frames, masks, **SMALL).apex == 4


def test_motion_outside_the_face_does_not_count():
    frames, masks = still(6)
    masks[:, :, 40:] = False
    frames[3, :, :, 52:] = np.roll(frames[3, :, :, 52:], 2, axis=1)
    assert np.abs(motion_curve(frames, masks, **SMALL)).max() < 0.1
    masks[:, :, 40:] = True
    assert motion_curve(frames, masks, **SMALL)[3] > 0.3


def test_the_heads_motion_does_not_count():
    frames, masks = still(4)
    frames[2] = np.roll(frames[2], 1, axis=2)
    masks[:, :, :4] = masks[:, :, -4:] = False
    assert np.abs(motion_curve(frames, masks, **SMALL)).max() < 0.15


def test_the_amount_of_motion_is_the_mean_of_the_largest_tenth():
    vectors = np.zeros((1000, 2), np.float32)
    vectors[:100] = [0, 2]
    assert mean_of_largest(vectors) == pytest.approx(2)
    vectors[50:] = 0
    assert mean_of_largest(vectors) == pytest.approx(1)
    assert mean_of_largest(vectors[:0]) == 0


# Onset and offset of longer recordings


@pytest.mark.parametrize(("quiet", "rise", "fall", "rest"), [(12, 6, 8, 15), (0, 5, 7, 0), (20, 3, 3, 0)])
def test_onset_and_offset_are_found_in_a_longer_recording(quiet, rise, fall, rest):
    up, down = np.linspace(0, 1, rise + 1)[1:], np.linspace(1, 0.1, fall + 1)[1:]
    curve = np.concatenate([np.zeros(1 + quiet), up, down, np.full(rest, 0.1)])
    curve[1:] += 0.05 * np.random.default_rng(quiet).random(len(curve) - 1)
    onset, apex, offset = Spotting(quiet + rise, np.float32(curve)).moments(longer=True)
    assert apex == quiet + rise and abs(onset - quiet) <= 1 and abs(offset - (apex + fall)) <= 2


@pytest.mark.parametrize("curve", [[0, 1], [0, 0, 0], [0, 0.5, 1, 0.9]])
def test_without_an_end_in_the_recording_its_first_or_last_frame_is_taken(curve):
    apex = max(1, int(np.argmax(curve)))
    onset, middle, offset = Spotting(apex, np.float32(curve)).moments(longer=True)
    assert 0 <= onset < middle == apex <= offset < len(curve)


def test_an_expression_is_found_in_a_longer_recording_of_one_camera():
    frames, truth = film(42, ["Surprise"], 21)
    rng = np.random.default_rng(0)
    quiet = [np.clip(frames[0] + rng.normal(0, 1.5, frames[0].shape), 0, 255).astype(np.uint8) for _ in range(12)]
    recording = np.stack([*quiet, *frames])
    box = frontal_face(recording[0])
    views = np.stack([crop_image(frame, box, 128) for frame in recording])[:, None]
    onset, apex, _ = spot_apex(views, frontal_mask(128)[None], 128).moments(longer=True)
    assert abs(apex - 12 - truth["apex"]) <= 3 and abs(onset - 12 - truth["onset"]) <= 4
