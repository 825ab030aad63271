"""Reads `boxes.csv`, in which the user may give the crops of single clips."""

from pathlib import Path

import pandas as pd

from utils.dataset.geometry import BOX_SIDES, Box, is_box
from utils.dataset.tables import read_table
from utils.errors import DataError


def read_boxes(root: Path, n_views: int) -> dict[str, tuple[Box, ...]]:
    """The boxes of `<DATA>/boxes.csv` by Id, one per view; empty without that file. Other Ids are cropped as usual.

    Columns: Id, left_x, left_y, left_side, right_x, right_y, right_side; for one view: Id, x, y, side. A box is a
    square with the first pixel (x, y) and the width side. It counts the pixels of the picture (views="single"), of one
    half of the composite (views="split"), or of the uncropped 512-pixel view (views="render").
    Raises DataError for a cell that is not a number, and for a box that no image can hold.
    """
    path = root / "boxes.csv"
    if not path.exists():
        return {}
    prefixes = ("left_", "right_") if n_views == 2 else ("",)
    columns = [f"{prefix}{part}" for prefix in prefixes for part in ("x", "y", "side")]
    table = read_table(path, ["Id", *columns])
    numbers = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(float).reshape(-1, n_views, 3)
    boxes = {id: tuple(map(tuple, views)) for id, views in zip(table["Id"], numbers.tolist(), strict=True)}
    for id, views in boxes.items():
        if not all(is_box(box) for box in views):
            fault = f"the box of Id {id} is not {len(columns)} numbers with sides of at least {BOX_SIDES[0]:g} pixels"
            raise DataError.at(path, fault, "correct it")
    return boxes
