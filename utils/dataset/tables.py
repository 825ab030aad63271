"""The tables of a data root, checked against its folders: `train.csv`, `sample_submission.csv`.

```
<DATA>/train/<Id>/...   test/<Id>/...   train.csv   sample_submission.csv   [layout.toml]   [solution.csv]
```

A table may be a workbook (`train.xlsx`), and a clip a video (`train/<Id>.mp4`). Other layouts: `layout`, `listed`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from utils.dataset.cells import read_cells
from utils.dataset.databases import read_listed, renamed
from utils.dataset.folders import ClipLocation, match_entries
from utils.dataset.labels import MAX_FRAMES, MOMENT_COLUMNS, add_classes, as_position, first_id, parse_units, unit_text
from utils.dataset.layout import LAYOUT, Layout, read_layout
from utils.dataset.readers import numbered_files, open_sequence, video_of
from utils.dataset.sequence import Sequence
from utils.dataset.sheets import WORKBOOK_SUFFIXES
from utils.errors import DataError, Refuse, raise_it

PLAIN = Layout()
MAX_ID = 200  # bytes: file systems end at 255, and artefacts add to the name


@dataclass(frozen=True)
class DataRoot:
    """A checked data root: the training table, the test Ids, and where the sequences lie."""

    root: Path
    classes: tuple[str, ...]
    train: pd.DataFrame  # Id, subject, one column per class; onset, apex, offset (positions) and units where known
    sample_submission: pd.DataFrame  # without rows where there is no test split
    clips: dict[tuple[str, str], ClipLocation]  # where the frames of each Id of a split lie
    warnings: tuple[str, ...]  # test clips without a folder, which get the training prior; rows that are left out

    @property
    def test_ids(self) -> list[str]:
        return self.sample_submission["Id"].tolist()

    @property
    def solution(self) -> Path | None:
        """`solution.csv`, which comes with synthetic data only, for the local leaderboard alone."""
        path = self.root / "solution.csv"
        return path if path.exists() else None

    def clip(self, split: str, id: str) -> ClipLocation:
        """Where the frames of an Id lie in the split "train" or "test"; where they should, if they are missing."""
        return self.clips.get((split, id), ClipLocation(self.root / split / id))

    def folder(self, split: str, id: str) -> Path:
        """Folder, or video, of an Id in the split "train" or "test"."""
        return self.clip(split, id).path

    def sequence(self, split: str, id: str) -> Sequence:
        """Open one Id of the split "train" or "test"."""
        path, span = self.clip(split, id)
        return open_sequence(path, span=span)


def open_data(
    data_root: str | Path, classes: Iterable[str], subject_pattern: str | None = None, refuse: Refuse = raise_it
) -> DataRoot:
    """Read and check the tables of a data root against its folders, as its `layout.toml` says where it has one.

    Raises DataError for what `load_labels` and `load_sample_submission` refuse, for a training Id without
    folder, a folder without row, an Id in both splits, phases beyond a sequence's end, and a test split without any
    folder. A single test Id without folder is a warning, because its row of the submission can still be filled with
    the training prior. A root whose layout lists its clips may have no test split.

    refuse: gets each fault of folders, Ids and phases, and may let it pass: then the rest is opened without that clip.
    """
    root, classes = Path(data_root), tuple(classes)
    layout = read_layout(root, classes)
    warnings: list[str] = []
    if layout.listed:
        train, found, warnings = read_listed(root, classes, layout)
        train = _checked(root / LAYOUT, train, classes, subject_pattern or layout.subject_pattern, found)
    else:
        train, found = _challenge_train(root, classes, subject_pattern or layout.subject_pattern, layout, refuse)
    clips = {("train", id): clip for id, clip in found.items()}
    if layout.listed and not table_path(root, "sample_submission").exists():
        return DataRoot(root, classes, train, pd.DataFrame(columns=["Id", *classes]), clips, tuple(warnings))
    sample = load_sample_submission(root, classes)
    table = table_path(root, "sample_submission")
    tested, missing = _matched(root / "test", sample["Id"], table, refuse)
    if not tested:
        refuse(DataError.at(root / "test", "no test Id has a folder here", "check the data root"))
    for id in sorted(set(train["Id"]) & set(sample["Id"])):
        fault = f"Id {id} stands in {table_path(root, 'train').name} too"
        remedy = "keep each Id in one of the two: a clip that was trained on tests nothing"
        refuse(DataError.at(table, fault, remedy))
    clips |= {("test", id): clip for id, clip in tested.items()}
    warnings += [f"test/{id}: there is no such folder, so it gets the training prior." for id in missing]
    return DataRoot(root, classes, train, sample, clips, tuple(warnings))


def _challenge_train(
    root: Path, classes: tuple[str, ...], subject_pattern: str | None, layout: Layout, refuse: Refuse
) -> tuple[pd.DataFrame, dict[str, ClipLocation]]:
    """The training table of the challenge's own layout, and where its clips lie."""
    path = table_path(root, "train")
    table = read_table(path, ["Id"], layout, classes)
    found, missing = _matched(root / "train", table["Id"], path, refuse)
    for id in missing:
        fault = f"Id {id} has no folder {root / 'train' / id}"
        refuse(DataError.at(path, fault, "deliver the sequence or remove the row"))
    table = table[table["Id"].isin(found)].reset_index(drop=True)
    train = _labelled(path, table, classes, subject_pattern, layout, found)
    _place_phases(path, train, found, layout, refuse)
    return train, found


