"""Data roots whose clips a table of their own lists, or their folders: the databases of `presets` (`layout.toml`)."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from utils.dataset.cells import read_cells
from utils.dataset.folders import ClipLocation, find_inside
from utils.dataset.labels import MAX_FRAMES, MOMENT_COLUMNS, add_classes, as_position
from utils.dataset.layout import FIELD, LAYOUT, Layout, check_inside, filled, plain
from utils.dataset.readers import numbered_files, video_of
from utils.errors import DataError, reading

MAX_PLACES = 500  # folders below the root in which the clips are looked for
TRIED = 20  # rows by which a place is judged


def read_listed(
    root: Path, classes: Sequence[str], layout: Layout
) -> tuple[pd.DataFrame, dict[str, ClipLocation], list[str]]:
    """Rows of the table (Id, subject, classes, phases as positions, units) with their clips, and words on the others.

    Left out, with a word, are rows without a folder, up to half of them, and rows whose emotion means no class.
    """
    path, table = _rows(root, layout)
    for name in ("subject", *(["emotion"] if not set(classes) <= set(table) else [])):
        if name not in table:
            raise DataError.at(path, f"it has no column {name}", f"say in {LAYOUT}, [columns], what it is called")
    base = _base(root, path, table, layout)
    table["Id"], places = _ids(path, table, layout), _places(path, base, table, layout)
    table["subject"] = table["subject"].str.replace(r"^0+(?=\d+$)", "", regex=True)  # here 1, there "01"
    warnings = []
    missing = np.array([place is None for place in places])
    if missing.any():
        warnings.append(_missing(path, base, table, layout, missing))
        table, places = table[~missing].reset_index(drop=True), [place for place in places if place]
    if table["Id"].duplicated().any():
        twice = table["Id"][table["Id"].duplicated()].iloc[0]
        raise DataError.at(path, f"two rows are the clip {twice}", f'tell them apart by id = "..." in {LAYOUT}')
    clips = dict(zip(table["Id"], (ClipLocation(place) for place in places), strict=True))
    count = len(table)
    table = add_classes(path, table, classes, layout)
    if len(table) < count:
        warnings.append(f"{path}: {count - len(table)} clips are left out, as {LAYOUT} says of their emotions.")
    table, words = _place_phases(path, table, clips, layout)
    warnings += words
    return table, {id: clips[id] for id in table["Id"]}, warnings


# The rows -----------------------------------------------------------------------------------------------------------


def _rows(root: Path, layout: Layout) -> tuple[Path, pd.DataFrame]:
    """The table's texts, columns by the names of this project where they have one."""
    if layout.tree:
        return root / LAYOUT, _tree_rows(root, layout)
    found = sorted(file for file in root.glob(any_case(layout.table)) if not file.name.startswith((".", "~")))
    if len(found) != 1:
        fault = f"table = {layout.table!r} fits {len(found)} files here"
        raise DataError.at(root / LAYOUT, fault, "name the one table, a CSV file or a workbook")
    table = read_cells(found[0], layout.skip_rows, layout.sheet).reset_index(drop=True)
    table = renamed(found[0], table, layout)
    if table.empty:
        raise DataError.at(found[0], "the table has no rows", "give one row per clip")
    filled_in = (table != "").sum(axis=1) > 1  # totals and notes below a table have one cell or so
    return found[0], table[filled_in].reset_index(drop=True)


def any_case(pattern: str) -> str:
    """A pattern for file names that fits them in capitals and small letters."""
    return re.sub(r"[^\W\d_]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", pattern)


