"""The flow image in which the field shares real clips: u, v and optical strain as the three colours of a picture."""

import numpy as np

from utils.flow.strain import optical_strain


def strain_maps(flow: np.ndarray) -> np.ndarray:
    """u, v and optical strain (..., 3, H, W) of flow (..., 2, H, W)."""
    u, v = flow[..., 0, :, :], flow[..., 1, :, :]
    return np.stack([u, v, optical_strain(u, v)], -3)


def to_image(maps: np.ndarray) -> np.ndarray:
    """Maps (..., 3, H, W) as uint8: the range of each map is scaled to 0..255."""
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    return np.rint((maps - low) / np.maximum(high - low, 1e-9) * 255).astype(np.uint8)


def from_image(image: np.ndarray) -> np.ndarray:
    """Maps (..., 3, H, W) float32 of an image (..., 3, H, W) uint8, in shares of the full range.

    The scaling to 0..255 hides which value means no motion. For u and v the median is taken, since most of a face is
    still; strain starts at zero.
    """
    maps = image.astype(np.float32) / 255
    maps[..., :2, :, :] -= np.median(maps[..., :2, :, :], axis=(-2, -1), keepdims=True)
    return maps
