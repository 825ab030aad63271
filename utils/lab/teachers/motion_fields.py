"""Motion without rendering: the optical flow of the face model as a weighted sum of fields.

Micro-expressions move the skin by a pixel or two, so the flow of a face is, to first order, linear in what
moves it: one field for each of the 52 face units and for each of the head's six rigid degrees of freedom, made
once per person, pose and set of cameras. A sample is then a sum of fields, which costs microseconds where
rendering and estimating cost a second.

    fields = make_fields(identity, cameras, size)      (58, V, 2, H, W), per unit contraction, degree, mm
    motion = sample_motion(identity, emotions, rng)    (N, moments, 58), what moves at onset, apex, offset
    flow = true_flow(fields, motion.weights)           (N, V, P, 2, H, W), exact
    flow = estimated_flow(flow, noise, rng)            the same as a flow method would see it

Flow is in pixels of the cameras' pictures, x right, y down, averaged over the area of each map pixel (zero off
the face). The noise model is fitted to what `utils.flow.methods` makes of rendered faces:

    python -m utils.lab.teachers.flow_noise [--method faceflow]       prints it
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage, sparse

from utils.render.camera import Camera, surface_points
from utils.synthetic.action_units import ACTION_UNITS, sides_of
from utils.synthetic.expressions import (
    BLINK,
    EMFACS,
    GAZE,
    Repertoire,
    gaze_shapes,
    rotation,
    sample_expression,
    sample_peak_px,
    within_reach,
)
from utils.synthetic.face_model import Identity, load_face_model
from utils.synthetic.performance import PIVOT, PIXELS_PER_MM

RIGID = ("turn_x", "turn_y", "turn_z", "shift_x", "shift_y", "shift_z")  # degrees about PIVOT, millimetres
RAYS = 3  # per map pixel and side
CROP = 256  # pixels a side of the pictures that flow is estimated on


class MotionFields(NamedTuple):
    """fields (58, V, 2, H, W) float32: the 52 units of `FaceModel.unit_names`, then RIGID; mask (V, H, W): the
    share of each map pixel that the face covers.
    """

    fields: np.ndarray
    mask: np.ndarray


class Motion(NamedTuple):
    """weights (N, M moments, 58) float32 of the fields; units (N, 19): intensity 0..1 of each AU."""

    weights: np.ndarray
    units: np.ndarray


# Fields -----------------------------------------------------------------------------------------------------


def make_fields(
    identity: Identity,
    cameras: Sequence[Camera],
    size: int = 28,
    angles: Sequence[float] = (0, 0, 0),
    faces: np.ndarray | None = None,
) -> MotionFields:
    """The fields of one person turned by `angles` (degrees about x, y, z) for V cameras with square pictures.

    faces: the triangles (F, 3) of a person of another face model than ours.
    """
    faces = load_face_model().faces if faces is None else faces
    turn = rotation(np.asarray(angles, float)).astype(np.float32)
    vertices = (identity.vertices - PIVOT) @ turn.T + PIVOT
    axes = np.eye(3, dtype=np.float32)
    turns = np.stack([np.cross(axis, vertices - PIVOT) for axis in axes]) * np.deg2rad(1.0)
    shifts = np.broadcast_to(axes[:, None], turns.shape)
    displacement = np.concatenate([identity.shape_offsets @ turn.T, turns, shifts]).astype(np.float32)
    flat = np.ascontiguousarray(displacement.reshape(len(displacement), -1).T)  # (3 V, 58)
    maps, masks = [], []
    for camera in cameras:
        operator, mask = _motion_to_map(vertices, faces, camera, size)
        maps.append((operator @ flat).T.reshape(-1, 2, size, size))
        masks.append(mask)
    return MotionFields(np.stack(maps, 1), np.stack(masks))


def _motion_to_map(
    vertices: np.ndarray, faces: np.ndarray, camera: Camera, size: int
) -> tuple[sparse.csr_array, np.ndarray]:
    """The linear map (2 H W, 3 V) from vertex displacement to flow on the maps, and the mask (H, W).

    RAYS x RAYS rays per map pixel; a ray's flow is the projection's derivative at the point it meets, times
    the displacement interpolated in its triangle.
    """
    fine = camera.cropped((0, 0, camera.size[0]), size * RAYS)
    triangle, weights = surface_points(vertices, faces, fine)
    rows, columns = np.nonzero(triangle >= 0)
    corners = faces[triangle[rows, columns]]  # (n, 3)
    weights = weights[rows, columns]
    points = np.einsum("nk,nkc->nc", weights, vertices[corners].astype(float))
    jacobian = _projection_derivative(camera, points) / RAYS**2  # (n, 2, 3)
    pixel = rows // RAYS * size + columns // RAYS
    row = np.arange(2)[:, None] * size**2 + pixel[:, None, None, None]  # (n, 1, 2, 1): u, then v
    column = corners[:, :, None, None] * 3 + np.arange(3)  # (n, 3, 1, 3)
    values = weights[:, :, None, None] * jacobian[:, None]  # (n, 3 corners, 2, 3 axes)
    index = [np.broadcast_to(part, values.shape).ravel() for part in (row, column)]
    operator = sparse.csr_array((values.ravel().astype(np.float32), index), shape=(2 * size**2, vertices.size))
    share = np.bincount(pixel, minlength=size**2) / RAYS**2
    return operator, share.reshape(size, size).astype(np.float32)


def _projection_derivative(camera: Camera, points: np.ndarray) -> np.ndarray:
    """d pixel / d point, (N, 2, 3), of `Camera.project` at points (N, 3) mm."""
    right, up, back = camera.axes
    local = (points - np.asarray(camera.target)) @ camera.axes.T
    depth = (camera.distance - local[:, 2])[:, None]
    along_x = camera.focal * (right / depth + local[:, :1] * back / depth**2)
    along_y = -camera.focal * (up / depth + local[:, 1:2] * back / depth**2)
    return np.stack([along_x, along_y], 1)


def extend_fields(fields: MotionFields, sigma: float = 3.0) -> MotionFields:
    """The same fields carried on past the face's outline (Gaussian weights, sigma in map pixels), as a flow method
    without a mask does; the mask stays.
    """
    near = blur_maps(fields.mask, sigma)
    carried = blur_maps(fields.fields, sigma) / np.maximum(near, 1e-6)[:, None]
    return fields._replace(fields=fields.fields + (1 - fields.mask[:, None]) * carried)


def true_flow(fields: MotionFields, weights: np.ndarray) -> np.ndarray:
    """Flow (N, V, P, 2, H, W) float32 between consecutive moments of weights (N, P + 1, 58)."""
    change = np.diff(weights, axis=1).astype(np.float32)
    return np.moveaxis(np.tensordot(change, fields.fields, 1), 1, 2)


# Motion -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _unit_table() -> tuple[dict[str, int], np.ndarray]:
    """Index of each face unit among the fields, and for each its AU (row of ACTION_UNITS), else -1."""
    index = load_face_model().shape_index
    au_of = np.full(len(index), -1)
    for row, units in enumerate(ACTION_UNITS.values()):
        au_of[[index[side] for unit in units for side in sides_of(unit)]] = row
    return index, au_of


def sample_motion(
    identity: Identity,
    emotions: Sequence[Sequence[str]],
    rng: np.random.Generator,
    head: float = 0.1,
    lids: float = 1 / 3,
    repertoire: Repertoire = EMFACS,
) -> Motion:
    """Motion of one person in N clips of the given emotions, at onset, apex and offset.

    An expression as `sample_expression` draws it, by default from what the teacher knows, of a peak as in the
    synthetic set (median 0.9 px of a 256 px face); at the offset up to a sixth of each AU is left. The lids move in a
    share `lids` of the clips, the gaze in one of three. The head drifts by about `head` degrees and millimetres (what
    stabilisation leaves), in one clip of four by three times that.
    """
    n, (index, au_of) = len(emotions), _unit_table()
    intensity = np.zeros((n, len(index)), np.float32)
    repertoire = within_reach(repertoire, identity.moving)
    for row, names in zip(intensity, emotions, strict=True):
        for unit, value in sample_expression(list(names), rng, repertoire).items():
            row[index[unit]] = value
    intensity *= identity.shape_travel > 0  # a half that another face model lacks does not move
    apex = intensity / np.maximum(identity.shape_travel, 1e-6)
    moved = np.linalg.norm(
        (apex @ identity.shape_offsets.reshape(len(index), -1)).reshape(n, -1, 3)[..., :2], axis=2
    ).max(1)
    peak = sample_peak_px(rng, n) / PIXELS_PER_MM
    apex *= (peak / np.maximum(moved, 1e-6))[:, None]
    left = rng.uniform(0, 1 / 6, (n, len(ACTION_UNITS)))[:, au_of].astype(np.float32)

    weights = np.zeros((n, 3, len(index) + len(RIGID)), np.float32)
    weights[:, 1, : len(index)], weights[:, 2, : len(index)] = apex, apex * left
    weights[:, :, [index[name] for name in BLINK]] += _sample_lids(n, lids, rng)
    _add_gaze(weights, index, rng)
    drift = head * np.where(rng.random(n) < 0.25, 3, 1)[:, None, None]
    weights[:, 1:, len(index) :] = np.cumsum(rng.normal(0, 1, (n, 2, len(RIGID))) * drift, 1)
    units = np.stack([intensity[:, au_of == row].max(1) for row in range(len(ACTION_UNITS))], 1)
    return Motion(weights, units)


def _sample_lids(n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Closure of both lids (n, 3 moments, 2): in a share of the clips one moment falls within a blink, most often
    at its edge (log-uniform from 0.01 to 0.7), a little uneven.
    """
    lids = np.zeros((n, 3, 2), np.float32)
    caught = np.flatnonzero(rng.random(n) < share)
    closure = np.exp(rng.uniform(np.log(0.01), np.log(0.7), (len(caught), 1)))
    lids[caught, rng.integers(0, 3, len(caught))] = closure * rng.uniform(0.8, 1.2, (len(caught), 2))
    return lids


def _add_gaze(weights: np.ndarray, index: dict[str, int], rng: np.random.Generator) -> None:
    """Both eyes turn in one clip of three, for good, before the apex or after it."""
    for clip in np.flatnonzero(rng.random(len(weights)) < 0.3):
        units, turn, since = gaze_shapes(rng.choice(GAZE)), rng.uniform(0.02, 0.5), rng.integers(1, 3)
        for name in units:
            weights[clip, since:, index[name]] += turn


# Maps -------------------------------------------------------------------------------------------------------


def blur_maps(maps: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur over the last two axes, edges reflected."""
    return ndimage.gaussian_filter(maps, sigma, axes=(-2, -1), truncate=3) if sigma > 0 else maps
