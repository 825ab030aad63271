"""The checks that every mesh must pass before it is drawn, and the box of a crop.

If a mesh is a point or a line, or lies out of range, a renderer draws nothing and reports no error.

Scale and axes: vertices (V, 3) float32, in a sequence in millimetres, x to the viewer's right, y up, z towards the
viewer; faces (F, 3) int32; uv (V, 2) float32 as in OBJ files, with the origin at the lower left, u right, v up.
"""

from collections.abc import Iterable

import numpy as np

from utils.errors import DataError

MAX_VERTICES, MAX_FACES = 2**22, 2**23  # of a mesh: 4 and 8 million, far more than a scanned face has
MAX_COORDINATE = 1e7  # in the length unit of the file: a face in micrometres measures 2e5
MAX_UV, UV_EDGE = 100.0, 0.05  # largest absolute value; width of the tolerated border around 0..1
MAX_UV_OUTSIDE = 0.05  # share of the vertices that may lie beyond that border
MAX_TILES = 1000.0  # largest absolute uv of a texture that repeats: beyond it, single precision resolves no texel
MIN_UV_EXTENT = 1e-4  # share of the texture: a smaller range is one texel, so that the mesh has one colour
FLAT = 1e-3  # smallest ratio of the second to the largest spread of the vertices: 0 for a line, up to 1 for a plane
TRIM = 0.002  # share of the vertices on each side that a measured extent ignores, because scans have stray points
MIN_AREA = 1e-3  # area of all faces over the squared diagonal of the mesh; a human face has 0.4
BOX_SIDES = (4.0, 32766.0)  # pixels of the uncropped view: a face of 4 mm; the largest image that OpenCV can warp

Box = tuple[float, float, float]  # x and y of the first pixel, and side, in pixels of the uncropped view


