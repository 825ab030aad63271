"""What every mesh must be before it is drawn, whatever file it came from: `check_mesh`.

A renderer draws nothing of a mesh that is a point, a line or beyond its range, and says nothing; these checks do.

Units and axes: vertices (V, 3) float32, in a sequence in millimetres, x to the viewer's right, y up, z towards the
viewer; faces (F, 3) int32; uv (V, 2) float32 as in OBJ files, u right, v up from the lower left.
"""

from collections.abc import Iterable

import numpy as np

from utils.errors import DataError

MAX_VERTICES, MAX_FACES = 2**22, 2**23  # of a mesh: 4 and 8 million, far beyond any scanner's face
MAX_COORDINATE = 1e7  # in the file's own unit: a face in micrometres measures 2e5
MAX_UV, UV_EDGE, MAX_UV_OUTSIDE = 100.0, 0.05, 0.05  # farthest, width of the edge about 0..1, share beyond that edge
MAX_TILES = 1000.0  # of uv that may repeat the texture: beyond, single precision has nothing left of a texel
MIN_UV_EXTENT = 1e-4  # of the texture: less is one texel, and the mesh one colour
FLAT = 1e-3  # smallest ratio of the second to the largest spread of the vertices: a line has 0, a plane up to 1
TRIM = 0.002  # share of the vertices left out on each side where an extent is measured, against stray points of a scan
MIN_AREA = 1e-3  # of all faces, over the squared diagonal of the mesh; a human face has 0.4


def check_mesh(
    where: object, vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray | None, tiled: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices float32, faces int32 and uv float32, of one frame or all, or a DataError that begins with `where`.

    vertices: (V, 3) or (T, V, 3), any unit; faces: (F, 3) integers, or floats without a fraction; uv: (V, 2), or
        (T, V, 2), in 0..1 but for a few, or None for a mesh without a texture, whose uv come as zeros.
    tiled: whether the texture repeats beyond 0..1, as that of a mesh file does.

    Refused are other shapes and types (texts, booleans, complex numbers, objects), empty and absurdly large meshes,
    faces that name vertices that are not there, what is not finite in float32 or far out of range, and a mesh without
    an extent, a width, or an area. Stray vertices are not: the crop leaves them out.
    """
    textured = uv is not None
    uv = uv if textured else np.zeros((*vertices.shape[:-1], 2), np.float32)
    _check_shapes(where, vertices, faces, uv)
    vertices, faces, uv = _floats(where, "vertices", vertices), _integers(where, faces), _floats(where, "uv", uv)
    if faces.min() < 0 or faces.max() >= vertices.shape[-2]:
        raise DataError.at(
            where, f"its faces name vertices beyond the {vertices.shape[-2]} there are", "export it again"
        )
    faces = faces.astype(np.int32, copy=False)
    _check_finite(where, vertices, uv)
    if (largest := np.abs(vertices).max()) > MAX_COORDINATE:
        raise DataError.at(where, f"a coordinate of {largest:.3g} is beyond any unit", "export it in millimetres")
    _check_extent(where, vertices, faces)
    if textured:
        _check_uv(where, uv, tiled)
    return vertices, faces, uv


def size_of(vertices: np.ndarray) -> float:
    """The diagonal of the box about vertices (V, 3), without stray points."""
    return float(np.linalg.norm(np.ptp(np.quantile(vertices, [TRIM, 1 - TRIM], axis=0), axis=0)))


def _check_shapes(where: object, vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> None:
    shapes = f"vertices {vertices.shape}, faces {faces.shape}, uv {uv.shape}"
    fits = vertices.ndim in (2, 3) and vertices.shape[-1] == 3 and faces.ndim == 2
    if fits and (vertices.size == 0 or len(faces) == 0):
        raise DataError.at(where, "the mesh is empty", "export this frame again")
    fits = fits and faces.shape[1] == 3 and uv.shape in (vertices.shape[-2:-1] + (2,), vertices.shape[:-1] + (2,))
    if not fits:
        raise DataError.at(where, f"the arrays have the shapes {shapes}", "export triangles with one uv per vertex")
    if vertices.shape[-2] > MAX_VERTICES or len(faces) > MAX_FACES:
        raise DataError.at(where, f"the mesh is too large ({shapes})", "export the face alone, or decimate it")


def _floats(where: object, name: str, values: np.ndarray) -> np.ndarray:
    """The values as float32, what is beyond its range as infinite."""
    if values.dtype.kind not in "fiu":
        raise DataError.at(where, f"{name} are {values.dtype}", "write them as numbers")
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _integers(where: object, faces: np.ndarray) -> np.ndarray:
    whole = faces.dtype.kind in "iu" or (faces.dtype.kind == "f" and bool((faces == np.floor(faces)).all()))
    if not whole or (faces.dtype.kind == "f" and not np.isfinite(faces).all()):
        raise DataError.at(where, f"faces are {faces.dtype}, not all of them whole numbers", "write them as integers")
    return faces


def _check_finite(where: object, vertices: np.ndarray, uv: np.ndarray) -> None:
    bad = ~np.isfinite(vertices).all(axis=-1)
    if bad.any():
        first = np.argwhere(bad)[0]
        place = f"{first[-1]}" + (f" of frame {first[0]}" if len(first) > 1 else "")
        fault = f"vertices are not finite: {bad.sum()} are NaN or infinite, the first is {place}"
        raise DataError.at(where, fault, "repair or drop it")
    if not np.isfinite(uv).all():
        raise DataError.at(where, "uv are not finite: some are NaN or infinite", "repair or drop it")


def _check_extent(where: object, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Every frame has a width, not a length alone, and the first one faces with an area."""
    frames = vertices.reshape(-1, *vertices.shape[-2:])
    for t, frame in enumerate(frames):  # one at a time, for the memory
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
    """Within 0..1 but for a few at the edge, or if tiled within MAX_TILES, and not all of them in one point."""
    outside = ((uv < -UV_EDGE) | (uv > 1 + UV_EDGE)).any(axis=-1).mean()
    if np.abs(uv).max() > (MAX_TILES if tiled else MAX_UV) or (outside > MAX_UV_OUTSIDE and not tiled):
        fault = f"its uv reach from {uv.min():.3g} to {uv.max():.3g}, and the texture from 0 to 1"
        raise DataError.at(where, fault, f"export uv as shares of the texture{'' if tiled else ', without tiles'}")
    if np.ptp(uv.reshape(-1, 2), axis=0).max() < MIN_UV_EXTENT:
        raise DataError.at(where, "all its uv are one point", "export it with its texture coordinates")


BOX_SIDES = (4.0, 32766.0)  # pixels of the uncropped view: a face of 4 mm, and the end of OpenCV's warps


Box = tuple[float, float, float]  # x, y of the first pixel and side, in pixels of the uncropped view


def is_box(box: Iterable[float]) -> bool:
    """Whether a square can be cut out of an image of any size that is read."""
    x, y, side = box
    return BOX_SIDES[0] <= side <= BOX_SIDES[1] and max(abs(x), abs(y)) <= BOX_SIDES[1]  # False for NaN
