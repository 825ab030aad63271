"""Crops that the user gives in `boxes.csv`, instead of those that are found."""

from pathlib import Path

import pandas as pd

from utils.dataset.geometry import BOX_SIDES, Box, is_box
from utils.dataset.tables import read_table
from utils.errors import DataError

BOX_COLUMNS = {1: ("",), 2: ("left_", "right_")}  # of boxes.csv, by number of views


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
