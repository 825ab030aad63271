"""Held-out predictions of one variant of the method, and the network of a run: what 03 scores and 05 submits."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.artefacts import DamagedError, artefact_key, is_current, read_artefact, write_artefact
from utils.evaluate.protocol import (
    OutOfFold,
    Variant,
    average_predictions,
    cross_validate_variants,
    grouped_folds,
    leave_one_subject_out,
)
from utils.evaluate.rows import PRETRAINED, SCRATCH, TUNED_HARD
from utils.train.estimator import Estimator
from utils.train.fit import network_estimator
from utils.train.network import ModelConfig
from utils.train.samples import CLASSES, Samples
from utils.train.settings import TrainConfig
from utils.train.shipped import FINE_TUNE, KINDS, TUNE_HARD, initial_state, load_pretrained
from utils.train.stacking import Learner, Stack, fit_stack, stacking_weights


@dataclass(frozen=True)
class Plan:
    """What held-out predictions depend on beside the clips. Nothing else of a configuration reaches the networks, so
    that another parameter of `utils.config` trains nothing again."""

    n_views: int
    feature_size: int  # of the maps, pixels
    folds: str  # outer folds by subject: a number, or "loso"
    inner_folds: int
    epochs: int  # 0: as many as each recipe says
    seed: int
    pretrained: bool  # stack all learners, else from scratch alone
    jobs: int  # workers
    work_root: Path  # where predictions are kept

    @classmethod
    def of(cls, config) -> "Plan":
        """The plan of a `utils.config.Config`."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    @property
    def result_parameters(self) -> dict[str, Any]:
        """What can change a prediction: all but workers and place."""
        return {name: value for name, value in asdict(self).items() if name not in ("jobs", "work_root")}


def outer_folds(plan: Plan, samples: Samples) -> list:
    """The outer folds by subject that the plan names: "loso" or a number."""
    if plan.folds == "loso":
        return leave_one_subject_out(samples.subjects)
    return grouped_folds(samples.y, samples.subjects, int(plan.folds), seed=plan.seed)


def network(plan: Plan, model: ModelConfig | None = None, train: TrainConfig | None = None) -> Estimator:
    """Our network from scratch: one per inner fold, averaged; thresholds from their held-out parts."""
    return network_estimator(model or model_config(plan), train or train_config(plan))


def model_config(plan: Plan, **changes) -> ModelConfig:
    return ModelConfig(**({"size": plan.feature_size, "views": plan.n_views} | changes))


def train_config(plan: Plan, **changes) -> TrainConfig:
    """How our network is trained from scratch."""
    return TrainConfig(epochs=plan.epochs or TrainConfig.epochs, **changes)


def learners(plan: Plan) -> dict[str, Learner]:
    """How our network is trained, by row: from scratch, and from the weights taught by synthetic motion, gently and
    hard."""
    kind = KINDS[plan.n_views]
    taught = replace(load_pretrained(kind).model_config, classes=len(CLASSES), units=0)
    gently, hard = (replace(one, epochs=plan.epochs or one.epochs) for one in (FINE_TUNE[kind], TUNE_HARD))
    return {
        SCRATCH: Learner(model_config(plan), train_config(plan)),
        PRETRAINED: Learner(taught, gently, initial_state(kind)),
        TUNED_HARD: Learner(taught, hard, initial_state(kind)),
    }


def learner_variants(plan: Plan) -> dict[str, Variant]:
    """Our network by all `learners`."""
    return {
        name: Variant(network_estimator(one.model, one.train, init=one.init)) for name, one in learners(plan).items()
    }


def submitted(plan: Plan) -> dict[str, Learner]:
    """What `03_train` scores and `05_submit` submits, stacked: all learners, or from scratch alone."""
    return {name: one for name, one in learners(plan).items() if plan.pretrained or name == SCRATCH}


def submitted_out_of_fold(plan: Plan, samples: Samples, seeds: int) -> OutOfFold:
    """Held-out predictions of what is `submitted`, weighted in each fold by what its inner folds show."""
    variants = learner_variants(plan)
    found = list(held_out_rows(plan, samples, {name: variants[name] for name in submitted(plan)}, seeds).values())
    return average_predictions(*found, weighting=stacking_weights) if len(found) > 1 else found[0]


def held_out(plan: Plan, samples: Samples, name: str, variant: Variant, seeds: int) -> OutOfFold:
    """Held-out predictions of one of `learner_variants` on the plan's folds and `seeds` repetitions, kept by name."""
    return held_out_rows(plan, samples, {name: variant}, seeds)[name]


def held_out_rows(
    plan: Plan, samples: Samples, rows: dict[str, Variant], seeds: int, code: Callable = learner_variants
) -> dict[str, OutOfFold]:
    """The same of many variants, by name; those that are not kept yet go through one pool of workers.

    code: the function that defines the variants, which is part of their keys.
    """
    kept = {name: _kept(plan, samples, name, seeds, code) for name in rows}
    missing = {name: rows[name] for name in rows if not _current(*kept[name])}
    folds, repeats = outer_folds(plan, samples), range(plan.seed, plan.seed + seeds)
    found = cross_validate_variants(samples, missing, folds, repeats, plan.jobs, plan.inner_folds, "held-out folds")
    for name, oof in found.items():
        path, key = kept[name]
        parts = {field.name: getattr(oof, field.name) for field in fields(oof)} | {"notes": json.dumps(oof.notes)}
        write_artefact(path, {part: np.asarray(value) for part, value in parts.items()}, key)
    return {name: found[name] if name in found else _read(path) for name, (path, _) in kept.items()}


def _kept(plan: Plan, samples: Samples, name: str, seeds: int, code: Callable) -> tuple[Path, str]:
    """Where a variant's held-out predictions lie, and their key."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = plan.work_root / "held_out" / f"{slug}-{seeds}.npz"  # 03 and 04 may ask for different numbers of seeds
    parameters = {"name": name, "seeds": seeds, "plan": plan.result_parameters, "samples": _digest(samples)}
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


def network_of_fold(plan: Plan, samples: Samples, fold: int) -> Stack:
    """The networks of `submitted_out_of_fold` for one outer fold of the first seed, trained again to be looked at."""
    train = samples.subset(outer_folds(plan, samples)[fold][0])
    return final_network(plan, train)


def final_network(plan: Plan, train: Samples) -> Stack:
    """What judges unseen subjects: the learners of `submitted`, each a network per inner fold of all training clips."""
    n_folds = min(plan.inner_folds, len(np.unique(train.subjects)))
    inner = grouped_folds(train.y, train.subjects, n_folds, plan.seed)
    return fit_stack(train, inner, submitted(plan), plan.seed)
