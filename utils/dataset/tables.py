"""The tables of a data root, checked against its folders: `train.csv`, `sample_submission.csv`.

```
<DATA>/train/<Id>/...   test/<Id>/...   train.csv   sample_submission.csv   [solution.csv]
```
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from utils.dataset.cells import read_cells
from utils.dataset.reading import DataError, reading
from utils.dataset.sequences import Sequence, frame_files, open_sequence

CLASSES = ("Negative", "Positive", "Repression", "Surprise", "Others")  # in this order everywhere
PHASE_COLUMNS = ("onset", "apex", "offset")
MAX_FRAMES = 1_000_000  # of a sequence
MAX_ID = 200  # bytes: file systems end at 255, and artefacts add to the name


@dataclass(frozen=True)
class DataRoot:
    """A checked data root: the training table, the test Ids, and where the sequences lie."""

    root: Path
    classes: tuple[str, ...]
    train: pd.DataFrame  # Id, subject, one column per class, and onset, apex, offset where known
    sample_submission: pd.DataFrame
    warnings: tuple[str, ...]  # test clips without a folder; they get the training prior

    @property
    def test_ids(self) -> list[str]:
        return self.sample_submission["Id"].tolist()

    @property
    def solution(self) -> Path | None:
        """`solution.csv`, which comes with synthetic data only, for the local leaderboard alone."""
        path = self.root / "solution.csv"
        return path if path.exists() else None

    def folder(self, split: str, id: str) -> Path:
        """Folder of an Id in the split "train" or "test"."""
        return self.root / split / id

    def sequence(self, split: str, id: str) -> Sequence:
        """Open one Id of the split "train" or "test"."""
        return open_sequence(self.folder(split, id))


def open_data(data_root: str | Path, classes: Iterable[str], subject_pattern: str | None = None) -> DataRoot:
    """Read and check the tables of a data root against its folders.

    Raises DataError for what `load_labels` and `load_sample_submission` refuse, for a training Id without
    folder, a folder without row, an Id in both splits, phases beyond a sequence's end, and a test split without any
    folder. A single test Id without folder is a warning, because its row of the submission can still be filled with
    the training prior.
    """
    root, classes = Path(data_root), tuple(classes)
    train = load_labels(root, classes, subject_pattern)
    sample = load_sample_submission(root, classes)
    missing = _match_folders(root / "train", train["Id"], root / "train.csv")
    if missing:
        raise DataError.at(
            root / "train.csv",
            f"Id {missing[0]} has no folder {root / 'train' / missing[0]}",
            "deliver the sequence or remove the row",
        )
    missing = _match_folders(root / "test", sample["Id"], root / "sample_submission.csv")
    if len(missing) == len(sample):
        raise DataError.at(root / "test", "no test Id has a folder here", "check the data root")
    if both := sorted(set(train["Id"]) & set(sample["Id"])):
        raise DataError.at(
            root / "sample_submission.csv",
            f"Id {both[0]} stands in train.csv too",
            "keep each Id in one of the two: a clip that was trained on tests nothing",
        )
    _check_phase_range(root, train)
    warnings = tuple(f"test/{id}: there is no such folder, so it gets the training prior." for id in missing)
    return DataRoot(root, classes, train, sample, warnings)


def load_labels(
    data_root: str | Path, classes: Iterable[str], subject_pattern: str | None = None, file_name: str = "train.csv"
) -> pd.DataFrame:
    """Read `train.csv`: Id, subject (texts), classes (int8, 0/1), and onset, apex, offset (Int64) if known.

    `solution.csv` of synthetic data has the same form, and is read by `file_name="solution.csv"`.

    subject_pattern: a regular expression with one group, searched in the Id, that gives the subject where
        the table does not, such as `r"^(s\\d+)_"`.

    Raises DataError for missing columns, repeated Ids, labels other than 0/1, no subject, phases out of
    order.
    """
    path, classes = Path(data_root) / file_name, list(classes)
    table = read_table(path, ["Id", *classes])
    _fill_subjects(path, table, subject_pattern)
    for name in classes:
        table[name] = as_binary(path, table, name)
    phases = [name for name in PHASE_COLUMNS if name in table]
    for name in phases:
        table[name] = _as_position(path, table, name)
    for first, second in combinations(phases, 2):  # any of the three may be unknown
        wrong = (table[first] > table[second]).fillna(False)
        if wrong.any():
            raise DataError.at(
                path, f"Id {_first_id(table, wrong)} has its {first} after its {second}", "correct the frame positions"
            )
    return table[["Id", "subject", *classes, *phases]]


def load_sample_submission(data_root: str | Path, classes: Iterable[str]) -> pd.DataFrame:
    """Read `sample_submission.csv`, Id as text, columns and rows in the order of the file.

    Raises DataError if its columns are not exactly Id and the classes, or if an Id stands there twice.
    """
    path, expected = Path(data_root) / "sample_submission.csv", ["Id", *classes]
    table = read_table(path, expected)
    extra = [name for name in table if name not in expected]
    if extra:
        raise DataError.at(path, f"its column {extra[0]} is not a class", f"keep the columns {', '.join(expected)}")
    return table


def read_table(path: Path, required: list[str]) -> pd.DataFrame:
    """A CSV as texts, with its required columns present and its Ids unique and fit for folder names.

    The names that this project knows are found whatever their case and stray spaces ("Onset", "Negative ").
    """
    if not path.exists():
        raise DataError.at(path, "there is no such table", "put it there, or correct the path of the data root")
    known = {name.casefold(): name for name in (*required, "subject", *PHASE_COLUMNS)}
    table = read_cells(path).reset_index(drop=True)
    table.columns = [known.get(name.casefold(), name) for name in table.columns]
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
    repeated = table["Id"].duplicated()
    if repeated.any():
        raise DataError.at(path, f"Id {_first_id(table, repeated)} stands there twice", "keep one row per Id")
    too_long = table["Id"].str.encode("utf-8").str.len() > MAX_ID
    unfit = ~table["Id"].str.fullmatch(r"[^/\\\x00-\x1f]+") | table["Id"].isin([".", ".."]) | too_long
    if unfit.any():
        raise DataError.at(
            path, f"Id {_first_id(table, unfit)[:MAX_ID]!r} is not the name of a folder", "correct the Id"
        )
    return table


def _fill_subjects(path: Path, table: pd.DataFrame, pattern: str | None) -> None:
    if "subject" not in table:
        table["subject"] = ""
    empty = table["subject"] == ""
    if empty.any() and pattern:
        _check_pattern(pattern)
        table.loc[empty, "subject"] = table.loc[empty, "Id"].str.extract(pattern, expand=False).fillna("")
        empty = table["subject"] == ""
    if empty.any():
        raise DataError.at(
            path,
            f"Id {_first_id(table, empty)} has no subject, and splits are by subject",
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


def as_binary(path: Path, table: pd.DataFrame, name: str) -> pd.Series:
    """Labels as 0 and 1; "1.0" is 1, but words and other numbers are refused, not guessed."""
    numbers = pd.to_numeric(table[name], errors="coerce")
    wrong = ~numbers.isin([0, 1])
    if wrong.any():
        value = table[name][wrong].iloc[0][:MAX_ID]
        raise DataError.at(path, f"Id {_first_id(table, wrong)} has {name} = {value!r}", "labels are 0 or 1, not words")
    return numbers.astype(np.int8)


def _as_position(path: Path, table: pd.DataFrame, name: str) -> pd.Series:
    """Frame positions as nullable integers; an empty cell is an unknown position."""
    text = table[name]
    numbers = pd.to_numeric(text, errors="coerce")
    wrong = (text != "") & ~((numbers >= 0) & (numbers < MAX_FRAMES) & (numbers % 1 == 0))
    if wrong.any():
        raise DataError.at(
            path,
            f"Id {_first_id(table, wrong)} has {name} = {text[wrong].iloc[0][:MAX_ID]!r}",
            "give frame positions from 0, or leave the cell empty",
        )
    return numbers.astype("Int64")


def _first_id(table: pd.DataFrame, where: pd.Series) -> str:
    return table["Id"][where].iloc[0]


def _match_folders(folder: Path, ids: pd.Series, table: Path) -> list[str]:
    """The Ids without a folder. Raises DataError for a folder without Id."""
    with reading(folder, "the folder", "make it readable"):
        present = {entry.name for entry in folder.iterdir() if entry.is_dir()} if folder.is_dir() else set()
    unknown = sorted(name for name in present - set(ids) if not name.startswith("."))
    if unknown:
        raise DataError.at(folder / unknown[0], f"{table.name} has no row for it", "add the row or remove the folder")
    return [id for id in ids if id not in present]


def _check_phase_range(root: Path, train: pd.DataFrame) -> None:
    phases = [name for name in PHASE_COLUMNS if name in train]
    if not phases:
        return
    last = train[phases].max(axis=1)
    for id, position in zip(train["Id"], last, strict=True):
        if not pd.isna(position) and position >= (frames := len(frame_files(root / "train" / id))):
            raise DataError.at(
                root / "train.csv",
                f"Id {id} names frame {position} of {frames}",
                "count frame positions from 0 within the sequence",
            )
