"""Units first: emotions from action units.

The shipped network learnt from synthetic motion which action units (AUs) move; this carries over to new faces. Which
emotion a combination of AUs shows is a convention that differs between databases. This module therefore keeps the AUs
of the network, the teacher, and learns the table from AUs to emotions on the training clips. The table is shrunk
towards the teacher's table, because a few people determine only a few numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from torch import Tensor, from_numpy

from utils.train.ensemble import Ensemble, TrainedNetwork, forward_all, predict
from utils.train.estimator import Classifier, Estimator, Fold
from utils.train.fit import with_thresholds
from utils.train.network import count_parameters
from utils.train.samples import Samples

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # candidates for the strength of the shrinkage, per clip
RIDGE = 0.1  # penalty of the regression that gives the teacher's table, per clip
SOURCES = {"units": "unit_head", "emotions": "head"}  # input of a table -> layer of the teacher that computes it


@dataclass(frozen=True)
class UnitTable:
    """The linear map from the teacher's answers to emotions: logits = (answers - mean) / spread @ weights + bias.

    answers are logits (N, A); mean and spread (A,) are their mean and standard deviation over the training clips;
    weights (A, K), bias (K,).
    """

    mean: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    bias: np.ndarray

    def logits(self, answers: np.ndarray) -> np.ndarray:
        """Emotion logits (..., K) of answers (..., A)."""
        return (answers - self.mean) / self.spread @ self.weights + self.bias


def learn_table(
    answers: np.ndarray, emotions: np.ndarray, truth: np.ndarray, inner: Sequence[Fold], single: bool
) -> tuple[UnitTable, np.ndarray]:
    """Fit a table to all clips. Returns it with the inner out-of-fold probabilities (N, K), NaN for uncovered clips.

    answers (M, N, A) and emotions (M, N, K) are the teacher's logits of N clips, with M = 2 for a clip and its mirror
    image; truth (N, K). single: single labels, hence softmax instead of sigmoids. The table is a logistic regression
    whose weights are shrunk towards the teacher's table, the ridge regression of `emotions` on `answers`. The inner
    folds choose the strength of the shrinkage.
    """
    mean, spread = answers.mean((0, 1)), answers.std((0, 1)) + 1e-6
    scaled = (answers - mean) / spread
    flat = scaled.reshape(-1, scaled.shape[-1])
    centred = (emotions - emotions.mean((0, 1))).reshape(len(flat), -1)
    prior = np.linalg.solve(flat.T @ flat + RIDGE * len(flat) * np.eye(flat.shape[1]), flat.T @ centred)

    def out_of_fold(strength: float) -> np.ndarray:
        probability = np.full(truth.shape, np.nan)
        for fit_on, test_on in inner:
            weights, bias = _regress(scaled[:, fit_on], truth[fit_on], prior, strength, single)
            probability[test_on] = _probability(scaled[:, test_on] @ weights + bias, single).mean(0)
        return probability

    held_out = {strength: out_of_fold(strength) for strength in STRENGTHS}
    best = min(STRENGTHS, key=lambda strength: np.nanmean(_loss(held_out[strength], truth, single)))
    return UnitTable(mean, spread, *_regress(scaled, truth, prior, best, single)), held_out[best]


def _regress(
    x: np.ndarray, truth: np.ndarray, prior: np.ndarray, strength: float, single: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (A, K) and bias (K,) of the logistic regression of truth (N, K) on x (M, N, A), shrunk to `prior`."""
    images, n, count = x.shape
    flat, target = x.reshape(-1, count), np.tile(truth, (images, 1))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = np.split(parameters.reshape(count + 1, -1), [count])
        logits, change = flat @ weights + bias, weights - prior
        fit = -(target * log_softmax(logits, 1)).sum() if single else (np.logaddexp(0, logits) - target * logits).sum()
        error = (_probability(logits, single) - target) / images
        gradient = np.vstack([flat.T @ error + strength * n * change, error.sum(0)])
        return fit / images + 0.5 * strength * n * (change**2).sum(), gradient.ravel()

    start = np.vstack([prior, np.zeros(truth.shape[1])]).ravel()
    table = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x.reshape(count + 1, -1)
    return table[:-1], table[-1]


def _probability(logits: np.ndarray, single: bool) -> np.ndarray:
    return np.exp(log_softmax(logits, -1)) if single else expit(logits)


def _loss(probability: np.ndarray, truth: np.ndarray, single: bool) -> np.ndarray:
    """Cross-entropy (N,) of probabilities (N, K)."""
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return -(truth * np.log(p) + (0 if single else (1 - truth) * np.log(1 - p))).sum(1)


def fit_units_first(train: Samples, inner: Sequence[Fold], teacher: Ensemble, source: str = "units") -> Ensemble:
    """The teacher, a single network with a unit head, with a new emotion head that uses its AUs only.

    source "emotions" is the control: the table starts from the teacher's emotions instead (matrix scaling, Guo et al.
    2017, "On calibration of modern neural networks"). Table and layer are linear, so together they form the new head.
    Calibration, thresholds and `held_out` come from the inner folds. Raises ValueError for another source or teacher.
    """
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}. Remedy: one of {', '.join(SOURCES)}.")
    if len(teacher.members) != 1 or not teacher.model_config.units:
        raise ValueError("the teacher must be one network with a unit head. Remedy: load_pretrained(kind).")
    single = teacher.train_config.mode == "single-label"
    emotions, _, units = (output.double().numpy() for output in forward_all(teacher, train.x))
    table, held_out = learn_table(units if source == "units" else emotions, emotions, train.y, inner, single)
    member = teacher.members[0]
    network = TrainedNetwork(member.state | _head(table, member, SOURCES[source]), member.scale, (), 0)
    model = replace(teacher.model_config, classes=train.y.shape[1])
    ensemble = Ensemble(model, teacher.train_config, train.classes, (network,), None, 0)
    covered = np.isfinite(held_out[:, 0])
    if not single:
        origin = f"inner out-of-fold of {len(inner)} tables"
        ensemble = with_thresholds(ensemble, train, held_out[covered], train.y[covered], origin)
        held_out = ensemble.calibration(held_out)
    return replace(ensemble, held_out=held_out) if covered.all() else ensemble


def _head(table: UnitTable, member: TrainedNetwork, layer: str) -> dict[str, Tensor]:
    """The emotion head that computes the layer and then the table."""
    weight, bias = (member.state[f"{layer}.{name}"].double().numpy() for name in ("weight", "bias"))
    rows = (table.weights / table.spread[:, None]).T  # (K, A)
    return {"head.weight": from_numpy(rows @ weight).float(), "head.bias": from_numpy(table.logits(bias)).float()}


def units_first_estimator(teacher: Ensemble, source: str = "units") -> Estimator:
    """An estimator for `protocol.cross_validate` of `fit_units_first`."""

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        ensemble = fit_units_first(train, inner, teacher, source)
        notes = {"parameters": count_parameters(ensemble.model_config), "epochs": []}
        return Classifier(lambda x: predict(ensemble, x)[0], ensemble.thresholds, notes, ensemble.held_out)

    return estimator
