"""The tables of a data root, checked against its folders: `train.csv` and `sample_submission.csv`.

```
<DATA>/train/<Id>/...   test/<Id>/...   train.csv   sample_submission.csv   [layout.toml]   [solution.csv]
```

A table may be a workbook (`train.xlsx`), and a clip may be a video (`train/<Id>.mp4`). For other forms see `layout` and
`databases`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import pandas as pd

from utils.dataset.databases import frame_numbers, read_listed, read_renamed
from utils.dataset.folders import ClipLocation, Clips, match_entries
from utils.dataset.labels import MOMENT_COLUMNS, add_classes, first_id, parse_moments, parse_units
from utils.dataset.layout import LAYOUT, Layout, read_layout
from utils.dataset.readers import open_sequence
from utils.dataset.sequence import Sequence
from utils.dataset.sheets import WORKBOOK_SUFFIXES
from utils.errors import DataError, Refuse, raise_it

PLAIN = Layout()
MAX_ID = 200  # bytes: file systems allow 255 in a name, and artefacts add to it


@dataclass(frozen=True)
class DataRoot:
    """A checked data root: the training table, the test Ids, and the places of the clips."""

    root: Path
    classes: tuple[str, ...]
    train: pd.DataFrame  # Id, subject, one column per class; onset, apex, offset (positions) and units where known
    sample_submission: pd.DataFrame  # has no rows if there is no test split
    clips: dict[tuple[str, str], ClipLocation]  # by split and Id
    warnings: tuple[str, ...]  # about rows that are left out, and test clips that get the training prior

    @property
    def test_ids(self) -> list[str]:
        return self.sample_submission["Id"].tolist()

    @property
    def solution(self) -> Path | None:
        """`solution.csv` of a synthetic root, which serves the local leaderboard alone."""
        path = self.root / "solution.csv"
        return path if path.exists() else None

    def clip(self, split: str, id: str) -> ClipLocation:
        """Where the frames of an Id lie, or should lie, in the split "train" or "test"."""
        return self.clips.get((split, id), ClipLocation(self.root / split / id))

    def folder(self, split: str, id: str) -> Path:
        """The folder or video of an Id in the split "train" or "test"."""
        return self.clip(split, id).path

    def sequence(self, split: str, id: str) -> Sequence:
        """The opened frames of an Id in the split "train" or "test"."""
        path, span = self.clip(split, id)
        return open_sequence(path, span=span)


def open_data(
    data_root: str | Path, classes: Iterable[str], subject_pattern: str | None = None, refuse: Refuse = raise_it
) -> DataRoot:
    """Read the tables of a data root, in the form that its `layout.toml` describes, and check them against its folders.

    A test Id without a folder is a warning, because its row of the submission can hold the training prior. A root whose
    layout lists the clips may have no test split.

    subject_pattern: a regular expression with one group, such as `r"^(s\\d+)_"`. It is searched in the Id, then in the
        name of the clip's folder, and gives the subjects that the table lacks.
    refuse: receives each fault of folders, Ids and moments. If it returns, the root is opened without that clip.

    Raises DataError for a fault of the tables (see `load_labels` and `load_sample_submission`), for a training Id
    without a folder, a folder without a row, an Id in both splits, a moment after the last frame, and a test split
    without any folder.
    """
    root, classes = Path(data_root), tuple(classes)
    layout, warnings = read_layout(root, classes), []
    layout = replace(layout, subject_pattern=subject_pattern or layout.subject_pattern)
    if layout.listed:
        train, train_clips, warnings = read_listed(root, classes, layout)
        train = _checked(root / LAYOUT, train, classes, layout, train_clips)
    else:
        train, train_clips = _load_train(root, classes, layout, refuse)
    clips = {("train", id): clip for id, clip in train_clips.items()}
    path = table_path(root, "sample_submission")
    if layout.listed and not path.exists():
        return DataRoot(root, classes, train, pd.DataFrame(columns=["Id", *classes]), clips, tuple(warnings))
    sample = load_sample_submission(root, classes)
    test_clips, missing = _matched(root / "test", sample["Id"], path, refuse)
    if not test_clips:
        refuse(DataError.at(root / "test", "no test Id has a folder here", "check the data root"))
    for id in sorted(set(train["Id"]) & set(sample["Id"])):
        fault = f"Id {id} stands in {table_path(root, 'train').name} too"
        remedy = "keep each Id in one of the two: a clip that was trained on tests nothing"
        refuse(DataError.at(path, fault, remedy))
    clips |= {("test", id): clip for id, clip in test_clips.items()}
    warnings += [f"test/{id}: there is no such folder, so it gets the training prior." for id in missing]
    return DataRoot(root, classes, train, sample, clips, tuple(warnings))


def load_labels(data_root: str | Path, classes: Iterable[str], file_name: str = "train.csv") -> pd.DataFrame:
    """Read a training table: Id, subject (texts), classes (int8), if given onset, apex, offset (Int64), units.

    `solution.csv` of a synthetic root has the same form.
    Raises DataError for missing columns, repeated Ids, labels other than 0 and 1, rows without a subject, and moments
    in the wrong order.
    """
    root, classes = Path(data_root), tuple(classes)
    layout, path = read_layout(root, classes), root / file_name
    return _labelled(path, read_table(path, ["Id"], layout, classes), classes, layout, {})


def load_sample_submission(data_root: str | Path, classes: Iterable[str]) -> pd.DataFrame:
    """Read `sample_submission.csv` with the Ids as texts. Columns and rows keep the order of the file.

    Raises DataError if its columns are not exactly Id and the classes, or if an Id is repeated.
    """
    path, expected = table_path(Path(data_root), "sample_submission"), ["Id", *classes]
    table = read_table(path, expected)
    extra = [name for name in table if name not in expected]
    if extra:
        raise DataError.at(path, f"its column {extra[0]} is not a class", f"keep the columns {', '.join(expected)}")
    return table


def read_table(path: Path, required: list[str], layout: Layout = PLAIN, known: Iterable[str] = ()) -> pd.DataFrame:
    """A table as texts that has the required columns, and Ids that are unique and fit for folder names.

    Required and known columns, the subject and the moments are recognised in any case and with stray spaces ("Onset",
    "Negative "), and by the names that a layout gives them.
    """
    if not path.exists():
        raise DataError.at(path, "there is no such table", "put it there, or correct the path of the data root")
    table = read_renamed(path, layout)
    spelling = {name.casefold(): name for name in (*required, *known, "subject", *MOMENT_COLUMNS)}
    table.columns = [spelling.get(name.casefold(), name) for name in table.columns]
    if table.columns.duplicated().any():
        twice = table.columns[table.columns.duplicated()][0]
        raise DataError.at(path, f"the column {twice} stands there twice", "keep one of them")
    missing = [name for name in required if name not in table]
    if missing:
        fault = f"the column {', '.join(missing)} is missing"
        raise DataError.at(path, fault, f"give the columns {', '.join(required)}")
    if table.empty:
        raise DataError.at(path, "the table has no rows", "give one row per Id")
    _check_ids(path, table)
    return table


def table_path(root: Path, name: str) -> Path:
    """The path of a root's table: a CSV file, or a workbook if there is no CSV file."""
    path = root / f"{name}.csv"
    books = [book for suffix in WORKBOOK_SUFFIXES if (book := root / f"{name}{suffix}").exists()]
    if books and path.exists():
        raise DataError.at(path, f"{books[0].name} lies beside it", "keep one of the two")
    return books[0] if books else path


