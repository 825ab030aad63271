"""What the readers of mesh files share: parts, how they are joined to one mesh, and the files that a mesh may name.

A mesh file is read as pieces, one per material, each with vertices of its own. `join` keeps those that can be drawn.
What a mesh names (textures, material libraries, buffers) is looked for by its name inside the clip's folder alone, so
that no text in a mesh leads elsewhere, and that all of it counts as an input of the clip's views.
"""

import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.dataset.images import IMAGE_SUFFIXES
from utils.errors import DataError

AGAIN = "export or copy this frame again"  # remedy of a damaged file
MOST_PARTS = 1000  # of one mesh file; each is looked for in all faces, and drawn by itself
DEEPEST = 8  # folders above a file that its name may give; a longer path is of another machine anyway


class Embedded(NamedTuple):
    """An image inside a glTF file: the file, and the image's number there."""

    path: Path
    index: int


@dataclass(frozen=True)
class Piece:
    """One material's share of a mesh file, as it stands there.

    vertices (V, 3) in the file's unit; faces (F, 3); where it has them uv (V, 2), v up, and colours (V, 3) in 0..1;
    image: where its texture is; missing: the name of a texture that it asks for and that is not there; clamp: whether
    the texture ends at its border, rather than repeats.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None = None
    colours: np.ndarray | None = None
    image: Path | Embedded | None = None
    missing: str = ""
    clamp: bool = False


@dataclass(frozen=True)
class Part:
    """Faces (F, 3) of a mesh that share one texture; without image they have the colours of the vertices."""

    faces: np.ndarray
    image: Path | Embedded | None
    clamp: bool = False


@dataclass(frozen=True)
class Mesh:
    """A mesh file that can be drawn: vertices (V, 3) and uv (V, 2) of all parts, and which faces have which texture.

    colours (V, 3) float in 0..1 where no part has a texture, whose uv are None before they are checked, and then zeros;
    warnings: what was left out; counts: numbers of the file's own lines (vertices, texture coordinates, faces) by which
    frames of a sequence are compared, empty where unknown.
    """

    vertices: np.ndarray
    uv: np.ndarray | None
    parts: tuple[Part, ...]
    colours: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    counts: tuple[int, ...] = field(default=())

    @property
    def faces(self) -> np.ndarray:
        """Faces (F, 3) of all parts."""
        return self.parts[0].faces if len(self.parts) == 1 else np.concatenate([part.faces for part in self.parts])


# Joining ------------------------------------------------------------------------------------------


def join(path: Path, pieces: list[Piece], counts: tuple[int, ...] = ()) -> Mesh:
    """The mesh of the pieces that have a texture; where none has one, of those that have colours.

    Raises DataError for a mesh without faces, one that cannot be drawn, and for a texture that is named and missing.
    """
    pieces = [piece for piece in pieces if len(piece.faces)]
    if not pieces:
        raise DataError.at(path, "the mesh is empty", AGAIN)
    for piece in pieces:
        _check_piece(path, piece)
    pieces = _with_textures(path, pieces)
    drawn = [piece for piece in pieces if piece.image is not None and piece.uv is not None]
    if not drawn:
        drawn = [piece for piece in pieces if piece.colours is not None]
        if not drawn:
            raise _cannot_be_drawn(path, pieces)
    left_out = dict.fromkeys(piece.name for piece in pieces if not any(piece is other for other in drawn))
    warnings = (_left_out(left_out),) if left_out else ()
    return _joined(drawn, warnings, counts)


def _check_piece(path: Path, piece: Piece) -> None:
    """Raise DataError for a piece that reaches beyond itself: joined to others it would pass for whole."""
    count = len(piece.vertices)
    if piece.faces.min() < 0 or piece.faces.max() >= count:
        raise DataError.at(path, f"its faces name vertices beyond the {count} there are", "export it again")
    if any(values is not None and len(values) != count for values in (piece.uv, piece.colours)):
        raise DataError.at(path, f"a part of {count} vertices has more or fewer uv or colours", "export it again")


def too_many_parts(path: Path) -> DataError:
    return DataError.at(path, f"it has more than {MOST_PARTS:,} parts or materials", "join them, and bake one texture")


def _with_textures(path: Path, pieces: list[Piece]) -> list[Piece]:
    """The pieces as they are, or with the image of the mesh's own stem where no piece has one."""
    missing = list(dict.fromkeys(piece.missing for piece in pieces if piece.missing and piece.uv is not None))
    if not any(piece.image for piece in pieces) and len(missing) < 2:
        beside = image_beside(path)
        if beside is not None:
            return [Piece(**{**vars(piece), "image": beside, "missing": ""}) for piece in pieces]
    if missing:
        named = ", ".join(_short(name) for name in missing[:5])
        own = ", ".join(_short(re.split(r"[\\/]", name)[-1]) for name in missing[:5])
        raise DataError.at(
            path, f"its texture is missing (the file names {named})", f"put the image beside it, as {own}"
        )
    return pieces


