"""Motion without rendering: the optical flow of the face model as a weighted sum of fields.

Micro-expressions move the skin by a pixel or two, so the flow is linear, to first order, in what moves the face. There
is one field for each of the 52 blend shapes and one for each of the head's six rigid degrees of freedom. The fields are
computed once per person, pose and set of cameras. A sample takes microseconds; rendering and estimating take a second.

    fields = make_fields(identity, cameras, angles)    (58, V, 2, H, W), per full contraction, degree or mm
    motion = sample_motion(identity, emotions, rng)    weights (N, 3 moments, 58) of the fields
    flow = true_flow(fields, motion.weights)           (N, V, P, 2, H, W)
    flow = estimated_flow(flow, noise, rng)            what a flow method would estimate, see `flow_noise`

Flow is in pixels of the cameras' pictures, x right, y down. Each map pixel holds the mean over its area. The flow is
zero off the face.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage, sparse

from utils.render.camera import Camera, surface_points
from utils.synthetic import expressions
from utils.synthetic.action_units import ACTION_UNITS, sides_of
from utils.synthetic.expressions import BLINK, EMFACS, GAZE, Repertoire, gaze_shapes
from utils.synthetic.face_model import Identity, load_face_model
from utils.synthetic.performance import PIVOT, PIXELS_PER_MM

RIGID = ("turn_x", "turn_y", "turn_z", "shift_x", "shift_y", "shift_z")  # degrees about PIVOT, millimetres
CROP, SIZE = 256, 28  # sides of the cameras' pictures and of the maps, pixels
RAYS = 3  # per side of a map pixel
EXTENSION = 3.0  # sigma of `MotionFields.extended`, map pixels


class MotionFields(NamedTuple):
    """fields (58, V, 2, H, W) float32: the blend shapes in the order of `FaceModel.shape_names`, then RIGID.
    mask (V, H, W) float32: the share of each map pixel that the face covers.
    """

    fields: np.ndarray
    mask: np.ndarray

    def extended(self) -> "MotionFields":
        """The fields, smoothly continued beyond the outline of the face, as by a flow method without a mask."""
        near = blur_maps(self.mask, EXTENSION)
        continued = blur_maps(self.fields, EXTENSION) / np.maximum(near, 1e-6)[:, None]
        return self._replace(fields=self.fields + (1 - self.mask[:, None]) * continued)


class Motion(NamedTuple):
    """weights (N, 3 moments, 58) float32 of the fields; units (N, 19) float32: intensity of each action unit, 0..1."""

    weights: np.ndarray
    units: np.ndarray


def make_fields(
    identity: Identity, cameras: Sequence[Camera], angles: Sequence[float], faces: np.ndarray | None = None
) -> MotionFields:
    """The fields of a person whose head is turned by `angles` (degrees about x, y, z), for V cameras.

    faces (F, 3): the triangles of a person of a user's face model; by default those of the shipped face model.
    """
    faces = load_face_model().faces if faces is None else faces
    turn = expressions.rotation(np.asarray(angles, float)).astype(np.float32)
    vertices = (identity.vertices - PIVOT) @ turn.T + PIVOT
    axes = np.eye(3, dtype=np.float32)
    turns = np.stack([np.cross(axis, vertices - PIVOT) for axis in axes]) * np.deg2rad(1.0)
    shifts = np.broadcast_to(axes[:, None], turns.shape)
    displacement = np.concatenate([identity.shape_offsets @ turn.T, turns, shifts]).astype(np.float32)
    flat = np.ascontiguousarray(displacement.reshape(len(displacement), -1).T)  # (3 V, 58)
    operators, masks = zip(*(_motion_to_map(vertices, faces, camera) for camera in cameras), strict=True)
    maps = [(operator @ flat).T.reshape(-1, 2, SIZE, SIZE) for operator in operators]
    return MotionFields(np.stack(maps, 1), np.stack(masks))


def _motion_to_map(vertices: np.ndarray, faces: np.ndarray, camera: Camera) -> tuple[sparse.csr_array, np.ndarray]:
    """The linear map (2 H W, 3 V) from vertex displacement to flow on the maps, and the mask (H, W).

    The flow of a ray is the derivative of the projection at the point that it meets, times the point's displacement.
    """
    triangle, weights = surface_points(vertices, faces, camera.cropped((0, 0, camera.size[0]), SIZE * RAYS))
    rows, columns = np.nonzero(triangle >= 0)
    corners, weights = faces[triangle[rows, columns]], weights[rows, columns]  # (n, 3) each
    points = np.einsum("nk,nkc->nc", weights, vertices[corners].astype(float))
    right, up, back = camera.axes
    local = (points - np.asarray(camera.target)) @ camera.axes.T
    depth = (camera.distance - local[:, 2])[:, None]
    along_x = camera.focal * (right / depth + local[:, :1] * back / depth**2)
    along_y = -camera.focal * (up / depth + local[:, 1:2] * back / depth**2)
    jacobian = np.stack([along_x, along_y], 1) / RAYS**2  # (n, 2, 3) of `Camera.project`
    pixel = rows // RAYS * SIZE + columns // RAYS
    row = np.arange(2)[:, None] * SIZE**2 + pixel[:, None, None, None]  # (n, 1, 2, 1): u, then v
    column = corners[:, :, None, None] * 3 + np.arange(3)  # (n, 3, 1, 3)
    values = weights[:, :, None, None] * jacobian[:, None]  # (n, 3 corners, 2, 3 axes)
    index = [np.broadcast_to(part, values.shape).ravel() for part in (row, column)]
    operator = sparse.csr_array((values.ravel().astype(np.float32), index), shape=(2 * SIZE**2, vertices.size))
    share = np.bincount(pixel, minlength=SIZE**2) / RAYS**2
    return operator, share.reshape(SIZE, SIZE).astype(np.float32)


def true_flow(fields: MotionFields, weights: np.ndarray) -> np.ndarray:
    """Flow (N, V, P, 2, H, W) float32 between consecutive moments of weights (N, P + 1, 58)."""
    change = np.diff(weights, axis=1).astype(np.float32)
    return np.moveaxis(np.tensordot(change, fields.fields, 1), 1, 2)


def sample_motion(
    identity: Identity,
    emotions: Sequence[Sequence[str]],
    rng: np.random.Generator,
    head: float,
    lids: float = 1 / 3,
    repertoire: Repertoire = EMFACS,
) -> Motion:
    """Motion of one person at onset, apex and offset of N clips, given the emotions of each clip.

    `sample_expression` draws the expression and `sample_peak_px` its peak motion. At the offset up to a sixth of each
    AU is left. The lids move in a share `lids` of the clips, the gaze in 0.3 of them. The head drifts by about `head`
    degrees and millimetres, in a quarter of the clips by three times as much, since stabilisation is not perfect.
    """
    n, index = len(emotions), load_face_model().shape_index
    au_of = np.full(len(index), -1)  # row of each blend shape's AU in ACTION_UNITS
    for row, stems in enumerate(ACTION_UNITS.values()):
        au_of[[index[name] for stem in stems for name in sides_of(stem)]] = row
    intensity = np.zeros((n, len(index)), np.float32)
    repertoire = expressions.within_reach(repertoire, identity.moving)
    for row, names in zip(intensity, emotions, strict=True):
        for shape, value in expressions.sample_expression(list(names), rng, repertoire).items():
            row[index[shape]] = value
    intensity *= identity.shape_travel > 0  # a user's face model may lack a blend shape
    apex = intensity / np.maximum(identity.shape_travel, 1e-6)
    moved = (apex @ identity.shape_offsets.reshape(len(index), -1)).reshape(n, -1, 3)[..., :2]
    peak = expressions.sample_peak_px(rng, n) / PIXELS_PER_MM
    apex *= (peak / np.maximum(np.linalg.norm(moved, axis=2).max(1), 1e-6))[:, None]
    left = rng.uniform(0, 1 / 6, (n, len(ACTION_UNITS)))[:, au_of].astype(np.float32)

    weights = np.zeros((n, 3, len(index) + len(RIGID)), np.float32)
    weights[:, 1, : len(index)], weights[:, 2, : len(index)] = apex, apex * left
    weights[:, :, [index[name] for name in BLINK]] += _sample_lids(n, lids, rng)
    for clip in np.flatnonzero(rng.random(n) < 0.3):  # both eyes turn and stay turned, from the apex or the offset on
        shapes, turn, start = gaze_shapes(rng.choice(GAZE)), rng.uniform(0.02, 0.5), rng.integers(1, 3)
        for name in shapes:
            weights[clip, start:, index[name]] += turn
    drift = head * np.where(rng.random(n) < 0.25, 3, 1)[:, None, None]
    weights[:, 1:, len(index) :] = np.cumsum(rng.normal(0, 1, (n, 2, len(RIGID))) * drift, 1)
    return Motion(weights, np.stack([intensity[:, au_of == row].max(1) for row in range(len(ACTION_UNITS))], 1))


def _sample_lids(n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Closure of both lids (n, 3 moments, 2). In a share of the clips, one moment falls within a blink, most often at
    its edge: the closure is log-uniform from 0.01 to 0.7, and differs a little between the sides."""
    lids = np.zeros((n, 3, 2), np.float32)
    blinking = np.flatnonzero(rng.random(n) < share)
    closure = np.exp(rng.uniform(np.log(0.01), np.log(0.7), (len(blinking), 1)))
    lids[blinking, rng.integers(0, 3, len(blinking))] = closure * rng.uniform(0.8, 1.2, (len(blinking), 2))
    return lids


def blur_maps(maps: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur over the last two axes, edges reflected."""
    return ndimage.gaussian_filter(maps, sigma, axes=(-2, -1), truncate=3) if sigma > 0 else maps


def covered_share(mask: np.ndarray) -> np.ndarray:
    """The share (SIZE, SIZE) float32 of each map pixel that a mask (CROP, CROP) bool covers."""
    return cv2.resize(mask.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
