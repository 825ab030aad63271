"""`layout.toml`: how a data root differs from the challenge's own layout; a file beside the data.

All keys that it may have:

```toml
preset = "casme2"                 # where to start: casme2, samm, smic, mmew, casme3, 4dme (`presets`)
table = "CASME2-coding*.xlsx"     # a CSV file or a workbook with a row per clip; * stands for anything
sheet = ""                        # of a workbook; empty: the first
skip_rows = 0                     # lines of the table before that of the column names
clips = "Cropped"                 # the folder in which the clips' folders lie; empty: where they are found
folder = "sub{subject:2}/{filename}"  # of a clip, by columns of its row; {subject:2} has two digits at least
tree = ""                         # in place of a table: folders as rows, "{subject}/micro/{emotion}/{filename}"
id = "{subject}_{filename}"       # of a clip; empty: its folder's names, joined by _
subject_pattern = '^S(\\d+)'      # a regular expression with one group that finds the subject in the Id or the folder
frames = "numbers"                # onset, apex, offset are numbers of the frames' names; "from 0", "from 1": positions
cut = false                       # whether the clip is the frames from onset to offset of a longer recording
separator = "+"                   # between the parts of one emotion's text

[columns]                         # of subject, filename, onset, apex, offset, emotion, units, Id
onset = "OnsetFrame"              # one name, or a list of names of which the table has one

[labels]                          # what an emotion's text means: classes joined by +, or "" for clips to leave out
happiness = "Positive"
```

Without `table` and `tree` the root has the challenge's tables, whose columns are renamed and whose labels are mapped
all the same. Columns and emotions are found whatever their case, spaces and underscores.
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
        """Whether a table or a tree of its own lists the clips, rather than `train.csv`."""
        return bool(self.table or self.tree)


def read_layout(root: Path, classes: tuple[str, ...]) -> Layout:
    """The layout of a data root, the challenge's own where it has no `layout.toml`. DataError for what cannot be."""
    path = root / LAYOUT
    if not path.exists():
        return Layout()
    with reading(path, "the layout", "write it as TOML, see utils/dataset/layout.py"):
        values = tomllib.loads(read_bytes(path, "the layout", MAX_LAYOUT).decode("utf-8-sig"))
    layout = _start(path, values.pop("preset", ""))
    layout = _changed(path, layout, values)
    _check(path, layout, classes)
    return layout


def _start(path: Path, preset: Any) -> Layout:
    if preset == "":
        return Layout()
    if not isinstance(preset, str) or preset not in PRESETS:
        raise DataError.at(path, f"preset {preset!r} is unknown", f"choose one of {', '.join(PRESETS)}")
    return _changed(path, Layout(), PRESETS[preset])


def _changed(path: Path, layout: Layout, values: dict[str, Any]) -> Layout:
    types = {one.name: one.type for one in fields(Layout)}
    for name, value in values.items():
        if name not in types:
            raise DataError.at(path, f"{name!r} is no key of a layout", f"use {', '.join(['preset', *types])}")
        if name in ("columns", "labels"):
            continue
        if type(value) is not types[name]:
            raise DataError.at(path, f"{name} = {value!r} is no {types[name].__name__}", "correct it")
    columns = _texts(path, "columns", values.get("columns", {}), lists=True)
    labels = {plain(key): value for key, value in _texts(path, "labels", values.get("labels", {})).items()}
    if unknown := set(columns) - set(COLUMNS):
        raise DataError.at(path, f"[columns] has no {sorted(unknown)[0]!r}", f"use {', '.join(COLUMNS)}")
    simple = {name: value for name, value in values.items() if name not in ("columns", "labels")}
    return replace(layout, **simple, columns=layout.columns | columns, labels=layout.labels | labels)


def _texts(path: Path, name: str, table: Any, lists: bool = False) -> dict[str, Any]:
    """A table of texts, or of lists of texts, where one text is a list of one."""
    found = {}
    for key, value in table.items() if isinstance(table, dict) else [("", table)]:
        many = value if lists and isinstance(value, list | tuple) else [value]
        if not isinstance(table, dict) or not many or not all(isinstance(one, str) for one in many):
            raise DataError.at(path, f"[{name}] {key} = {value!r} is no text", "write texts in quotes")
        found[key] = tuple(many) if lists else value
    return found


def _check(path: Path, layout: Layout, classes: tuple[str, ...]) -> None:
    if layout.frames not in FRAMES:
        raise DataError.at(path, f"frames = {layout.frames!r}", f"choose one of {', '.join(FRAMES)}")
    if layout.skip_rows < 0 or not layout.separator:
        raise DataError.at(path, "skip_rows is negative, or separator is empty", "correct it")
    if layout.table and layout.tree:
        raise DataError.at(path, "it has a table and a tree", "keep the one that lists the clips, and set the other ''")
    if layout.table and not layout.folder:
        raise DataError.at(path, "it has a table and no folder", "say where a clip of the table lies, by its columns")
    for name in ("table", "clips", "folder", "tree", "id"):
        check_inside(path, name, getattr(layout, name))
    known = {plain(name): name for name in classes}
    for text, meaning in layout.labels.items():
        wrong = [part for part in meaning.split("+") if meaning and plain(part) not in known]
        if wrong:
            raise DataError.at(path, f"[labels] {text}: {wrong[0]!r} is no class", f"use {', '.join(classes)}")


def check_inside(where: object, name: str, relative: str) -> None:
    """Raise DataError for a path that is absolute, climbs, or could not be a file's."""
    parts = re.split(r"[/\\]", relative)
    if relative and (any(part in ("", ".", "..") for part in parts) or re.search(r"[\0-\x1f]|^[A-Za-z]:", relative)):
        raise DataError.at(where, f"{name} {relative!r} leads out of the data root", "name a path within it")


def plain(text: str) -> str:
    """A name by which it is found: without case, spaces, underscores and hyphens."""
    return re.sub(r"[\s_\-]+", "", text).casefold()


def filled(template: str, row: dict[str, str]) -> str:
    """A template with the row's cells in the place of its fields. Raises KeyError for a column that is not there.

    Of a cell in a path, slashes would be folders of their own: they become hyphens.
    """

    def cell(match: re.Match) -> str:
        text = re.sub(r"[/\\]", "-", row[match[1].strip()])
        return text.zfill(int(match[2] or 0)) if text.isdecimal() else text

    return FIELD.sub(cell, template)
