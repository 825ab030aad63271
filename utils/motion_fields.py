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

    python -m utils.motion_fields [--method faceflow]       prints it
"""

import argparse
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage, sparse

from utils.config import CLASSES
from utils.face.expressions import ACTION_UNITS, BLINK, GAZE, rotation, sample_expression, sides_of
from utils.face.model import Identity, load_face_model, sample_identity
from utils.face.skin import paint_skin
from utils.flow.features import flow_maps
from utils.flow.methods import phase_flows
from utils.render.camera import Camera, surface_points
from utils.render.views import DISTANCE_MM
from utils.synthetic.flow_clips import Conditions, Performed, record_clip
from utils.synthetic.performance import PIVOT, PIXELS_PER_MM, face_shapes, perform

RIGID = ("turn_x", "turn_y", "turn_z", "shift_x", "shift_y", "shift_z")  # degrees about PIVOT, millimetres
RAYS = 3  # per map pixel and side
CROP = 256  # pixels a side of the pictures that flow is estimated on
EYE_ISLANDS = (5, 7)  # the texture islands of the front of the eyes


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


@dataclass(frozen=True)
class FlowNoise:
    """What a flow method makes of the true flow on the maps: gain * blurred truth + error.

    The error is Gaussian, smooth over space, and grows with the motion: its deviation at a pixel is
    sqrt(floor^2 + (relative * local magnitude)^2). The errors of the two phases share the apex frame.
    """

    gain: float  # of the magnitude
    blur: float  # sigma of the Gaussian over the truth, map pixels
    floor: float  # deviation of u and of v where nothing moves, pixels of the picture
    relative: float  # deviation per pixel of true motion
    length: float  # sigma of the Gaussian that makes the error smooth, map pixels
    phases: float  # correlation of the two phases' errors
    lost: float = 0.0  # root mean square motion within a map pixel that averages out of u and v, pixels


# Of method "faceflow" on 256 px pictures, maps of 28 x 28: `python -m utils.motion_fields` (60 people, seed 0).
FLOW_NOISE = FlowNoise(gain=0.974, blur=0.4, floor=0.023, relative=0.15, length=0.769, phases=-0.455, lost=0.042)


# Fields -----------------------------------------------------------------------------------------------------


def make_fields(
    identity: Identity, cameras: Sequence[Camera], size: int = 28, angles: Sequence[float] = (0, 0, 0)
) -> MotionFields:
    """The fields of one person turned by `angles` (degrees about x, y, z) for V cameras with square pictures."""
    turn = rotation(np.asarray(angles, float)).astype(np.float32)
    vertices = (identity.vertices - PIVOT) @ turn.T + PIVOT
    axes = np.eye(3, dtype=np.float32)
    turns = np.stack([np.cross(axis, vertices - PIVOT) for axis in axes]) * np.deg2rad(1.0)
    shifts = np.broadcast_to(axes[:, None], turns.shape)
    displacement = np.concatenate([identity.unit_offsets @ turn.T, turns, shifts]).astype(np.float32)
    flat = np.ascontiguousarray(displacement.reshape(len(displacement), -1).T)  # (3 V, 58)
    maps, masks = [], []
    for camera in cameras:
        operator, mask = _motion_to_map(vertices, camera, size)
        maps.append((operator @ flat).T.reshape(-1, 2, size, size))
        masks.append(mask)
    return MotionFields(np.stack(maps, 1), np.stack(masks))


def _motion_to_map(vertices: np.ndarray, camera: Camera, size: int) -> tuple[sparse.csr_array, np.ndarray]:
    """The linear map (2 H W, 3 V) from vertex displacement to flow on the maps, and the mask (H, W).

    RAYS x RAYS rays per map pixel; a ray's flow is the projection's derivative at the point it meets, times
    the displacement interpolated in its triangle.
    """
    model = load_face_model()
    fine = camera.cropped((0, 0, camera.size[0]), size * RAYS)
    triangle, weights = surface_points(vertices, model.faces, fine)
    rows, columns = np.nonzero(triangle >= 0)
    corners = model.faces[triangle[rows, columns]]  # (n, 3)
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
    index = {name: i for i, name in enumerate(load_face_model().unit_names)}
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
) -> Motion:
    """Motion of one person in N clips of the given emotions, at onset, apex and offset.

    An expression as `motion.sample_expression` draws it, of a peak as in the synthetic set (median 0.9 px of a
    256 px face); at the offset up to a sixth of each AU is left. The lids move in a share `lids` of the clips, the
    gaze in one of three. The head drifts by about `head` degrees and millimetres (what stabilisation leaves), in
    one clip of four by three times that.
    """
    n, (index, au_of) = len(emotions), _unit_table()
    intensity = np.zeros((n, len(index)), np.float32)
    for row, names in zip(intensity, emotions, strict=True):
        for unit, value in sample_expression(list(names), rng).items():
            row[index[unit]] = value
    travel = np.linalg.norm(identity.unit_offsets, axis=2).max(1)
    apex = intensity / np.maximum(travel, 1e-6)
    moved = np.linalg.norm(
        (apex @ identity.unit_offsets.reshape(len(index), -1)).reshape(n, -1, 3)[..., :2], axis=2
    ).max(1)
    peak = np.clip(rng.lognormal(np.log(0.9), 0.45, n), 0.3, 2.5) / PIXELS_PER_MM
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
    opposite = {"In": "Out", "Out": "In"}
    for clip in np.flatnonzero(rng.random(len(weights)) < 0.3):
        way, turn, since = str(rng.choice(GAZE)), rng.uniform(0.02, 0.5), rng.integers(1, 3)
        weights[clip, since:, index[f"eyeLook{way}Left"]] += turn
        weights[clip, since:, index[f"eyeLook{opposite.get(way, way)}Right"]] += turn


# Estimated flow ---------------------------------------------------------------------------------------------


def smooth_noise(shape: tuple[int, ...], length: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of deviation one, smooth over the last two axes (sigma `length` pixels)."""
    noise = blur_maps(rng.standard_normal(shape, np.float32), length)
    return noise / noise.std()


