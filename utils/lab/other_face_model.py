"""Test of the learners on people of another face model than the one that the shipped weights were trained on.

    python -m utils.lab.other_face_model [--model DIR] [--people 12] [--each 12] [--seeds 3] [--jobs 2]

DIR is a face model as in `utils.synthetic.blend_shapes`, for instance ICT-FaceKit (github.com/ICT-VGL/ICT-FaceKit,
folder FaceXModel); by default the shipped face model is used. The clips are motion fields, so nothing is rendered.
Emotions follow the repertoire LITERATURE, which the shipped weights were not trained on. Each seed draws new people.
"""

import argparse
from pathlib import Path

import pandas as pd
from numpy.random import Generator

from utils.config import Config, load_config
from utils.evaluate.ablation import teacher_variants
from utils.evaluate.held_out import Plan, learner_variants, learners, outer_folds
from utils.evaluate.protocol import average_predictions, cross_validate_variants
from utils.evaluate.rows import OURS, SCRATCH
from utils.evaluate.scores import results_table
from utils.lab.teachers.classifier import Clips, clips_of, dual_fields, join_people
from utils.synthetic.blend_shapes import BlendShapes, read_blend_shapes
from utils.synthetic.expressions import LITERATURE
from utils.synthetic.face_model import sample_identity
from utils.train.samples import CLASSES, Samples
from utils.train.stacking import stacking_weights

FOLDS = 6
SHOWN = ["macro_uf1", "low", "high", "difference", "map"]


def sample_clips(model: BlendShapes | None, people: int, each: int, seed: int) -> Samples:
    """Clips (people * each, V=2, P=2, 3, H, W) of people of a face model, by default the shipped one."""

    def person_clips(rng: Generator, n: int) -> Clips:
        identity = (model.sample_identity if model else sample_identity)(rng)
        fields = dual_fields(identity, rng, model.faces if model else None)
        return clips_of(identity, fields, n, rng, LITERATURE, log_floor=(0.2, 0.4))

    return join_people(people * each, each, (seed, 60), CLASSES, person_clips)


def scores(samples: Samples, config: Config) -> pd.DataFrame:
    """The results table (`utils.evaluate.scores.results_table`) of all learners and of their stack."""
    plan = Plan.of(config)
    rows, folds = learner_variants(plan) | teacher_variants(plan), outer_folds(plan, samples)
    oofs = cross_validate_variants(samples, rows, folds, (config.seed,), config.jobs, config.inner_folds, "folds")
    oofs[OURS] = average_predictions(*(oofs[name] for name in learners(plan)), weighting=stacking_weights)
    return results_table(oofs, SCRATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="folder or file of blend shapes (default: the shipped face model)")
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
