"""Another face model laid upon ours: to its place and size, and under the atlas in which our skin is painted.

Two models have no vertex in common, but the places where their units move the face most. By these one is turned, scaled
and shifted onto the other (Umeyama 1991), and bent so that each point of its skin finds its like on ours (radial basis
functions).
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.interpolate import RBFInterpolator
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, cKDTree

from utils.errors import DataError
from utils.synthetic.face_model import MOUTH_CAVITY, SKIN, load_face_model
from utils.synthetic.skin import TEXELS, texel_surface

MARGIN = 1.02  # of the outline of our face in front, beyond which another model's neck and skull are cut off
SMOOTHING = 3.0  # of the bending: places of units are alike, not the same, mm
MOST_OFF = 0.6  # of the places' spread, by which they may be off ours in the mean, when the model is laid upon ours
LEAST_WIDTH = 0.15  # of the places' length, so that they lie on no line
LEAST_FACES = 50  # of a face
DEEP_MM = 15.0  # from our skin, beyond which a surface that is hidden lies inside the head
EYE_MM = (8.0, 20.0)  # radius of an eyeball
LEAST = 30  # vertices of an eyeball
ROUND = 0.1  # of its radius, by which the vertices of an eyeball may be off the sphere, in the mean
NEAREST = 12  # of our vertices, of whose motion a vertex of another model takes the mean
SEEN_FROM_DEG = (-25.0, 0.0, 25.0)  # about the vertical


class Shapes(NamedTuple):
    """A face model: neutral (V, 3), faces (F, 3), units (52, V, 3) in the order of `FaceModel.unit_names`, directions
    (I, V, 3) in which people differ."""

    neutral: np.ndarray
    faces: np.ndarray
    units: np.ndarray
    directions: np.ndarray

    def part(self, kept: np.ndarray) -> tuple["Shapes", np.ndarray]:
        """The model of the faces in kept (F,) bool, and which vertices it has left."""
        used, faces = np.unique(self.faces[kept], return_inverse=True)
        faces = faces.reshape(-1, 3).astype(np.int32)
        return Shapes(self.neutral[used], faces, self.units[:, used], self.directions[:, used]), used


def onto_ours(where: Path, shapes: Shapes) -> tuple[Shapes, np.ndarray]:
    """A model of any unit and place in the place and size of ours, mm, without what ours has not; and its vertices
    (V, 3) bent to our form.

    Raises DataError, which begins with `where`, for a model whose units do not lie as ours do.
    """
    model = load_face_model()
    pairs = [
        (unit, ours)
        for unit, ours in zip(shapes.units, model.shapes.values(), strict=True)
        if unit.any() and ours.any()
    ]
    own = np.array([_place(shapes.neutral, unit) for unit, _ in pairs])
    ours = np.array([_place(model.template, unit) for _, unit in pairs])
    front = own.mean(0) - shapes.neutral.mean(0)
    turn = _turn(where, own - own.mean(0), ours - ours.mean(0), front).astype(np.float32)
    placed = ((shapes.neutral - own.mean(0)) @ turn + ours.mean(0)).astype(np.float32)
    own = (own - own.mean(0)) @ turn + ours.mean(0)
    bent = placed + RBFInterpolator(own, ours - own, kernel="linear", smoothing=SMOOTHING)(placed)
    outline = Delaunay(model.template[:, :2] * MARGIN)
    within = (outline.find_simplex(bent[:, :2]) >= 0) & (bent[:, 2] >= model.template[:, 2].min() * MARGIN)
    kept = within[shapes.faces].any(1)
    if kept.sum() < LEAST_FACES:
        raise DataError.at(where, "hardly a face is left where our face is", "see that its shapes have ARKit's names")
    found = Shapes(placed, _facing_front(placed, shapes.faces, kept), shapes.units @ turn, shapes.directions @ turn)
    found, used = found.part(kept)
    drawn = _drawn(found, bent[used])
    found, left = found.part(drawn)
    return found, bent[used][left]


def _place(vertices: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Where a unit moves the face most, (3,)."""
    weight = (unit**2).sum(1, keepdims=True)
    return (vertices * weight).sum(0) / weight.sum()


