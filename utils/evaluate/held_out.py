"""Held-out predictions of a variant, which 03 scores, and the final networks of a run, which 05 submits."""

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
from utils.evaluate.rows import SCRATCH, TUNED_GENTLY, TUNED_HARD
from utils.train.estimator import Estimator
from utils.train.fit import network_estimator
from utils.train.network import ModelConfig
from utils.train.samples import CLASSES, Samples
from utils.train.settings import TrainConfig
from utils.train.shipped import FINE_TUNE, KINDS, TUNE_HARD, initial_state, load_pretrained
from utils.train.stacking import Learner, Stack, fit_stack, stacking_weights


@dataclass(frozen=True)
class Plan:
    """The parameters that held-out predictions depend on, beside the clips. No other parameter of `utils.config`
    reaches the networks, so a change of another parameter does not train them again."""

    n_views: int
    feature_size: int  # side of the flow maps, pixels
    folds: str  # outer folds by subject: their number, or "loso" for one per subject
    inner_folds: int
    epochs: int  # 0: the number in each learner's own settings
    seed: int
    pretrained: bool  # stack all learners; False: train from scratch only
    jobs: int  # worker processes
    work_root: Path  # folder of the stored predictions

    @classmethod
    def of(cls, config) -> "Plan":
        """The plan of a `utils.config.Config`."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    @property
    def result_parameters(self) -> dict[str, Any]:
        """The parameters that can change a prediction: all except `jobs` and `work_root`."""
        return {name: value for name, value in asdict(self).items() if name not in ("jobs", "work_root")}


def outer_folds(plan: Plan, samples: Samples) -> list:
    """The outer folds of the plan: `plan.folds` folds by subject, or one fold per subject for "loso"."""
    if plan.folds == "loso":
        return leave_one_subject_out(samples.subjects)
    return grouped_folds(samples.y, samples.subjects, int(plan.folds), seed=plan.seed)


def network(plan: Plan, model: ModelConfig | None = None, train: TrainConfig | None = None) -> Estimator:
    """Estimator of our network from scratch: an ensemble of one network per inner fold (`network_estimator`)."""
    return network_estimator(model or model_config(plan), train or train_config(plan))


def model_config(plan: Plan, **changes) -> ModelConfig:
    """The architecture of our network for the clips of the plan."""
    return ModelConfig(**({"size": plan.feature_size, "views": plan.n_views} | changes))


def train_config(plan: Plan, **changes) -> TrainConfig:
    """The training settings of our network from scratch."""
    return TrainConfig(epochs=plan.epochs or TrainConfig.epochs, **changes)


def learners(plan: Plan) -> dict[str, Learner]:
    """The learners of the stack by row name: from scratch, and fine-tuned from the weights that synthetic motion
    taught, once with the gentle and once with the hard settings of `utils.train.shipped`."""
    kind = KINDS[plan.n_views]
    taught = replace(load_pretrained(kind).model_config, classes=len(CLASSES), units=0)
    gentle, hard = (replace(train, epochs=plan.epochs or train.epochs) for train in (FINE_TUNE[kind], TUNE_HARD))
    return {
        SCRATCH: Learner(model_config(plan), train_config(plan)),
        TUNED_GENTLY: Learner(taught, gentle, initial_state(kind)),
        TUNED_HARD: Learner(taught, hard, initial_state(kind)),
    }


def learner_variants(plan: Plan) -> dict[str, Variant]:
    """One variant per learner of `learners`."""
    return {
        name: Variant(network_estimator(learner.model, learner.train, init=learner.init))
        for name, learner in learners(plan).items()
    }


def submitted(plan: Plan) -> dict[str, Learner]:
    """The learners that `03_train` scores and `05_submit` submits: all, or without `plan.pretrained` SCRATCH only."""
    return {name: learner for name, learner in learners(plan).items() if plan.pretrained or name == SCRATCH}


def submitted_out_of_fold(plan: Plan, samples: Samples, seeds: int) -> OutOfFold:
    """Held-out predictions of the submitted stack: in each fold, the inner folds choose the weights of the learners."""
    variants = learner_variants(plan)
    parts = list(held_out_rows(plan, samples, {name: variants[name] for name in submitted(plan)}, seeds).values())
    return average_predictions(*parts, weighting=stacking_weights) if len(parts) > 1 else parts[0]


def held_out_rows(
    plan: Plan, samples: Samples, rows: dict[str, Variant], seeds: int, code: Callable = learner_variants
) -> dict[str, OutOfFold]:
    """Held-out predictions of variants by name, for the folds of the plan and `seeds` repetitions of training.

    Predictions are stored under `plan.work_root`. One pool of workers computes those that are not stored yet.
    code: the function that defines the variants; its code is part of their keys.
    """
    stored = {name: _stored(plan, samples, name, seeds, code) for name in rows}
    missing = {name: rows[name] for name in rows if not _current(*stored[name])}
    folds, repeats = outer_folds(plan, samples), range(plan.seed, plan.seed + seeds)
    computed = cross_validate_variants(samples, missing, folds, repeats, plan.jobs, plan.inner_folds, "held-out folds")
    for name, oof in computed.items():
        path, key = stored[name]
        parts = {field.name: getattr(oof, field.name) for field in fields(oof)} | {"notes": json.dumps(oof.notes)}
        write_artefact(path, {part: np.asarray(value) for part, value in parts.items()}, key)
    return {name: computed[name] if name in computed else _read(path) for name, (path, _) in stored.items()}


def _stored(plan: Plan, samples: Samples, name: str, seeds: int, code: Callable) -> tuple[Path, str]:
    """The path and the key under which a variant's predictions are stored."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = plan.work_root / "held_out" / f"{slug}-{seeds}.npz"  # 03 and 04 may use different numbers of seeds
    parameters = {"name": name, "seeds": seeds, "plan": plan.result_parameters, "samples": _digest(samples)}
    return path, artefact_key((), parameters, (held_out_rows, code))


def _current(path: Path, key: str) -> bool:
    """Whether the file has this key and can be read."""
    try:
        return is_current(path, key) and bool(_read(path))
    except DamagedError:
        return False


def _read(path: Path) -> OutOfFold:
    arrays = read_artefact(path)
    plain = {
        "classes": tuple(arrays["classes"].tolist()),
        "seeds": tuple(arrays["seeds"].tolist()),
        "notes": json.loads(str(arrays["notes"])),
        "seconds": float(arrays["seconds"]),
    }
    return OutOfFold(**(arrays | plain))


def _digest(samples: Samples) -> str:
    parts = (samples.x, samples.y, samples.ids, samples.subjects)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def network_of_fold(plan: Plan, samples: Samples, fold: int) -> Stack:
    """The stack of `submitted_out_of_fold` for one outer fold of the first seed, trained again for inspection."""
    train = samples.subset(outer_folds(plan, samples)[fold][0])
    return final_network(plan, train)


def final_network(plan: Plan, train: Samples) -> Stack:
    """The submitted stack: each learner of `submitted`, with one network per inner fold of all training clips."""
    n_folds = min(plan.inner_folds, len(np.unique(train.subjects)))
    inner = grouped_folds(train.y, train.subjects, n_folds, plan.seed)
    return fit_stack(train, inner, submitted(plan), plan.seed, plan.jobs)
