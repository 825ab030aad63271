"""Registration of a user's face model with ours: its pose, its size, and its uv in the texture of our skin.

The two meshes have no vertices in common, but the same blend shapes move the same places of the face. These places
determine a similarity transform (Umeyama 1991), and then a smooth deformation by radial basis functions, which brings
each point of the user's face near the corresponding point of ours.
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

MARGIN = 1.02  # enlarges the outline of our face; the user's mesh is cut off outside it (neck, back of the head)
SMOOTHING = 3.0  # of the deformation, mm: the places correspond only roughly
MAX_MISFIT = 0.6  # greatest rms distance of the transformed places from ours, relative to their spread
MIN_WIDTH = 0.15  # least ratio of the second to the first singular value of the places: they must not form a line
MIN_FACES = 50  # least number of faces within the outline of our face
DEEP_MM = 15.0  # a hidden face that is farther from our skin lies inside the head
EYE_MM = (8.0, 20.0)  # least and greatest radius of an eyeball
EYE_VERTICES = 30  # least number of vertices of an eyeball
EYE_ROUNDNESS = 0.1  # greatest mean distance of an eyeball's vertices from its sphere, relative to the radius
NEIGHBOURS = 12  # how many of our vertices determine the motion of a vertex of the user's face
SEEN_FROM_DEG = (-25.0, 0.0, 25.0)  # yaw of the directions from which a face counts as visible


class Shapes(NamedTuple):
    """The mesh of a face model, and how it can change."""

    neutral: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    offsets: np.ndarray  # (52, V, 3) of the blend shapes, in the order of `FaceModel.shape_names`
    directions: np.ndarray  # (I, V, 3) in which people differ


def register(path: Path, shapes: Shapes) -> tuple[Shapes, np.ndarray]:
    """Transform a face model of any scale and pose onto ours (mm), and remove the parts that our face does not have.

    Also returns the vertices (V, 3) bent to the form of our face. Raises DataError, which names `path`, if the places
    that the blend shapes move do not fit ours.
    """
    model = load_face_model()
    pairs = zip(shapes.offsets, model.shapes.values(), strict=True)
    pairs = [(offset, our_offset) for offset, our_offset in pairs if offset.any() and our_offset.any()]
    places = np.array([_place(shapes.neutral, offset) for offset, _ in pairs])
    our_places = np.array([_place(model.template, our_offset) for _, our_offset in pairs])
    centre, our_centre = places.mean(0), our_places.mean(0)
    front = centre - shapes.neutral.mean(0)
    turn = _similarity(path, places - centre, our_places - our_centre, front).astype(np.float32)
    neutral = ((shapes.neutral - centre) @ turn + our_centre).astype(np.float32)
    places = (places - centre) @ turn + our_centre
    bent = neutral + RBFInterpolator(places, our_places - places, kernel="linear", smoothing=SMOOTHING)(neutral)

    outline = Delaunay(model.template[:, :2] * MARGIN)
    inside = (outline.find_simplex(bent[:, :2]) >= 0) & (bent[:, 2] >= model.template[:, 2].min() * MARGIN)
    kept = inside[shapes.faces].any(1)
    if kept.sum() < MIN_FACES:
        fault = "hardly any of its faces lie where our face is"
        raise DataError.at(path, fault, "check that its blend shapes have ARKit's names")
    faces, offsets, directions = shapes.faces[kept], shapes.offsets @ turn, shapes.directions @ turn
    a, b, c = np.moveaxis(neutral[faces], 1, 0)
    if np.cross(b - a, c - a)[:, 2].sum() < 0:  # inside out
        faces = faces[:, ::-1]
    drawn = _drawn(neutral, faces, bent, moves=np.abs(offsets).max((0, 2)) > 0)
    used, faces = np.unique(faces[drawn], return_inverse=True)
    faces = faces.reshape(-1, 3).astype(np.int32)
    return Shapes(neutral[used], faces, offsets[:, used], directions[:, used]), bent[used]


def _place(vertices: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The place (3,) of a blend shape: the mean of the vertices (V, 3), weighted by its squared offsets (V, 3)."""
    weight = (offset**2).sum(1, keepdims=True)
    return (vertices * weight).sum(0) / weight.sum()


def _similarity(path: Path, places: np.ndarray, our_places: np.ndarray, front: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) that rotates and scales places (N, 3) onto our places (N, 3); both have their mean at 0.

    front (3,): from the centre of the user's head to the mean of its places; it must point forward when rotated.
    """
    length, width, _ = np.linalg.svd(places, compute_uv=False)
    if width <= MIN_WIDTH * length:
        fault = "the places that its blend shapes move lie on one line"
        raise DataError.at(path, fault, "add blend shapes of the brows, the eyes and the mouth, with ARKit's names")
    u, s, vt = np.linalg.svd(places.T @ our_places)
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    turn = (u * flip) @ vt * ((s * flip).sum() / (places**2).sum())
    if (front @ turn)[2] < 0:
        fault = "aligned with our face model it looks backwards: left and right are exchanged"
        raise DataError.at(path, fault, "name the blend shapes of the person's own left side Left")
    misfit = np.sqrt(((places @ turn - our_places) ** 2).sum() / (our_places**2).sum())
    if misfit > MAX_MISFIT:
        fault = f"its blend shapes do not move the places that they should (off by {misfit:.0%} of their spread)"
        raise DataError.at(path, fault, "check that each blend shape moves what its ARKit name says")
    return turn


def _drawn(neutral: np.ndarray, faces: np.ndarray, bent: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Which faces (F,) are drawn: not those of connected parts that no blend shape moves, such as hair or glasses.

    Eyeballs and parts within the mouth are drawn in any case. moves (V,): whether any blend shape moves a vertex.
    """
    pieces = _pieces(neutral, faces)
    from_skin, from_mouth = _distances(bent, faces)
    drawn = np.ones(len(faces), bool)
    for number in np.unique(pieces):
        piece = pieces == number
        vertices = np.unique(faces[piece])
        if not moves[vertices].any() and _eye_island(neutral[vertices]) is None:
            drawn[piece] = np.median(from_mouth[piece]) < np.median(from_skin[piece])
    return drawn


