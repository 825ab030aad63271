"""Reads the compact form of a sequence, `clip.npz`: vertices (T, V, 3) millimetres, faces (F, 3), uv, and fps.

Each array's header is held against what may be before its content is read, so that a file of a few kilobytes cannot
fill the memory; pickled objects are never read.
"""

import math
import zipfile
from pathlib import Path

import numpy as np

from utils.dataset.geometry import MAX_FACES, MAX_VERTICES, check_mesh
from utils.errors import DataError, check_regular, reading

CLIP = "clip.npz"
FPS = 60.0  # of 4DME, where the files do not say
MAX_FPS = 1e5
MAX_MEMBER = 2**30  # bytes of one array: 5,000 frames of 17,000 vertices
MAX_ARCHIVE = 2**32  # bytes of the file
AGAIN = "write it again with write_clip"


def read_clip(path: Path, n_images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Vertices (T, V, 3) float32, faces (F, 3) int32, uv (V, 2) or (T, V, 2) float32, and frames a second.

    n_images: of composites beside it, one per frame. Raises DataError for anything else, see `check_mesh`.
    """
    with reading(path, "the clip", AGAIN):
        check_regular(path, MAX_ARCHIVE)
        with zipfile.ZipFile(path) as archive:
            shapes = {name: _header(archive, name) for name in ("vertices", "faces", "uv")}
            _check_shapes(path, shapes, n_images)
            vertices, faces, uv = (_read_array(archive, name) for name in shapes)
            fps = _read_array(archive, "fps") if "fps.npy" in archive.namelist() else np.array(FPS)
    return *check_mesh(path, vertices, faces, uv), _frame_rate(path, fps)


def _check_shapes(path: Path, shapes: dict[str, tuple[int, ...]], n_images: int) -> None:
    """Raise DataError for shapes that no clip has, before anything of these shapes is made."""
    vertices, faces, uv = shapes.values()
    words = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    if len(vertices) != 3 or len(faces) != 2 or len(uv) not in (2, 3):
        raise DataError.at(path, f"the arrays have the shapes {words}", "write vertices (T, V, 3) and uv (V, 2)")
    if vertices[0] != n_images:
        fault = f"it has {vertices[0]} frames, and {n_images} images lie beside it"
        raise DataError.at(path, fault, "put one composite per frame there")
    if max(vertices[1], *uv[:-1]) > max(MAX_VERTICES, n_images) or faces[0] > MAX_FACES:
        raise DataError.at(path, f"the mesh is too large ({words})", "write the face alone")


def _header(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """The shape of an array. Raises ValueError for absurd sizes, and for others than its content has."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        shape, _, dtype = _read_header(member)
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_MEMBER or info.file_size - member.tell() != size:
            raise ValueError(f"{name} of {info.file_size} bytes is said to be {dtype} of the shape {shape}")
    return shape


def _read_header(member) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
    return read(member)


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array whose header was found good, held against its checksum; ValueError for objects."""
    _header(archive, name)
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _frame_rate(path: Path, fps: np.ndarray) -> float:
    rate = float(fps.ravel()[0]) if fps.size == 1 and fps.dtype.kind in "fiu" else math.nan
    if not 0 < rate <= MAX_FPS:
        raise DataError.at(path, f"fps is {fps.tolist()!r}" if fps.size < 9 else "fps is an array", AGAIN)
    return rate
