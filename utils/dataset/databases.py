"""Reads data roots in which a table of another form, or the folders, list the clips: the databases of `presets`."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import pandas as pd

from utils.dataset.cells import read_cells
from utils.dataset.folders import ClipLocation, Clips, find_inside
from utils.dataset.labels import MAX_FRAMES, add_classes, parse_moments
from utils.dataset.layout import FIELD, LAYOUT, Layout, check_inside, filled, plain
from utils.dataset.readers import numbered_files, video_of
from utils.errors import DataError, reading

MAX_PLACES = 500  # folders below the root that are searched for clips
SAMPLED_ROWS = 20  # rows that are tried out in each folder that may hold the clips


def read_listed(root: Path, classes: Sequence[str], layout: Layout) -> tuple[pd.DataFrame, Clips, list[str]]:
    """The table (Id, subject, classes, moments as positions, units), the clip of each Id, and warnings.

    Rows without a folder are left out with a warning, if they are at most half of all rows, and so are rows whose
    emotion means no class.
    """
    if layout.tree:
        base, path = _tree_base(root, layout), root / LAYOUT
        names = [match[1] for match in FIELD.finditer(layout.tree)]
        table = pd.DataFrame(list(_tree_folders(base, layout)), columns=names, dtype=str)
    else:
        path, table = _table_rows(root, layout)
    for name in ("subject", *(["emotion"] if not set(classes) <= set(table) else [])):
        if name not in table:
            raise DataError.at(path, f"it has no column {name}", f"say in {LAYOUT}, [columns], what it is called")
    if not layout.tree:
        base = _table_base(root, path, table, layout)
    relative = _filled(path, "folder", layout.folder or layout.tree, table)
    ids = _filled(path, "id", layout.id, table) if layout.id else relative
    table["Id"] = [id.replace("/", "_") for id in ids]
    table["subject"] = table["subject"].str.replace(r"^0+(?=\d+$)", "", regex=True)  # a table may have 1 and "01"
    listings: dict = {}
    folders = pd.Series([find_inside(base, folder, listings) for folder in relative], dtype=object)
    missing, warnings = folders.isna(), []
    if missing.any():
        warnings.append(_missing(path, base, table["Id"], layout, missing))
        table, folders = table[~missing].reset_index(drop=True), folders[~missing]
    if table["Id"].duplicated().any():
        twice = table["Id"][table["Id"].duplicated()].iloc[0]
        raise DataError.at(path, f"two rows are the clip {twice}", f'tell them apart by id = "..." in {LAYOUT}')
    clips = {id: ClipLocation(folder) for id, folder in zip(table["Id"], folders, strict=True)}
    count = len(table)
    table = add_classes(path, table, classes, layout)
    if len(table) < count:
        warnings.append(f"{path}: {count - len(table)} clips are left out, as {LAYOUT} says of their emotions.")
    table, faults = _place_moments(path, table, clips, layout)
    return table, {id: clips[id] for id in table["Id"]}, warnings + faults


def _table_rows(root: Path, layout: Layout) -> tuple[Path, pd.DataFrame]:
    """The path of the table that the layout names, and its texts, with the column names of this project."""
    any_case = re.sub(r"[^\W\d_]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", layout.table)
    paths = sorted(file for file in root.glob(any_case) if not file.name.startswith((".", "~")))
    if len(paths) != 1:
        fault = f"table = {layout.table!r} fits {len(paths)} files here"
        raise DataError.at(root / LAYOUT, fault, "name the one table, a CSV file or a workbook")
    table = read_renamed(paths[0], layout)
    if table.empty:
        raise DataError.at(paths[0], "the table has no rows", "give one row per clip")
    filled_in = (table != "").sum(axis=1) > 1  # totals and notes below a table have one cell
    return paths[0], table[filled_in].reset_index(drop=True)


def read_renamed(path: Path, layout: Layout) -> pd.DataFrame:
    """The texts of a table, whose columns are renamed as the layout's [columns] says."""
    table = read_cells(path, layout.skip_rows, layout.sheet).reset_index(drop=True)
    by_plain: dict[str, str] = {}
    for column in table:
        by_plain.setdefault(plain(column), column)
    names = {}
    for name, spellings in layout.columns.items():
        columns = [by_plain[plain(spelling)] for spelling in spellings if plain(spelling) in by_plain]
        if columns:
            names[columns[0]] = name
        elif len(spellings) == 1 and name in ("Id", "emotion", "subject"):
            raise DataError.at(path, f"it has no column {spellings[0]!r}, as {LAYOUT} says", "correct [columns] there")
    replaced = [name for column, name in names.items() if name in table and column != name]
    return table.drop(columns=replaced).rename(columns=names)


def _tree_base(root: Path, layout: Layout) -> Path:
    """The one folder below which folders match the tree's template."""
    bases = [base for base in _candidates(root, layout) if next(_tree_folders(base, layout), None)]
    if len(bases) != 1:
        seen = ", ".join(str(base.relative_to(root)) for base in bases[:4]) or "none"
        fault = f"folders like {layout.tree!r} lie in {len(bases)} places ({seen})"
        raise DataError.at(root / LAYOUT, fault, 'name one of them as clips = "..."')
    return bases[0]


def _tree_folders(base: Path, layout: Layout) -> Iterator[list[str]]:
    """The cells that the tree's template finds in each matching folder, in the order of the folders' names."""
    pattern = re.compile(FIELD.sub("([^/]+)", re.sub(r"([.+*?^$()\[\]|\\])", r"\\\1", layout.tree)))
    with reading(base, "the folder", "make it readable"):
        for path in sorted(base.glob(FIELD.sub("*", layout.tree))):
            match = pattern.fullmatch(path.relative_to(base).as_posix())
            if match and path.is_dir() and not any(part.startswith(".") for part in match.groups()):
                yield list(match.groups())


