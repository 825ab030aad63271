"""The meaning of the cells of a label table: classes, emotions as words, action units, and frame numbers."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.dataset.layout import Layout, plain
from utils.errors import DataError

MOMENT_COLUMNS = ("onset", "apex", "offset")
MAX_FRAMES = 1_000_000  # of a sequence
MAX_SHOWN = 200  # characters of a cell in a message
UNKNOWN = ("", "/", "-", "nan", "na", "n/a")  # how tables write an unknown frame
UNIT = re.compile(r"(?:AU)?([LRTB])?(\d{1,2})([LRTB])?[A-E?]?", re.IGNORECASE)

Unit = tuple[str, int]  # an action unit: side "L", "R", or "" for both; number


def add_classes(path: Path, table: pd.DataFrame, classes: Sequence[str], layout: Layout) -> pd.DataFrame:
    """The table with its classes as int8 columns of 0 and 1, from such columns or from the text of the emotion.

    Rows are left out if the layout maps their emotion to "". Raises DataError for other values and unknown emotions.
    """
    if "emotion" not in table or set(classes) <= set(table):
        for name in classes:
            numbers = pd.to_numeric(table[name], errors="coerce")  # "1.0" is 1, words are NaN
            wrong = ~numbers.isin([0, 1])
            if wrong.any():
                fault = f"Id {first_id(table, wrong)} has {name} = {table[name][wrong].iloc[0][:MAX_SHOWN]!r}"
                raise DataError.at(path, fault, "labels are 0 or 1, not words")
            table[name] = numbers.astype(np.int8)
        return table
    meanings = {plain(name): name for name in classes} | layout.labels
    emotions = [[plain(part) for part in text.split(layout.separator)] for text in table["emotion"]]
    unknown = sorted({part for parts in emotions for part in parts if part not in meanings})
    if unknown:
        fault = f"the emotions {', '.join(repr(part[:MAX_SHOWN]) for part in unknown[:8])} mean no class"
        raise DataError.at(path, fault, 'map them to classes in layout.toml, [labels], as in happiness = "Positive"')
    rows = [{plain(name) for part in parts for name in meanings[part].split("+") if name} for parts in emotions]
    for name in classes:
        table[name] = np.array([plain(name) in row for row in rows], np.int8)
    return table[[bool(row) for row in rows]].reset_index(drop=True)


def parse_moments(path: Path, table: pd.DataFrame) -> list[str]:
    """Replace the texts of onset, apex and offset by nullable integers; returns the columns that the table has.

    An empty cell means that the frame is unknown. Raises DataError for a cell that is no frame number.
    """
    moments = [name for name in MOMENT_COLUMNS if name in table]
    for name in moments:
        text = table[name].mask(table[name].str.casefold().isin(UNKNOWN), "")
        numbers = pd.to_numeric(text, errors="coerce")
        wrong = (text != "") & ~((numbers >= 0) & (numbers < MAX_FRAMES) & (numbers % 1 == 0))
        if wrong.any():
            fault = f"Id {first_id(table, wrong)} has {name} = {text[wrong].iloc[0][:MAX_SHOWN]!r}"
            raise DataError.at(path, fault, "give frame positions from 0, or leave the cell empty")
        table[name] = numbers.astype("Int64")
    return moments


def first_id(table: pd.DataFrame, where: pd.Series) -> str:
    return table["Id"][where].iloc[0]


def parse_units(text: str) -> tuple[Unit, ...]:
    """The action units in a coder's text: "AU4(k)+L7+12R" gives ("L", 7), ("R", 12).

    "(k)" marks an action unit that does not move; it is left out, and so is every other part of the text.
    """
    units = []
    for part in re.split(r"[+,;&/\s]+", text):
        if unit := UNIT.fullmatch(part):
            side = (unit[1] or unit[3] or "").upper()
            units.append((side if side in "LR" else "", int(unit[2])))
    return tuple(dict.fromkeys(units))
