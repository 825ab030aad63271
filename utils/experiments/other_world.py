"""Our learners on faces of another model: what was taught on one face model, tried on one that it never saw.

    python -m utils.experiments.other_world [--model DIR] [--people 12] [--each 12] [--seeds 3] [--jobs 2]

DIR holds a face model as OBJ files of one topology: a neutral face (a file with "neutral" in its name), blend shapes by
ARKit's names (browDownLeft.obj or browDown_L.obj; what is missing does not move), and, where there are any, other
people's neutral faces (identity000.obj and so on), which are taken for directions in which faces differ. ICT-FaceKit
(github.com/ICT-VGL/ICT-FaceKit, folder FaceXModel) is one. Without `--model` it is the face model of this repository.

Clips are motion fields (`utils.pretrain.motion_fields`), nothing is rendered; emotions show as LITERATURE has them,
which the teacher was not told. Each seed is a set of new people.
"""

import argparse
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config import Config, load_config
from utils.dataset.reading import DataError
from utils.dataset.samples import Samples
from utils.dataset.tables import CLASSES
from utils.dataset.wavefront import read_obj
from utils.experiments.held_out import OURS, SCRATCH, learners, main_variants, outer_folds
from utils.face.expressions import LITERATURE, SIDES, rotation, without_side
from utils.face.model import Identity, load_face_model, sample_identity
from utils.pretrain.classifier import jitter_crop
from utils.pretrain.flow_noise import FLOW_NOISE, estimated_flow, maps_of
from utils.pretrain.motion_fields import CROP, make_fields, sample_motion, true_flow
from utils.render.views import view_cameras
from utils.synthetic.data_root import LABEL_SETS
from utils.synthetic.flow_clips import YAW_DEG
from utils.synthetic.performance import PIVOT
from utils.train.protocol import average_predictions, cross_validate_rows
from utils.train.scores import results_table
from utils.train.stacking import stacking_weights

# Units by whose places two face models are laid upon each other.
LANDMARKS = (
    "browInnerUp",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "jawOpen",
    "mouthPucker",
    "noseSneerLeft",
    "noseSneerRight",
)
MARGIN_MM = 1.0  # beyond our face's extent, past which another model's neck and skull are cut off
FOLDS = 6
SHOWN = ["macro_uf1", "low", "high", "difference", "map"]
STRENGTH, GAIN = 0.7, 0.25  # of the directions in which faces differ; log of how far a person's unit goes


@dataclass(frozen=True)
class BlendShapes:
    """A face model in the place of ours: neutral (V, 3) mm, faces (F, 3), units (52, V, 3) in the order of
    `FaceModel.unit_names`, directions (I, V, 3) in which people differ."""

    neutral: np.ndarray
    faces: np.ndarray
    units: np.ndarray
    directions: np.ndarray

    def sample_identity(self, rng: np.random.Generator) -> Identity:
        """A person drawn at random."""
        shape = np.tensordot(rng.normal(0, STRENGTH, len(self.directions)).astype(np.float32), self.directions, 1)
        gain = np.exp(rng.normal(0, GAIN, len(self.units))).astype(np.float32)
        return Identity(self.neutral + shape - shape.mean(0), self.units * gain[:, None, None], {})


