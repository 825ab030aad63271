"""Square crops: what a box is, those given in `boxes.csv`, and how one is cut out of a picture."""

import cv2
import numpy as np

from utils.dataset.geometry import Box

MARGIN = 1.04  # side of the crop over the face's larger extent


def square_box(low: np.ndarray, high: np.ndarray) -> Box:
    """The square of MARGIN times the larger extent about the middle of the pixels `low` to `high`, each (x, y)."""
    side = float((high - low).max()) * MARGIN
    x, y = (low + high + 1 - side) / 2
    return float(x), float(y), side


def crop_image(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """The square box of an image as (size, size, 3); what lies outside repeats the edge."""
    x, y, side = box
    scale = size / side
    shift = np.array([[scale, 0, (0.5 - x) * scale - 0.5], [0, scale, (0.5 - y) * scale - 0.5]])
    smaller = cv2.GaussianBlur(image, (0, 0), 0.4 / scale) if scale < 0.7 else image  # against aliasing
    return cv2.warpAffine(smaller, shift, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def frontal_mask(size: int) -> np.ndarray:
    """(size, size) bool: brows, cheeks, mouth and chin of a face in the crop of one camera's picture.

    Its outline stays outside: where a head moves before a ground, or hair upon it, that is what moves most. Of four
    ellipses this one found apexes best on 20 synthetic clips: 1.5 frames off, where `ellipse_mask` is 3.3.
    """
    ys, xs = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    return (xs / 0.30) ** 2 + ((ys - 0.04) / 0.42) ** 2 < 1


def ellipse_mask(size: int) -> np.ndarray:
    """(size, size) bool: the upright ellipse that a face fills in its box, where no mesh tells better."""
    ys, xs = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    return (xs / 0.42) ** 2 + (ys / 0.49) ** 2 < 1
