"""A classifier taught by synthetic motion: action units and emotions learnt from motion fields, nothing else.

    python -m utils.lab.teachers.classifier --kind dual|frontal|single [--seed 0] [--out DIR]   # minutes on one core

`dual` is the network of this repository (two views, two phases, five labels), `frontal` that of one camera in front
(one view); `single` reads the flow images of `utils.lab.flow_images` (one view, one phase; negative, positive,
surprise). All also give the probability of 19 action units. The weights under `utils/weights` come from these commands;
see the model card there.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.lab.teachers.flow_clips import YAW_DEG
from utils.lab.teachers.flow_noise import FLOW_NOISE, FlowNoise, estimated_flow, maps_of
from utils.lab.teachers.frontal import FrontalCrop, flow_image, frontal_view
from utils.lab.teachers.motion_fields import CROP, MotionFields, extend_fields, make_fields, sample_motion, true_flow
from utils.paths import WEIGHTS
from utils.progress import progress
from utils.render.camera import Camera
from utils.render.crops import frontal_mask
from utils.render.views import DISTANCE_MM, view_cameras
from utils.synthetic.action_units import ACTION_UNITS
from utils.synthetic.data_root import LABEL_SETS
from utils.synthetic.expressions import rotation
from utils.synthetic.face_model import Identity, load_face_model, sample_identity
from utils.synthetic.performance import PIVOT
from utils.train.ensemble import Ensemble, save_ensemble
from utils.train.estimator import Estimator
from utils.train.fit import fit
from utils.train.network import MicroAttNet, ModelConfig
from utils.train.samples import CLASSES, Samples
from utils.train.settings import TrainConfig
from utils.train.shipped import FILES, zero_shot_estimator

THREE = ("negative", "positive", "surprise")
# The emotions that each of THREE draws from, with how often among all clips: half negative, about as in the
# field's composite of three databases (250, 109 and 83 of 442 clips).
EMOTIONS_OF_THREE = (("Negative", 0, 0.38), ("Repression", 0, 0.12), ("Positive", 1, 0.25), ("Surprise", 2, 0.25))
PER_PERSON = 100  # clips of one person in one pose and crop
FIELD_CROP = FrontalCrop(0.5, 0.29, 0.57, 0.48)  # of the shared flow images, from their mean images
EYE_Y, EYE_DISTANCE = 0.41, 0.343  # shares of the crop of one camera's picture, see `utils.flow.apex.EYES`


# Samples ----------------------------------------------------------------------------------------------------


def sample_single(n: int, seed: int, crop: FrontalCrop = FIELD_CROP, size: int = 28) -> Samples:
    """N flow images (N, 1, 1, 3, size, size) of synthetic faces, one of THREE per clip."""
    return _collect(n, seed, THREE, lambda rng, count: _person_single(rng, count, crop, size))


def _person_single(rng: np.random.Generator, n: int, crop: FrontalCrop, size: int) -> tuple[np.ndarray, ...]:
    """One person's flow images. Cameras and flow methods of others are unknown, so the noise varies widely."""
    identity = sample_identity(rng)
    stretched, camera = frontal_view(identity, crop.jittered(rng))
    fields = extend_fields(make_fields(stretched, [camera], size, rng.normal(0, [4, 4, 2])))
    names, labels, odds = zip(*EMOTIONS_OF_THREE, strict=True)
    drawn = rng.choice(len(names), n, p=odds)
    motion = sample_motion(identity, [[names[i]] for i in drawn], rng, head=0.15, lids=0.75)
    noise = FlowNoise(
        gain=1,
        blur=rng.uniform(0, 1),
        floor=np.exp(rng.normal(np.log(0.15), 0.8)),
        relative=rng.uniform(0.1, 0.5),
        length=rng.uniform(0.7, 2.5),
        phases=0,
    )
    flow = estimated_flow(true_flow(fields, motion.weights[:, :2]), noise, rng)
    return flow_image(flow), np.eye(len(THREE))[np.array(labels)[drawn]], motion.units


def _collect(n: int, seed: int, classes: tuple[str, ...], person) -> Samples:
    parts = [
        person(np.random.default_rng([seed, 30, i]), min(PER_PERSON, n - start))
        for i, start in enumerate(progress(range(0, n, PER_PERSON), "synthetic people"))
    ]
    x, y, units = (np.concatenate(part) for part in zip(*parts, strict=True))
    people = np.repeat([f"P{i:05d}" for i in range(len(parts))], [len(part[0]) for part in parts])
    return Samples(x, y, np.array([f"C{i:06d}" for i in range(n)]), people, classes, units)


def sample_dual(n: int, seed: int, noise: FlowNoise = FLOW_NOISE, size: int = 28) -> Samples:
    """N clips (N, V=2, P=2, 3, size, size) of synthetic faces in the pipeline's form, with CLASSES."""
    return _collect(n, seed, CLASSES, lambda rng, count: _person_dual(rng, count, noise, size))


def _person_dual(rng: np.random.Generator, n: int, noise: FlowNoise, size: int) -> tuple[np.ndarray, ...]:
    identity, angles = sample_identity(rng), rng.normal(0, [3, 3.5, 2])
    posed = (identity.vertices - PIVOT) @ rotation(angles).T + PIVOT
    cameras = [jitter_crop(camera, rng) for camera in view_cameras(posed, CROP, rng.normal(YAW_DEG, 2))]
    fields = make_fields(identity, cameras, size, angles)
    return _clips_of(identity, fields, fields.mask, n, noise, rng)


