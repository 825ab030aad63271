"""Shared by the readers of mesh formats: the pieces of a mesh, their joining, and the files that a mesh names.

A mesh file is read as pieces, one per material, each with its own vertices. `join` keeps the pieces that can be drawn.
A mesh may name other files: textures, material libraries and buffers. They are searched for by name within the clip's
folder alone. So a mesh cannot lead to files elsewhere, and all its files count as inputs of the clip's views.
"""

import os
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.dataset.images import IMAGE_SUFFIXES
from utils.errors import DataError

AGAIN = "export or copy this frame again"  # remedy for a damaged file
MAX_PARTS = 1000  # of one mesh file; each part costs a pass over all faces, and a draw call
MAX_DEPTH = 8  # last folders of a named path; the folders above them belong to another machine


class Embedded(NamedTuple):
    """An image inside a glTF file: the file, and the number of the image in it."""

    path: Path
    index: int


@dataclass(frozen=True, eq=False)
class Piece:
    """The part of a mesh file that has one material, as it is stored there."""

    name: str
    vertices: np.ndarray  # (V, 3), in the length unit of the file
    faces: np.ndarray  # (F, 3)
    uv: np.ndarray | None = None  # (V, 2), v up
    colours: np.ndarray | None = None  # (V, 3), in 0..1
    image: Path | Embedded | None = None  # its texture
    missing: str = ""  # name of a texture that it names and that does not exist
    clamp: bool = False  # whether the texture ends at its border instead of repeating


@dataclass(frozen=True)
class Part:
    """Faces (F, 3) of a mesh that share one texture; without an image they have the colours of the vertices."""

    faces: np.ndarray
    image: Path | Embedded | None
    clamp: bool = False


@dataclass(frozen=True)
class Mesh:
    """A mesh file that can be drawn."""

    vertices: np.ndarray  # (V, 3), of all parts
    uv: np.ndarray | None  # (V, 2), of all parts; None, and zeros after `check_mesh`, if no part has a texture
    parts: tuple[Part, ...]
    colours: np.ndarray | None = None  # (V, 3) float in 0..1, if no part has a texture
    warnings: tuple[str, ...] = ()  # about pieces that are left out
    counts: tuple[int, ...] = ()  # of the lines of vertices, uv and faces in an OBJ file, to compare frames

    @property
    def faces(self) -> np.ndarray:
        """Faces (F, 3) of all parts."""
        return self.parts[0].faces if len(self.parts) == 1 else np.concatenate([part.faces for part in self.parts])


def join(path: Path, pieces: list[Piece], counts: tuple[int, ...] = ()) -> Mesh:
    """The mesh of all pieces that have a texture; if there are none, of all pieces that have colours.

    Raises DataError for a mesh without faces, for one that cannot be drawn, and for a missing texture.
    """
    pieces = [piece for piece in pieces if len(piece.faces)]
    if not pieces:
        raise DataError.at(path, "the mesh is empty", AGAIN)
    for piece in pieces:  # numbers beyond a piece would reach into the pieces that are joined to it
        count = len(piece.vertices)
        if piece.faces.min() < 0 or piece.faces.max() >= count:
            raise DataError.at(path, f"its faces name vertices beyond the {count} there are", "export it again")
        if any(values is not None and len(values) != count for values in (piece.uv, piece.colours)):
            raise DataError.at(path, f"a part of {count} vertices has more or fewer uv or colours", "export it again")
    pieces = _with_textures(path, pieces)
    drawn = [piece for piece in pieces if piece.image is not None and piece.uv is not None]
    drawn = drawn or [piece for piece in pieces if piece.colours is not None]
    if not drawn and all(piece.uv is None for piece in pieces):
        raise DataError.at(path, "the mesh has no texture coordinates", "export it with UVs")
    if not drawn:
        raise DataError.at(path, "its texture is missing", f"put the image beside it, as {path.stem}.png")
    warnings = ()
    if names := dict.fromkeys(piece.name for piece in pieces if piece not in drawn):
        shown = ", ".join(_short(name) for name in list(names)[:5])
        warnings = (f"parts without a texture are left out ({shown}). Remedy: give them one, if they should be seen.",)
    return _joined(drawn, warnings, counts)


def too_many_parts(path: Path) -> DataError:
    return DataError.at(path, f"it has more than {MAX_PARTS:,} parts or materials", "join them, and bake one texture")


