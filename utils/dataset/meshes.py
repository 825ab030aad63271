"""Reads one mesh file of any format with its textures: checked, and with the factor that brings it to millimetres.

Units and axes: see `utils.dataset.geometry`. Several parts, each with a texture of its own, are one mesh.
"""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from utils.dataset.geometry import check_mesh, size_of
from utils.dataset.gltf import read_gltf, read_gltf_image
from utils.dataset.images import decode_image, read_image
from utils.dataset.mesh_parts import AGAIN, Embedded, Mesh, Piece, find_named, join
from utils.dataset.wavefront import read_obj
from utils.errors import MAX_BYTES, DataError, check_regular, read_bytes, reading

GLTF_SUFFIXES = (".glb", ".gltf")
MESH_SUFFIXES = (".obj", ".ply", *GLTF_SUFFIXES)
# A face measures 100 to 1000 mm across its bounding box. OBJ and PLY carry no unit, so a first frame whose diagonal
# lies in one of these ranges is taken for metres, centimetres, millimetres or micrometres, and scaled to millimetres.
UNITS = ((0.01, 1.0, 1000.0), (1.0, 60.0, 10.0), (60.0, 1000.0, 1.0), (1e5, 1e6, 1e-3))  # from, below, mm
LARGEST_MM = 1000.0  # diagonal of a head; a glTF file, which is in metres, may not be larger either
SIZE_CHANGE = 3.0  # a frame so much larger or smaller than the first is in another unit, or not the same face
FARTHEST = 10.0  # a vertex so many diagonals off is damage, not a stray point
MOST_FAR = 0.1  # share of the vertices up to which it is damage of these, not another unit


# Reading ------------------------------------------------------------------------------------------


def read_mesh(path: Path) -> Mesh:
    """The parts of a mesh file that can be drawn, in the file's unit; a vertex with several uv is doubled.

    Vertices keep the file's order within a part, so that they correspond over the frames as long as the files do.
    Raises DataError for a file that cannot be read or drawn, or that names a texture which is not there.
    """
    with reading(path, "the mesh", AGAIN):
        mesh = join(path, *_pieces(path))
    vertices, _, uv = check_mesh(path, mesh.vertices, mesh.faces, mesh.uv, tiled=True)
    return replace(mesh, vertices=vertices, uv=uv)


def _pieces(path: Path) -> tuple[list[Piece], tuple[int, ...]]:
    suffix = path.suffix.lower()
    if suffix == ".obj":
        return read_obj(path)
    return (read_gltf(path) if suffix in GLTF_SUFFIXES else _read_ply(path)), ()


def read_texture(image: Path | Embedded) -> np.ndarray:
    """The image of a part, (H, W, 3) uint8 RGB. Raises DataError if it cannot be read."""
    if isinstance(image, Path):
        return read_image(image)
    with reading(image.path, "its texture", AGAIN):
        data = read_gltf_image(image)
    return decode_image(data, f"{image.path}, image {image.index}")


def _read_ply(path: Path) -> list[Piece]:
    """The one piece of a PLY file."""
    import trimesh

    data = read_bytes(path, "the mesh")
    head, end, body = data.partition(b"end_header")
    header = head.decode("utf-8", "replace")
    _check_length(path, header, body if end else b"")
    scene = trimesh.load_scene(io.BytesIO(data), file_type="ply", process=False, skip_materials=True)
    parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh)]
    names = list(dict.fromkeys(re.findall(r"^\s*comment\s+texturefile\s+(.+?)\s*$", header, re.MULTILINE | re.I)))
    if len(names) > 1:
        raise DataError.at(path, f"it uses several textures ({', '.join(names):.200})", "bake them into one image")
    return [_ply_piece(path, part, names) for part in parts]


