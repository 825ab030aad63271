"""Facts about the network's input maps."""

import numpy as np
import pytest

from utils.flow.features import clip_features, flow_maps
from utils.flow.methods import phase_flows
from utils.render.view_set import Views

FULL = np.ones((2, 56, 56), bool)


@pytest.fixture
def flows():
    return np.random.default_rng(0).normal(0, 1, (2, 2, 56, 56, 2)).astype(np.float32)


def test_a_map_pixel_is_the_mean_over_its_area(flows):
    maps = flow_maps(flows, FULL, 28)
    assert maps.shape == (2, 2, 3, 28, 28) and maps.dtype == np.float32  # view, phase, channel, size
    areas = flows.reshape(2, 2, 28, 2, 28, 2, 2).mean((3, 5))
    assert np.allclose(maps[:, :, :2], np.moveaxis(areas, -1, 2), atol=1e-5)


def test_magnitude_is_computed_before_averaging():
    flows = np.zeros((1, 1, 8, 8, 2), np.float32)
    flows[..., ::2, 0], flows[..., 1::2, 0] = 3, -3  # neighbours move in opposite directions
    maps = flow_maps(flows, np.ones((1, 8, 8), bool), 4)
    assert np.allclose(maps[0, 0, 0], 0) and np.allclose(maps[0, 0, 2], 3)


def test_motion_outside_the_mask_is_zero(flows):
    masks = FULL.copy()
    masks[0, :, 28:] = False
    maps = flow_maps(flows, masks, 28)
    assert not maps[0, ..., 14:].any() and maps[0, ..., :14].any() and maps[1, ..., 14:].any()


@pytest.fixture
def frames(speckle):
    """Three frames of two views that move by one pixel to the right in each phase."""
    return np.stack([np.stack([np.roll(speckle[:64, :64], t, axis=1)] * 2) for t in (0, 1, 2)])


def test_clip_features_are_the_maps_of_the_phase_flows(frames):
    masks = np.ones((2, 64, 64), bool)
    maps = clip_features(Views(frames, masks, np.zeros((2, 3)), "mesh", stabilised=True), (0, 1, 2), size=16)
    assert maps.shape == (2, 2, 3, 16, 16)
    assert np.array_equal(maps, flow_maps(phase_flows(frames, (0, 1, 2)), masks, 16))
    assert abs(np.median(maps[:, :, 0, 4:12, 4:12]) - 1) < 0.1


def test_the_motion_of_a_head_that_was_not_stabilised_is_subtracted(frames):
    masks = np.zeros((2, 64, 64), bool)
    masks[:, 8:-8, 8:-8] = True
    maps = clip_features(Views(frames, masks, np.zeros((2, 3)), "mesh", stabilised=False), (0, 1, 2), size=16)
    assert np.abs(maps[:, :, 0, 4:12, 4:12]).mean() < 0.1
