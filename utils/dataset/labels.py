"""What the cells of a label table mean: classes, emotions in words, action units, frame positions."""

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
UNKNOWN = ("", "/", "-", "nan", "na", "n/a")  # what tables write for a frame that is not known
UNIT = re.compile(r"(?:AU)?([LRTB])?(\d{1,2})([LRTB])?[A-E?]?", re.IGNORECASE)

Unit = tuple[str, int]  # side "L", "R" or "" for both; number of the action unit


def add_classes(path: Path, table: pd.DataFrame, classes: Sequence[str], layout: Layout) -> pd.DataFrame:
    """The table with its classes as int8 columns of 0 and 1, from such columns or from the emotion's text.

    Rows whose emotion is mapped to "" are left out. Raises DataError for other values and for unknown emotions.
    """
    if "emotion" not in table or set(classes) <= set(table):
        for name in classes:
            table[name] = as_binary(path, table, name)
        return table
    meanings = {plain(name): name for name in classes} | layout.labels
    parts = [[plain(part) for part in text.split(layout.separator)] for text in table["emotion"]]
    unknown = sorted({text for row in parts for text in row if text not in meanings})
    if unknown:
        fault = f"the emotions {', '.join(repr(text[:MAX_SHOWN]) for text in unknown[:8])} mean no class"
        raise DataError.at(path, fault, 'say so in layout.toml, [labels], as in happiness = "Positive"')
    found = [{name for text in row for name in meanings[text].split("+") if name} for row in parts]
    known = {plain(name): name for name in classes}
    for name in classes:
        table[name] = np.array([any(known[plain(one)] == name for one in row) for row in found], np.int8)
    return table[[bool(row) for row in found]].reset_index(drop=True)


def as_binary(path: Path, table: pd.DataFrame, name: str) -> pd.Series:
    """Labels as 0 and 1; "1.0" is 1, but words and other numbers are refused, not guessed."""
    numbers = pd.to_numeric(table[name], errors="coerce")
    wrong = ~numbers.isin([0, 1])
    if wrong.any():
        value = table[name][wrong].iloc[0][:MAX_SHOWN]
        raise DataError.at(path, f"Id {first_id(table, wrong)} has {name} = {value!r}", "labels are 0 or 1, not words")
    return numbers.astype(np.int8)


def as_position(path: Path, table: pd.DataFrame, name: str) -> pd.Series:
    """Frame positions or numbers as nullable integers; an empty cell is an unknown one."""
    text = table[name].mask(table[name].str.casefold().isin(UNKNOWN), "")
    numbers = pd.to_numeric(text, errors="coerce")
    wrong = (text != "") & ~((numbers >= 0) & (numbers < MAX_FRAMES) & (numbers % 1 == 0))
    if wrong.any():
        raise DataError.at(
            path,
            f"Id {first_id(table, wrong)} has {name} = {text[wrong].iloc[0][:MAX_SHOWN]!r}",
            "give frame positions from 0, or leave the cell empty",
        )
    return numbers.astype("Int64")


def first_id(table: pd.DataFrame, where: pd.Series) -> str:
    return table["Id"][where].iloc[0]


def parse_units(text: str) -> tuple[Unit, ...]:
    """The action units that a coder's text names: "AU4(k)+L7+12R" gives ("L", 7), ("R", 12).

    "(k)" marks a unit that does not move, which is left out; what is no unit is left out too.
    """
    found = []
    for part in re.split(r"[+,;&/\s]+", text):
        unit = UNIT.fullmatch(part)
        if unit:
            side = (unit[1] or unit[3] or "").upper()
            found.append((side if side in "LR" else "", int(unit[2])))
    return tuple(dict.fromkeys(found))


def unit_text(units: Sequence[Unit]) -> str:
    """Units as one text, "4+L7", which `parse_units` takes back."""
    return "+".join(f"{side}{number}" for side, number in units)
