"""Reads and checks one mesh file of any format with its textures, and finds the scale that brings it to millimetres.

Scale and axes: see `utils.dataset.geometry`. Several parts, each with its own texture, are one mesh.
"""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from utils.dataset.geometry import check_mesh, size_of
from utils.dataset.gltf import Document, read_gltf
from utils.dataset.images import decode_pixels, read_image, to_8_bits
from utils.dataset.mesh_parts import AGAIN, Embedded, Mesh, Piece, find_named, join
from utils.dataset.wavefront import read_obj
from utils.errors import MAX_BYTES, DataError, check_regular, read_bytes, reading

GLTF_SUFFIXES = (".glb", ".gltf")
MESH_SUFFIXES = (".obj", ".ply", *GLTF_SUFFIXES)
# OBJ and PLY give no length unit. The bounding box of a face has a diagonal of 100 to 1000 mm, so the diagonal of the
# first frame tells the unit: metres, centimetres, millimetres or micrometres (from, below, millimetres per unit).
SCALES = ((0.01, 1.0, 1000.0), (1.0, 60.0, 10.0), (60.0, 1000.0, 1.0), (1e5, 1e6, 1e-3))
LARGEST_MM = 1000.0  # diagonal of a head; glTF files, which are in metres, may not exceed it either
METRES_UNITS = ((1e5, "micrometres"), (100, "millimetres"), (10, "centimetres"))  # by a glTF's size: from, likely unit
SCALE_REMEDIES = (  # by a size that is in none of SCALES: from, remedy
    (1e6, "export it in millimetres; its numbers are likely nanometres, or a vertex lies far off"),
    (LARGEST_MM, "export the face alone in millimetres; it is likely a whole body, or in tenths of a millimetre"),
    (0, "export it in millimetres; its numbers are likely kilometres, or scaled to nothing"),
)
SIZE_CHANGE = 3.0  # ratio of the sizes of two frames beyond which they have another scale or do not show the same face
FARTHEST = 10.0  # distance from the face, in diagonals, beyond which a vertex is damage, not a stray point
MAX_FAR = 0.1  # share of far vertices up to which these are damaged; more mean another length unit


def read_mesh(path: Path) -> Mesh:
    """The parts of a mesh file that can be drawn, in the length unit of the file. A vertex with several uv is doubled.

    Vertices keep the file's order within a part, so that they correspond over the frames if they do so in the files.
    Raises DataError for a file that cannot be read or drawn, or that names a missing texture.
    """
    suffix, counts = path.suffix.lower(), ()
    with reading(path, "the mesh", AGAIN):
        if suffix == ".obj":
            pieces, counts = read_obj(path)
        else:
            pieces = read_gltf(path) if suffix in GLTF_SUFFIXES else _read_ply(path)
        mesh = join(path, pieces, counts)
    vertices, _, uv = check_mesh(path, mesh.vertices, mesh.faces, mesh.uv, tiled=True)
    return replace(mesh, vertices=vertices, uv=uv)


def read_texture(image: Path | Embedded) -> np.ndarray:
    """The texture of a part, (H, W, 3) uint8 RGB. Raises DataError if it cannot be read."""
    if isinstance(image, Path):
        return read_image(image)
    with reading(image.path, "its texture", AGAIN):
        data = Document(image.path).image(image.index)
    return to_8_bits(decode_pixels(data, f"{image.path}, image {image.index}"))


def _read_ply(path: Path) -> list[Piece]:
    """The pieces of a PLY file, usually one."""
    import trimesh

    data = read_bytes(path, "the mesh")
    head, _, body = data.partition(b"end_header")
    header = head.decode("utf-8", "replace")
    announced = sum(int(count) for count in re.findall(r"^\s*element\s+\S+\s+(\d{1,15})\s*$", header, re.MULTILINE))
    length = len(body.splitlines()) - 1 if "ascii" in header[:100] else len(body)  # the first line ends the header
    if not body or announced > length:  # before memory is allocated for what the header announces
        raise DataError.at(path, f"it is cut off ({announced} elements announced)", AGAIN)
    scene = trimesh.load_scene(io.BytesIO(data), file_type="ply", process=False, skip_materials=True)
    parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh)]
    names = list(dict.fromkeys(re.findall(r"^\s*comment\s+texturefile\s+(.+?)\s*$", header, re.MULTILINE | re.I)))
    if len(names) > 1:
        raise DataError.at(path, f"it uses several textures ({', '.join(names):.200})", "bake them into one image")
    image = find_named(path, names[0]) if names else None
    missing = names[0] if names and image is None else ""
    pieces = []
    for part in parts:
        uv, colours = getattr(part.visual, "uv", None), None
        if uv is not None:
            uv = uv[:, :2]
        elif part.visual.kind == "vertex":
            colours = part.visual.vertex_colors[:, :3] / 255
        vertices, faces = np.asarray(part.vertices), np.asarray(part.faces)
        pieces.append(Piece(path.stem, vertices, faces, uv, colours, image, missing))
    return pieces


def lacks_last_newline(path: Path) -> bool:
    """Whether a text mesh ends within a line. Files that are cut off do so, and whole files of some exporters."""
    if path.suffix.lower() in GLTF_SUFFIXES:
        return False
    with reading(path, "the mesh", AGAIN):
        check_regular(path, MAX_BYTES)
        with path.open("rb") as handle:
            is_text = path.suffix.lower() == ".obj" or b"ascii" in handle.read(100)
            handle.seek(max(0, handle.seek(0, io.SEEK_END) - 1))
            return is_text and handle.read(1) not in (b"", b"\n", b"\r")


def scale_to_mm(path: Path, vertices: np.ndarray) -> float:
    """Millimetres per length unit of a sequence, from the vertices (V, 3) of its first file.

    glTF is in metres; for OBJ and PLY see SCALES. Raises DataError if no length unit makes the mesh as large as a face.
    """
    size = size_of(vertices)
    if path.suffix.lower() in GLTF_SUFFIXES:
        if size * 1000 > LARGEST_MM:
            unit = next((unit for least, unit in METRES_UNITS if size >= least), "")
            remedy = "export the face alone, without the body, in metres"
            remedy = f"export it in metres; its numbers are likely {unit}" if unit else remedy
            fault = f"it measures {size:.3g} m across (glTF is in metres), which is more than a face"
            raise DataError.at(path, fault, remedy)
        return 1000.0
    for low, high, factor in SCALES:
        if low <= size < high:
            return factor
    fault = f"it measures {size:.3g} across, which is the size of a face in no length unit"
    raise DataError.at(path, fault, next(remedy for least, remedy in SCALE_REMEDIES if size >= least))


def check_size(path: Path, vertices: np.ndarray, first: np.ndarray, size: float) -> None:
    """Raise DataError if a frame's vertices (V, 3) mm cannot show the face of the first frame, `size` mm across."""
    extent = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    if size / SIZE_CHANGE < extent < size * SIZE_CHANGE:
        return  # nearly every frame; this saves the quantiles
    distance = np.linalg.norm(vertices - np.median(first, axis=0), axis=1)
    if 0 < (distance > FARTHEST * size).mean() < MAX_FAR:
        fault = f"vertex {distance.argmax()} lies {distance.max() / 1000:.3g} m off the face"
        raise DataError.at(path, fault, "repair or drop this frame")
    extent = size_of(vertices)
    if not size / SIZE_CHANGE < extent < size * SIZE_CHANGE:
        fault = f"it measures {extent:.3g} mm across, and the first frame {size:.3g} mm"
        raise DataError.at(path, fault, "export all frames of a sequence whole and in one length unit")
