"""Facts about apex spotting: on people who blink and move their heads, and on sequences at the limits."""

from itertools import count
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.one_camera import film

from utils.dataset.readers import open_sequence
from utils.dataset.writers import write_clip
from utils.flow.apex import EYES, Spotting, find_eyes, motion_amount, motion_curve, motion_masks, spot_apex
from utils.render.crops import crop_image, frontal_mask
from utils.render.faces import frontal_face
from utils.render.views import make_views
from utils.synthetic.performance import perform, pose_vertices, true_motion_curve
from utils.synthetic.photography import photograph, scanner_surface, scanner_uv
from utils.train.samples import CLASSES

SIZE = 64
SMALL = {"size": SIZE, "method": "dis"}  # pictures without a face: a classical method sees them best


@pytest.fixture(scope="module", params=range(2))
def blinker(request, person, tmp_path_factory):
    """One of the first short clips in which the person blinks and moves the head, as seen by the stages."""
    found = -1
    for seed in count():
        act = perform(person.identity, [CLASSES[seed % 5]], np.random.default_rng(seed))
        found += act.confounders["blink"] and act.confounders["drift"] and act.course.n_frames <= 16
        if found == request.param:
            break
    vertices = pose_vertices(person.identity, act.contraction, act.angles, act.shift)
    source, camera, faces = scanner_surface()
    photos = photograph(vertices, person.albedo, np.random.default_rng(person.light), np.random.default_rng(seed), True)
    folder = write_clip(
        tmp_path_factory.mktemp("blink") / "S01_001",
        vertices[:, source],
        faces,
        scanner_uv(vertices, source, camera),
        60.0,
        photos,
    )
    return SimpleNamespace(
        views=make_views(open_sequence(folder), size=128),
        act=act,
        apex=int(true_motion_curve(person.identity, act.expression).argmax()),
    )


def still(n_frames):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8), (0, 0), 1.5)
    return np.repeat(np.stack([image] * 2)[None], n_frames, axis=0), np.ones((2, SIZE, SIZE), bool)


@pytest.mark.parametrize("method", ["faceflow", "dis"])
def test_the_apex_is_found_within_two_frames_though_the_person_blinks(blinker, method):
    views = blinker.views
    found = spot_apex(views.frames, views.masks, 128, method)
    assert abs(found.apex - blinker.apex) <= 2
    assert found.moments == (0, found.apex, len(views.frames) - 1)
    assert found.curve.shape == (len(views.frames),) and found.curve.dtype == np.float32


def test_the_eyes_are_masked_where_they_are(blinker):
    """Detected or usual, the masked eyes lie within a few pixels of where the synthetic faces have them."""
    for v in range(2):
        image = blinker.views.frames[0, v]
        places = EYES[2][v]
        assert np.abs(find_eyes(image, places) / 128 - places).max() < 0.12
        skin, eyes = motion_masks(image, blinker.views.masks[v], places)
        assert not ((skin | eyes) & ~blinker.views.masks[v]).any() and not (skin & eyes).any()
        for x, y in np.rint(find_eyes(image, places)).astype(int):
            assert eyes[y, x - 8 : x + 9].sum() > 10 and not skin[y, x - 8 : x + 9].any()
        assert skin.sum() > 0.7 * blinker.views.masks[v].sum()


def test_eyes_are_taken_at_the_usual_place_where_none_are_found():
    blank = np.full((SIZE, SIZE, 3), 128, np.uint8)
    for places in (*EYES[1], *EYES[2]):
        assert np.allclose(find_eyes(blank, places), np.array(places) * SIZE)


@pytest.mark.parametrize("n_frames", [2, 3, 12])
def test_a_motionless_sequence_gives_an_apex_inside_and_no_motion(n_frames):
    found = spot_apex(*still(n_frames), **SMALL)
    assert found.onset < found.apex <= found.offset == n_frames - 1
    assert n_frames == 2 or found.apex < found.offset
    assert np.abs(found.curve).max() < 0.02


def test_with_two_frames_the_apex_is_the_last():
    assert spot_apex(*still(2), **SMALL).moments == (0, 1, 1)


def test_the_apex_never_is_the_last_of_three_frames_or_more():
    frames, masks = still(5)
    frames[4] = np.roll(frames[4], 1, axis=2)
    frames[4, :, :32] = frames[0, :, :32]  # half the face moves in the last frame, and stays moved
    assert spot_apex(frames, masks, **SMALL).apex == 3


def test_the_curve_starts_at_zero_and_adds_the_views():
    frames, masks = still(7)
    frames[2:4, 1, 40:] = np.roll(frames[0, 1, 40:], 1, axis=1)
    one = motion_curve(frames, masks, **SMALL)
    frames[:, 0] = frames[:, 1]
    both = motion_curve(frames, masks, **SMALL)
    assert one.shape == (7,) and one[0] == 0
    assert one[[2, 3]].min() > 0.3 and np.abs(one[[1, 4, 5, 6]]).max() < 0.02
    assert both[2] == pytest.approx(2 * one[2], rel=0.1)