def _ply_piece(path: Path, part, names: list[str]) -> Piece:
    uv = getattr(part.visual, "uv", None)
    coloured = uv is None and part.visual.kind == "vertex"
    colours = part.visual.vertex_colors[:, :3] / 255 if coloured else None
    image = find_named(path, names[0]) if names else None
    missing = names[0] if names and image is None else ""
    uv = None if uv is None else uv[:, :2]
    return Piece(path.stem, np.asarray(part.vertices), np.asarray(part.faces), uv, colours, image, missing)


def _check_length(path: Path, header: str, body: bytes) -> None:
    """Raise DataError if a PLY file has less than its header announces: before room is made for that."""
    announced = sum(int(count) for count in re.findall(r"^\s*element\s+\S+\s+(\d{1,15})\s*$", header, re.MULTILINE))
    there = len(body.splitlines()) - 1 if "ascii" in header[:100] else len(body)  # the header's last line goes on there
    if not body or announced > there:
        raise DataError.at(path, f"it is cut off ({announced} elements announced)", AGAIN)


def lacks_last_newline(path: Path) -> bool:
    """Whether a mesh of text ends within a line, as a file that was cut off does, and some exporters' whole ones."""
    suffix = path.suffix.lower()
    if suffix not in (".obj", ".ply"):
        return False
    with reading(path, "the mesh", AGAIN):
        check_regular(path, MAX_BYTES)
        with path.open("rb") as handle:
            if suffix == ".ply" and b"ascii" not in handle.read(100):
                return False
            handle.seek(max(0, handle.seek(0, io.SEEK_END) - 1))
            return handle.read(1) not in (b"", b"\n", b"\r")


# Checks -------------------------------------------------------------------------------------------


def scale_to_mm(path: Path, vertices: np.ndarray) -> float:
    """What brings the vertices (V, 3) of a sequence's first file to millimetres.

    glTF is in metres. OBJ and PLY do not say, and go by their size (see UNITS). Raises DataError for what is no face in
    its unit, or in any.
    """
    size = size_of(vertices)
    if path.suffix.lower() in GLTF_SUFFIXES:
        if size * 1000 > LARGEST_MM:
            raise DataError.at(
                path,
                f"it measures {size:.3g} m across (glTF is in metres), which is more than a face",
                _remedy_for_metres(size),
            )
        return 1000.0
    for low, high, factor in UNITS:
        if low <= size < high:
            return factor
    raise DataError.at(path, f"it measures {size:.3g} units across, which is a face in no unit", _remedy_for(size))


def _remedy_for_metres(size: float) -> str:
    likely = next(
        (unit for low, unit in ((1e5, "micrometres"), (100, "millimetres"), (10, "centimetres")) if size >= low), ""
    )
    if likely:
        return f"export it in metres; its numbers are likely {likely}"
    return "export the face alone, without the body, in metres"


def _remedy_for(size: float) -> str:
    if size >= 1e6:
        return "export it in millimetres; its numbers are likely nanometres, or a vertex lies far off"
    if size >= LARGEST_MM:
        return "export the face alone in millimetres; it is likely a whole body, or in tenths of a millimetre"
    return "export it in millimetres; its numbers are likely kilometres, or scaled to nothing"


def check_size(path: Path, vertices: np.ndarray, first: np.ndarray, size: float) -> None:
    """Raise DataError if a frame's vertices (V, 3) mm cannot be the face of the first frame, of `size` mm across."""
    extent = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    if size / SIZE_CHANGE < extent < size * SIZE_CHANGE:
        return  # the usual case, without quantiles
    away = np.linalg.norm(vertices - np.median(first, axis=0), axis=1)
    far = away > FARTHEST * size
    if 0 < far.mean() < MOST_FAR:
        raise DataError.at(
            path, f"vertex {away.argmax()} lies {away.max() / 1000:.3g} m off the face", "repair or drop this frame"
        )
    own = size_of(vertices)
    if not size / SIZE_CHANGE < own < size * SIZE_CHANGE:
        raise DataError.at(
            path,
            f"it measures {own:.3g} mm across, and the first frame {size:.3g} mm",
            "export all frames of a sequence in one unit and whole",
        )
