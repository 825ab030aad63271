"""What a flow method makes of the true flow: a noise model, fitted to rendered faces.

python -m utils.lab.teachers.flow_noise [--method faceflow]       prints it
"""

import argparse
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from utils.flow.features import flow_maps
from utils.flow.methods import phase_flows
from utils.lab.teachers.flow_clips import Conditions, Performed, record_clip
from utils.lab.teachers.motion_fields import CROP, blur_maps
from utils.synthetic.face_model import sample_identity
from utils.synthetic.performance import face_shapes, perform
from utils.synthetic.skin import paint_skin
from utils.train.samples import CLASSES


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
    unresolved: float = 0.0  # root mean square motion within a map pixel that averages out of u and v, pixels


# Of method "faceflow" on 256 px pictures, maps of 28 x 28. Made by `python -m utils.lab.teachers.flow_noise`.
FLOW_NOISE = FlowNoise(gain=0.996, blur=0.4, floor=0.024, relative=0.169, length=0.761, phases=-0.499, unresolved=0.04)

# Estimated flow ---------------------------------------------------------------------------------------------


def smooth_noise(shape: tuple[int, ...], length: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of deviation one, smooth over the last two axes (sigma `length` pixels)."""
    noise = blur_maps(rng.standard_normal(shape, np.float32), length)
    return noise / noise.std()


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
    pixel counts all the same, which `noise.unresolved` stands for. mask (V, H, W): the face's share.
    """
    magnitude = np.sqrt((flow**2).sum(3, keepdims=True) + noise.unresolved**2)
    return (np.concatenate([flow, magnitude], 3) * mask[:, None, None]).astype(np.float32)


# Fitting the noise model ------------------------------------------------------------------------------------


def rendered_flow(n_clips: int, seed: int, method: str, size: int = 28) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of rendered clips: true flow (N, V=2, P=2, 2, size, size), estimated maps (.., 3, ..), the face's share.

    The clips are as the pipeline sees them: photographed, textured from the composite, drawn from both virtual
    cameras, flow at 256 px, maps by `flow_maps`. The head stands still, as after stabilisation; each
    clip is of another person.
    """
    parts = [_rendered_clip(np.random.default_rng([seed, 20, i]), method, size) for i in range(n_clips)]
    return tuple(np.stack(part) for part in zip(*parts, strict=True))


def _rendered_clip(rng: np.random.Generator, method: str, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    identity = sample_identity(rng)
    act = perform(identity, [str(rng.choice(CLASSES))], rng)
    pose = np.repeat(act.angles[:1], 3, 0)  # the head stands still
    at_rest = Performed(face_shapes(identity, act.contraction[act.course.moments]), pose, np.zeros((3, 3)))
    light_seed = int(rng.integers(2**31))
    conditions = Conditions(size=CROP, flicker=act.confounders["flicker"])
    clip = record_clip(identity, at_rest, paint_skin(identity, rng), light_seed, rng, conditions)
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
    Gaussian made smooth. phases: the correlation of the residuals of both phases. unresolved: what the magnitude has
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
    # Every pixel counts alike, not those most that move most.
    left /= np.sqrt(max(floor, 1e-9) + max(slope, 0) * power)
    pairs = inside[..., 1:] & inside[..., :-1]
    beside = (left[..., 1:] * left[..., :-1])[pairs].sum() / (left[..., 1:] ** 2)[pairs].sum()
    both = inside[:, :, 0] & inside[:, :, 1]
    first, second = left[:, :, 0][both], left[:, :, 1][both]
    phases = (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
    length = 0.5 / np.sqrt(-np.log(beside))
    face = inside[:, :, :, 0]
    unresolved = np.sqrt((magnitude[face] ** 2 - (seen**2).sum(3)[face]).mean())
    values = gain, blur, np.sqrt(max(floor, 0)), np.sqrt(max(slope, 0)), length, phases, unresolved
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
