"""Facts about the flow methods, the head's affine motion and the phase flows."""

import cv2
import numpy as np
import pytest

from utils.flow.classical import blurred, fit_affine
from utils.flow.methods import FLOW_METHODS, estimate_flow, estimate_flows, phase_flows

SIZE = 96
INNER = np.s_[16:-16, 16:-16]


def shifted(image, x, y, size=SIZE):
    """The middle of an image of 256 px after everything moved by (x, y) pixels, right and down."""
    border = (256 - size) / 2
    move = np.array([[1, 0, x - border], [0, 1, y - border]])
    return cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_CUBIC)


@pytest.mark.parametrize("method", FLOW_METHODS)
@pytest.mark.parametrize("shift", [(0.7, -0.4), (-1.5, 1.0)])
def test_flow_of_a_shifted_image_is_the_shift(speckle, method, shift):
    flow = estimate_flow(shifted(speckle, 0, 0), shifted(speckle, *shift), method)
    assert flow.shape == (SIZE, SIZE, 2) and flow.dtype == np.float32
    tolerance = 0.1 if method == "faceflow" else 0.06  # a network taught by faces shortens what is not one a little
    assert np.linalg.norm(np.median(flow[INNER], axis=(0, 1)) - shift) < tolerance
    assert np.linalg.norm(flow[INNER] - shift, axis=-1).mean() < 0.15


@pytest.mark.parametrize("method", FLOW_METHODS)
def test_an_image_does_not_move_against_itself(speckle, method):
    image = shifted(speckle, 0, 0)
    flow = estimate_flow(image, image, method)[INNER]  # OpenCV's Farnebäck errs at the last rows
    assert np.abs(flow).max() < (0.06 if method == "faceflow" else 0.02)  # a network is not exact, nor this a face


@pytest.mark.parametrize("method", FLOW_METHODS)
def test_a_blank_image_gives_finite_flow(method):
    blank = np.full((SIZE, SIZE), 127, np.uint8)
    assert np.isfinite(estimate_flow(blank, blank, method)).all()


@pytest.mark.parametrize("method", ["farneback", "dis"])
def test_shading_is_not_motion(speckle, method):
    image = shifted(speckle, 0, 0)
    shade = 20 * np.sin(np.arange(SIZE) / 20)[None, :, None]  # grey levels
    shaded = np.clip(image + shade, 0, 255).astype(np.uint8)
    assert np.linalg.norm(estimate_flow(image, shaded, method)[INNER], axis=-1).mean() < 0.025


def test_flow_is_blurred_by_the_same_share_of_the_face_at_any_size():
    peaks = []
    for size in (128, 256):
        impulse = np.zeros((size, size, 2), np.float32)
        impulse[size // 2, size // 2] = size**2
        peaks.append(blurred(impulse, 4.0).max())
    assert peaks[0] == pytest.approx(peaks[1], rel=0.05)
    assert peaks[1] == pytest.approx(256**2 / (2 * np.pi * 4.0**2), rel=0.05)


def test_colour_frames_are_read_as_their_grey(speckle):
    first, second = shifted(speckle, 0, 0), shifted(speckle, 1, 0)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (first, second)]
    assert np.array_equal(estimate_flow(first, second), estimate_flow(*grey))


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'raft'.*farneback, dis"):
        estimate_flow(np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8), "raft")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((64, 64), np.uint8), np.zeros((64, 65), np.uint8)),
        (np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)),
        (np.zeros((31, 64), np.uint8), np.zeros((31, 64), np.uint8)),
        (np.zeros((64, 31, 3), np.uint8), np.zeros((64, 31, 3), np.uint8)),
    ],
)
def test_frames_that_cannot_be_compared_are_refused(first, second):
    with pytest.raises(ValueError, match="Remedy"):
        estimate_flow(first, second)


# The head's motion


def affine(size=64):
    ys, xs = np.mgrid[:size, :size] / size - 0.5
    return np.stack([0.8 + 0.5 * xs - 0.3 * ys, -0.4 + 0.2 * xs + 0.6 * ys], -1).astype(np.float32)


def test_an_affine_flow_is_fitted_exactly():
    assert np.abs(fit_affine(affine(), np.ones((64, 64), bool)) - affine()).max() < 1e-4


def test_an_affine_flow_is_recovered_though_a_fifth_of_the_pixels_move_otherwise():
    flow = affine() + np.random.default_rng(0).normal(0, 0.03, (64, 64, 2)).astype(np.float32)
    flow[40:60, 12:52] += [0.0, -1.2]  # an expression: 800 of 4096 pixels
    assert np.abs(fit_affine(flow, np.ones((64, 64), bool)) - affine()).max() < 0.05


def test_what_lies_outside_the_mask_does_not_count():
    flow, mask = affine(), np.zeros((64, 64), bool)
    mask[8:56, 8:56] = True
    flow[~mask] = 50
    assert np.abs(fit_affine(flow, mask) - affine()).max() < 1e-3


def test_too_small_a_mask_fits_nothing():
    mask = np.zeros((64, 64), bool)
    mask[:3, :5] = True
    assert not fit_affine(affine(), mask).any()


# Phases


def moving_clip(speckle, size):
    """Two views of four frames: to the right and back in view 0, down and half back in view 1."""
    paths = [[(0, 0), (0.5, 0), (1, 0), (0, 0)], [(0, 0), (0, 0.5), (0, 1), (0, 0.5)]]
    return np.stack([[shifted(speckle, *paths[v][t], size) for v in range(2)] for t in range(4)])


@pytest.fixture
def clip(speckle):
    return moving_clip(speckle, SIZE)


@pytest.mark.parametrize(("method", "size"), [("faceflow", 256), ("dis", SIZE)])  # of faceflow, what its network sees
def test_phase_flows_go_from_onset_to_apex_and_from_apex_to_offset(speckle, method, size):
    flows = phase_flows(moving_clip(speckle, size), (0, 2, 3), method)
    assert flows.shape == (2, 2, size, size, 2)  # view, phase, H, W, (u, v)
    found = np.median(flows[:, :, 16:-16, 16:-16], axis=(2, 3))
    assert np.abs(found - [[[1, 0], [-1, 0]], [[0, 1], [0, -0.5]]]).max() < 0.04


def test_a_pure_head_shift_is_subtracted(clip):
    masks = np.zeros((2, SIZE, SIZE), bool)
    masks[:, 16:-16, 16:-16] = True
    flows = phase_flows(clip, (0, 2, 3), masks=masks)
    assert np.abs(np.median(flows[:, :, 16:-16, 16:-16], axis=(2, 3))).max() < 0.05


@pytest.mark.parametrize("method", ["faceflow", "dis"])
def test_pairs_that_do_not_go_together_are_refused(clip, method):
    pair = clip[0, 0], clip[1, 0]
    for pairs, faces in (
        ([], None),
        ([pair, (pair[0][:64], pair[1][:64])], None),
        ([pair], []),
        ([pair], [np.ones((3, 3), bool)]),
    ):
        with pytest.raises(ValueError, match="Remedy: give one pair or more"):
            estimate_flows(pairs, method, faces)


def test_one_view_will_do(clip):
    assert phase_flows(clip[:, :1], (0, 2, 3)).shape == (1, 2, SIZE, SIZE, 2)
