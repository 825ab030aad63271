"""Finds the number in a file's name that counts the frames of a sequence."""

import re
from collections.abc import Sequence
from pathlib import Path

from utils.errors import DataError

NUMBER_FRAMES = "name frames like frame_0001"


def numbered(files: Sequence[Path]) -> dict[int, Path]:
    """The files by the number of their frame, in ascending order.

    If the names have several numbers ("0007_S03_cam2.jpg", "reg_img46.jpg"), the one that differs in every name counts.
    If several differ and order the files differently, the one that increases by one counts. Raises DataError for a name
    without a number, for two files with the same number, and if two orders are equally likely.
    """
    numbers = {file: [int(digits) for digits in re.findall(r"[0-9]+", file.stem)] for file in files}
    if without := [file for file in files if not numbers[file]]:
        raise DataError.at(without[0], "its name carries no frame number", NUMBER_FRAMES)
    frames: dict[int, Path] = {}
    for file, number in zip(files, _frame_numbers(numbers), strict=True):
        twin = frames.setdefault(number, file)
        if twin != file:
            raise DataError.at(file, f"it has the frame number of {twin.name}", "keep one file per frame")
    return dict(sorted(frames.items()))


def _frame_numbers(numbers: dict[Path, list[int]]) -> list[int]:
    """The frame number of each file: the number in its name that differs from file to file, otherwise the last."""
    rows = list(numbers.values())
    counting = []
    if len({len(row) for row in rows}) == 1:
        counting = [column for column in zip(*rows, strict=True) if len(set(column)) == len(rows)]
    if not counting:
        return [row[-1] for row in rows]
    orders = {tuple(sorted(range(len(rows)), key=column.__getitem__)): column for column in counting}
    if len(orders) == 1:  # the numbers with the smallest gaps; the last of several
        return list(min(reversed(counting), key=lambda column: max(column) - min(column)))
    by_ones = [column for column in orders.values() if max(column) - min(column) == len(rows) - 1]
    if len(by_ones) != 1:
        files = list(numbers)
        first, second = (files[order[0]] for order in list(orders)[:2])
        fault = f"by one number of the names it begins with {first.name}, by another with {second.name}"
        raise DataError.at(first.parent, f"the order of its frames is not plain: {fault}", NUMBER_FRAMES)
    return list(by_ones[0])
