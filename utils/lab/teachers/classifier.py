"""Training of the shipped classifiers on motion fields of synthetic faces: emotions and action units.

    python -m utils.lab.teachers.classifier --kind dual|frontal|single [--seed 0] [--out DIR]   # minutes on one core

`dual` is for the pipeline with two views (two phases, five labels), `frontal` for one camera in front of the face (one
view). `single` is for the flow images of `utils.lab.flow_images` (one view, one phase; negative, positive, surprise).
Each also gives the probability of 19 action units. See the model card in `utils/weights`.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator

from utils.lab.shared_image import from_image, strain_maps, to_image
from utils.lab.teachers.flow_clips import YAW_DEG
from utils.lab.teachers.flow_noise import FLOW_NOISE, FlowNoise, estimated_flow, maps_of
from utils.lab.teachers.frontal import FRONT, FrontalCrop, eye_centres, frontal_view
from utils.lab.teachers.motion_fields import CROP, MotionFields, covered_share, make_fields, sample_motion, true_flow
from utils.paths import WEIGHTS
from utils.progress import progress
from utils.render.camera import Camera
from utils.render.crops import frontal_mask
from utils.render.views import view_cameras
from utils.synthetic.action_units import ACTION_UNITS
from utils.synthetic.data_root import LABEL_SETS
from utils.synthetic.expressions import EMFACS, Repertoire, rotation
from utils.synthetic.face_model import Identity, sample_identity
from utils.synthetic.performance import PIVOT
from utils.train.ensemble import Ensemble, save_ensemble
from utils.train.estimator import Estimator
from utils.train.fit import fit
from utils.train.network import MicroAttNet, ModelConfig
from utils.train.samples import CLASSES, Samples
from utils.train.settings import TrainConfig
from utils.train.shipped import FILES, zero_shot_estimator

THREE = ("negative", "positive", "surprise")
# Emotion, its class in THREE, and its share of the clips: half are negative, about as in the field's composite of three
# databases (250, 109 and 83 of 442 clips).
EMOTIONS_OF_THREE = (("Negative", 0, 0.38), ("Repression", 0, 0.12), ("Positive", 1, 0.25), ("Surprise", 2, 0.25))
PER_PERSON = 100  # clips of one person, all in one pose and crop
FIELD_CROP = FrontalCrop(0.5, 0.29, 0.57, 0.48)  # of the shared flow images, measured on their class means
EYE_Y, EYE_DISTANCE = 0.41, 0.343  # in the crop of one camera's picture, shares of its side; see `utils.flow.apex.EYES`

Clips = tuple[np.ndarray, np.ndarray, np.ndarray]  # x, y and units of `Samples`
PersonClips = Callable[[Generator, int], Clips]  # draws so many clips of one person


def sample(kind: str, n: int, seed: int) -> Samples:
    """N clips (N, V, P, 3, H, W) of synthetic faces, with the views, phases and classes of RECIPES[kind]."""
    return join_people(n, PER_PERSON, (seed, 30), RECIPES[kind].classes, RECIPES[kind].person_clips)


sample_single, sample_dual, sample_frontal = (partial(sample, kind) for kind in ("single", "dual", "frontal"))


def join_people(n: int, each: int, seed: Sequence[int], classes: tuple[str, ...], person_clips: PersonClips) -> Samples:
    """N clips: `each` clips of every person, made by `person_clips(rng, count)`."""
    counts = progress([min(each, n - start) for start in range(0, n, each)], "synthetic people")
    people = [person_clips(np.random.default_rng([*seed, number]), count) for number, count in enumerate(counts)]
    x, y, units = (np.concatenate(part) for part in zip(*people, strict=True))
    return Samples(x, y, [f"C{i:06d}" for i in range(n)], [f"P{i // each:05d}" for i in range(n)], classes, units)


def _single_clips(rng: Generator, n: int) -> Clips:
    """Flow images of one person. The noise varies widely, since the cameras and flow methods of the field vary."""
    identity = sample_identity(rng)
    stretched, camera = frontal_view(identity, FrontalCrop(*(np.array(FIELD_CROP) + rng.normal(0, 0.03, 4))))
    fields = make_fields(stretched, [camera], rng.normal(0, [4, 4, 2])).extended()
    names, labels, odds = zip(*EMOTIONS_OF_THREE, strict=True)
    drawn = rng.choice(len(names), n, p=odds)
    motion = sample_motion(identity, [[names[i]] for i in drawn], rng, head=0.15, lids=0.75)
    blur, floor = rng.uniform(0, 1), np.exp(rng.normal(np.log(0.15), 0.8))
    relative, length = rng.uniform(0.1, 0.5), rng.uniform(0.7, 2.5)
    noise = FlowNoise(1, blur, floor, relative, length, phases=0)
    flow = estimated_flow(true_flow(fields, motion.weights[:, :2]), noise, rng)
    x = from_image(to_image(strain_maps(flow)))  # as a reader of shared images gets it
    return x, np.eye(len(THREE))[np.array(labels)[drawn]], motion.units


def _dual_clips(rng: Generator, n: int) -> Clips:
    identity = sample_identity(rng)
    return clips_of(identity, dual_fields(identity, rng), n, rng)


def _frontal_clips(rng: Generator, n: int) -> Clips:
    """Clips of one person in a jittered crop of the face detector, with motion inside `frontal_mask` only."""
    identity, angles = sample_identity(rng), rng.normal(0, [4, 5, 3])
    eyes = eye_centres(turned(identity, angles))
    side = np.linalg.norm(eyes[1] - eyes[0]) / EYE_DISTANCE
    x, y = eyes.mean(0) + 0.5 - np.array([0.5, EYE_Y]) * side
    camera = jitter_crop(FRONT.cropped((float(x), float(y), float(side)), CROP), rng, 0.05)
    fields = make_fields(identity, [camera], angles).extended()
    return clips_of(identity, fields._replace(mask=covered_share(frontal_mask(CROP))[None]), n, rng)


def dual_fields(identity: Identity, rng: Generator, faces: np.ndarray | None = None) -> MotionFields:
    """`make_fields` for the crops of both virtual cameras, with the head and the crops moved a little at random."""
    angles = rng.normal(0, [3, 3.5, 2])
    cameras = view_cameras(turned(identity, angles), CROP, rng.normal(YAW_DEG, 2))
    return make_fields(identity, [jitter_crop(camera, rng, 0.02) for camera in cameras], angles, faces)


def turned(identity: Identity, angles: np.ndarray) -> np.ndarray:
    """The vertices (V, 3) of a person whose head is turned by `angles` (degrees about x, y, z)."""
    return (identity.vertices - PIVOT) @ rotation(angles).T + PIVOT


def jitter_crop(camera: Camera, rng: Generator, spread: float) -> Camera:
    """The camera with its square crop moved and scaled; spread: standard deviation in shares of the side."""
    size = camera.size[0]
    side = size * np.exp(rng.normal(0, spread))
    x, y = (size - side) / 2 + size * rng.normal(0, spread, 2)
    return camera.cropped((x, y, side), size)


def clips_of(
    identity: Identity,
    fields: MotionFields,
    n: int,
    rng: Generator,
    repertoire: Repertoire = EMFACS,
    log_floor: tuple[float, float] = (0, 0.3),
) -> Clips:
    """N clips of a person, with the label sets of the synthetic challenge (its rare sets are more frequent here).

    log_floor: mean and standard deviation of the log of a factor on the noise floor, since skin and light differ.
    """
    odds = np.sqrt(list(LABEL_SETS.values()))
    emotions = [list(LABEL_SETS)[i] for i in rng.choice(len(odds), n, p=odds / odds.sum())]
    motion = sample_motion(identity, emotions, rng, head=0.03, repertoire=repertoire)
    noise = FLOW_NOISE._replace(floor=FLOW_NOISE.floor * np.exp(rng.normal(*log_floor)))
    maps = maps_of(estimated_flow(true_flow(fields, motion.weights), noise, rng), fields.mask, noise)
    return maps, np.array([[name in names for name in CLASSES] for names in emotions]), motion.units


class Recipe(NamedTuple):
    """How a kind of network is trained."""

    classes: tuple[str, ...]
    person_clips: PersonClips
    clips: int
    model: ModelConfig
    train: TrainConfig


MODEL = ModelConfig(classes=len(CLASSES), widths=(16, 32, 64), features=64, units=len(ACTION_UNITS))
MODEL_OF_THREE = replace(MODEL, classes=len(THREE), views=1, phases=1)
TRAIN = TrainConfig(loss="bce", epochs=8, patience=0, batch=128, mixup=0.0, device="cpu")
RECIPES = {
    "single": Recipe(THREE, _single_clips, 40000, MODEL_OF_THREE, replace(TRAIN, mode="single-label", epochs=4)),
    "dual": Recipe(CLASSES, _dual_clips, 16000, MODEL, TRAIN),
    "frontal": Recipe(CLASSES, _frontal_clips, 16000, replace(MODEL, views=1), TRAIN),
}


def pretrain(kind: str, seed: int = 0) -> Ensemble:
    """Train the network of a kind on emotions and action units of synthetic motion."""
    recipe = RECIPES[kind]
    return fit(sample(kind, recipe.clips, seed), None, recipe.model, recipe.train, seed, description="epochs")


def controls(ensemble: Ensemble) -> dict[str, Estimator]:
    """Zero-shot estimators that must score near chance or below: on wrong input, and with an untrained network."""
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
    torch.set_num_threads(1)  # so that the sums, and the weights, do not depend on the number of cores
    start = time.perf_counter()
    save_ensemble(pretrain(options.kind, options.seed), options.out, FILES[options.kind][0].stem)
    print(f"{options.kind}: trained in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