def sample_frontal(n: int, seed: int, noise: FlowNoise = FLOW_NOISE, size: int = 28) -> Samples:
    """N clips (N, V=1, P=2, 3, size, size) as one camera in front sees them, in the pipeline's form, with CLASSES."""
    return _collect(n, seed, CLASSES, lambda rng, count: _person_frontal(rng, count, noise, size))


def _person_frontal(rng: np.random.Generator, n: int, noise: FlowNoise, size: int) -> tuple[np.ndarray, ...]:
    """One person's clips, in a crop as the face detector makes it, moved and scaled, where `frontal_mask` has it."""
    identity, angles = sample_identity(rng), rng.normal(0, [4, 5, 3])
    posed = (identity.vertices - PIVOT) @ rotation(angles).T + PIVOT
    wide = Camera(0.0, DISTANCE_MM, (0.0, 0.0, 0.0), DISTANCE_MM, (255.5, 255.5), (512, 512))
    model = load_face_model()
    eyes = wide.project(np.array([posed[model.island == island].mean(0) for island in model.eyes]))
    side = np.linalg.norm(eyes[1] - eyes[0]) / EYE_DISTANCE
    x, y = eyes.mean(0) + 0.5 - np.array([0.5, EYE_Y]) * side
    camera = jitter_crop(wide.cropped((float(x), float(y), float(side)), CROP), rng, 0.05)
    fields = make_fields(identity, [camera], size, angles)
    return _clips_of(identity, extend_fields(fields), face_share(size)[None], n, noise, rng)


def face_share(size: int) -> np.ndarray:
    """The share (size, size) of each map pixel that `frontal_mask` covers."""
    return cv2.resize(frontal_mask(CROP).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)


def _clips_of(
    identity: Identity, fields: MotionFields, mask: np.ndarray, n: int, noise: FlowNoise, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """N clips of a person by the fields of its units: maps, labels, intensities of the units."""
    odds = np.sqrt(list(LABEL_SETS.values()))
    emotions = [list(LABEL_SETS)[i] for i in rng.choice(len(odds), n, p=odds / odds.sum())]
    motion = sample_motion(identity, emotions, rng, head=0.03)
    louder = replace(noise, floor=noise.floor * np.exp(rng.normal(0, 0.3)))  # skins and light differ
    maps = maps_of(estimated_flow(true_flow(fields, motion.weights), louder, rng), mask, noise)
    return maps, np.array([[name in names for name in CLASSES] for names in emotions]), motion.units


def jitter_crop(camera: Camera, rng: np.random.Generator, spread: float = 0.02) -> Camera:
    """The camera with its square crop moved and scaled by normal deviations of `spread`, in shares of the side."""
    size = camera.size[0]
    side = size * np.exp(rng.normal(0, spread))
    x, y = (size - side) / 2 + size * rng.normal(0, spread, 2)
    return camera.cropped((x, y, side), size)


# Training ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How one kind of network is pretrained."""

    classes: tuple[str, ...]
    sample: Callable[[int, int], Samples]
    model: ModelConfig
    train: TrainConfig
    clips: int


def _recipe(
    classes: tuple[str, ...], mode: str, shape: tuple[int, int], sample: Callable, clips: int, epochs: int
) -> Recipe:
    model = ModelConfig(
        classes=len(classes), views=shape[0], phases=shape[1], widths=(16, 32, 64), features=64, units=len(ACTION_UNITS)
    )
    train = TrainConfig(mode=mode, loss="bce", epochs=epochs, patience=0, batch=128, mixup=0.0, device="cpu")
    return Recipe(classes, sample, model, train, clips)


RECIPES = {
    "single": _recipe(THREE, "single-label", (1, 1), sample_single, clips=40000, epochs=4),
    "dual": _recipe(CLASSES, "multi-label", (2, 2), sample_dual, clips=16000, epochs=8),
    "frontal": _recipe(CLASSES, "multi-label", (1, 2), sample_frontal, clips=16000, epochs=8),
}


def pretrain(kind: str, seed: int = 0, clips: int | None = None, epochs: int | None = None) -> Ensemble:
    """Train the network of a kind on synthetic motion alone, with emotions and action units together."""
    recipe = RECIPES[kind]
    config = replace(recipe.train, epochs=epochs or recipe.train.epochs)
    return fit(recipe.sample(clips or recipe.clips, seed), None, recipe.model, config, seed, description="epochs")


# Use --------------------------------------------------------------------------------------------------------


def controls(ensemble: Ensemble) -> dict[str, Estimator]:
    """Zero-shot estimators that must be near chance or below: wrong input, and a network never trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = MicroAttNet(ensemble.model_config).state_dict()
    untrained = replace(ensemble, members=(replace(ensemble.members[0], state=state),))
    return {
        "control: v turned": zero_shot_estimator(ensemble, lambda x: x * np.float32([1, -1, 1])[:, None, None]),
        "control: upside down": zero_shot_estimator(ensemble, lambda x: x[..., ::-1, :]),
        "control: random network": zero_shot_estimator(untrained),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", choices=list(RECIPES), required=True, help="train this network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the weights")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that the sums, and the weights, do not depend on the cores
    start = time.perf_counter()
    save_ensemble(pretrain(options.kind, options.seed), options.out, FILES[options.kind][0].stem)
    print(f"{options.kind}: trained in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
