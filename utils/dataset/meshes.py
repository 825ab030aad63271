"""Reads one mesh file of any format with its textures: checked, and with the factor that brings it to millimetres.

Units and axes: see `utils.dataset.files`. Several parts, each with a texture of its own, are one mesh of several parts.
"""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from utils.dataset.gltf import read_gltf, read_gltf_image
from utils.dataset.images import read_image
from utils.dataset.mesh_parts import Embedded, Mesh, Piece, find_named, join
from utils.dataset.reading import DataError
from utils.dataset.wavefront import read_obj

GLTF_SUFFIXES = (".glb", ".gltf")
# A face measures 100 to 1000 mm across its bounding box. OBJ and PLY carry no unit, so a first frame whose diagonal
# lies in one of these ranges is taken for metres, centimetres, millimetres or micrometres, and scaled to millimetres.
UNITS = ((0.01, 1.0, 1000.0), (1.0, 60.0, 10.0), (60.0, 1000.0, 1.0), (1e5, 1e6, 1e-3))  # from, below, mm
LARGEST_MM = 1000.0  # diagonal of a head; a glTF file, which is in metres, may not be larger either
TRIM = 0.002  # share of vertices on each side that do not count for the size: stray points of a scan
LARGEST_NUMBER = 1e9  # a face in micrometres 1 km off; beyond, single precision has nothing left of a face
LARGEST_TILE = 1000  # whole repetitions of a texture off 0..1; beyond, single precision has nothing left of a texel
LEAST_AREA = 1e-6  # of all faces, over the square of the diagonal: below, it is a line or a point
SIZE_CHANGE = 3.0  # a frame so much larger or smaller than the first is in another unit, or not the same face
FARTHEST = 10.0  # a vertex so many diagonals off is damage, not a stray point
MOST_FAR = 0.1  # share of the vertices up to which it is damage of these, not another unit


# Reading ------------------------------------------------------------------------------------------


def read_mesh(path: Path) -> Mesh:
    """The parts of a mesh file that can be drawn, in the file's unit; a vertex with several uv is doubled.

    Vertices keep the file's order within a part, so that they correspond over the frames as long as the files do.
    Raises DataError for a file that cannot be read or drawn, or that names a texture which is not there.
    """
    try:
        mesh = join(path, *_pieces(path))
    except DataError:
        raise
    except Exception as error:  # a damaged file leads to whatever error
        detail = f"{type(error).__name__}: {error!s:.200}"
        raise DataError.at(path, f"the mesh cannot be read ({detail})", "export this frame again") from error
    check_surface(path, mesh)
    return mesh


def _pieces(path: Path) -> tuple[list[Piece], tuple[int, ...]]:
    suffix = path.suffix.lower()
    if suffix == ".obj":
        return read_obj(path)
    return (read_gltf(path) if suffix in GLTF_SUFFIXES else _read_ply(path)), ()


def read_texture(image: Path | Embedded) -> np.ndarray:
    """The image of a part, (H, W, 3) uint8 RGB. Raises DataError if it cannot be read."""
    if isinstance(image, Path):
        return read_image(image)
    try:
        data = read_gltf_image(image)
    except DataError:
        raise
    except Exception as error:  # as for meshes
        raise DataError.at(image.path, f"its texture cannot be read ({error!s:.200})", "export it again") from error
    return _decode_image(data, f"{image.path}, image {image.index}")


def _decode_image(data: bytes, name: str) -> np.ndarray:
    """An image from memory. Only by decoders of pictures: PostScript, which Pillow knows too, is a program."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "BMP", "TIFF")) as image:
            return np.array(image.convert("RGB"))
    except Exception as error:  # as for meshes: decoders raise whatever the damage leads to
        raise DataError.at(name, f"the image cannot be read ({error!s:.200})", "export it as PNG or JPEG") from error


def _read_ply(path: Path) -> list[Piece]:
    """The one piece of a PLY file."""
    import trimesh

    head, end, body = path.read_bytes().partition(b"end_header")
    header = head.decode("utf-8", "replace")
    _check_length(path, header, body if end else b"")
    scene = trimesh.load_scene(path, process=False, skip_materials=True)
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
    faces = np.asarray(part.faces)
    if len(faces) and (faces.min() < 0 or faces.max() >= len(part.vertices)):
        raise ValueError(f"its faces name vertices beyond the {len(part.vertices)} there are")
    return Piece(
        path.stem, np.asarray(part.vertices), faces, None if uv is None else uv[:, :2], colours, image, missing
    )


def _check_length(path: Path, header: str, body: bytes) -> None:
    """Raise DataError if a PLY file has less than its header announces: before room is made for that."""
    announced = sum(int(count) for count in re.findall(r"^\s*element\s+\S+\s+(\d{1,15})\s*$", header, re.MULTILINE))
    there = len(body.splitlines()) - 1 if "ascii" in header[:100] else len(body)  # the header's last line goes on there
    if not body or announced > there:
        raise DataError.at(path, f"it is cut off ({announced} elements announced)", "export or copy this frame again")


def lacks_last_newline(path: Path) -> bool:
    """Whether a mesh of text ends within a line, as a file that was cut off does, and some exporters' whole ones."""
    suffix = path.suffix.lower()
    if suffix not in (".obj", ".ply"):
        return False
    with path.open("rb") as handle:
        if suffix == ".ply" and b"ascii" not in handle.read(100):
            return False
        handle.seek(max(0, handle.seek(0, io.SEEK_END) - 1))
        return handle.read(1) not in (b"", b"\n", b"\r")


# Checks -------------------------------------------------------------------------------------------


def check_surface(path: Path, mesh: Mesh) -> None:
    """Raise DataError for numbers that are not finite or beyond any face, and for a mesh that is a line or a point."""
    bad = ~np.isfinite(mesh.vertices).all(axis=1)
    if bad.any():
        raise DataError.at(
            path, f"{bad.sum()} vertices are NaN or infinite, the first is {bad.argmax()}", "repair or drop this frame"
        )
    if not np.isfinite(mesh.uv).all():
        raise DataError.at(path, "some texture coordinates are NaN or infinite", "repair or drop this frame")
    for what, numbers, limit in (("vertex", mesh.vertices, LARGEST_NUMBER), ("uv of vertex", mesh.uv, LARGEST_TILE)):
        largest = np.abs(numbers).max()
        if largest > limit:
            which = np.abs(numbers).max(axis=1).argmax()
            raise DataError.at(path, f"{what} {which} has a coordinate of {largest:.3g}", "repair or drop this frame")
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    if area <= LEAST_AREA * np.square(np.ptp(mesh.vertices, axis=0)).sum():
        raise DataError.at(path, "its faces have no area: all lie in a line or a point", "export this frame again")


def size_of(vertices: np.ndarray) -> float:
    """The diagonal of the box about vertices (V, 3), without stray points."""
    return float(np.linalg.norm(np.ptp(np.quantile(vertices, [TRIM, 1 - TRIM], axis=0), axis=0)))


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