@pytest.mark.parametrize(("apex", "n_frames", "most"), [*((apex, 20, 19) for apex in range(2, 19)), (31, 60, 28)])
def test_a_peak_is_found_wherever_it_lies_and_no_frame_is_asked_twice(apex, n_frames, most, monkeypatch):
    """A frame shows nothing but its number, from which the flow against the first is made up."""
    frames = np.repeat(np.arange(n_frames, dtype=np.uint8), 2 * SIZE * SIZE * 3).reshape(-1, 2, SIZE, SIZE, 3)
    asked = []

    def flows(pairs, method, faces):
        numbers = np.array([float(other[0, 0]) for _, other in pairs])
        asked.extend(numbers)
        return np.ones((1, SIZE, SIZE, 2)) * np.exp(-(((numbers - apex) / 7) ** 2))[:, None, None, None]

    monkeypatch.setattr("utils.flow.apex.estimate_flows", flows)
    assert spot_apex(frames, np.ones((2, SIZE, SIZE), bool), **SMALL).apex == apex
    assert len(asked) == 2 * len(set(asked)) <= 2 * most


@pytest.mark.parametrize(("skin_px", "expected"), [(0.02, 5), (1.0, 12)])
def test_upward_motion_of_the_eyes_counts_only_where_the_skin_is_still(skin_px, expected, monkeypatch):
    """The lids go down in frame 9, as in a blink, up in frame 5; the skin moves most in frame 12."""
    frames = np.repeat(np.arange(16, dtype=np.uint8), 2 * SIZE * SIZE * 3).reshape(-1, 2, SIZE, SIZE, 3)
    up, down, skin = (-np.exp(-((np.arange(16) - at) ** 2 / 4)) for at in (5, 9, 12))

    def flows(pairs, method, faces):
        numbers = [other[0, 0] for _, other in pairs]
        lids, rest = (part[numbers][:, None, None] for part in (up - 3 * down, -skin_px * skin))
        return np.stack([np.zeros((len(pairs), SIZE, SIZE)), np.where(faces, rest, lids)], -1)

    monkeypatch.setattr("utils.flow.apex.estimate_flows", flows)
    assert spot_apex(frames, np.ones((2, SIZE, SIZE), bool), **SMALL).apex == expected


@pytest.mark.parametrize("view", [0, 1])
def test_each_view_has_a_say(view):
    frames, masks = still(7)
    frames[2, 1 - view, 40:] = np.roll(frames[2, 1 - view, 40:], 1, axis=1)
    frames[4, view, 40:] = np.roll(frames[4, view, 40:], 2, axis=1)  # the larger motion
    assert spot_apex(frames, masks, **SMALL).apex == 4


def test_a_motion_outside_the_face_is_not_seen():
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


def test_the_amount_is_the_mean_of_the_largest_tenth():
    mask = np.ones((40, 40), bool)
    flow = np.zeros((40, 40, 2), np.float32)
    flow[:4] = [0, 2]  # a tenth of the face
    assert motion_amount(flow, mask) == pytest.approx(2, abs=0.05)
    flow[2:4] = 0
    assert motion_amount(flow, mask) == pytest.approx(1, abs=0.05)


def test_an_empty_mask_has_no_motion():
    assert motion_amount(np.ones((40, 40, 2), np.float32), np.zeros((40, 40), bool)) == 0


def test_moments_are_onset_apex_offset():
    assert Spotting(0, 3, 9, np.zeros(10)).moments == (0, 3, 9)


@pytest.mark.parametrize(("quiet", "rise", "fall", "rest"), [(12, 6, 8, 15), (0, 5, 7, 0), (20, 3, 3, 0)])
def test_onset_and_offset_are_found_where_a_recording_is_longer(quiet, rise, fall, rest):
    rng = np.random.default_rng(quiet)
    up, down = np.linspace(0, 1, rise + 1)[1:], np.linspace(1, 0.1, fall + 1)[1:]
    curve = np.concatenate([[0.0], np.zeros(quiet), up, down, np.full(rest, 0.1)]) + 0.05 * rng.random(
        1 + quiet + rise + fall + rest
    )
    curve[0] = 0
    apex = quiet + rise
    onset, found, offset = Spotting(0, apex, len(curve) - 1, np.float32(curve)).found
    assert found == apex and abs(onset - quiet) <= 1 and abs(offset - (apex + fall)) <= 2


@pytest.mark.parametrize("curve", [[0, 1], [0, 0, 0], [0, 0.5, 1, 0.9]])
def test_ends_that_are_not_found_are_those_of_the_sequence(curve):
    apex = max(1, int(np.argmax(curve)))
    onset, found, offset = Spotting(0, apex, len(curve) - 1, np.float32(curve)).found
    assert 0 <= onset < found == apex <= offset < len(curve)


def test_an_expression_is_found_in_a_longer_recording():
    frames, truth = film(42, ["Surprise"], 21)
    rng = np.random.default_rng(0)
    quiet = [np.clip(frames[0] + rng.normal(0, 1.5, frames[0].shape), 0, 255).astype(np.uint8) for _ in range(12)]
    recording = np.stack([*quiet, *frames])
    box = frontal_face(recording[0])
    views = np.stack([crop_image(frame, box, 128) for frame in recording])[:, None]
    spotting = spot_apex(views, frontal_mask(128)[None], 128)
    assert abs(spotting.apex - 12 - truth["apex"]) <= 3 and spotting.moments[0] == 0
    assert abs(spotting.found[0] - 12 - truth["onset"]) <= 4