def check_mesh(
    where: object, vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray | None, tiled: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check the mesh of one frame or of all; returns vertices float32, faces int32 and uv float32.

    where: the file, with which messages begin.
    vertices: (V, 3) or (T, V, 3), in any length unit; faces: (F, 3) integers, or floats without a fraction; uv: (V, 2)
        or (T, V, 2), nearly all in 0..1, or None for a mesh without a texture, whose uv are returned as zeros.
    tiled: whether the texture repeats beyond 0..1, as in mesh files.

    Raises DataError for wrong shapes and types, empty and absurdly large meshes, faces that name missing vertices,
    numbers that are not finite in float32 or far out of range, and meshes without extent, width or area. Stray vertices
    are accepted, because the crop ignores them.
    """
    textured = uv is not None
    uv = uv if textured else np.zeros((*vertices.shape[:-1], 2), np.float32)
    check_shapes(where, vertices.shape, faces.shape, uv.shape)
    vertices, uv = _floats(where, "vertices", vertices), _floats(where, "uv", uv)
    faces = _integers(where, faces, vertices.shape[-2])
    _check_finite(where, vertices, uv)
    if (largest := np.abs(vertices).max()) > MAX_COORDINATE:
        raise DataError.at(where, f"a coordinate of {largest:.3g} fits no length unit", "export it in millimetres")
    _check_extent(where, vertices, faces)
    if textured:
        _check_uv(where, uv, tiled)
    return vertices, faces, uv


def size_of(vertices: np.ndarray) -> float:
    """The diagonal of the bounding box of vertices (V, 3), without stray points."""
    return float(np.linalg.norm(np.ptp(np.quantile(vertices, [TRIM, 1 - TRIM], axis=0), axis=0)))


def is_box(box: Iterable[float]) -> bool:
    """Whether an image can hold this square: finite numbers within BOX_SIDES."""
    x, y, side = box
    return BOX_SIDES[0] <= side <= BOX_SIDES[1] and max(abs(x), abs(y)) <= BOX_SIDES[1]  # False for NaN


def check_shapes(where: object, vertices: tuple[int, ...], faces: tuple[int, ...], uv: tuple[int, ...]) -> None:
    """Raise DataError for arrays of these shapes that are no mesh, and for a mesh that is empty or too large."""
    shapes = f"vertices {vertices}, faces {faces}, uv {uv}"
    fits = len(vertices) in (2, 3) and vertices[-1] == 3 and len(faces) == 2
    if fits and 0 in (*vertices, faces[0]):
        raise DataError.at(where, "the mesh is empty", "export this frame again")
    if not (fits and faces[1] == 3 and uv in ((vertices[-2], 2), (*vertices[:-1], 2))):
        raise DataError.at(where, f"the arrays have the shapes {shapes}", "export triangles with one uv per vertex")
    if vertices[-2] > MAX_VERTICES or faces[0] > MAX_FACES:
        raise DataError.at(where, f"the mesh is too large ({shapes})", "export the face alone, or decimate it")


def _floats(where: object, name: str, values: np.ndarray) -> np.ndarray:
    """The values as float32; values beyond its range become infinite."""
    if values.dtype.kind not in "fiu":
        raise DataError.at(where, f"{name} are {values.dtype}", "write them as numbers")
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _integers(where: object, faces: np.ndarray, n_vertices: int) -> np.ndarray:
    """Faces as int32, all of vertices that exist."""
    is_whole = faces.dtype.kind in "iu"
    if faces.dtype.kind == "f":
        is_whole = np.isfinite(faces).all() and (faces == np.floor(faces)).all()
    if not is_whole:
        raise DataError.at(where, f"faces are {faces.dtype}, not all of them whole numbers", "write them as integers")
    if faces.min() < 0 or faces.max() >= n_vertices:
        raise DataError.at(where, f"its faces name vertices beyond the {n_vertices} there are", "export it again")
    return faces.astype(np.int32, copy=False)


def _check_finite(where: object, vertices: np.ndarray, uv: np.ndarray) -> None:
    for name, values in (("vertices", vertices), ("uv", uv)):
        bad = ~np.isfinite(values).all(axis=-1)
        if bad.any():
            place = " of frame ".join(str(index) for index in reversed(np.argwhere(bad)[0]))
            fault = f"{name} are not finite: {bad.sum()} are NaN or infinite, the first is number {place}"
            raise DataError.at(where, fault, "repair or drop it")


def _check_extent(where: object, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Raise DataError for a frame that is a point or a line, and for a first frame whose faces have no area."""
    frames = vertices.reshape(-1, *vertices.shape[-2:])
    for t, frame in enumerate(frames):  # one frame at a time, to save memory
        centred = frame - frame.mean(axis=0, dtype=float)
        spread = np.linalg.eigvalsh((centred.T @ centred) / len(frame))  # squared, ascending
        if not spread[1] > FLAT**2 * spread[2]:
            name = f" in frame {t}" if len(frames) > 1 else ""
            raise DataError.at(where, f"its vertices are a point or a line{name}", "export it again")
    a, b, c = np.moveaxis(frames[0][faces].astype(float), 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    if not area > MIN_AREA * size_of(frames[0]) ** 2:
        raise DataError.at(where, "its faces have no area", "export its triangles again")


def _check_uv(where: object, uv: np.ndarray, tiled: bool) -> None:
    """Raise DataError for uv out of range (see the constants), and for uv that are all the same point."""
    outside = ((uv < -UV_EDGE) | (uv > 1 + UV_EDGE)).any(axis=-1).mean()
    if np.abs(uv).max() > (MAX_TILES if tiled else MAX_UV) or (outside > MAX_UV_OUTSIDE and not tiled):
        fault = f"its uv reach from {uv.min():.3g} to {uv.max():.3g}, and the texture from 0 to 1"
        raise DataError.at(where, fault, f"export uv as shares of the texture{'' if tiled else ', without tiles'}")
    if np.ptp(uv.reshape(-1, 2), axis=0).max() < MIN_UV_EXTENT:
        raise DataError.at(where, "all its uv are one point", "export it with its texture coordinates")