# Reading ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def read_blend_shapes(folder: Path) -> BlendShapes:
    """The face model of a folder, brought to the place, size and extent of ours.

    Raises DataError where a file cannot be read or has another topology, and where the neutral face or one of LANDMARKS
    is missing.
    """
    files = {file.stem.lower(): file for file in sorted(folder.glob("*.obj"))}
    neutral = next((file for name, file in files.items() if "neutral" in name), None)
    if neutral is None:
        raise DataError.at(folder, "no OBJ file has neutral in its name", "name the face at rest neutral.obj")
    vertices, faces = _read(neutral)

    def offset(file: Path) -> np.ndarray:
        moved, own_faces = _read(file)
        if not np.array_equal(own_faces, faces):
            raise DataError.at(file, f"its faces are not those of {neutral.name}", "export all shapes of one mesh")
        return moved - vertices

    model = load_face_model()
    units = np.zeros((len(model.units), *vertices.shape), np.float32)
    for unit, name in zip(units, model.unit_names, strict=True):
        for file in _files_of(name, files):
            unit += offset(file)
    if lacking := [name for name in LANDMARKS if not units[model.unit_index[name]].any()]:
        raise DataError.at(folder, f"no shape {lacking[0]} moves anything", f"add {lacking[0]}.obj, by ARKit's names")
    people = [offset(file) for name, file in files.items() if name.startswith("identity")]
    directions = np.stack(people) if people else np.zeros((0, *vertices.shape), np.float32)
    return _like_ours(vertices, faces, units, directions)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (F, 3) of an OBJ file, all its materials together."""
    pieces, _ = read_obj(file)
    if not pieces:
        raise DataError.at(file, "the mesh is empty", "export it as OBJ again")
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    faces = np.concatenate([piece.faces + start for piece, start in zip(pieces, starts[:-1], strict=True)])
    return np.concatenate([piece.vertices for piece in pieces]).astype(np.float32), faces


def _files_of(unit: str, files: dict[str, Path]) -> list[Path]:
    """The files of a unit: its own by either spelling, else those of its two halves."""
    stem = without_side(unit)
    short = f"{stem}_{unit[len(stem)]}" if unit != stem else unit
    own = [files[name.lower()] for name in (unit, short) if name.lower() in files][:1]
    return own or [files[half] for side in SIDES if (half := f"{unit}_{side[0]}".lower()) in files]


def _like_ours(neutral: np.ndarray, faces: np.ndarray, units: np.ndarray, directions: np.ndarray) -> BlendShapes:
    """The model turned, scaled and shifted onto ours by LANDMARKS (Umeyama 1991), without what ours has not."""
    model = load_face_model()
    own = np.array([_place(neutral, units[model.unit_index[name]]) for name in LANDMARKS])
    ours = np.array([_place(model.template, model.units[name]) for name in LANDMARKS])
    a, b = own - own.mean(0), ours - ours.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    turn = ((u * flip) @ vt * ((s * flip).sum() / (a**2).sum())).astype(np.float32)
    placed = ((neutral - own.mean(0)) @ turn + ours.mean(0)).astype(np.float32)
    low, high = model.template.min(0) - MARGIN_MM, model.template.max(0) + [MARGIN_MM, MARGIN_MM, np.inf]
    within = ((placed >= low) & (placed <= high)).all(1)
    kept = faces[within[faces].all(1)]
    used, kept = np.unique(kept, return_inverse=True)
    return BlendShapes(placed[used], kept.reshape(-1, 3), units[:, used] @ turn, directions[:, used] @ turn)


def _place(vertices: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Where a unit moves the face most, (3,)."""
    weight = (unit**2).sum(1, keepdims=True)
    return (vertices * weight).sum(0) / weight.sum()


# Clips --------------------------------------------------------------------------------------------------------------


def world(model: BlendShapes | None, people: int, each: int, seed: int) -> Samples:
    """Clips (people * each, V=2, P=2, 3, 28, 28) of people of a face model, ours without one, as the flow network would
    see them; a person's skin and light make its error larger or smaller."""
    parts = [_clips(model, each, np.random.default_rng([seed, 60, person])) for person in range(people)]
    x, y, units = (np.concatenate(part) for part in zip(*parts, strict=True))
    subjects = np.repeat([f"S{person:02d}" for person in range(people)], each)
    return Samples(x, y, np.array([f"C{i:05d}" for i in range(len(x))]), subjects, CLASSES, units)


def _clips(model: BlendShapes | None, n: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    identity, angles = (model.sample_identity if model else sample_identity)(rng), rng.normal(0, [3, 3.5, 2])
    posed = (identity.vertices - PIVOT) @ rotation(angles).T + PIVOT
    cameras = [jitter_crop(camera, rng) for camera in view_cameras(posed, CROP, rng.normal(YAW_DEG, 2))]
    fields = make_fields(identity, cameras, 28, angles, model.faces if model else None)
    odds = np.sqrt(list(LABEL_SETS.values()))
    emotions = [list(LABEL_SETS)[i] for i in rng.choice(len(odds), n, p=odds / odds.sum())]
    motion = sample_motion(identity, emotions, rng, head=0.03, repertoire=LITERATURE)
    noise = replace(FLOW_NOISE, floor=FLOW_NOISE.floor * np.exp(rng.normal(0.2, 0.4)))
    maps = maps_of(estimated_flow(true_flow(fields, motion.weights), noise, rng), fields.mask, noise)
    return maps, np.array([[name in names for name in CLASSES] for names in emotions]), motion.units


# Scores -------------------------------------------------------------------------------------------------------------


def scores(samples: Samples, config: Config) -> pd.DataFrame:
    """The table of `utils.train.scores.results_table` of all learners, and of them stacked."""
    rows = {name: variant.row(samples) for name, variant in main_variants(config).items()}
    folds = outer_folds(config, samples)
    found = cross_validate_rows(rows, folds, (config.seed,), config.jobs, config.inner_folds, "held-out folds")
    found[OURS] = average_predictions(*(found[name] for name in learners(config)), weighting=stacking_weights)
    return results_table(found, SCRATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="folder of OBJ blend shapes (default: our face model)")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--each", type=int, default=12, help="clips of a person")
    parser.add_argument("--seeds", type=int, default=3, help="sets of people")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    model = read_blend_shapes(options.model) if options.model else None
    config = load_config("demo", f"folds={FOLDS}", jobs=options.jobs)
    tables = []
    for seed in range(options.seeds):
        tables.append(scores(world(model, options.people, options.each, seed), config))
        print(f"seed {seed}", tables[-1][SHOWN].round(3), sep="\n", flush=True)
    mean = pd.concat(tables).groupby(level=0, sort=False)[["macro_uf1", "difference", "map"]].mean()
    print(f"mean of {options.seeds} sets of people", mean.round(3), sep="\n")


if __name__ == "__main__":
    main()
