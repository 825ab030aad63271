"""Finds the folder or video that belongs to an Id."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from utils.dataset.sequence import Span
from utils.dataset.videos import VIDEO_SUFFIXES
from utils.errors import DataError, reading


class ClipLocation(NamedTuple):
    """Where the frames of an Id lie: a folder or a video, and the span of the clip if that is a longer recording."""

    path: Path
    span: Span | None = None


Clips = dict[str, ClipLocation]  # by Id


def entries(folder: Path) -> dict[str, Path]:
    """The folders and videos in a folder by name, videos without their suffix; empty if the folder does not exist.

    Raises DataError for a folder and a video of the same name.
    """
    paths: dict[str, Path] = {}
    if not folder.is_dir():
        return paths
    with reading(folder, "the folder", "make it readable"), os.scandir(folder) as listing:
        for entry in sorted(listing, key=lambda entry: entry.name):
            name, suffix = os.path.splitext(entry.name)
            is_video = suffix.lower() in VIDEO_SUFFIXES and entry.is_file()
            if entry.name.startswith(".") or not (is_video or entry.is_dir()):
                continue
            twin = paths.setdefault(name if is_video else entry.name, folder / entry.name)
            if twin.name != entry.name:
                raise DataError.at(folder / entry.name, f"{twin.name} is of the same Id", "keep one of them")
    return paths


def walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder of a data root with its files, in an order that does not depend on the file system.

    Hidden files and folders and the data card are left out. Links are followed, but each folder is entered once.
    """
    seen = set()
    for name, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(name)
        new = real not in seen
        folders[:] = sorted(folder for folder in folders if new and folder[0] != "." and folder != "card")
        yield Path(name), [Path(name, file) for file in sorted(files) if new and file[0] != "."]
        seen.add(real)


def match_entries(folder: Path, ids: Iterable[str]) -> tuple[dict[str, Path], list[str]]:
    """The path of every Id that has an entry in the folder, and the names of the entries that have no Id.

    The name of an entry is its Id. A numeric Id without such an entry matches the entry whose first number it is: 7
    matches "007_S03". Raises DataError if it matches several.
    """
    ids, present = list(ids), entries(folder)
    paths = {id: present[id] for id in ids if id in present}
    by_number = defaultdict(list)
    for name in present:
        number = re.match(r"\D*(\d+)", name)
        if number and name not in paths:
            by_number[int(number[1])].append(name)
    for id in ids:
        names = by_number.pop(int(id), []) if id.isdecimal() and id not in paths else []
        if len(names) > 1:
            fault = f"Id {id} may be {names[0]} or {names[1]}: both have its number"
            raise DataError.at(folder, fault, "rename one of them to the Id")
        if names:
            paths[id] = present[names[0]]
    matched = set(paths.values())
    return paths, sorted(name for name, path in present.items() if path not in matched)


def find_inside(base: Path, relative: str, listings: dict[Path, dict[str, list[Path]]]) -> Path | None:
    """The folder or video at a path below `base`, or None if one of its names matches nothing or several.

    A name that does not exist may differ in case and in the zeros before numbers.
    listings: the folders that were listed in earlier calls; this call adds its own.
    """
    for part in relative.split("/"):
        if (base / part).exists():
            base = base / part
            continue
        if base not in listings:
            listings[base] = defaultdict(list)
            for name, path in entries(base).items():
                listings[base][_loose(name)].append(path)
        matches = listings[base].get(_loose(part), [])
        if len(matches) != 1:
            return None
        base = matches[0]
    return base


def _loose(name: str) -> str:
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", name.strip()).casefold()
