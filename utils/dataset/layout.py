"""Reads `layout.toml`, a file beside the data that says how a data root differs from the layout of the challenge.

All its keys:

```toml
preset = "casme2"                 # where to start: casme2, samm, smic, mmew, casme3, 4dme (`presets`)
table = "CASME2-coding*.xlsx"     # a CSV file or a workbook with one row per clip; * stands for any text
sheet = ""                        # of a workbook; empty: the first sheet
skip_rows = 0                     # number of lines above the column names
clips = "Cropped"                 # the folder that holds the clips' folders; empty: it is searched for
folder = "sub{subject:2}/{filename}"  # of a clip, by the columns of its row; {subject:2} has at least two digits
tree = ""                         # instead of a table: folders as rows, "{subject}/micro/{emotion}/{filename}"
id = "{subject}_{filename}"       # of a clip; empty: the names of its folders, joined by _
subject_pattern = '^S(\\d+)'      # a regular expression with one group that finds the subject in the Id or the folder
frames = "numbers"                # onset, apex, offset are numbers in the frames' names; "from 0", "from 1": positions
cut = false                       # true: the clip is the frames from onset to offset of a longer recording
separator = "+"                   # between the parts of one emotion's text

[columns]                         # of subject, filename, onset, apex, offset, emotion, units, Id
onset = "OnsetFrame"              # one name, or a list of names, one of which the table has

[labels]                          # what an emotion's text means: classes joined by +, or "" for clips to leave out
happiness = "Positive"
```

Without `table` and `tree` the root has the tables of the challenge, to which [columns] and [labels] apply too. Case,
spaces, underscores and hyphens in the names of columns and emotions are ignored.
"""

import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from utils.dataset.presets import PRESETS
from utils.errors import DataError, read_bytes, reading

LAYOUT = "layout.toml"
MAX_LAYOUT = 2**18  # bytes
FRAMES = ("from 0", "from 1", "numbers")
FIELD = re.compile(r"\{([^{}:]+)(?::(\d{1,2}))?\}")  # of a template
COLUMNS = ("Id", "subject", "filename", "onset", "apex", "offset", "emotion", "units")


@dataclass(frozen=True)
class Layout:
    """The values of a `layout.toml`, see the module's docstring."""

    table: str = ""
    sheet: str = ""
    skip_rows: int = 0
    clips: str = ""
    folder: str = ""
    tree: str = ""
    id: str = ""
    subject_pattern: str = ""
    frames: str = "from 0"
    cut: bool = False
    separator: str = "+"
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def listed(self) -> bool:
        """Whether a table or a tree lists the clips, instead of `train.csv`."""
        return bool(self.table or self.tree)


def read_layout(root: Path, classes: tuple[str, ...]) -> Layout:
    """The layout of a data root; the challenge's layout without a `layout.toml`. Raises DataError for a wrong value."""
    path = root / LAYOUT
    if not path.exists():
        return Layout()
    with reading(path, "the layout", "write it as TOML, see utils/dataset/layout.py"):
        values = tomllib.loads(read_bytes(path, "the layout", MAX_LAYOUT).decode("utf-8-sig"))
    layout, preset = Layout(), values.pop("preset", "")
    if preset != "":
        if not isinstance(preset, str) or preset not in PRESETS:
            raise DataError.at(path, f"preset {preset!r} is unknown", f"choose one of {', '.join(PRESETS)}")
        layout = _changed(path, layout, PRESETS[preset])
    layout = _changed(path, layout, values)
    _check(path, layout, classes)
    return layout


def _changed(path: Path, layout: Layout, values: dict[str, Any]) -> Layout:
    """The layout with these values in place of its own; columns and labels are added."""
    types = {entry.name: entry.type for entry in fields(Layout)}
    simple = {name: value for name, value in values.items() if name not in ("columns", "labels")}
    for name, value in simple.items():
        if name not in types:
            raise DataError.at(path, f"{name!r} is no key of a layout", f"use {', '.join(['preset', *types])}")
        if type(value) is not types[name]:
            raise DataError.at(path, f"{name} = {value!r} is no {types[name].__name__}", "correct it")
    columns = _texts(path, "columns", values.get("columns", {}), lists=True)
    labels = {plain(key): value for key, value in _texts(path, "labels", values.get("labels", {})).items()}
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise DataError.at(path, f"[columns] has no {unknown[0]!r}", f"use {', '.join(COLUMNS)}")
    return replace(layout, **simple, columns=layout.columns | columns, labels=layout.labels | labels)


def _texts(path: Path, name: str, table: Any, lists: bool = False) -> dict[str, Any]:
    """A TOML table of texts; with `lists`, of lists of texts, where a text stands for a list with that text alone."""
    texts = {}
    for key, value in table.items() if isinstance(table, dict) else [("", table)]:
        parts = value if lists and isinstance(value, list | tuple) else [value]
        if not isinstance(table, dict) or not parts or not all(isinstance(part, str) for part in parts):
            raise DataError.at(path, f"[{name}] {key} = {value!r} is no text", "write texts in quotes")
        texts[key] = tuple(parts) if lists else value
    return texts


def _check(path: Path, layout: Layout, classes: tuple[str, ...]) -> None:
    if layout.frames not in FRAMES:
        raise DataError.at(path, f"frames = {layout.frames!r}", f"choose one of {', '.join(FRAMES)}")
    if layout.skip_rows < 0 or not layout.separator:
        raise DataError.at(path, "skip_rows is negative, or separator is empty", "correct it")
    if layout.table and layout.tree:
        raise DataError.at(path, "it has a table and a tree", "keep the one that lists the clips, and empty the other")
    if layout.table and not layout.folder:
        raise DataError.at(path, "it has a table and no folder", "name the folder of a clip by the table's columns")
    for name in ("table", "clips", "folder", "tree", "id"):
        check_inside(path, name, getattr(layout, name))
    names = {plain(name) for name in classes}
    for text, meaning in layout.labels.items():
        for part in meaning.split("+") if meaning else ():
            if plain(part) not in names:
                raise DataError.at(path, f"[labels] {text}: {part!r} is no class", f"use {', '.join(classes)}")


def check_inside(where: object, name: str, relative: str) -> None:
    """Raise DataError for a path that is absolute, leads upwards, or cannot be the path of a file."""
    parts = re.split(r"[/\\]", relative)
    if relative and (any(part in ("", ".", "..") for part in parts) or re.search(r"[\0-\x1f]|^[A-Za-z]:", relative)):
        raise DataError.at(where, f"{name} {relative!r} leads out of the data root", "name a path within it")


def plain(text: str) -> str:
    """A name without case, spaces, underscores and hyphens, for comparisons."""
    return re.sub(r"[\s_\-]+", "", text).casefold()


def filled(template: str, row: dict[str, str]) -> str:
    """A template whose fields are replaced by the cells of a row. Raises KeyError for a missing column.

    Slashes in a cell become hyphens, because in a path they would add folders.
    """

    def cell(match: re.Match) -> str:
        text = re.sub(r"[/\\]", "-", row[match[1].strip()])
        return text.zfill(int(match[2] or 0)) if text.isdecimal() else text

    return FIELD.sub(cell, template)
