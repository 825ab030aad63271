"""Reads `clip.npz`, the compact form of a mesh sequence: vertices (T, V, 3) in millimetres, faces (F, 3), uv and fps.

The header of each array is checked before its content is read, so that a file of a few kilobytes cannot fill the
memory. Pickled objects are never loaded.
"""

import math
import zipfile
from pathlib import Path

import numpy as np

from utils.dataset.geometry import check_mesh, check_shapes
from utils.errors import DataError, check_regular, reading

CLIP = "clip.npz"
FPS = 60.0  # frame rate of 4DME, for files that do not give theirs
MAX_FPS = 1e5
MAX_MEMBER = 2**30  # bytes of one array: 5,000 frames of 17,000 vertices
MAX_ARCHIVE = 2**32  # bytes of the file
AGAIN = "write it again with write_clip"


def read_clip(path: Path, n_images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Vertices (T, V, 3) float32, faces (F, 3) int32, uv (V, 2) or (T, V, 2) float32, and frames per second.

    n_images: number of composites beside the file, one per frame.
    Raises DataError for another number of frames, a damaged file, and for what `check_mesh` refuses.
    """
    with reading(path, "the clip", AGAIN):
        check_regular(path, MAX_ARCHIVE)
        with zipfile.ZipFile(path) as archive:
            names = ["vertices", "faces", "uv", *(["fps"] if "fps.npy" in archive.namelist() else [])]
            shapes = [_shape(archive, name) for name in names]
            check_shapes(path, *shapes[:3])
            n_frames = shapes[0][0] if len(shapes[0]) == 3 else 1
            if n_frames != n_images:
                fault = f"it has {n_frames} frames, and {n_images} images lie beside it"
                raise DataError.at(path, fault, "put one composite per frame there")
            arrays = {}
            for name in names:
                with archive.open(f"{name}.npy") as member:  # raises for a wrong checksum, and for objects
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    fps = arrays.get("fps", np.array(FPS))
    rate = float(fps.ravel()[0]) if fps.size == 1 and fps.dtype.kind in "fiu" else math.nan
    if not 0 < rate <= MAX_FPS:
        raise DataError.at(path, f"fps is {fps.tolist()!r}" if fps.size < 9 else "fps is an array", AGAIN)
    return *check_mesh(path, arrays["vertices"], arrays["faces"], arrays["uv"]), rate


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """The shape of an array by its header. Raises ValueError if it is absurdly large or does not fit the content."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        version, _ = np.lib.format.read_magic(member)
        readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[version](member)
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_MEMBER or info.file_size - member.tell() != size:
            raise ValueError(f"{name} has {info.file_size} bytes, and its header says {dtype} of the shape {shape}")
    return shape
