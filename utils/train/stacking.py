"""Stacking: the weighted average of several learners. The inner folds choose the weights.

The data decide which learner is best: pretrained weights help where the clips resemble the synthetic ones, and harm
where they do not. Every learner is therefore judged on inner folds of the training people that it was not trained on
(Wolpert 1992, "Stacked generalization"; van der Laan et al. 2007, "Super learner"). The thresholds are chosen for the
average.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from utils.artefacts import read_artefact, remove, write_artefact
from utils.parallel import parallel_map
from utils.train.decision import Thresholds, average_thresholds, bootstrap_counts
from utils.train.ensemble import Ensemble, load_ensemble, predict, save_ensemble
from utils.train.estimator import Fold
from utils.train.fit import fit_ensemble
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

STEPS = 4  # in one resample, each weight is a multiple of 1 / STEPS
RESAMPLES = 400  # of the subjects; the weights are averaged over them


@dataclass(frozen=True)
class Learner:
    """One way to train a network: its architecture, the training settings, and the initial weights, if any."""

    model: ModelConfig
    train: TrainConfig
    init: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Stack:
    """A weighted average of ensembles, one per learner, by name.

    weights     share of each ensemble in the mean of the probabilities; they sum to 1
    losses      mean log loss of each ensemble on the clips that its inner folds held out
    thresholds  chosen for the mean of the probabilities
    """

    parts: dict[str, Ensemble]
    weights: dict[str, float]
    losses: dict[str, float]
    thresholds: Thresholds

    @property
    def leading(self) -> Ensemble:
        """The ensemble with the largest weight."""
        return self.parts[max(self.weights, key=self.weights.get)]


# Weights --------------------------------------------------------------------------------------------------------------


def log_losses(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Cross-entropy (..., N), summed over classes, of probabilities (..., N, K) against the truth (N, K)."""
    p = np.clip(probability, 1e-4, 1 - 1e-4)
    return -np.where(truth > 0, np.log(p), np.log(1 - p)).sum(-1)


def stacking_weights(truth: np.ndarray, probability: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Weights (P,) of P parts in their average. They sum to 1.

    truth (N, K), probability (P, N, K) and subjects (N,) belong to clips that no part was trained on. Each bootstrap
    resample of the subjects selects the weights with the smallest log loss; the result is the mean of the selected
    weights. A single selection would depend too much on a few people, as a single best threshold does
    (`choose_thresholds`). Equally good parts get equal weights.
    """
    names, subject_of = np.unique(subjects, return_inverse=True)
    steps = [counts for counts in itertools.product(range(STEPS + 1), repeat=len(probability)) if sum(counts) == STEPS]
    candidates = np.array(steps) / STEPS
    losses = np.stack([log_losses(truth, np.tensordot(w, probability, 1)) for w in candidates])  # (candidates, N)
    drawn = bootstrap_counts(len(names), RESAMPLES, seed=0)[:, subject_of]  # (R, N)
    total = drawn @ losses.T
    best = total <= total.min(1, keepdims=True) + 1e-9  # candidates that tie share the resample
    return (best / best.sum(1, keepdims=True) @ candidates).mean(0)


# Training and prediction ----------------------------------------------------------------------------------------------


def fit_stack(
    train: Samples, inner: Sequence[Fold], learners: Mapping[str, Learner], seed: int = 0, jobs: int = 1
) -> Stack:
    """Train every learner on the same inner folds, which cover all clips, and weight them by `stacking_weights`.

    A single learner keeps its own thresholds. jobs: worker processes, each for one learner at a time.
    """
    task = partial(_fit_learner, train, inner, seed)
    longest_first = sorted(learners, key=lambda name: -learners[name].train.epochs)
    ensembles = parallel_map(task, [learners[name] for name in longest_first], jobs, description="learners")
    parts = dict(sorted(zip(longest_first, ensembles, strict=True), key=lambda part: list(learners).index(part[0])))
    held_out = np.stack([part.held_out for part in parts.values()])
    losses = log_losses(train.y, held_out).mean(1)
    if len(parts) == 1:
        weights, thresholds = np.ones(1), next(iter(parts.values())).thresholds
    else:
        weights = stacking_weights(train.y, held_out, train.subjects)
        thresholds = average_thresholds(train.y, np.tensordot(weights, held_out, 1))
    named = (dict(zip(parts, map(float, values), strict=True)) for values in (weights, losses))
    return Stack(parts, *named, thresholds)


def _fit_learner(train: Samples, inner: Sequence[Fold], seed: int, learner: Learner) -> Ensemble:
    return fit_ensemble(train, inner, learner.model, learner.train, seed, learner.init)


def predict_stack(stack: Stack, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of the parts' probabilities (N, K) and stream weights (N, S) for clips x (N, V, P, 3, H, W)."""
    predictions = [predict(part, x) for part in stack.parts.values()]
    weights = list(stack.weights.values())
    return tuple(np.tensordot(weights, np.stack(outputs), 1) for outputs in zip(*predictions, strict=True))


# Files ----------------------------------------------------------------------------------------------------------------


def save_stack(stack: Stack, folder: str | Path) -> None:
    """Write each part by `save_ensemble` and then model.json, which holds the weights, losses and thresholds.

    The files of an earlier stack in the folder are removed first, beginning with its model.json, so that no model.json
    ever names missing parts.
    """
    remove(Path(folder) / "model.json")
    for pattern in ("model-[0-9]*", "model.safetensors*"):
        for path in Path(folder).glob(pattern):
            remove(path)
    files = {name: f"model-{number}" for number, name in enumerate(stack.parts)}
    for name, part in stack.parts.items():
        save_ensemble(part, folder, files[name])
    parts = [
        {"name": name, "file": files[name], "weight": stack.weights[name], "inner_log_loss": stack.losses[name]}
        for name in stack.parts
    ]
    thresholds = {"values": stack.thresholds.values.tolist(), "sources": stack.thresholds.sources}
    write_artefact(Path(folder) / "model.json", {"parts": parts, "thresholds": thresholds})


def load_stack(folder: str | Path) -> Stack:
    """Read what `save_stack` wrote."""
    record = read_artefact(Path(folder) / "model.json")
    parts = {part["name"]: part for part in record["parts"]}
    return Stack(
        {name: load_ensemble(folder, part["file"]) for name, part in parts.items()},
        {name: part["weight"] for name, part in parts.items()},
        {name: part["inner_log_loss"] for name, part in parts.items()},
        Thresholds(np.array(record["thresholds"]["values"]), tuple(record["thresholds"]["sources"])),
    )