def _matched(folder: Path, ids: pd.Series, table: Path, refuse: Refuse) -> tuple[dict[str, ClipLocation], list[str]]:
    """The clips of a split's Ids, and the Ids without one. A folder without Id is refused."""
    found, unknown = match_entries(folder, ids)
    for name in unknown:
        refuse(DataError.at(folder / name, f"{table.name} has no row for it", "add the row or remove the folder"))
    return {id: ClipLocation(path) for id, path in found.items()}, [id for id in ids if id not in found]


def table_path(root: Path, name: str) -> Path:
    """The table of a name in a root: a CSV file, or a workbook where that alone is there."""
    books = [root / f"{name}{suffix}" for suffix in WORKBOOK_SUFFIXES]
    path = root / f"{name}.csv"
    there = [book for book in books if book.exists()]
    if path.exists() and there:
        raise DataError.at(path, f"{there[0].name} lies beside it", "keep one of the two")
    return there[0] if there else path


def load_labels(
    data_root: str | Path, classes: Iterable[str], subject_pattern: str | None = None, file_name: str = "train.csv"
) -> pd.DataFrame:
    """Read `train.csv`: Id, subject (texts), classes (int8, 0/1), and onset, apex, offset (Int64), units if known.

    `solution.csv` of synthetic data has the same form, and is read by `file_name="solution.csv"`.

    subject_pattern: a regular expression with one group, searched in the Id, that gives the subject where
        the table does not, such as `r"^(s\\d+)_"`.

    Raises DataError for missing columns, repeated Ids, labels other than 0/1, no subject, phases out of
    order.
    """
    root, classes = Path(data_root), tuple(classes)
    layout, path = read_layout(root, classes), root / file_name
    return _labelled(path, read_table(path, ["Id"], layout, classes), classes, subject_pattern, layout)


def _labelled(
    path: Path,
    table: pd.DataFrame,
    classes: tuple[str, ...],
    subject_pattern: str | None,
    layout: Layout,
    clips: dict[str, ClipLocation] | None = None,
) -> pd.DataFrame:
    """The texts of a training table as labels, see `load_labels`; `clips` say more of a subject than an Id may."""
    missing = [name for name in classes if name not in table]
    if missing and "emotion" not in table:
        fault = f"the column {', '.join(missing)} is missing"
        raise DataError.at(path, fault, f"give the columns Id, {', '.join(classes)}, or in {LAYOUT} that of an emotion")
    table = add_classes(path, table, classes, layout)
    for name in MOMENT_COLUMNS:
        if name in table:
            table[name] = as_position(path, table, name)
    phases = [name for name in MOMENT_COLUMNS if name in table]
    for first, second in combinations(phases, 2):  # any of the three may be unknown
        wrong = (table[first] > table[second]).fillna(False)
        if wrong.any():
            fault = f"Id {first_id(table, wrong)} has its {first} after its {second}"
            raise DataError.at(path, fault, "correct the frame positions")
    return _checked(path, table, classes, subject_pattern, clips or {})


def _checked(
    path: Path,
    table: pd.DataFrame,
    classes: tuple[str, ...],
    subject_pattern: str | None,
    clips: dict[str, ClipLocation],
) -> pd.DataFrame:
    """The columns of `DataRoot.train`, with a subject in each row and units in one spelling."""
    _check_ids(path, table)
    _fill_subjects(path, table, subject_pattern, clips)
    phases = [name for name in MOMENT_COLUMNS if name in table]
    units = ["units"] if "units" in table else []
    if units:
        table["units"] = [unit_text(parse_units(text)) for text in table["units"]]
    return table[["Id", "subject", *classes, *phases, *units]]


