"""Held-out predictions of one variant of the method, and the network of a run: what 03 scores and 05 submits."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from utils.artefacts import DamagedError, artefact_key, is_current, read_artefact, write_artefact
from utils.config import Config
from utils.dataset.samples import CLASSES, Samples
from utils.train.estimator import Predictor
from utils.train.fit import network_predictor
from utils.train.network import ModelConfig
from utils.train.protocol import (
    OutOfFold,
    Row,
    average_predictions,
    cross_validate_rows,
    grouped_folds,
    leave_one_subject_out,
    run_fold,
    run_leaking_fold,
)
from utils.train.settings import TrainConfig
from utils.train.shipped import FINE_TUNE, KINDS, TUNE_HARD, initial_state, load_pretrained, zero_shot_predictor
from utils.train.stacking import Learner, Stack, fit_stack, stacking_weights
from utils.train.units_first import units_first_predictor

# Names of rows.
SCRATCH, PRETRAINED, TUNED_HARD = "ours, from scratch", "ours, pretrained", "ours, pretrained, tuned hard"
UNITS_FIRST = "units first"
OURS, ZERO_SHOT, RECALIBRATED = "ours", "zero-shot", "zero-shot, recalibrated"
Transform = Callable[[Samples], Samples]


@dataclass(frozen=True)
class Variant:
    """A row of the table: a predictor, and what it is shown of the samples."""

    predictor: Predictor
    transform: Transform = lambda samples: samples
    leaking: bool = False

    def row(self, samples: Samples) -> Row:
        return Row(self.transform(samples), self.predictor, run_leaking_fold if self.leaking else run_fold)


def outer_folds(config: Config, samples: Samples) -> list:
    """The outer folds by subject that the config names: "loso" or a number."""
    if config.folds == "loso":
        return leave_one_subject_out(samples.subjects)
    return grouped_folds(samples.y, samples.subjects, int(config.folds), seed=config.seed)


def network(config: Config, model: ModelConfig | None = None, train: TrainConfig | None = None) -> Predictor:
    """Our network from scratch: one per inner fold, averaged; thresholds from their held-out parts."""
    return network_predictor(model or model_config(config), train or train_config(config))


def model_config(config: Config, **changes) -> ModelConfig:
    return ModelConfig(**({"size": config.feature_size, "views": config.n_views} | changes))


def train_config(config: Config, **changes) -> TrainConfig:
    """How our network is trained from scratch."""
    return TrainConfig(epochs=config.epochs or TrainConfig.epochs, **changes)


def learners(config: Config) -> dict[str, Learner]:
    """How our network is trained, by row: from scratch, and from the weights taught by synthetic motion, gently and
    hard."""
    kind = KINDS[config.n_views]
    taught = replace(load_pretrained(kind).model_config, classes=len(CLASSES), units=0)
    gently, hard = (replace(one, epochs=config.epochs or one.epochs) for one in (FINE_TUNE[kind], TUNE_HARD))
    return {
        SCRATCH: Learner(model_config(config), train_config(config)),
        PRETRAINED: Learner(taught, gently, initial_state(kind)),
        TUNED_HARD: Learner(taught, hard, initial_state(kind)),
    }


def main_variants(config: Config) -> dict[str, Variant]:
    """Our network by all `learners`; and what the teacher of synthetic motion knows: its units, or its emotions,
    with a table learnt from the clips, and its emotions as they are."""
    teacher = load_pretrained(KINDS[config.n_views])
    rows = {
        name: Variant(network_predictor(one.model, one.train, init=one.init)) for name, one in learners(config).items()
    }
    return rows | {
        UNITS_FIRST: Variant(units_first_predictor(teacher)),
        RECALIBRATED: Variant(units_first_predictor(teacher, "emotions")),
        ZERO_SHOT: Variant(zero_shot_predictor(teacher)),
    }


def submitted(config: Config) -> dict[str, Learner]:
    """What `03_train` scores and `05_submit` submits, stacked: all learners, or from scratch alone."""
    return {name: one for name, one in learners(config).items() if config.pretrained or name == SCRATCH}


def submitted_out_of_fold(config: Config, samples: Samples, seeds: int) -> OutOfFold:
    """Held-out predictions of what is `submitted`, weighted in each fold by what its inner folds show."""
    variants = main_variants(config)
    found = list(held_out_rows(config, samples, {name: variants[name] for name in submitted(config)}, seeds).values())
    return average_predictions(*found, weighting=stacking_weights) if len(found) > 1 else found[0]


def held_out(config: Config, samples: Samples, name: str, variant: Variant, seeds: int) -> OutOfFold:
    """Held-out predictions of one of `main_variants` on the config's folds and `seeds` repetitions, kept by name."""
    return held_out_rows(config, samples, {name: variant}, seeds)[name]


def held_out_rows(
    config: Config, samples: Samples, rows: dict[str, Variant], seeds: int, code: Callable = main_variants
) -> dict[str, OutOfFold]:
    """The same of many variants, by name; those that are not kept yet go through one pool of workers.

    code: the function that defines the variants, which is part of their keys.
    """
    kept = {name: _kept(config, samples, name, seeds, code) for name in rows}
    missing = {name: rows[name].row(samples) for name in rows if not _current(*kept[name])}
    folds, repeats = outer_folds(config, samples), range(config.seed, config.seed + seeds)
    found = cross_validate_rows(missing, folds, repeats, config.jobs, config.inner_folds, "held-out folds")
    for name, oof in found.items():
        path, key = kept[name]
        parts = {field.name: getattr(oof, field.name) for field in fields(oof)} | {"notes": json.dumps(oof.notes)}
        write_artefact(path, {part: np.asarray(value) for part, value in parts.items()}, key)
    return {name: found[name] if name in found else _read(path) for name, (path, _) in kept.items()}


def _kept(config: Config, samples: Samples, name: str, seeds: int, code: Callable) -> tuple[Path, str]:
    """Where a variant's held-out predictions lie, and their key."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = config.work_root / "held_out" / f"{slug}-{seeds}.npz"  # 03 and 04 may ask for different numbers of seeds
    settings = {key: value for key, value in config.result_parameters.items() if key not in ("seeds", "ablation_seeds")}
    parameters = {"name": name, "seeds": seeds, "config": settings, "samples": _digest(samples)}
    return path, artefact_key((), parameters, (held_out, code))


def _current(path: Path, key: str) -> bool:
    """Whether predictions are kept under this key and can be read."""
    try:
        return is_current(path, key) and bool(_read(path))
    except DamagedError:
        return False


def _read(path: Path) -> OutOfFold:
    stored = read_artefact(path)
    simple = {
        "classes": tuple(stored["classes"].tolist()),
        "seeds": tuple(stored["seeds"].tolist()),
        "notes": json.loads(str(stored["notes"])),
        "seconds": float(stored["seconds"]),
    }
    return OutOfFold(**(stored | simple))


def _digest(samples: Samples) -> str:
    parts = (samples.x, samples.y, samples.ids, samples.subjects)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def network_of_fold(config: Config, samples: Samples, fold: int) -> Stack:
    """The networks of `submitted_out_of_fold` for one outer fold of the first seed, trained again to be looked at."""
    train = samples.subset(outer_folds(config, samples)[fold][0])
    return final_network(config, train)


def final_network(config: Config, train: Samples) -> Stack:
    """What judges unseen subjects: the learners of `submitted`, each a network per inner fold of all training clips."""
    n_folds = min(config.inner_folds, len(np.unique(train.subjects)))
    inner = grouped_folds(train.y, train.subjects, n_folds, config.seed)
    return fit_stack(train, inner, submitted(config), config.seed)
