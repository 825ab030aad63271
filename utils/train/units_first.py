"""Units first: emotions by way of action units.

What a network that was taught by synthetic motion knows of new faces is how muscles move the skin. Which emotion a
combination of muscles is called is for the data at hand to say: a coder's rule, which differs from one database to the
next. So its units are kept, and the table that leads from them to the emotions is learnt from the clips at hand,
shrunk towards the teacher's own: few enough numbers for a few people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of the shrinkage, per clip
RIDGE = 0.1  # of the teacher's own table, per clip
SOURCES = {"units": "unit_head", "emotions": "head"}  # what a table starts from -> the layer that says it


@dataclass(frozen=True)
class UnitTable:
    """What leads from answers of a teacher to emotions: logits = (answers - mean) / spread @ weights + bias.

    answers are logits (N, A), mean and spread (A,) theirs over the training clips; weights (A, K), bias (K,); prior
    (A, K) the teacher's own weights; strength: of the shrinkage towards them, as the inner folds chose it.
    """

    mean: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    prior: np.ndarray
    strength: float

    def logits(self, answers: np.ndarray) -> np.ndarray:
        """Emotions (..., K) of answers (..., A)."""
        return (answers - self.mean) / self.spread @ self.weights + self.bias


def learn_table(
    answers: np.ndarray, emotions: np.ndarray, truth: np.ndarray, inner: Sequence[Fold], single: bool
) -> tuple[UnitTable, np.ndarray]:
    """The table, and what those of the inner folds say of the clips whose truth they did not see, (N, K) probabilities.

    answers (M, N, A) and emotions (M, N, K) are the teacher's logits of N clips in M variants (a clip and its mirror
    image), truth (N, K). single: one emotion each, softmax for sigmoids. A logistic regression whose weights are drawn
    towards the teacher's table instead of zero: the ridge regression of its emotions on its answers.
    """
    mean, spread = answers.mean((0, 1)), answers.std((0, 1)) + 1e-6
    scaled = (answers - mean) / spread
    flat = scaled.reshape(-1, scaled.shape[-1])
    own = (emotions - emotions.mean((0, 1))).reshape(len(flat), -1)
    prior = np.linalg.solve(flat.T @ flat + RIDGE * len(flat) * np.eye(flat.shape[1]), flat.T @ own)

    def held_out(strength: float) -> np.ndarray:
        found = np.full(truth.shape, np.nan)
        for learn_on, judge in inner:
            weights, bias = _regress(scaled[:, learn_on], truth[learn_on], prior, strength, single)
            found[judge] = _log_odds_to_probability(scaled[:, judge] @ weights + bias, single).mean(0)
        return found

    tried = {strength: held_out(strength) for strength in STRENGTHS}
    best = min(STRENGTHS, key=lambda strength: np.nanmean(_loss(tried[strength], truth, single)))
    weights, bias = _regress(scaled, truth, prior, best, single)
    return UnitTable(mean, spread, weights, bias, prior, best), tried[best]


def _regress(
    x: np.ndarray, truth: np.ndarray, prior: np.ndarray, strength: float, single: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (A, K) and bias (K,) of the logistic regression of truth (N, K) on x (M, N, A), drawn towards `prior`."""
    variants, n, count = x.shape
    flat, wanted = x.reshape(-1, count), np.tile(truth, (variants, 1))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        both = parameters.reshape(count + 1, -1)
        logits, away = flat @ both[:-1] + both[-1], both[:-1] - prior
        fit = -(wanted * log_softmax(logits, 1)).sum() if single else (np.logaddexp(0, logits) - wanted * logits).sum()
        error = (_log_odds_to_probability(logits, single) - wanted) / variants
        slope = np.vstack([flat.T @ error + strength * n * away, error.sum(0)])
        return fit / variants + 0.5 * strength * n * (away**2).sum(), slope.ravel()

    start = np.vstack([prior, np.zeros(truth.shape[1])]).ravel()
    both = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x.reshape(count + 1, -1)
    return both[:-1], both[-1]


def _log_odds_to_probability(logits: np.ndarray, single: bool) -> np.ndarray:
    return np.exp(log_softmax(logits, -1)) if single else expit(logits)


def _loss(probability: np.ndarray, truth: np.ndarray, single: bool) -> np.ndarray:
    """Cross-entropy (N,) of probabilities (N, K)."""
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return -(truth * np.log(p) + (0 if single else (1 - truth) * np.log(1 - p))).sum(1)


def fit_units_first(train: Samples, inner: Sequence[Fold], teacher: Ensemble, source: str = "units") -> Ensemble:
    """The teacher with a head that reads emotions from its action units alone.

    teacher: one network with a unit head. source "emotions": by such a table from its own emotions (matrix scaling, Guo
    et al. 2017, "On calibration of modern neural networks"), the control that says what units add. The table is linear
    and so is the layer before it, so what comes out is a network of the same shape with another head. Thresholds come
    from the inner folds, as do `held_out` where they cover all clips. Raises ValueError for a source that is none and a
    teacher without units.
    """
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}. Remedy: one of {', '.join(SOURCES)}.")
    if len(teacher.members) != 1 or not teacher.model_config.units:
        raise ValueError("the teacher must be one network with a unit head. Remedy: load_pretrained(kind).")
    single = teacher.train_config.mode == "single-label"
    emotions, _, units = (part.double().numpy() for part in forward_all(teacher, train.x))
    answers = units if source == "units" else emotions
    table, held_out = learn_table(answers, emotions, train.y, inner, single)
    member = teacher.members[0]
    state = member.state | _head(table, member, SOURCES[source])
    model = replace(teacher.model_config, classes=train.y.shape[1])
    ensemble = Ensemble(
        model, teacher.train_config, train.classes, (TrainedNetwork(state, member.scale, (), 0),), None, 0
    )
    covered = np.isfinite(held_out[:, 0])
    if not single:
        told = f"inner out-of-fold of {len(inner)} tables"
        ensemble = with_thresholds(ensemble, train, held_out[covered], train.y[covered], told)
        held_out = ensemble.calibration(held_out)
    return replace(ensemble, held_out=held_out) if covered.all() else ensemble


def _head(table: UnitTable, member: TrainedNetwork, layer: str) -> Mapping[str, Tensor]:
    """The weights of the emotions' head that does what the layer and the table after it do."""
    weight, bias = (member.state[f"{layer}.{name}"].double().numpy() for name in ("weight", "bias"))
    onto = (table.weights / table.spread[:, None]).T  # (K, A)
    return {
        "head.weight": from_numpy(onto @ weight).float(),
        "head.bias": from_numpy(table.logits(bias)).float(),
    }


def units_first_estimator(teacher: Ensemble, source: str = "units") -> Estimator:
    """An estimator for `protocol.cross_validate`, see `fit_units_first`."""

    def estimator(train: Samples, inner: list, seed: int) -> Classifier:
        ensemble = fit_units_first(train, inner, teacher, source)
        notes = {"parameters": count_parameters(ensemble.model_config), "epochs": []}
        return Classifier(lambda x: predict(ensemble, x)[0], ensemble.thresholds, notes, ensemble.held_out)

    return estimator
