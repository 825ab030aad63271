"""Another face model laid upon ours: to its place and size, and under the atlas in which our skin is painted.

Two models have no vertex in common, but the places where their units move the face most. By these one is turned, scaled
and shifted onto the other (Umeyama 1991), and bent so that each point of its skin finds its like on ours (radial basis
functions).
"""

from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.interpolate import RBFInterpolator
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, cKDTree

from utils.face.model import MOUTH_CAVITY, SKIN, load_face_model
from utils.face.skin import TEXELS, texel_surface

NEEDED = {"brow": "browDownLeft", "eye": "eyeBlinkLeft", "mouth": "mouthSmileLeft"}  # two places of each, and examples
MARGIN = 1.02  # of the outline of our face in front, beyond which another model's neck and skull are cut off
SMOOTHING = 3.0  # of the bending: places of units are alike, not the same, mm
DEEP_MM = 15.0  # from our skin, beyond which a surface lies inside the head
EYE_MM = (8.0, 20.0)  # radius of an eyeball
LEAST = 30  # vertices of an eyeball
ROUND = 0.1  # of its radius, by which the vertices of an eyeball may be off the sphere, in the mean
NEAREST = 12  # of our vertices, of whose motion a vertex of another model takes the mean


def onto_ours(
    neutral: np.ndarray, faces: np.ndarray, units: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The model in the place and size of ours, without what ours has not; and its vertices (V, 3) bent to our form.

    neutral (V, 3), faces (F, 3), units (52, V, 3) and directions (I, V, 3), in any unit; the same comes back, in mm.
    """
    model = load_face_model()
    named = [(unit, model.units[name]) for name, unit in zip(model.unit_names, units, strict=True) if unit.any()]
    own = np.array([_place(neutral, unit) for unit, _ in named])
    ours = np.array([_place(model.template, unit) for _, unit in named])
    a, b = own - own.mean(0), ours - ours.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    turn = ((u * flip) @ vt * ((s * flip).sum() / (a**2).sum())).astype(np.float32)
    placed = ((neutral - own.mean(0)) @ turn + ours.mean(0)).astype(np.float32)
    own = (own - own.mean(0)) @ turn + ours.mean(0)
    bent = placed + RBFInterpolator(own, ours - own, kernel="linear", smoothing=SMOOTHING)(placed)
    outline = Delaunay(model.template[:, :2] * MARGIN)
    within = (outline.find_simplex(bent[:, :2]) >= 0) & (bent[:, 2] >= model.template[:, 2].min() * MARGIN)
    kept = faces[within[faces].all(1)]
    used, kept = np.unique(kept, return_inverse=True)
    shapes = placed[used], kept.reshape(-1, 3).astype(np.int32), units[:, used] @ turn, directions[:, used] @ turn
    return *shapes, bent[used]


def _place(vertices: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Where a unit moves the face most, (3,)."""
    weight = (unit**2).sum(1, keepdims=True)
    return (vertices * weight).sum(0) / weight.sum()


# The atlas ----------------------------------------------------------------------------------------------------------


def lay_atlas(neutral: np.ndarray, faces: np.ndarray, bent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a model's surface lies in our skin's atlas: which vertex each corner is (W,), its uv (W, 2), faces (F, 3).

    neutral (V, 3) mm, faces (F, 3), bent (V, 3): of `onto_ours`. A vertex between parts (skin, eyes, inside of the
    mouth) stands once for each.
    """
    middle = bent[faces].mean(1)
    from_skin, from_mouth = (_atlas(island)[0].query(middle)[0] for island in (SKIN, MOUTH_CAVITY))
    island = np.where((from_skin > DEEP_MM) | (from_mouth < from_skin), MOUTH_CAVITY, SKIN)
    places = {}
    pieces = _connected(neutral, faces)
    for piece in np.unique(pieces):
        vertices = np.unique(faces[pieces == piece])
        number = _eyeball(neutral[vertices])
        if number is not None:
            island[pieces == piece] = number
            places[number] = _onto_our_eye(neutral, vertices, number)
    corners = np.repeat(island, 3)
    keys, welded = np.unique(faces.ravel() + len(neutral) * corners.astype(np.int64), return_inverse=True)
    source, part = keys % len(neutral), keys // len(neutral)
    uv = np.empty((len(keys), 2), np.float32)
    for number in np.unique(part):
        chosen = part == number
        tree, there = _atlas(int(number))
        uv[chosen] = there[tree.query(places.get(number, bent)[source[chosen]])[1]]
    return source, uv, welded.reshape(-1, 3).astype(np.int32)


def _connected(neutral: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Which connected surface each face is of, (F,); vertices at one place are one."""
    weld = np.unique(neutral, axis=0, return_inverse=True)[1].reshape(-1)
    a, b, c = weld[faces].T
    links = sparse.coo_array((np.ones(2 * len(faces)), (np.r_[a, b], np.r_[b, c])), (len(neutral),) * 2)
    return connected_components(links, directed=False)[1][a]


@lru_cache(maxsize=8)
def _atlas(island: int) -> tuple[cKDTree, np.ndarray]:
    """The texels of a part of our face by where they lie on the template, and their uv (N, 2)."""
    position, islands, _ = texel_surface()
    rows, columns = np.nonzero(islands == island)
    uv = np.stack([(columns + 0.5) / TEXELS, 1 - (rows + 0.5) / TEXELS], -1).astype(np.float32)
    return cKDTree(position[rows, columns]), uv


def _eyeball(vertices: np.ndarray) -> int | None:
    """The part of our face that a connected surface (N, 3) mm is, if it is a round eyeball near one of ours."""
    model = load_face_model()
    if len(vertices) < LEAST:
        return None
    centre, radius = _sphere(vertices)
    off = np.abs(np.linalg.norm(vertices - centre, axis=1) - radius).mean()
    if not (EYE_MM[0] < radius < EYE_MM[1]) or off > ROUND * radius:
        return None
    away = {eye: np.linalg.norm(_sphere(model.template[model.island == eye])[0] - centre) for eye in model.eyes}
    nearest = min(away, key=away.__getitem__)
    return nearest if away[nearest] < EYE_MM[1] else None


def _onto_our_eye(neutral: np.ndarray, ball: np.ndarray, number: int) -> np.ndarray:
    """Vertices (V, 3) mm moved and scaled so that the eyeball of vertices `ball` is the eyeball of ours."""
    model = load_face_model()
    (centre, radius), (our_centre, our_radius) = _sphere(neutral[ball]), _sphere(model.template[model.island == number])
    return (neutral - centre) * (our_radius / radius) + our_centre


def _sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of the sphere that lies closest to points (N, 3), by least squares."""
    mean = points.mean(0, dtype=float)
    local = points - mean
    system = np.column_stack([2 * local, np.ones(len(local))])
    *centre, rest = np.linalg.lstsq(system, (local**2).sum(1), rcond=None)[0]
    return mean + centre, float(np.sqrt(rest + np.dot(centre, centre)))


# People -------------------------------------------------------------------------------------------------------------


def carry_over(motion: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """What moves our skin, (V, 3) mm over our vertices, where another model's vertices (W, 3) lie: smooth, (W, 3)."""
    model = load_face_model()
    skin = model.island == SKIN
    distance, index = cKDTree(model.template[skin]).query(vertices, NEAREST)
    weight = 1 / (distance + 1.0)  # mm
    weight /= weight.sum(1, keepdims=True)
    return np.einsum("wk,wkc->wc", weight, motion[skin][index]).astype(np.float32)