def _load_train(root: Path, classes: tuple[str, ...], layout: Layout, refuse: Refuse) -> tuple[pd.DataFrame, Clips]:
    """The training table in the form of the challenge, and its clips by Id."""
    path = table_path(root, "train")
    table = read_table(path, ["Id"], layout, classes)
    clips, missing = _matched(root / "train", table["Id"], path, refuse)
    for id in missing:
        fault = f"Id {id} has no folder {root / 'train' / id}"
        refuse(DataError.at(path, fault, "deliver the sequence or remove the row"))
    table = table[table["Id"].isin(clips)].reset_index(drop=True)
    train = _labelled(path, table, classes, layout, clips)
    _place_moments(path, train, clips, layout, refuse)
    return train, clips


def _matched(folder: Path, ids: pd.Series, table: Path, refuse: Refuse) -> tuple[Clips, list[str]]:
    """The clips of a split by Id, and the Ids without one. Folders without an Id are refused."""
    paths, unknown = match_entries(folder, ids)
    for name in unknown:
        refuse(DataError.at(folder / name, f"{table.name} has no row for it", "add the row or remove the folder"))
    return {id: ClipLocation(path) for id, path in paths.items()}, [id for id in ids if id not in paths]


def _place_moments(path: Path, train: pd.DataFrame, clips: Clips, layout: Layout, refuse: Refuse) -> None:
    """Replace the frame numbers of the moments by positions from 0. Numbers that are no frames are refused."""
    moments = [name for name in MOMENT_COLUMNS if name in train]
    for row in train.index[train[moments].notna().any(axis=1)]:
        numbers = frame_numbers(clips[train.at[row, "Id"]].path, layout)
        for name in moments:
            if pd.isna(train.at[row, name]):
                continue
            number = int(train.at[row, name])
            train.at[row, name] = numbers.index(number) if number in numbers else pd.NA
            if number not in numbers:
                fault = f"Id {train.at[row, 'Id']} names frame {number} of {len(numbers)}"
                remedy = f"count frame positions from 0, or say in {LAYOUT} how they are counted"
                refuse(DataError.at(path, fault, remedy))