def assign_uv(neutral: np.ndarray, faces: np.ndarray, bent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give a registered mesh the texture of our skin: old index of each new vertex (W,), its uv (W, 2), faces (F, 3).

    neutral (V, 3) mm, faces (F, 3) and bent (V, 3) come from `register`. A vertex between islands (skin, eyes, inside
    of the mouth) becomes one vertex in each of them. Faces that are visible at rest are skin or eyes.
    """
    from_skin, from_mouth = _distances(bent, faces)
    hidden = ~_visible(neutral, faces)
    island = np.where(hidden & ((from_skin > DEEP_MM) | (from_mouth < from_skin)), MOUTH_CAVITY, SKIN)
    model, positions = load_face_model(), {}
    pieces = _pieces(neutral, faces)
    for number in np.unique(pieces):
        ball = neutral[np.unique(faces[pieces == number])]
        if (eye := _eye_island(ball)) is not None:
            island[pieces == number] = eye
            (centre, radius), (our_centre, our_radius) = _sphere(ball), _sphere(model.template[model.island == eye])
            positions[eye] = (neutral - centre) * (our_radius / radius) + our_centre
    keys, corners = np.unique(faces.ravel() + len(neutral) * np.repeat(island, 3).astype(np.int64), return_inverse=True)
    source, island_of = keys % len(neutral), keys // len(neutral)
    uv = np.empty((len(keys), 2), np.float32)
    for number in np.unique(island_of):
        chosen = island_of == number
        tree, texel_uv = _texels_of(int(number))
        uv[chosen] = texel_uv[tree.query(positions.get(number, bent)[source[chosen]])[1]]
    return source, uv, corners.reshape(-1, 3).astype(np.int32)


def _distances(bent: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the faces' centres (F,) from our skin and from the inside of our mouth, mm."""
    centres = bent[faces].mean(1)
    return tuple(_texels_of(island)[0].query(centres)[0] for island in (SKIN, MOUTH_CAVITY))


def _visible(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Whether the centre of each face (F,) is visible from one of the directions SEEN_FROM_DEG."""
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    centres, visible = vertices[faces].mean(1), np.zeros(len(faces), bool)
    for angle in np.deg2rad(SEEN_FROM_DEG):
        towards = np.array([np.sin(angle), 0, np.cos(angle)])
        rays = np.broadcast_to(-towards, centres.shape)
        visible |= mesh.ray.intersects_first(centres + np.ptp(vertices) * towards, rays) == np.arange(len(faces))
    return visible


def weld(vertices: np.ndarray) -> np.ndarray:
    """A number (V,) for each vertex (V, 3), the same for vertices at the same place."""
    return np.unique(vertices, axis=0, return_inverse=True)[1].reshape(-1)


def _pieces(neutral: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The number of the connected part to which each face (F,) belongs."""
    a, b, c = weld(neutral)[faces].T
    links = sparse.coo_array((np.ones(2 * len(faces)), (np.r_[a, b], np.r_[b, c])), (len(neutral),) * 2)
    return connected_components(links, directed=False)[1][a]


@lru_cache(maxsize=8)
def _texels_of(island: int) -> tuple[cKDTree, np.ndarray]:
    """The N texels of an island of our texture: a search tree of their positions on the template, and their uv."""
    position, islands, _ = texel_surface()
    rows, columns = np.nonzero(islands == island)
    uv = np.stack([(columns + 0.5) / TEXELS, 1 - (rows + 0.5) / TEXELS], -1).astype(np.float32)
    return cKDTree(position[rows, columns]), uv


def _eye_island(vertices: np.ndarray) -> int | None:
    """The island of our eye at this place if vertices (N, 3) mm form a round eyeball; None otherwise."""
    if len(vertices) < EYE_VERTICES:
        return None
    centre, radius = _sphere(vertices)
    off = np.abs(np.linalg.norm(vertices - centre, axis=1) - radius).mean()
    if not (EYE_MM[0] < radius < EYE_MM[1]) or off > EYE_ROUNDNESS * radius:
        return None
    model = load_face_model()
    distance = {eye: np.linalg.norm(_sphere(model.template[model.island == eye])[0] - centre) for eye in model.eyes}
    nearest = min(distance, key=distance.__getitem__)
    return nearest if distance[nearest] < EYE_MM[1] else None


def _sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of the sphere that fits points (N, 3) best, by least squares."""
    mean = points.mean(0, dtype=float)
    local = points - mean
    system = np.column_stack([2 * local, np.ones(len(local))])
    *centre, rest = np.linalg.lstsq(system, (local**2).sum(1), rcond=None)[0]
    return mean + centre, float(np.sqrt(rest + np.dot(centre, centre)))


def transfer(motion: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """A motion (V, 3) mm of our face model's vertices, interpolated smoothly at the vertices (W, 3) mm of another."""
    model = load_face_model()
    skin = model.island == SKIN
    distance, index = cKDTree(model.template[skin]).query(vertices, NEIGHBOURS)
    weight = 1 / (distance + 1.0)  # mm
    weight /= weight.sum(1, keepdims=True)
    return np.einsum("wk,wkc->wc", weight, motion[skin][index]).astype(np.float32)
