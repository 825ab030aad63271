"""Our learners on faces of another model: what was taught on one face model, tried on one that it never saw.

    python -m utils.lab.other_face_model [--model DIR] [--people 12] [--each 12] [--seeds 3] [--jobs 2]

DIR holds a face model, as `utils.synthetic.blend_shapes` reads it: a folder of OBJ blend shapes with ARKit's names, or
a glTF file with morph targets. ICT-FaceKit (github.com/ICT-VGL/ICT-FaceKit, folder FaceXModel) is one. Without
`--model` it is the face model of this repository.

Clips are motion fields (`utils.lab.teachers.motion_fields`), nothing is rendered; emotions show as LITERATURE has them,
which the teacher was not told. Each seed is a set of new people.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config import Config, load_config
from utils.evaluate.ablation import teacher_variants
from utils.evaluate.held_out import Plan, learner_variants, learners, outer_folds
from utils.evaluate.protocol import average_predictions, cross_validate_variants
from utils.evaluate.rows import OURS, SCRATCH
from utils.evaluate.scores import results_table
from utils.lab.teachers.classifier import jitter_crop
from utils.lab.teachers.flow_clips import YAW_DEG
from utils.lab.teachers.flow_noise import FLOW_NOISE, estimated_flow, maps_of
from utils.lab.teachers.motion_fields import CROP, make_fields, sample_motion, true_flow
from utils.render.views import view_cameras
from utils.synthetic.blend_shapes import BlendShapes, read_blend_shapes
from utils.synthetic.data_root import LABEL_SETS
from utils.synthetic.expressions import LITERATURE, rotation
from utils.synthetic.face_model import sample_identity
from utils.synthetic.performance import PIVOT
from utils.train.samples import CLASSES, Samples
from utils.train.stacking import stacking_weights

FOLDS = 6
SHOWN = ["macro_uf1", "low", "high", "difference", "map"]


# Clips --------------------------------------------------------------------------------------------------------------


def sample_clips(model: BlendShapes | None, people: int, each: int, seed: int) -> Samples:
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
    """The table of `utils.evaluate.scores.results_table` of all learners, and of them stacked."""
    plan = Plan.of(config)
    rows = learner_variants(plan) | teacher_variants(plan)
    folds = outer_folds(plan, samples)
    found = cross_validate_variants(
        samples, rows, folds, (config.seed,), config.jobs, config.inner_folds, "held-out folds"
    )
    found[OURS] = average_predictions(*(found[name] for name in learners(plan)), weighting=stacking_weights)
    return results_table(found, SCRATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="folder or file of blend shapes (default: our face model)")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--each", type=int, default=12, help="clips of a person")
    parser.add_argument("--seeds", type=int, default=3, help="sets of people")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    model = read_blend_shapes(options.model) if options.model else None
    config = load_config("demo", f"folds={FOLDS}", jobs=options.jobs)
    tables = []
    for seed in range(options.seeds):
        tables.append(scores(sample_clips(model, options.people, options.each, seed), config))
        print(f"seed {seed}", tables[-1][SHOWN].round(3), sep="\n", flush=True)
    mean = pd.concat(tables).groupby(level=0, sort=False)[["macro_uf1", "difference", "map"]].mean()
    print(f"mean of {options.seeds} sets of people", mean.round(3), sep="\n")


if __name__ == "__main__":
    main()