def renamed(path: Path, table: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """The table with its columns by the names that the layout gives them."""
    by_plain: dict[str, str] = {}
    for column in table:
        by_plain.setdefault(plain(column), column)
    names = {}
    for name, others in layout.columns.items():
        fitting = [by_plain[plain(one)] for one in others if plain(one) in by_plain]
        if fitting:
            names[fitting[0]] = name
        elif len(others) == 1 and name in ("Id", "emotion", "subject"):
            raise DataError.at(path, f"it has no column {others[0]!r}, as {LAYOUT} says", "correct [columns] there")
    clash = [name for column, name in names.items() if name in table and column != name]
    return table.drop(columns=clash).rename(columns=names)


def _tree_rows(root: Path, layout: Layout) -> pd.DataFrame:
    names = [match[1] for match in FIELD.finditer(layout.tree)]
    places = [place for place in _candidates(root, layout) if next(_tree_folders(place, layout), None)]
    if len(places) != 1:
        seen = ", ".join(str(place.relative_to(root)) for place in places[:4]) or "none"
        fault = f"folders like {layout.tree!r} lie in {len(places)} places ({seen})"
        raise DataError.at(root / LAYOUT, fault, 'name one of them as clips = "..."')
    rows = [values for values, _ in _tree_folders(places[0], layout)]
    return pd.DataFrame(rows, columns=names, dtype=str)


def _tree_folders(base: Path, layout: Layout) -> Iterator[tuple[list[str], Path]]:
    """The cells of the folders that the tree's template fits, in the order of their names."""
    pattern = re.compile(FIELD.sub("([^/]+)", re.sub(r"([.+*?^$()\[\]|\\])", r"\\\1", layout.tree)))
    with reading(base, "the folder", "make it readable"):
        for path in sorted(base.glob(FIELD.sub("*", layout.tree))):
            match = pattern.fullmatch(path.relative_to(base).as_posix())
            if match and path.is_dir() and not any(part.startswith(".") for part in match.groups()):
                yield list(match.groups()), path


# Where they lie -----------------------------------------------------------------------------------------------------


def _candidates(root: Path, layout: Layout) -> list[Path]:
    """Where the clips may lie: where the layout says, else the root and the folders below it, two levels deep."""
    if layout.clips:
        found = sorted(path for path in root.glob(layout.clips) if path.is_dir())
        if len(found) != 1:
            fault = f"clips = {layout.clips!r} fits {len(found)} folders"
            raise DataError.at(root / LAYOUT, fault, "name the one folder in which the clips' folders lie")
        return found
    with reading(root, "the data root", "make it readable"):
        below = (path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_dir())
        return [root, *sorted(islice((path for path in below if not path.name.startswith(".")), MAX_PLACES))]


def _base(root: Path, path: Path, table: pd.DataFrame, layout: Layout) -> Path:
    """The folder below which most of the first rows have theirs."""
    if layout.tree:
        return next(place for place in _candidates(root, layout) if next(_tree_folders(place, layout), None))
    first = table.iloc[:: max(1, len(table) // TRIED)].head(TRIED)
    counts = {}
    for place in _candidates(root, layout):
        cache: dict = {}
        found = sum(find_inside(place, parts, cache) is not None for parts in _parts(path, first, layout))
        if found:
            counts[place] = found
    best = [place for place, count in counts.items() if count == max(counts.values())]
    if len(best) == 1:
        return best[0]
    if not best:
        example = "/".join(_parts(path, first, layout)[0])
        fault = f"no folder {example} lies here, as folder = {layout.folder!r} says of the first row"
        raise DataError.at(root, fault, f"put the clips here, or correct folder or clips in {LAYOUT}")
    names = " and ".join(str(place.relative_to(root)) for place in best[:2])
    raise DataError.at(root, f"its clips lie in {names}", f'name one of them as clips = "..." in {LAYOUT}')


def _parts(path: Path, table: pd.DataFrame, layout: Layout) -> list[list[str]]:
    """The names of each row's folders below the base."""
    return [_filled(path, "folder", layout.folder or layout.tree, row).split("/") for row in table.to_dict("records")]


def _filled(path: Path, key: str, template: str, row: dict[str, str]) -> str:
    try:
        text = filled(template, row)
    except KeyError as error:
        fault = f"it has no column {error.args[0]!r}, which {key} = {template!r} names"
        raise DataError.at(path, fault, f"correct {LAYOUT}") from None
    check_inside(path, key, text)
    return text


def _places(path: Path, base: Path, table: pd.DataFrame, layout: Layout) -> list[Path | None]:
    cache: dict = {}
    return [find_inside(base, parts, cache) for parts in _parts(path, table, layout)]


def _ids(path: Path, table: pd.DataFrame, layout: Layout) -> list[str]:
    if layout.id:
        return [_filled(path, "id", layout.id, row).replace("/", "_") for row in table.to_dict("records")]
    return ["_".join(parts) for parts in _parts(path, table, layout)]


def _missing(path: Path, base: Path, table: pd.DataFrame, layout: Layout, missing: np.ndarray) -> str:
    """A word on rows without a folder. Raises DataError where they are more than half."""
    first = table["Id"][missing].iloc[0]
    fault = f"{missing.sum()} of {len(missing)} clips have no folder in {base}, the first is {first}"
    if missing.mean() > 0.5:
        raise DataError.at(path, fault, f"deliver them, or correct folder = {layout.folder!r} in {LAYOUT}")
    return f"{path}: {fault}. They are left out."


# Onset, apex, offset ------------------------------------------------------------------------------------------------


def _place_phases(
    path: Path, table: pd.DataFrame, clips: dict[str, ClipLocation], layout: Layout
) -> tuple[pd.DataFrame, list[str]]:
    """The phases as positions, unknown with a word where they cannot be; recordings are cut into clips.

    A clip that cannot be cut out is left out, with a word.
    """
    phases = [name for name in MOMENT_COLUMNS if name in table]
    if layout.cut and not {"onset", "offset"} <= set(phases):
        raise DataError.at(path, "cut needs its onset and offset", f"name the columns in {LAYOUT}, or set cut = false")
    for name in phases:
        table[name] = as_position(path, table, name)
    uncut, unplaced, numbers = [], [], {}
    for row in table.index if phases else ():
        id = table.at[row, "Id"]
        given = {name: table.at[row, name] for name in phases}
        known = {name: int(number) for name, number in given.items() if not pd.isna(number)}
        frames = _frames(clips[id].path, layout, numbers) if known else range(0)
        if layout.cut:
            span = known.get("onset", -1), known.get("offset", -1)
            if not (span[0] < span[1] and span[0] in frames and span[1] in frames):
                uncut.append(id)
                continue
            clips[id] = ClipLocation(clips[id].path, span)
            frames = [number for number in frames if span[0] <= number <= span[1]]
        positions = _positions(known, frames, layout)
        if positions is None:
            unplaced.append(id)
        for name in phases:
            table.at[row, name] = (positions or {}).get(name, pd.NA)
    words = [
        (unplaced, "have onset, apex and offset that are no frames of theirs in this order: they count as unknown")
    ]
    words += [(uncut, "are left out: their onset and offset are no two frames of the recording in this order")]
    warnings = [f"{path}: {len(ids)} clips ({', '.join(ids[:5])}) {fault}." for ids, fault in words if ids]
    return table[~table["Id"].isin(uncut)].reset_index(drop=True), warnings


def _frames(place: Path, layout: Layout, known: dict[Path, Sequence[int]]) -> Sequence[int]:
    """The numbers of a folder's frames, ascending: those of their names, or of a video from 0. known: kept by path."""
    if place not in known:
        video = video_of(place)
        known[place] = range(MAX_FRAMES) if video else list(numbered_files(place))
        if layout.frames != "numbers" and not video:
            known[place] = range(len(known[place]))
    return known[place]


def _positions(known: dict[str, int], frames: Sequence[int], layout: Layout) -> dict[str, int] | None:
    """Positions among the frames' numbers, or None where one is not there or the order is another."""
    first = 1 if layout.frames == "from 1" else 0
    where = {number: position for position, number in enumerate(frames)} if not isinstance(frames, range) else frames
    found = {}
    for name, number in known.items():
        if number - first not in where:
            return None
        found[name] = where[number - first] if isinstance(where, dict) else number - first - where.start
    values = [found[name] for name in MOMENT_COLUMNS if name in found]
    return found if values == sorted(values) else None