def _with_textures(path: Path, pieces: list[Piece]) -> list[Piece]:
    """The pieces. If none has an image, all get the image that lies beside the mesh and has its stem.

    Raises DataError for a texture that is named and missing.
    """
    missing = list(dict.fromkeys(piece.missing for piece in pieces if piece.missing and piece.uv is not None))
    if not any(piece.image for piece in pieces) and len(missing) < 2:
        for suffix in IMAGE_SUFFIXES:
            if image := _below(path.parent, [path.stem + suffix]):
                _check_link(path, image)
                return [replace(piece, image=image, missing="") for piece in pieces]
    if missing:
        paths = ", ".join(_short(name) for name in missing[:5])
        names = ", ".join(_short(re.split(r"[\\/]", name)[-1]) for name in missing[:5])
        fault = f"its texture is missing (the file names {paths})"
        raise DataError.at(path, fault, f"put the image beside it, as {names}")
    return pieces


def _short(name: str, length: int = 80) -> str:
    """A name from a file for a message; of a long name, the end."""
    return name if len(name) <= length else f"...{name[-length:]}"


def _joined(pieces: list[Piece], warnings: tuple[str, ...], counts: tuple[int, ...]) -> Mesh:
    coloured = pieces[0].image is None
    starts = np.cumsum([0] + [len(piece.vertices) for piece in pieces])
    faces: dict[tuple, list[np.ndarray]] = {}  # by texture: pieces with the same texture are drawn at once
    for piece, start in zip(pieces, starts[:-1], strict=True):
        key = (None if coloured else piece.image, piece.clamp)
        faces.setdefault(key, []).append((piece.faces + start).astype(np.int32))
    return Mesh(
        np.concatenate([piece.vertices for piece in pieces]),
        None if coloured else np.concatenate([_first_tile(piece) for piece in pieces]),
        tuple(Part(np.concatenate(arrays), image, clamp) for (image, clamp), arrays in faces.items()),
        np.concatenate([piece.colours for piece in pieces]) if coloured else None,
        warnings,
        counts,
    )


def _first_tile(piece: Piece) -> np.ndarray:
    """The uv (V, 2) of a piece, moved into 0..1 if all lie in one other tile, where the texture repeats."""
    uv = piece.uv
    if piece.clamp or not np.isfinite(uv).all():
        return uv
    low, high = uv.min(0), uv.max(0)
    tile = np.where((low >= 0) & (high <= 1), 0, np.floor((low + high) / 2))
    return uv - tile if tile.any() and ((low - tile >= 0) & (high - tile <= 1)).all() else uv


def find_named(path: Path, name: str) -> Path | None:
    """The file that the mesh at `path` calls `name`, in the clip's folder or below it; None if it does not exist.

    The name may come from another machine, with its drives and folders, either slash, quotes and another case. The
    longest end of the named path that exists is taken. Folders above the folder of the clip are not entered.
    Raises DataError for a link that leads out of the folders of the clip and of the mesh file.
    """
    name = name.strip().strip("\"'").strip()
    steps = [step for step in re.split(r"[\\/]+", re.sub(r"^[A-Za-z]:", "", name)) if step not in ("", ".")]
    steps = steps[len(steps) - steps[::-1].index("..") :] if ".." in steps else steps
    ends = [steps[start:] for start in range(max(0, len(steps) - MAX_DEPTH), len(steps))]
    for end in [[name], *ends]:  # first the whole name: some programs unpack a Windows path as one file name
        if file := _below(path.parent, end):
            _check_link(path, file)
            return file
    return None


def _below(folder: Path, steps: list[str]) -> Path | None:
    """The file at the end of these steps below a folder, or None. Each step matches a listed name in any case.

    Hidden files and linked folders do not count, because they are no inputs of the views' key.
    """
    name, *rest = steps
    try:
        listing = [] if name.startswith(".") else os.listdir(folder)
    except OSError:
        return None
    matches = [name] if name in listing else sorted(entry for entry in listing if _folded(entry) == _folded(name))
    for path in (folder / match for match in matches):
        if not rest and path.is_file():
            return path
        if rest and path.is_dir() and not path.is_symlink():
            return _below(path, rest)
    return None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _check_link(path: Path, file: Path) -> None:
    """Raise DataError for a link out of the clip's folder, unless it leads to the place of a linked mesh."""
    if file.is_symlink():
        homes = path.parent.resolve(), path.resolve().parent
        if not any(file.resolve().is_relative_to(home) for home in homes):
            fault = f"its file {file.name} is a link that leads out of the clip's folder"
            raise DataError.at(path, fault, "put the file itself there")