def _labelled(path: Path, table: pd.DataFrame, classes: tuple[str, ...], layout: Layout, clips: Clips) -> pd.DataFrame:
    """The texts of a training table as the columns of `load_labels`."""
    missing = [name for name in classes if name not in table]
    if missing and "emotion" not in table:
        fault = f"the column {', '.join(missing)} is missing"
        remedy = f"give the columns Id, {', '.join(classes)}, or name the column of an emotion in {LAYOUT}"
        raise DataError.at(path, fault, remedy)
    table = add_classes(path, table, classes, layout)
    for first, second in combinations(parse_moments(path, table), 2):  # each of the three may be unknown
        wrong = (table[first] > table[second]).fillna(False)
        if wrong.any():
            fault = f"Id {first_id(table, wrong)} has its {first} after its {second}"
            raise DataError.at(path, fault, "correct the frame positions")
    return _checked(path, table, classes, layout, clips)


def _checked(path: Path, table: pd.DataFrame, classes: tuple[str, ...], layout: Layout, clips: Clips) -> pd.DataFrame:
    """The columns of `DataRoot.train`, with a subject in each row and action units in one spelling."""
    _check_ids(path, table)
    _fill_subjects(path, table, layout.subject_pattern, clips)
    if "units" in table:
        units = [parse_units(text) for text in table["units"]]
        table["units"] = ["+".join(f"{side}{number}" for side, number in row) for row in units]  # such as 4+L7
    return table[["Id", "subject", *classes, *(name for name in (*MOMENT_COLUMNS, "units") if name in table)]]


def _check_ids(path: Path, table: pd.DataFrame) -> None:
    repeated = table["Id"].duplicated()
    if repeated.any():
        raise DataError.at(path, f"Id {first_id(table, repeated)} stands there twice", "keep one row per Id")
    too_long = table["Id"].str.encode("utf-8").str.len() > MAX_ID
    unfit = ~table["Id"].str.fullmatch(r"[^/\\\x00-\x1f]+") | table["Id"].isin([".", ".."]) | too_long
    if unfit.any():
        fault = f"Id {first_id(table, unfit)[:MAX_ID]!r} is not the name of a folder"
        raise DataError.at(path, fault, "correct the Id")


def _fill_subjects(path: Path, table: pd.DataFrame, pattern: str, clips: Clips) -> None:
    """Fill in the subjects that the table lacks, by the pattern, from the Id or from the name of its folder."""
    if "subject" not in table:
        table["subject"] = ""
    empty = table["subject"] == ""
    if empty.any() and pattern:
        where = f"subject pattern {pattern!r}"
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise DataError.at(where, f"it is no regular expression ({error})", "correct it") from error
        if groups != 1:
            raise DataError.at(where, f"it has {groups} groups", "put one pair of brackets in it")
        ids = table.loc[empty, "Id"]
        folders = ids.map(lambda id: clips[id].path.name if id in clips else "")
        by_id, by_folder = (names.str.extract(pattern, expand=False) for names in (ids, folders))
        table.loc[empty, "subject"] = by_id.fillna(by_folder).fillna("")
        empty = table["subject"] == ""
    if empty.any():
        fault = f"Id {first_id(table, empty)} has no subject, and splits are by subject"
        raise DataError.at(path, fault, "add a subject column, or a subject pattern that fits every Id")