def _turn(where: Path, own: np.ndarray, ours: np.ndarray, front: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) that turns and scales places (N, 3) onto ours (N, 3), both about their means.

    front (3,): from the middle of the model's head to that of its places, so that it does not look backwards.
    """
    length, width, _ = np.linalg.svd(own, compute_uv=False)
    if width <= LEAST_WIDTH * length:
        fault = "its blend shapes move one line of the face alone"
        raise DataError.at(where, fault, "add shapes of the brows, the eyes and the mouth, by ARKit's names")
    u, s, vt = np.linalg.svd(own.T @ ours)
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    turn = (u * flip) @ vt * ((s * flip).sum() / (own**2).sum())
    if (front @ turn)[2] < 0:
        fault = "laid upon our face it looks backwards: left and right are exchanged"
        raise DataError.at(where, fault, "name the shapes of the person's own left side Left")
    off = np.sqrt(((own @ turn - ours) ** 2).sum() / (ours**2).sum())
    if off > MOST_OFF:
        fault = f"its blend shapes do not lie as those of a face do (off by {off:.0%} of their spread)"
        raise DataError.at(where, fault, "see that each shape moves what ARKit's name says")
    return turn


def _facing_front(vertices: np.ndarray, faces: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Faces (F, 3) turned inside out where those of the face show their backs to the front."""
    a, b, c = (vertices[faces[kept, i]] for i in range(3))
    return faces[:, ::-1] if np.cross(b - a, c - a)[:, 2].sum() < 0 else faces


def _drawn(shapes: Shapes, bent: np.ndarray) -> np.ndarray:
    """Which faces (F,) are drawn: all but those of parts that no unit moves, unless these are eyes or lie in the mouth:
    hair, glasses, a hat."""
    pieces = _connected(shapes.neutral, shapes.faces)
    moves = np.abs(shapes.units).max((0, 2)) > 0
    from_skin, from_mouth = _distances(bent, shapes.faces)
    drawn = np.ones(len(shapes.faces), bool)
    for piece in np.unique(pieces):
        own = pieces == piece
        vertices = np.unique(shapes.faces[own])
        if not moves[vertices].any() and _eyeball(shapes.neutral[vertices]) is None:
            drawn[own] = np.median(from_mouth[own]) < np.median(from_skin[own])
    return drawn


# The atlas ----------------------------------------------------------------------------------------------------------


def lay_atlas(neutral: np.ndarray, faces: np.ndarray, bent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a model's surface lies in our skin's atlas: which vertex each corner is (W,), its uv (W, 2), faces (F, 3).

    neutral (V, 3) mm, faces (F, 3), bent (V, 3): of `onto_ours`. A vertex between parts (skin, eyes, inside of the
    mouth) stands once for each. What is seen at rest is skin or eye.
    """
    from_skin, from_mouth = _distances(bent, faces)
    hidden = ~_seen(neutral, faces)
    island = np.where(hidden & ((from_skin > DEEP_MM) | (from_mouth < from_skin)), MOUTH_CAVITY, SKIN)
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


def _distances(bent: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the faces' middles (F,) are from our skin, and from the inside of our mouth, mm."""
    middle = bent[faces].mean(1)
    return tuple(_atlas(island)[0].query(middle)[0] for island in (SKIN, MOUTH_CAVITY))


def _seen(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Which faces (F,) are seen from the front or from half aside, nothing standing before their middles."""
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    middle, seen = vertices[faces].mean(1), np.zeros(len(faces), bool)
    for angle in np.deg2rad(SEEN_FROM_DEG):
        towards = np.array([np.sin(angle), 0, np.cos(angle)])
        rays = np.broadcast_to(-towards, middle.shape)
        seen |= mesh.ray.intersects_first(middle + np.ptp(vertices) * towards, rays) == np.arange(len(faces))
    return seen


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
