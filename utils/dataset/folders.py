"""Which folder, or video, belongs to which Id."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from utils.dataset.sequence import Span
from utils.dataset.videos import VIDEO_SUFFIXES
from utils.errors import DataError, reading


class ClipLocation(NamedTuple):
    """Where the frames of an Id lie: a folder or a video, and which of its frames where it is a longer recording."""

    path: Path
    span: Span | None = None


def entries(folder: Path) -> dict[str, Path]:
    """The folders and videos in a folder by name, videos without their suffix; empty where there is no such folder.

    Raises DataError for a folder and a video of one name.
    """
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    with reading(folder, "the folder", "make it readable"), os.scandir(folder) as listing:
        for entry in sorted(listing, key=lambda entry: entry.name):
            name, suffix = os.path.splitext(entry.name)
            video = suffix.lower() in VIDEO_SUFFIXES and entry.is_file()
            if entry.name.startswith(".") or not (video or entry.is_dir()):
                continue
            twin = found.setdefault(name if video else entry.name, folder / entry.name)
            if twin.name != entry.name:
                raise DataError.at(folder / entry.name, f"{twin.name} is of the same Id", "keep one of them")
    return found


def walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder of a data root with the files in it, in one order wherever it lies.

    Hidden ones and the card are left out; links are followed, and a folder to which several lead is entered once.
    """
    seen = set()
    for name, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(name)
        new = real not in seen
        folders[:] = sorted(folder for folder in folders if new and folder[0] != "." and folder != "card")
        yield Path(name), [Path(name, file) for file in sorted(files) if new and file[0] != "."]
        seen.add(real)


def match_entries(folder: Path, ids: Iterable[str]) -> tuple[dict[str, Path], list[str]]:
    """The path of every Id that has one, and the names of folders and videos that no Id has.

    An Id is the name, or where none is, a whole number with which one name begins: 7 is "007_S03". Raises DataError
    where several names begin with it.
    """
    ids, present = list(ids), entries(folder)
    found = {id: present[id] for id in ids if id in present}
    left = {name: path for name, path in present.items() if name not in found}
    by_number = defaultdict(list)
    for name in left:
        number = re.match(r"\D*(\d+)", name)
        if number:
            by_number[int(number[1])].append(name)
    for id in ids:
        if id in found or not id.isdecimal():
            continue
        names = by_number.get(int(id), [])
        if len(names) > 1:
            fault = f"Id {id} may be {names[0]} or {names[1]}: both have its number"
            raise DataError.at(folder, fault, "rename one of them to the Id")
        if names:
            found[id] = left[names[0]]
            left.pop(names[0])
            by_number[int(id)] = []
    return found, sorted(left)


def find_inside(base: Path, parts: Sequence[str], cache: dict[Path, dict[str, list[Path]]]) -> Path | None:
    """The folder or video below `base` of these names, each as it is, else whatever its case and zeros before numbers.

    cache: what was listed before, filled here. None where a name fits nothing, or several.
    """
    for part in parts:
        exact = base / part
        if exact.exists():
            base = exact
            continue
        if base not in cache:
            cache[base] = defaultdict(list)
            for name, path in entries(base).items():
                cache[base][_loose(name)].append(path)
        fitting = cache[base].get(_loose(part), [])
        if len(fitting) != 1:
            return None
        base = fitting[0]
    return base


def _loose(name: str) -> str:
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", name.strip()).casefold()
