"""Facts about the flow methods, the affine motion of the head, and the phase flows."""

import cv2
import numpy as np
import pytest
from helpers.pictures import shifted

from utils.flow.classical import blurred, fit_affine
from utils.flow.methods import FLOW_METHODS, estimate_flow, estimate_flows, phase_flows

SIZE = 96
INNER = np.s_[16:-16, 16:-16]


@pytest.fixture
def image(speckle):
    return shifted(speckle, 0, 0, SIZE)


@pytest.mark.parametrize("method", FLOW_METHODS)
@pytest.mark.parametrize("shift", [(0.7, -0.4), (-1.5, 1.0)])
def test_flow_of_a_shifted_image_is_the_shift(speckle, image, method, shift):
    flow = estimate_flow(image, shifted(speckle, *shift, SIZE), method)
    assert flow.shape == (SIZE, SIZE, 2) and flow.dtype == np.float32
    tolerance = 0.1 if method == "faceflow" else 0.06  # on pictures that are not faces, FaceFlow's flow is too short
    assert np.linalg.norm(np.median(flow[INNER], axis=(0, 1)) - shift) < tolerance
    assert np.linalg.norm(flow[INNER] - shift, axis=-1).mean() < 0.15


@pytest.mark.parametrize("method", FLOW_METHODS)
def test_an_image_does_not_move_against_itself(image, method):
    flow = estimate_flow(image, image, method)[INNER]  # Farnebäck of OpenCV is wrong in the last rows
    assert np.abs(flow).max() < (0.06 if method == "faceflow" else 0.02)


@pytest.mark.parametrize("method", FLOW_METHODS)
def test_a_blank_image_gives_finite_flow(method):
    blank = np.full((SIZE, SIZE), 127, np.uint8)
    assert np.isfinite(estimate_flow(blank, blank, method)).all()


@pytest.mark.parametrize("method", ["farneback", "dis"])
def test_shading_is_not_motion(image, method):
    shade = 20 * np.sin(np.arange(SIZE) / 20)[None, :, None]  # grey levels
    shaded = np.clip(image + shade, 0, 255).astype(np.uint8)
    assert np.linalg.norm(estimate_flow(image, shaded, method)[INNER], axis=-1).mean() < 0.025


@pytest.mark.parametrize("size", [128, 256])
def test_flow_is_blurred_by_the_same_share_of_the_face_at_any_size(size):
    impulse = np.zeros((size, size, 2), np.float32)
    impulse[size // 2, size // 2] = size**2
    assert blurred(impulse, 4.0).max() == pytest.approx(256**2 / (2 * np.pi * 4.0**2), rel=0.05)


def test_colour_frames_have_the_flow_of_their_grey_frames(speckle, image):
    frames = image, shifted(speckle, 1, 0, SIZE)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    assert np.array_equal(estimate_flow(*frames), estimate_flow(*grey))


def test_an_unknown_method_is_refused_with_a_list_of_the_methods():
    with pytest.raises(ValueError, match="'raft'.*farneback, dis"):
        estimate_flow(np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8), "raft")


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        ((64, 64), (64, 65), np.uint8),
        ((64, 64), (64, 64), np.float32),
        ((31, 64), (31, 64), np.uint8),
        ((64, 31, 3), (64, 31, 3), np.uint8),
    ],
)
def test_frames_of_different_sizes_or_wrong_types_or_too_small_are_refused(first, second, dtype):
    with pytest.raises(ValueError, match="Remedy"):
        estimate_flow(np.zeros(first, dtype), np.zeros(second, dtype))


# The head's motion


@pytest.fixture
def affine():
    ys, xs = np.mgrid[:64, :64] / 64 - 0.5
    return np.stack([0.8 + 0.5 * xs - 0.3 * ys, -0.4 + 0.2 * xs + 0.6 * ys], -1).astype(np.float32)


def test_an_affine_flow_is_fitted_exactly(affine):
    assert np.abs(fit_affine(affine, np.ones((64, 64), bool)) - affine).max() < 1e-4


def test_an_affine_flow_is_recovered_if_a_fifth_of_the_pixels_moves_differently(affine):
    flow = affine + np.random.default_rng(0).normal(0, 0.03, (64, 64, 2)).astype(np.float32)
    flow[40:60, 12:52] += [0.0, -1.2]  # an expression: 800 of 4096 pixels
    assert np.abs(fit_affine(flow, np.ones((64, 64), bool)) - affine).max() < 0.05


def test_flow_outside_the_mask_does_not_count(affine):
    flow, mask = affine.copy(), np.zeros((64, 64), bool)
    mask[8:56, 8:56] = True
    flow[~mask] = 50
    assert np.abs(fit_affine(flow, mask) - affine).max() < 1e-3


def test_a_mask_of_a_few_pixels_gives_zero_flow(affine):
    mask = np.zeros((64, 64), bool)
    mask[:3, :5] = True
    assert not fit_affine(affine, mask).any()


# Phases


def moving_clip(speckle, size):
    """Four frames of two views. View 0 moves to the right and back, view 1 moves down and half of the way back."""
    paths = [[(0, 0), (0.5, 0), (1, 0), (0, 0)], [(0, 0), (0, 0.5), (0, 1), (0, 0.5)]]
    return np.stack([[shifted(speckle, *paths[v][t], size) for v in range(2)] for t in range(4)])


@pytest.mark.parametrize(("method", "size"), [("faceflow", 256), ("dis", SIZE)])  # 256 is the size of FaceFlow's input
def test_phase_flows_go_from_onset_to_apex_and_from_apex_to_offset(speckle, method, size):
    flows = phase_flows(moving_clip(speckle, size), (0, 2, 3), method)
    assert flows.shape == (2, 2, size, size, 2)  # view, phase, H, W, (u, v)
    medians = np.median(flows[:, :, 16:-16, 16:-16], axis=(2, 3))
    assert np.abs(medians - [[[1, 0], [-1, 0]], [[0, 1], [0, -0.5]]]).max() < 0.04


@pytest.mark.parametrize("method", ["faceflow", "dis"])
def test_no_pairs_and_pairs_or_masks_of_different_sizes_are_refused(image, method):
    pair, small = (image, image), (image[:64], image[:64])
    for pairs, faces in (([], None), ([pair, small], None), ([pair], []), ([pair], [np.ones((3, 3), bool)])):
        with pytest.raises(ValueError, match="Remedy: give one pair or more"):
            estimate_flows(pairs, method, faces)


def test_clips_may_have_one_view(speckle):
    assert phase_flows(moving_clip(speckle, SIZE)[:, :1], (0, 2, 3)).shape == (1, 2, SIZE, SIZE, 2)
