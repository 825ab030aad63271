"""Which number of a file's name is its frame's: the one that counts up from file to file."""

import re
from collections.abc import Sequence
from pathlib import Path

from utils.errors import DataError

NUMBER_FRAMES = "name frames like frame_0001"


def numbered(files: Sequence[Path]) -> dict[int, Path]:
    """The files by their frame's number, in its order.

    Of several numbers in each name ("0007_S03_cam2.jpg", "reg_img46.jpg") it is the one that differs from file to file;
    where several do and would order the files differently, the one that counts in ones. Raises DataError for a name
    without a number, for two files of one number, and where two orders are as likely.
    """
    numbers = {file: [int(digits) for digits in re.findall(r"[0-9]+", file.stem)] for file in files}
    if without := [file for file in files if not numbers[file]]:
        raise DataError.at(without[0], "its name carries no frame number", NUMBER_FRAMES)
    found: dict[int, Path] = {}
    for file, number in zip(files, _frame_numbers(numbers), strict=True):
        twin = found.setdefault(number, file)
        if twin != file:
            raise DataError.at(file, f"it has the frame number of {twin.name}", "keep one file per frame")
    return {number: found[number] for number in sorted(found)}


def _frame_numbers(numbers: dict[Path, list[int]]) -> list[int]:
    """One number per file: of the place in their names that differs, else the last."""
    rows = list(numbers.values())
    if len({len(row) for row in rows}) > 1:
        return [row[-1] for row in rows]
    counting = [column for column in zip(*rows, strict=True) if len(set(column)) == len(rows)]
    if not counting:
        return [row[-1] for row in rows]
    orders = {tuple(sorted(range(len(rows)), key=column.__getitem__)): column for column in counting}
    if len(orders) == 1:
        return list(_steadiest(counting))
    by_ones = [column for column in orders.values() if max(column) - min(column) == len(rows) - 1]
    if len(by_ones) != 1:
        one, other = (order[0] for order in list(orders)[:2])
        files = list(numbers)
        fault = f"by one number of the names it begins with {files[one].name}, by another with {files[other].name}"
        raise DataError.at(files[one].parent, f"the order of its frames is not plain: {fault}", NUMBER_FRAMES)
    return list(by_ones[0])


def _steadiest(columns: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Of numbers that order the files alike, those with the least gaps; of equals the last."""
    return min(reversed(columns), key=lambda column: max(column) - min(column))
