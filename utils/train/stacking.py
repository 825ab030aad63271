"""Stacking: several ways of training one network, averaged by weights that the inner folds choose.

Which is best depends on the data: where the clips resemble what the teacher showed, its weights are worth much, and
where they do not, they stand in the way. The participant's own training people tell, and nobody else: every learner is
judged on inner folds that it was not trained on, by a rule with few parameters (Wolpert 1992, "Stacked generalization";
van der Laan et al. 2007, "Super learner"), and thresholds are chosen on the average.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from utils.artefacts import read_artefact, remove, write_artefact
from utils.progress import progress
from utils.train.decision import Thresholds, average_thresholds, bootstrap_counts
from utils.train.ensemble import Ensemble, load_ensemble, predict, save_ensemble
from utils.train.fit import fit_ensemble
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

STEPS = 4  # weights are multiples of a fourth, before they are averaged over the resamples
RESAMPLES = 400


@dataclass(frozen=True)
class Learner:
    """One way of training: the network, how, and the weights that it starts from, if any."""

    model: ModelConfig
    train: TrainConfig
    init: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Stack:
    """Fitted networks by name, the weight of each in the average of their probabilities, what the inner folds said of
    each (its mean log loss there), and the thresholds of the average."""

    parts: dict[str, Ensemble]
    weights: dict[str, float]
    losses: dict[str, float]
    thresholds: Thresholds

    @property
    def leading(self) -> Ensemble:
        """The part that weighs most."""
        return self.parts[max(self.weights, key=self.weights.get)]


# Weights --------------------------------------------------------------------------------------------------------------


def log_losses(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Cross-entropy (..., N), summed over classes, of probabilities (..., N, K) where the truth is (N, K)."""
    p = np.clip(probability, 1e-4, 1 - 1e-4)
    return -np.where(truth > 0, np.log(p), np.log(1 - p)).sum(-1)


def stacking_weights(truth: np.ndarray, probability: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Weights (P,) of the parts in their average: the mean, over resamples of people, of those that lose least.

    truth (N, K), probability (P, N, K) of clips that no part was trained on, subjects (N,). One best choice would
    follow the luck of a few people, as one best threshold does (`choose_thresholds`); where parts are as good as one
    another the resamples share the weight out among them.
    """
    names, member = np.unique(subjects, return_inverse=True)
    shares = [w for w in itertools.product(range(STEPS + 1), repeat=len(probability)) if sum(w) == STEPS]
    candidates = np.array(shares) / STEPS
    losses = np.stack([log_losses(truth, np.tensordot(w, probability, 1)) for w in candidates])  # (candidates, N)
    drawn = bootstrap_counts(len(names), RESAMPLES, seed=0)[:, member]  # (R, N)
    total = drawn @ losses.T
    best = total <= total.min(1, keepdims=True) + 1e-9  # those that tie share
    return (best / best.sum(1, keepdims=True) @ candidates).mean(0)


# Training and prediction ----------------------------------------------------------------------------------------------


def fit_stack(
    train: Samples, inner: Sequence[tuple[np.ndarray, np.ndarray]], learners: Mapping[str, Learner], seed: int = 0
) -> Stack:
    """All learners on the same inner folds, which cover all clips, weighted by `stacking_weights`.

    A single one keeps its own thresholds.
    """
    parts = {
        name: fit_ensemble(train, inner, one.model, one.train, seed, one.init)
        for name, one in progress(learners.items(), "learners")
    }
    held_out = np.stack([part.held_out for part in parts.values()])
    losses = log_losses(train.y, held_out).mean(1)
    if len(parts) == 1:
        weights, thresholds = np.ones(1), next(iter(parts.values())).thresholds
    else:
        weights = stacking_weights(train.y, held_out, train.subjects)
        thresholds = average_thresholds(train.y, np.tensordot(weights, held_out, 1))
    named = (dict(zip(parts, map(float, values), strict=True)) for values in (weights, losses))
    return Stack(parts, *named, thresholds)


def predict_stack(stack: Stack, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of the parts' probabilities (N, K) and stream weights (N, S) for clips x (N, V, P, 3, H, W)."""
    found = [predict(part, x) for part in stack.parts.values()]
    weights = list(stack.weights.values())
    return tuple(np.tensordot(weights, np.stack(outputs), 1) for outputs in zip(*found, strict=True))


# Files ----------------------------------------------------------------------------------------------------------------


def save_stack(stack: Stack, folder: str | Path) -> None:
    """Write each part as `save_ensemble` does and, last, what makes an average of them as model.json.

    What an earlier one left in the folder goes: its model.json first, since it would speak of other parts.
    """
    remove(Path(folder) / "model.json")
    for pattern in ("model-[0-9]*", "model.safetensors*"):
        for left in Path(folder).glob(pattern):
            remove(left)
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
