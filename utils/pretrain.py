"""A classifier taught by synthetic motion: action units and emotions learnt from motion fields, nothing else.

    python -m utils.pretrain --kind dual|single [--seed 0] [--out DIR]      a few minutes on one core
    python -m utils.pretrain --zero-shot DIR LABELS.csv                     the shipped weights on real flow images

`dual` is the network of this repository (two views, two phases, five labels); `single` reads the flow images of
`utils.flow_images` (one view, one phase; negative, positive, surprise). Both also give the probability of 19 action units.
The weights under `utils/weights` come from these commands; see the model card there.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from utils.config import CLASSES
from utils.decision import decide
from utils.evaluate import OutOfFold
from utils.face_model import sample_identity
from utils.flow_images import format_report, read_flow_images, report
from utils.model import MicroAttNet, ModelConfig, count_parameters
from utils.motion import ACTION_UNITS, rotation
from utils.motion_fields import (
    CROP,
    DIS_NOISE,
    YAW_DEG,
    FlowNoise,
    FrontalCrop,
    estimated_flow,
    flow_image,
    frontal_view,
    make_fields,
    maps_of,
    sample_motion,
    true_flow,
)
from utils.render import Camera
from utils.samples import Samples
from utils.synthetic import LABEL_SETS, PIVOT
from utils.train import Fitted, TrainConfig, fit, load, predict, save
from utils.views import view_cameras

WEIGHTS = Path(__file__).parent / "weights"
THREE = ("negative", "positive", "surprise")
# The emotions of the face model that each of the three classes draws from, and how often.
EMOTIONS_OF_THREE = {
    "negative": (("Negative", 0.75), ("Repression", 0.25)),
    "positive": (("Positive", 1.0),),
    "surprise": (("Surprise", 1.0),),
}
PER_PERSON = 100  # clips of one person in one pose and crop
FIELD_CROP = FrontalCrop()  # as the shared flow images are cropped


# Samples --------------------------------------------------------------------------------------------------------------


def sample_single(n: int, seed: int, crop: FrontalCrop = FIELD_CROP, size: int = 28) -> Samples:
    """N flow images (N, 1, 1, 3, size, size) of synthetic faces, one of THREE per clip, equally often."""
    return _collect(n, seed, THREE, lambda rng, count: _person_single(rng, count, crop, size))


def _person_single(rng: np.random.Generator, n: int, crop: FrontalCrop, size: int) -> tuple[np.ndarray, ...]:
    identity = sample_identity(rng)
    stretched, camera = frontal_view(identity, crop.jittered(rng))
    fields = make_fields(stretched, [camera], size, rng.normal(0, [4, 4, 2]))
    labels = rng.integers(0, len(THREE), n)
    emotions = [[_draw(EMOTIONS_OF_THREE[THREE[label]], rng)] for label in labels]
    motion = sample_motion(identity, emotions, rng, head=0.15)
    noise = FlowNoise(
        gain=1,
        blur=rng.uniform(0, 1),
        floor=np.exp(rng.normal(np.log(0.08), 0.6)),
        relative=rng.uniform(0.1, 0.4),
        length=rng.uniform(0.7, 2),
        phases=0,
    )
    flow = estimated_flow(true_flow(fields, motion.weights[:, :2]), noise, rng)
    return flow_image(flow), np.eye(len(THREE))[labels], motion.units


def _draw(odds: tuple[tuple[str, float], ...], rng: np.random.Generator) -> str:
    names, weights = zip(*odds, strict=True)
    return str(rng.choice(names, p=weights))


def _collect(n: int, seed: int, classes: tuple[str, ...], person) -> Samples:
    parts = [
        person(np.random.default_rng([seed, 30, i]), min(PER_PERSON, n - start))
        for i, start in enumerate(range(0, n, PER_PERSON))
    ]
    x, y, units = (np.concatenate(part) for part in zip(*parts, strict=True))
    people = np.repeat([f"P{i:05d}" for i in range(len(parts))], [len(part[0]) for part in parts])
    return Samples(x, y, np.array([f"C{i:06d}" for i in range(n)]), people, classes, units)


def sample_dual(n: int, seed: int, noise: FlowNoise = DIS_NOISE, size: int = 28) -> Samples:
    """N clips (N, V=2, P=2, 3, size, size) of synthetic faces as the pipeline's features have them, with CLASSES."""
    return _collect(n, seed, CLASSES, lambda rng, count: _person_dual(rng, count, noise, size))


def _person_dual(rng: np.random.Generator, n: int, noise: FlowNoise, size: int) -> tuple[np.ndarray, ...]:
    identity, angles = sample_identity(rng), rng.normal(0, [3, 3.5, 2])
    posed = (identity.vertices - PIVOT) @ rotation(angles).T + PIVOT
    cameras = [jitter_crop(camera, rng) for camera in view_cameras(posed, CROP, rng.normal(YAW_DEG, 2))]
    fields = make_fields(identity, cameras, size, angles)
    odds = np.sqrt(list(LABEL_SETS.values()))
    emotions = [list(LABEL_SETS)[i] for i in rng.choice(len(odds), n, p=odds / odds.sum())]
    motion = sample_motion(identity, emotions, rng, head=0.05)
    louder = replace(noise, floor=noise.floor * np.exp(rng.normal(0, 0.3)))  # skins and light differ
    maps = maps_of(estimated_flow(true_flow(fields, motion.weights), louder, rng), fields.mask, noise)
    return maps, np.array([[name in names for name in CLASSES] for names in emotions]), motion.units