def blur_maps(maps: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur over the last two axes, edges reflected."""
    return ndimage.gaussian_filter(maps, sigma, axes=(-2, -1), truncate=3) if sigma > 0 else maps


def estimated_flow(flow: np.ndarray, noise: FlowNoise, rng: np.random.Generator) -> np.ndarray:
    """The true flow (N, V, P, 2, H, W) as a flow method would estimate it, see `FlowNoise`."""
    seen = noise.gain * blur_maps(flow, noise.blur)
    error = smooth_noise(flow.shape, noise.length, rng)
    if flow.shape[2] == 2:
        error[:, :, 1] = noise.phases * error[:, :, 0] + np.sqrt(1 - noise.phases**2) * error[:, :, 1]
    deviation = np.sqrt(noise.floor**2 + noise.relative**2 * (flow**2).sum(3, keepdims=True))
    return seen + deviation * error


def maps_of(flow: np.ndarray, mask: np.ndarray, noise: FlowNoise) -> np.ndarray:
    """The network's maps (N, V, P, C = u v magnitude, H, W) of flow (N, V, P, 2, H, W), zero off the face.

    As in `utils.flow.features`, where the magnitude is averaged after it is taken: motion that cancels within a map
    pixel still counts, which `noise.lost` stands for. mask (V, H, W): the face's share.
    """
    magnitude = np.sqrt((flow**2).sum(3, keepdims=True) + noise.lost**2)
    return (np.concatenate([flow, magnitude], 3) * mask[:, None, None]).astype(np.float32)


# Flow images ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrontalCrop:
    """Where the eyes and the mouth stand in the square crop of a frontal face, in shares of its side.

    Both axes are scaled on their own, as crops by landmarks are when they are resized to a square.
    """

    eye_x: float = 0.5  # middle between the eyes, from the left
    eye_y: float = 0.28  # from the top
    eye_distance: float = 0.57
    mouth_drop: float = 0.45  # from the eyes' line down to the mouth

    def jittered(self, rng: np.random.Generator, spread: float = 0.03) -> "FrontalCrop":
        """The crop as it differs from clip to clip: every number by a normal deviation of `spread`."""
        return FrontalCrop(*(np.array(astuple(self)) + rng.normal(0, spread, 4)))


def frontal_view(identity: Identity, crop: FrontalCrop) -> tuple[Identity, Camera]:
    """The person stretched so that the crop's two scales hold in a square picture, and the camera of it."""
    model = load_face_model()
    eyes = [identity.vertices[model.island == island].mean(0) for island in EYE_ISLANDS]
    lips = model.masks["lips"] > 0.5
    wide = Camera(0.0, DISTANCE_MM, (0.0, 0.0, 0.0), DISTANCE_MM, (255.5, 255.5), (512, 512))
    left, right = sorted(wide.project(np.array(eyes)), key=lambda point: point[0])
    mouth = wide.project(identity.vertices[lips].mean(0))
    x, y = (left + right) / 2
    side = (right[0] - left[0]) / crop.eye_distance
    stretch = crop.mouth_drop * side / (mouth[1] - y)
    scale = np.array([1, stretch, 1], np.float32)
    y = 255.5 + (y - 255.5) * stretch
    camera = wide.cropped((x + 0.5 - crop.eye_x * side, y + 0.5 - crop.eye_y * side, side), CROP)
    return replace(identity, vertices=identity.vertices * scale, unit_offsets=identity.unit_offsets * scale), camera


def flow_image(flow: np.ndarray) -> np.ndarray:
    """Flow (..., 2, H, W) as the field shares it and `utils.experiments.flow_images.recentre` reads it: (..., 3, H, W).

    Channels u, v and optical strain sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2) (Shreve et al. 2011), each scaled
    from its own least and largest value to 0..255 and rounded; then float32 in units of that range, u and v
    from their median.
    """
    u, v = flow[..., 0, :, :], flow[..., 1, :, :]
    (u_y, u_x), (v_y, v_x) = (np.gradient(part, axis=(-2, -1)) for part in (u, v))
    maps = np.stack([u, v, np.sqrt(u_x**2 + v_y**2 + (u_y + v_x) ** 2 / 2)], -3)
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    maps = np.rint((maps - low) / np.maximum(high - low, 1e-9) * 255).astype(np.float32) / 255
    maps[..., :2, :, :] -= np.median(maps[..., :2, :, :], axis=(-2, -1), keepdims=True)
    return maps


# Fitting the noise model ------------------------------------------------------------------------------------


def rendered_flow(n_clips: int, seed: int, method: str, size: int = 28) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of rendered clips: true flow (N, V=2, P=2, 2, size, size), estimated maps (.., 3, ..), the face's share.

    The clips are as the pipeline sees them: photographed, textured from the composite, drawn from both virtual
    cameras, flow at 256 px, maps by `features.flow_maps`. The head stands still, as after stabilisation; each
    clip is of another person.
    """
    parts = [_rendered_clip(np.random.default_rng([seed, 20, i]), method, size) for i in range(n_clips)]
    return tuple(np.stack(part) for part in zip(*parts, strict=True))


def _rendered_clip(rng: np.random.Generator, method: str, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    identity = sample_identity(rng)
    act = perform(identity, [str(rng.choice(CLASSES))], rng)
    moments = [act.course.onset, act.course.apex, act.course.offset]
    pose = np.repeat(act.angles[:1], 3, 0)  # the head stands still
    still = Performed(face_shapes(identity, act.contraction[moments]), pose, np.zeros((3, 3)))
    light_seed = int(rng.integers(2**31))
    conditions = Conditions(size=CROP, flicker=act.confounders["flicker"])
    clip = record_clip(identity, still, paint_skin(identity, rng), light_seed, rng, conditions)
    visible = clip.visible[:, 0]
    seen = flow_maps(phase_flows(clip.frames, (0, 1, 2), method), visible, size)
    share = np.stack(
        [cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) for mask in visible]
    )
    return flow_maps(clip.flow, visible, size)[:, :, :2], seen, share


def fit_flow_noise(true: np.ndarray, seen: np.ndarray, share: np.ndarray, largest: float = 1.5) -> FlowNoise:
    """`FlowNoise` by moments from the arrays of `rendered_flow`, over map pixels inside the face.

    Pixels that move by more than `largest` px (blinks) do not count. gain and blur: least squares of the
    estimate on the blurred truth. floor and relative: the residual's squares against the truth's. length: from
    the standardised residual's correlation r of neighbours, r = exp(-1 / (4 length^2)) for noise that a
    Gaussian made smooth. phases: the correlation of the residuals of both phases. lost: what the magnitude has
    more than u and v.
    """
    power, magnitude, seen = (true**2).sum(3, keepdims=True), seen[:, :, :, 2], seen[:, :, :, :2]
    inside = (ndimage.minimum_filter(share, 3, axes=(-2, -1)) > 0.99)[:, :, None, None] & (power < largest**2)
    inside, power = np.broadcast_to(inside, true.shape), np.broadcast_to(power, true.shape)

    def residual(sigma: float) -> tuple[np.ndarray, float]:
        blurred = blur_maps(true, sigma)
        gain = (blurred[inside] * seen[inside]).sum() / (blurred[inside] ** 2).sum()
        return np.where(inside, seen - gain * blurred, 0), gain

    blur = min(np.arange(0, 2.01, 0.1), key=lambda sigma: (residual(sigma)[0] ** 2).sum())
    left, gain = residual(blur)
    slope, floor = np.polyfit(power[inside], left[inside] ** 2, 1, w=1 / (0.03 + power[inside]))
    # Every pixel has its say, not those that move most.
    left /= np.sqrt(max(floor, 1e-9) + max(slope, 0) * power)
    pairs = inside[..., 1:] & inside[..., :-1]
    beside = (left[..., 1:] * left[..., :-1])[pairs].sum() / (left[..., 1:] ** 2)[pairs].sum()
    both = inside[:, :, 0] & inside[:, :, 1]
    first, second = left[:, :, 0][both], left[:, :, 1][both]
    phases = (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
    length = 0.5 / np.sqrt(-np.log(beside))
    face = inside[:, :, :, 0]
    lost = np.sqrt((magnitude[face] ** 2 - (seen**2).sum(3)[face]).mean())
    values = gain, blur, np.sqrt(max(floor, 0)), np.sqrt(max(slope, 0)), length, phases, lost
    return FlowNoise(*(round(float(value), 3) for value in values))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the noise model of estimated flow to rendered faces.")
    parser.add_argument("--method", default="faceflow")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    true, seen, share = rendered_flow(arguments.clips, arguments.seed, arguments.method)
    print(fit_flow_noise(true, seen, share))


if __name__ == "__main__":
    main()