def _cannot_be_drawn(path: Path, pieces: list[Piece]) -> DataError:
    if all(piece.uv is None for piece in pieces):
        return DataError.at(path, "the mesh has no texture coordinates", "export it with UVs")
    return DataError.at(path, "its texture is missing", f"put the image beside it, as {path.stem}.png")


def _left_out(names: dict[str, None]) -> str:
    shown = ", ".join(_short(name) for name in list(names)[:5])
    return f"parts without a texture are left out ({shown}). Remedy: give them one, if they should be seen."


def _short(name: str, length: int = 80) -> str:
    """A name from a file as a message can hold it: its end, which tells most."""
    return name if len(name) <= length else f"...{name[-length:]}"


def _joined(pieces: list[Piece], warnings: tuple[str, ...], counts: tuple[int, ...]) -> Mesh:
    coloured = pieces[0].image is None
    starts = np.cumsum([0] + [len(piece.vertices) for piece in pieces])
    whole: dict[tuple, list[np.ndarray]] = {}  # pieces of one texture are drawn at once
    for piece, start in zip(pieces, starts[:-1], strict=True):
        faces = (piece.faces + start).astype(np.int32)
        whole.setdefault((None if coloured else piece.image, piece.clamp), []).append(faces)
    return Mesh(
        np.concatenate([piece.vertices for piece in pieces]),
        None if coloured else np.concatenate([whole_tiles(piece) for piece in pieces]),
        tuple(Part(np.concatenate(faces), image, clamp) for (image, clamp), faces in whole.items()),
        np.concatenate([piece.colours for piece in pieces]) if coloured else None,
        warnings,
        counts,
    )


def whole_tiles(piece: Piece) -> np.ndarray:
    """The piece's uv (V, 2), moved by whole tiles where all of them lie in one tile beside 0..1: it repeats there."""
    uv = piece.uv
    if piece.clamp or not np.isfinite(uv).all():
        return uv
    low, high = uv.min(0), uv.max(0)
    tile = np.where((low >= 0) & (high <= 1), 0, np.floor((low + high) / 2))
    return uv - tile if tile.any() and ((low - tile >= 0) & (high - tile <= 1)).all() else uv


# Named files --------------------------------------------------------------------------------------


def image_beside(path: Path) -> Path | None:
    """The image of the mesh's own stem in its folder."""
    found = (_entry(path, path.parent, path.stem + suffix) for suffix in IMAGE_SUFFIXES)
    return next((image for image in found if image is not None), None)


def find_named(path: Path, name: str) -> Path | None:
    """The file that the mesh at `path` calls `name`, in the clip's folder or below it; None if it is not there.

    Names come from other machines: with drives and folders of theirs, either slash, quotes, letters of another case.
    The longest end of the path that is there counts. What a path says of folders above the clip's is not followed.
    Raises DataError for a link that leads out of the folders of the clip and of the mesh file.
    """
    name = name.strip().strip("\"'").strip()
    steps = [step for step in re.split(r"[\\/]+", re.sub(r"^[A-Za-z]:", "", name)) if step not in ("", ".")]
    steps = steps[len(steps) - steps[::-1].index("..") :] if ".." in steps else steps
    ends = [steps[start:] for start in range(max(0, len(steps) - DEEPEST), len(steps))]
    for end in [[name], *ends]:  # the name as it is first: unpacked by some, a Windows path becomes a file's name
        found = _below(path, end)
        if found is not None:
            return found
    return None


def _below(path: Path, steps: list[str]) -> Path | None:
    folder = path.parent
    for step in steps[:-1]:
        folder = _entry(path, folder, step, is_folder=True)
        if folder is None:
            return None
    return _entry(path, folder, steps[-1])


def _entry(path: Path, folder: Path, name: str, is_folder: bool = False) -> Path | None:
    """What the folder lists under this name, of any case. The name itself is never given to the file system.

    Hidden files and linked folders are no input of the views' key, so that they do not count.
    """
    if name.startswith("."):
        return None
    try:
        listing = os.listdir(folder)
    except OSError:
        return None
    alike = [name] if name in listing else sorted(other for other in listing if _folded(other) == _folded(name))
    for entry in (folder / other for other in alike):
        if is_folder and entry.is_dir() and not entry.is_symlink():
            return entry
        if not is_folder and entry.is_file():
            return _not_led_out(path, entry)
    return None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _not_led_out(path: Path, found: Path) -> Path:
    """The file, if it is one of the clip's folder, or, as a link, one that lies where the linked mesh lies."""
    if found.is_symlink():
        real, homes = found.resolve(), (path.parent.resolve(), path.resolve().parent)
        if not any(real.is_relative_to(home) for home in homes):
            raise DataError.at(
                path,
                f"its file {found.name} is a link that leads out of the clip's folder",
                "put the file itself there",
            )
    return found
