"""Facts about exact flow, and about the errors of a flow against it."""

import cv2
import numpy as np
import pytest

from utils.flow.truth import exact_flow, flow_errors
from utils.render.camera import Camera

CAMERA = Camera(0.0, 1000.0, (0.0, 0.0, 0.0), 900.0, (63.5, 63.5), (128, 128))
ALL = np.ones((32, 32), bool)


def bend(vertices):
    """A smooth deformation by a few tenths of a millimetre to two millimetres."""
    x, y, _ = (vertices / 70).T
    return vertices + np.stack([np.sin(2 * y), 1.5 * x * y, np.cos(3 * x)], -1).astype(np.float32)


@pytest.mark.parametrize("yaw", [0.0, 25.0])
def test_the_flow_of_a_translated_plane_is_the_projected_translation(yaw):
    camera = CAMERA._replace(yaw_deg=yaw)
    right, up, backward = camera.axes
    plane = np.array([-50 * right - 50 * up, 50 * right - 50 * up, 50 * right + 50 * up, 50 * up - 50 * right])
    flow, visible = exact_flow(plane, plane + 3 * right + 2 * up, np.array([[0, 1, 2], [0, 2, 3]]), camera)
    assert flow.dtype == np.float32 and visible.sum() == 90 * 90  # 100 mm at 0.9 px per mm
    assert np.allclose(flow[visible], [2.7, -1.8], atol=1e-4)  # x right, y down
    assert not flow[~visible].any()


@pytest.mark.parametrize("yaw", [0.0, 20.0])
def test_exact_flow_agrees_with_the_projection_of_moved_vertices(dome, yaw):
    camera = CAMERA._replace(yaw_deg=yaw)
    moved = bend(dome.vertices)
    flow, visible = exact_flow(dome.vertices, moved, dome.faces, camera)
    at, expected = camera.project(dome.vertices), camera.project(moved) - camera.project(dome.vertices)
    inner = cv2.erode(visible.astype(np.uint8), np.ones((5, 5)), borderValue=0)
    pixel = np.rint(at).astype(int).clip(0, 127)
    kept = inner[pixel[:, 1], pixel[:, 0]] > 0
    sampled = cv2.remap(flow, at[None, :, 0].astype(np.float32), at[None, :, 1].astype(np.float32), cv2.INTER_LINEAR)[0]
    assert kept.sum() > 500
    assert np.abs(sampled[kept] - expected[kept]).max() < 0.03


def test_a_hidden_surface_does_not_count():
    square = np.array([[-30, -30, 0], [30, -30, 0], [30, 30, 0], [-30, 30, 0.0]])
    before = np.concatenate([square, square + [0, 0, 40]])
    after = np.concatenate([square + [5, 0, 0], square + [0, 0, 40]])  # only the hidden square moves
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    flow, visible = exact_flow(before, after, np.concatenate([faces, faces + 4]), CAMERA)
    assert visible[63, 63] and np.abs(flow).max() < 1e-4


@pytest.fixture
def truth():
    return np.random.default_rng(0).normal(0, 2, (32, 32, 2)).astype(np.float32)


def test_the_exact_flow_has_no_error(truth):
    errors = flow_errors(truth, truth, ALL)
    assert errors["epe"] == 0 and errors["direction_deg"] < 0.05 and np.isclose(errors["magnitude_ratio"], 1)


def test_the_error_of_zero_flow_is_the_mean_length_of_the_exact_flow(truth):
    errors = flow_errors(np.zeros_like(truth), truth, ALL)
    assert errors["epe"] == errors["zero_epe"] == pytest.approx(np.linalg.norm(truth, axis=-1).mean())


def test_errors_of_length_and_of_direction_are_separate(truth):
    half, turned = flow_errors(truth / 2, truth, ALL), flow_errors(truth[..., ::-1] * [1, -1], truth, ALL)
    assert half["magnitude_ratio"] == pytest.approx(0.5) and half["direction_deg"] < 0.05
    assert turned["direction_deg"] == pytest.approx(90, abs=0.1) and abs(turned["magnitude_ratio"]) < 1e-6


def test_errors_outside_the_mask_do_not_count(truth):
    wrong = truth.copy()
    wrong[16:] += 100
    assert flow_errors(wrong, truth, np.arange(32)[:, None].repeat(32, 1) < 16)["epe"] == 0


def test_direction_and_length_are_nan_if_nothing_moves():
    still = np.zeros((32, 32, 2), np.float32)
    errors = flow_errors(still, still, ALL)
    assert np.isnan(errors["direction_deg"]) and np.isnan(errors["magnitude_ratio"]) and errors["epe"] == 0
