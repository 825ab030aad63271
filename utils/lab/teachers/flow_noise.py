"""The error of a flow method on the maps of the networks: a noise model, fitted to rendered faces.

python -m utils.lab.teachers.flow_noise [--method faceflow]       prints the fitted model
"""

import argparse
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from utils.flow.features import flow_maps
from utils.flow.methods import phase_flows
from utils.lab.teachers.flow_clips import Conditions, Performed, record_clip
from utils.lab.teachers.motion_fields import CROP, SIZE, blur_maps, covered_share
from utils.synthetic.face_model import sample_identity
from utils.synthetic.performance import face_shapes, perform
from utils.synthetic.skin import paint_skin
from utils.train.samples import CLASSES

LARGEST_PX = 1.5  # motion beyond which a map pixel (a blink) does not enter the fit


class FlowNoise(NamedTuple):
    """The estimate of a flow method: gain * blurred truth + error.

    The error is Gaussian and smooth over space, and it grows with the motion: its standard deviation at a pixel is
    sqrt(floor^2 + (relative * local magnitude)^2). The errors of both phases are correlated, since the phases share the
    apex frame.
    """

    gain: float  # of the magnitude
    blur: float  # sigma of the Gaussian that blurs the truth, map pixels
    floor: float  # standard deviation of u and of v where nothing moves, pixels of the picture
    relative: float  # standard deviation per pixel of true motion
    length: float  # sigma of the Gaussian that smooths the error, map pixels
    phases: float  # correlation of the errors of both phases
    unresolved: float = 0.0  # root mean square motion within a map pixel that averages out of u and v, pixels


# Of method "faceflow" on pictures of 256 px. Printed by `python -m utils.lab.teachers.flow_noise`.
FLOW_NOISE = FlowNoise(gain=0.996, blur=0.4, floor=0.024, relative=0.169, length=0.761, phases=-0.499, unresolved=0.04)


def smooth_noise(shape: tuple[int, ...], length: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of standard deviation 1, smoothed over the last two axes (sigma `length` pixels)."""
    noise = blur_maps(rng.standard_normal(shape, np.float32), length)
    return noise / noise.std()


def estimated_flow(flow: np.ndarray, noise: FlowNoise, rng: np.random.Generator) -> np.ndarray:
    """The estimate that a flow method with this noise would make of the true flow (N, V, P, 2, H, W)."""
    blurred = noise.gain * blur_maps(flow, noise.blur)
    error = smooth_noise(flow.shape, noise.length, rng)
    if flow.shape[2] == 2:
        error[:, :, 1] = noise.phases * error[:, :, 0] + np.sqrt(1 - noise.phases**2) * error[:, :, 1]
    deviation = np.sqrt(noise.floor**2 + noise.relative**2 * (flow**2).sum(3, keepdims=True))
    return blurred + deviation * error


def maps_of(flow: np.ndarray, mask: np.ndarray, noise: FlowNoise) -> np.ndarray:
    """The network's maps (N, V, P, 3: u, v, magnitude, H, W) of flow (N, V, P, 2, H, W) and the mask (V, H, W).

    The magnitude also counts motion that cancels in u and v, since `utils.flow.features` averages it per map pixel.
    """
    magnitude = np.sqrt((flow**2).sum(3, keepdims=True) + noise.unresolved**2)
    return (np.concatenate([flow, magnitude], 3) * mask[:, None, None]).astype(np.float32)


def rendered_flow(n_clips: int, seed: int, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True flow (N, V=2, P=2, 2, H, W), estimated maps (N, 2, 2, 3, H, W) and covered share (N, 2, H, W) of rendered
    clips, each of another person. The head stands still, as after stabilisation."""
    true, estimates, shares = [], [], []
    for number in range(n_clips):
        rng = np.random.default_rng([seed, 20, number])
        identity = sample_identity(rng)
        act = perform(identity, [str(rng.choice(CLASSES))], rng)
        shapes = face_shapes(identity, act.contraction[act.course.moments])
        still = Performed(shapes, np.repeat(act.angles[:1], 3, 0), np.zeros((3, 3)))
        light_seed, conditions = int(rng.integers(2**31)), Conditions(CROP, flicker=act.confounders["flicker"])
        clip = record_clip(still, paint_skin(identity, rng), light_seed, rng, conditions)
        visible = clip.visible[:, 0]
        true.append(flow_maps(clip.flow, visible, SIZE)[:, :, :2])
        estimates.append(flow_maps(phase_flows(clip.frames, (0, 1, 2), method), visible, SIZE))
        shares.append([covered_share(mask) for mask in visible])
    return np.stack(true), np.stack(estimates), np.stack(shares)


def fit_flow_noise(true: np.ndarray, estimate: np.ndarray, share: np.ndarray) -> FlowNoise:
    """`FlowNoise` by moments, from the arrays of `rendered_flow`, over map pixels inside the face.

    gain and blur: least squares of the estimate on the blurred truth. floor and relative: squared residual against
    squared truth. length: from the correlation r of neighbouring standardised residuals, r = exp(-1 / (4 length^2)) for
    Gaussian smoothing. phases: correlation of the residuals of both phases. unresolved: the part of the magnitude that
    u and v do not explain.
    """
    power, magnitude, estimate = (true**2).sum(3, keepdims=True), estimate[:, :, :, 2], estimate[:, :, :, :2]
    inside = (ndimage.minimum_filter(share, 3, axes=(-2, -1)) > 0.99)[:, :, None, None] & (power < LARGEST_PX**2)
    inside, power = np.broadcast_to(inside, true.shape), np.broadcast_to(power, true.shape)

    def residual(sigma: float) -> tuple[np.ndarray, float]:
        blurred = blur_maps(true, sigma)
        gain = (blurred[inside] * estimate[inside]).sum() / (blurred[inside] ** 2).sum()
        return np.where(inside, estimate - gain * blurred, 0), gain

    blur = min(np.arange(0, 2.01, 0.1), key=lambda sigma: (residual(sigma)[0] ** 2).sum())
    error, gain = residual(blur)
    slope, floor = np.polyfit(power[inside], error[inside] ** 2, 1, w=1 / (0.03 + power[inside]))
    error /= np.sqrt(max(floor, 1e-9) + max(slope, 0) * power)  # pixels that move much do not dominate
    pairs = inside[..., 1:] & inside[..., :-1]
    neighbours = (error[..., 1:] * error[..., :-1])[pairs].sum() / (error[..., 1:] ** 2)[pairs].sum()
    both = inside[:, :, 0] & inside[:, :, 1]
    first, second = error[:, :, 0][both], error[:, :, 1][both]
    phases = (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
    length = 0.5 / np.sqrt(-np.log(neighbours))
    face = inside[:, :, :, 0]
    unresolved = np.sqrt((magnitude[face] ** 2 - (estimate**2).sum(3)[face]).mean())
    values = gain, blur, np.sqrt(max(floor, 0)), np.sqrt(max(slope, 0)), length, phases, unresolved
    return FlowNoise(*(round(float(value), 3) for value in values))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the noise model of estimated flow to rendered faces.")
    parser.add_argument("--method", default="faceflow")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(fit_flow_noise(*rendered_flow(options.clips, options.seed, options.method)))


if __name__ == "__main__":
    main()