def _candidates(root: Path, layout: Layout) -> list[Path]:
    """Folders that may hold the clips: the one that the layout names, or the root and the two levels below it."""
    if layout.clips:
        folders = sorted(path for path in root.glob(layout.clips) if path.is_dir())
        if len(folders) != 1:
            fault = f"clips = {layout.clips!r} fits {len(folders)} folders"
            raise DataError.at(root / LAYOUT, fault, "name the one folder in which the clips' folders lie")
        return folders
    with reading(root, "the data root", "make it readable"):
        below = (path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_dir())
        return [root, *sorted(islice((path for path in below if not path.name.startswith(".")), MAX_PLACES))]


def _table_base(root: Path, path: Path, table: pd.DataFrame, layout: Layout) -> Path:
    """The folder below which most of the sampled rows have a folder."""
    sample = table.iloc[:: max(1, len(table) // SAMPLED_ROWS)].head(SAMPLED_ROWS)
    folders = _filled(path, "folder", layout.folder, sample)
    counts = {}
    for base in _candidates(root, layout):
        listings: dict = {}
        if count := sum(find_inside(base, folder, listings) is not None for folder in folders):
            counts[base] = count
    best = [base for base, count in counts.items() if count == max(counts.values())]
    if not best:
        fault = f"no folder {folders[0]} lies here, as folder = {layout.folder!r} says of the first row"
        raise DataError.at(root, fault, f"put the clips here, or correct folder or clips in {LAYOUT}")
    if len(best) > 1:
        names = " and ".join(str(base.relative_to(root)) for base in best[:2])
        raise DataError.at(root, f"its clips lie in {names}", f'name one of them as clips = "..." in {LAYOUT}')
    return best[0]


def _filled(path: Path, key: str, template: str, table: pd.DataFrame) -> list[str]:
    """The template filled with the cells of each row. Raises DataError for a missing column and an unsafe path."""
    texts = []
    for row in table.to_dict("records"):
        try:
            texts.append(filled(template, row))
        except KeyError as error:
            fault = f"it has no column {error.args[0]!r}, which {key} = {template!r} names"
            raise DataError.at(path, fault, f"correct {LAYOUT}") from None
        check_inside(path, key, texts[-1])
    return texts


def _missing(path: Path, base: Path, ids: pd.Series, layout: Layout, missing: pd.Series) -> str:
    """A warning about rows without a folder. Raises DataError if they are more than half of all."""
    fault = f"{missing.sum()} of {len(missing)} clips have no folder in {base}, the first is {ids[missing].iloc[0]}"
    if missing.mean() > 0.5:
        raise DataError.at(path, fault, f"deliver them, or correct folder = {layout.folder!r} in {LAYOUT}")
    return f"{path}: {fault}. They are left out."


def frame_numbers(path: Path, layout: Layout) -> Sequence[int]:
    """The numbers that a table gives to the frames of a folder or video, in ascending order."""
    first = int(layout.frames == "from 1")
    if video_of(path):  # its frames are counted when it is opened
        return range(first, MAX_FRAMES)
    numbers = list(numbered_files(path))
    return numbers if layout.frames == "numbers" else range(first, first + len(numbers))


def _place_moments(path: Path, table: pd.DataFrame, clips: Clips, layout: Layout) -> tuple[pd.DataFrame, list[str]]:
    """The table with its moments as positions, and warnings. If the layout says so, recordings are cut into `clips`.

    Moments that are no frames become unknown, and a clip that cannot be cut out is left out, both with a warning.
    """
    if layout.cut and not {"onset", "offset"} <= set(table):
        raise DataError.at(path, "cut needs its onset and offset", f"name the columns in {LAYOUT}, or set cut = false")
    moments = parse_moments(path, table)
    numbers_of = cache(lambda folder: frame_numbers(folder, layout))
    uncut, unplaced = [], []
    for row in table.index if moments else ():
        id = table.at[row, "Id"]
        marked = {name: int(table.at[row, name]) for name in moments if not pd.isna(table.at[row, name])}
        numbers = numbers_of(clips[id].path) if marked else ()
        if layout.cut:
            first, last = marked.get("onset", -1), marked.get("offset", -1)
            if not (first < last and first in numbers and last in numbers):
                uncut.append(id)
                continue
            clips[id] = ClipLocation(clips[id].path, (first, last))
            numbers = [number for number in numbers if first <= number <= last]
        positions = _positions(marked, numbers)
        if marked and not positions:
            unplaced.append(id)
        for name in moments:
            table.at[row, name] = positions.get(name, pd.NA)
    faults = [
        (unplaced, "have onset, apex and offset that are no frames of theirs in this order: they count as unknown"),
        (uncut, "are left out: their onset and offset are no two frames of the recording in this order"),
    ]
    warnings = [f"{path}: {len(ids)} clips ({', '.join(ids[:5])}) {fault}." for ids, fault in faults if ids]
    return table[~table["Id"].isin(uncut)].reset_index(drop=True), warnings


def _positions(marked: dict[str, int], numbers: Sequence[int]) -> dict[str, int]:
    """The positions of the marked moments among the frames; none if a frame is missing or the order is wrong."""
    if not all(number in numbers for number in marked.values()):
        return {}
    positions = {name: numbers.index(number) for name, number in marked.items()}
    return positions if list(positions.values()) == sorted(positions.values()) else {}
