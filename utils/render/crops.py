"""Square crops: what a box is, those given in `boxes.csv`, and how one is cut out of a picture."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from utils.dataset.reading import DataError
from utils.dataset.tables import read_table

MARGIN = 1.04  # side of the crop over the face's larger extent
BOX_SIDES = (4.0, 32766.0)  # pixels of the uncropped view: a face of 4 mm, and the end of OpenCV's warps
BOX_COLUMNS = {1: ("",), 2: ("left_", "right_")}  # of boxes.csv, by number of views

Box = tuple[float, float, float]  # x, y of the first pixel and side, in pixels of the uncropped view


def read_boxes(root: Path, n_views: int) -> dict[str, tuple[Box, ...]]:
    """Explicit crops by Id from `<DATA>/boxes.csv`, empty without that table; Ids that it lacks are cropped as usual.

    Columns Id, left_x, left_y, left_side, right_x, right_y, right_side, or of one view Id, x, y, side: first pixel and
    side of each view's square, in pixels of the picture (views="single"), of the composite's half (views="split") or
    of the uncropped 512 px view (views="render").
    Raises DataError for a number that cannot be read, and what is no box in pixels of an image.
    """
    path = root / "boxes.csv"
    if not path.exists():
        return {}
    columns = [f"{view}{part}" for view in BOX_COLUMNS[n_views] for part in ("x", "y", "side")]
    table = read_table(path, ["Id", *columns]).set_index("Id")
    numbers = table[columns].apply(pd.to_numeric, errors="coerce")
    boxes = numbers.to_numpy(float).reshape(len(numbers), n_views, 3).tolist()
    for id, views in zip(numbers.index, boxes, strict=True):
        if not all(is_box(box) for box in views):
            fault = f"the box of Id {id} is not {3 * n_views} numbers with sides of {BOX_SIDES[0]:g} pixels and more"
            raise DataError.at(path, fault, "correct it")
    return {id: tuple(tuple(box) for box in views) for id, views in zip(numbers.index, boxes, strict=True)}


def square_box(low: np.ndarray, high: np.ndarray) -> Box:
    """The square of MARGIN times the larger extent about the middle of the pixels `low` to `high`, each (x, y)."""
    side = float((high - low).max()) * MARGIN
    x, y = (low + high + 1 - side) / 2
    return float(x), float(y), side


def is_box(box: Iterable[float]) -> bool:
    """Whether a square can be cut out of an image of any size that is read."""
    x, y, side = box
    return BOX_SIDES[0] <= side <= BOX_SIDES[1] and max(abs(x), abs(y)) <= BOX_SIDES[1]  # False for NaN


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
