"""Square crops around a face, and ellipses that mark the face in a crop."""

import cv2
import numpy as np

from utils.dataset.geometry import TRIM, Box
from utils.render.camera import Camera

MARGIN = 1.04  # side of the crop, as a multiple of the face's larger extent


def square_box(low: np.ndarray, high: np.ndarray) -> Box:
    """A square around the pixels from `low` to `high`, each (x, y); its side is MARGIN times the larger extent."""
    side = float((high - low).max()) * MARGIN
    x, y = (low + high + 1 - side) / 2
    return float(x), float(y), side


def mesh_box(vertices: np.ndarray, camera: Camera) -> Box:
    """The square around the projected vertices (V, 3) mm, with a margin; stray vertices are ignored."""
    return square_box(*np.quantile(camera.project(vertices), [TRIM, 1 - TRIM], axis=0))


def crop_image(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """The square `box` of an image as (size, size, 3). Outside the image its edge is repeated."""
    x, y, side = box
    scale = size / side
    shift = np.array([[scale, 0, (0.5 - x) * scale - 0.5], [0, scale, (0.5 - y) * scale - 0.5]])
    smooth = cv2.GaussianBlur(image, (0, 0), 0.4 / scale) if scale < 0.7 else image  # prevents aliasing
    return cv2.warpAffine(smooth, shift, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def ellipse_mask(size: int, radii: tuple[float, float] = (0.42, 0.49), y: float = 0.0) -> np.ndarray:
    """(size, size) bool: an upright ellipse, by default the one that a face fills in its crop.

    radii: half width and half height; y: how far its centre lies below the crop's; all as shares of the crop's side.
    """
    ys, xs = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    return (xs / radii[0]) ** 2 + ((ys - y) / radii[1]) ** 2 < 1


def frontal_mask(size: int) -> np.ndarray:
    """(size, size) bool: brows, cheeks, mouth and chin of a face in the crop of one camera's picture.

    The outline of the face is left out: when the head moves, hair and background change most there.
    """
    return ellipse_mask(size, (0.30, 0.42), 0.04)