def jitter_crop(camera: Camera, rng: np.random.Generator, spread: float = 0.02) -> Camera:
    """The camera with its square crop moved and scaled by normal deviations of `spread`, in shares of the side."""
    size = camera.size[0]
    side = size * np.exp(rng.normal(0, spread))
    x, y = (size - side) / 2 + size * rng.normal(0, spread, 2)
    return camera.cropped((x, y, side), size)


# Training -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How one kind of network is pretrained."""

    classes: tuple[str, ...]
    sample: Callable[[int, int], Samples]
    model: ModelConfig
    train: TrainConfig
    clips: int


def _recipe(
    classes: tuple[str, ...], mode: str, views: int, sample: Callable, clips: int, epochs: int
) -> Recipe:
    model = ModelConfig(
        classes=len(classes),
        views=views,
        phases=views,
        widths=(16, 32, 64),
        features=64,
        units=len(ACTION_UNITS),
    )
    train = TrainConfig(mode=mode, loss="bce", epochs=epochs, patience=0, batch=128, mixup=0.0, device="cpu")
    return Recipe(classes, sample, model, train, clips)


RECIPES = {
    "single": _recipe(THREE, "single-label", 1, sample_single, clips=40000, epochs=8),
    "dual": _recipe(CLASSES, "multi-label", 2, sample_dual, clips=20000, epochs=12),
}


def pretrain(kind: str, seed: int = 0, clips: int | None = None, epochs: int | None = None) -> Fitted:
    """Train the network of a kind on synthetic motion alone, with emotions and action units together."""
    recipe = RECIPES[kind]
    config = replace(recipe.train, epochs=epochs or recipe.train.epochs)
    return fit(recipe.sample(clips or recipe.clips, seed), None, recipe.model, config, seed)


def load_pretrained(kind: str) -> Fitted:
    """The shipped network: "dual" (two views, two phases, CLASSES) or "single" (a flow image, THREE)."""
    return load(WEIGHTS, f"classifier-{kind}")


def initial_state(kind: str) -> dict[str, torch.Tensor]:
    """The shipped weights for `train.fit(..., init=...)`: everything that the fine-tuned network shares by name and shape."""
    return load_pretrained(kind).members[0].state


# Zero-shot ------------------------------------------------------------------------------------------------------------


def zero_shot(fitted: Fitted, samples: Samples) -> OutOfFold:
    """Predictions of a network that saw none of the clips, in the form of `evaluate` (one seed, one fold)."""
    start = time.perf_counter()
    probability = predict(fitted, samples.x)[0]
    cuts = None if fitted.thresholds is None else fitted.thresholds.values
    decision = decide(probability, cuts)
    recorded = np.full((1, 1, len(samples.classes)), np.nan) if cuts is None else cuts[None, None]
    return OutOfFold(
        samples.classes,
        samples.ids,
        samples.subjects,
        np.zeros(len(samples), int),
        (0,),
        samples.y > 0,
        probability[None],
        decision[None],
        recorded,
        [[{"parameters": count_parameters(fitted.model_config)}]],
        time.perf_counter() - start,
    )


def controls(fitted: Fitted, samples: Samples) -> dict[str, OutOfFold]:
    """Zero-shot, and beside it what must be near chance: v's sign turned, the face upside down, a network never trained."""
    turned, flipped = samples.x.copy(), samples.x[..., ::-1, :].copy()
    turned[:, :, :, 1] *= -1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = MicroAttNet(fitted.model_config).state_dict()
    untrained = replace(fitted, members=(replace(fitted.members[0], state=state),))
    return {
        "zero-shot": zero_shot(fitted, samples),
        "v's sign turned": zero_shot(fitted, replace(samples, x=turned)),
        "upside down": zero_shot(fitted, replace(samples, x=flipped)),
        "random network": zero_shot(untrained, samples),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", choices=list(RECIPES), help="train this network and write its weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the weights")
    parser.add_argument(
        "--zero-shot", nargs=2, metavar=("DIR", "LABELS"), help="score the weights in --out on flow images"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that the sums, and the weights, do not depend on the cores
    if options.kind:
        start = time.perf_counter()
        save(pretrain(options.kind, options.seed), options.out, f"classifier-{options.kind}")
        print(f"{options.kind}: trained in {time.perf_counter() - start:.0f} s")
    if options.zero_shot:
        samples, datasets = read_flow_images(*options.zero_shot)
        print(format_report(report(controls(load(options.out, "classifier-single"), samples), datasets)))


if __name__ == "__main__":
    main()