def load_sample_submission(data_root: str | Path, classes: Iterable[str]) -> pd.DataFrame:
    """Read `sample_submission.csv`, Id as text, columns and rows in the order of the file.

    Raises DataError if its columns are not exactly Id and the classes, or if an Id stands there twice.
    """
    path, expected = table_path(Path(data_root), "sample_submission"), ["Id", *classes]
    table = read_table(path, expected)
    extra = [name for name in table if name not in expected]
    if extra:
        raise DataError.at(path, f"its column {extra[0]} is not a class", f"keep the columns {', '.join(expected)}")
    return table


def read_table(path: Path, required: list[str], layout: Layout = PLAIN, known: Iterable[str] = ()) -> pd.DataFrame:
    """A table as texts, with its required columns present and its Ids unique and fit for folder names.

    Required and known columns, subjects and moments are found whatever their case and stray spaces ("Onset",
    "Negative "), and by the names that a layout gives them.
    """
    if not path.exists():
        raise DataError.at(path, "there is no such table", "put it there, or correct the path of the data root")
    table = read_cells(path, layout.skip_rows, layout.sheet).reset_index(drop=True)
    table = renamed(path, table, layout)
    spelling = {name.casefold(): name for name in (*required, *known, "subject", *MOMENT_COLUMNS)}
    table.columns = [spelling.get(name.casefold(), name) for name in table.columns]
    if table.columns.duplicated().any():
        twice = table.columns[table.columns.duplicated()][0]
        raise DataError.at(path, f"the column {twice} stands there twice", "keep one of them")
    missing = [name for name in required if name not in table]
    if missing:
        raise DataError.at(
            path, f"the column {', '.join(missing)} is missing", f"give the columns {', '.join(required)}"
        )
    if table.empty:
        raise DataError.at(path, "the table has no rows", "give one row per Id")
    _check_ids(path, table)
    return table


def _check_ids(path: Path, table: pd.DataFrame) -> None:
    repeated = table["Id"].duplicated()
    if repeated.any():
        raise DataError.at(path, f"Id {first_id(table, repeated)} stands there twice", "keep one row per Id")
    too_long = table["Id"].str.encode("utf-8").str.len() > MAX_ID
    unfit = ~table["Id"].str.fullmatch(r"[^/\\\x00-\x1f]+") | table["Id"].isin([".", ".."]) | too_long
    if unfit.any():
        raise DataError.at(
            path, f"Id {first_id(table, unfit)[:MAX_ID]!r} is not the name of a folder", "correct the Id"
        )


def _fill_subjects(path: Path, table: pd.DataFrame, pattern: str | None, clips: dict[str, ClipLocation]) -> None:
    """Fill in the subjects that the table does not name: by the pattern, from the Id or from its folder's name."""
    if "subject" not in table:
        table["subject"] = ""
    empty = table["subject"] == ""
    if empty.any() and pattern:
        _check_pattern(pattern)
        ids = table.loc[empty, "Id"]
        folders = ids.map(lambda id: clips[id].path.name if id in clips else "")
        by_id, by_folder = (names.str.extract(pattern, expand=False) for names in (ids, folders))
        table.loc[empty, "subject"] = by_id.fillna(by_folder).fillna("")
        empty = table["subject"] == ""
    if empty.any():
        raise DataError.at(
            path,
            f"Id {first_id(table, empty)} has no subject, and splits are by subject",
            "add a subject column, or a subject pattern that fits every Id",
        )


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise DataError.at(
            f"subject pattern {pattern!r}", f"it is no regular expression ({error})", "correct it"
        ) from error
    if groups != 1:
        raise DataError.at(f"subject pattern {pattern!r}", f"it has {groups} groups", "put one pair of brackets in it")


def _place_phases(
    path: Path, train: pd.DataFrame, clips: dict[str, ClipLocation], layout: Layout, refuse: Refuse
) -> None:
    """Turn frames that are counted otherwise into positions from 0, and hold them against the frames there are."""
    phases = [name for name in MOMENT_COLUMNS if name in train]
    for row, last in enumerate(train[phases].max(axis=1) if phases else ()):
        if pd.isna(last):
            continue
        place, first = clips[train.at[row, "Id"]].path, int(layout.frames == "from 1")
        if video_of(place):  # how many frames it has, its reader finds
            numbers = range(first, MAX_FRAMES)
        else:
            numbers = list(numbered_files(place))
            if layout.frames != "numbers":
                numbers = range(first, first + len(numbers))
        for name in phases:
            frame = train.at[row, name]
            if not pd.isna(frame) and frame not in numbers:
                fault = f"Id {train.at[row, 'Id']} names frame {frame} of {len(numbers)}"
                remedy = f"count frame positions from 0, or say in {LAYOUT} how they are counted"
                refuse(DataError.at(path, fault, remedy))
                frame = pd.NA
            train.at[row, name] = pd.NA if pd.isna(frame) else numbers.index(frame)
