"""Decisions from probabilities: calibration, and one threshold per class with a phrase that says how it was found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

FEW = 10  # number of positives at which both cuts of `choose_thresholds` have the same weight
RESAMPLES = 200  # bootstrap resamples of the validation clips in `choose_thresholds`


@dataclass(frozen=True)
class Thresholds:
    """values (K,) in 0..1; sources (K,): for each value, a phrase that says how it was found."""

    values: np.ndarray
    sources: tuple[str, ...]


def decide(probability: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """Decisions (N, K) bool: probability > threshold per class, or, without thresholds, the arg max alone."""
    if thresholds is None:
        return probability.argmax(axis=1)[:, None] == np.arange(probability.shape[1])
    return probability > np.asarray(thresholds)


def bootstrap_counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n items is drawn in bootstrap resamples, (resamples, n) int."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)


def choose_thresholds(
    truth: np.ndarray, probability: np.ndarray, prevalence: np.ndarray, *, source: str = "inner validation"
) -> Thresholds:
    """Choose one threshold per class: the weighted mean, in logits, of a bagged cut and an expected cut.

    truth (N, K) 0/1 and probability (N, K) belong to the validation clips, prevalence (K,) to the training clips.
    The bagged cut is the mean of the cuts that maximise F1 in bootstrap resamples (Breiman 1996, "Bagging predictors").
    The expected cut maximises the F1 to expect if the calibrated probabilities are right (Lipton, Elkan, Narayanaswamy
    2014, "Optimal thresholding of classifiers to maximize F1 measure"). With n positives, the bagged cut has the weight
    n / (n + FEW), because it depends on the positives, whereas the expected cut depends on all clips.
    A class without positives in validation gets the cut at which it is predicted as often as it occurs in training.
    A class without positives in training and validation is never predicted (threshold 1).
    """
    n = len(truth)
    resamples = bootstrap_counts(n, RESAMPLES, seed=0)  # (R, N)
    frequency = fit_calibration(truth, probability)(probability)
    values, sources = [], []
    for k in range(truth.shape[1]):
        p, y = probability[:, k], truth[:, k]
        if y.any():
            share = y.sum() / (y.sum() + FEW)
            bagged, expected = _bagged_cut(p, y, resamples), _expected_cut(p, frequency[:, k])
            values.append(_sigmoid(share * bagged + (1 - share) * expected))
            sources.append(
                f"{source}: {share:.0%} bagged best F1 of {int(y.sum())} positives among {n}, "
                f"{1 - share:.0%} best expected F1"
            )
        elif prevalence[k] > 0:
            cuts = _cuts(_logit(np.sort(p)[::-1]))
            values.append(_sigmoid(cuts[np.clip(round(prevalence[k] * n), 1, n) - 1]))
            sources.append(
                f"{source}: none of {n} positive, so predicted at the training prevalence {prevalence[k]:.3f}"
            )
        else:
            values.append(1.0)
            sources.append("no positive in training: never predicted")
    return Thresholds(np.array(values), tuple(sources))


def average_thresholds(truth: np.ndarray, probability: np.ndarray) -> Thresholds:
    """Thresholds of an average of models, from its inner out-of-fold probabilities (N, K) and the truth (N, K)."""
    return choose_thresholds(truth, probability, truth.mean(axis=0), source="inner out-of-fold of the mean")


@dataclass(frozen=True)
class Calibration:
    """Calibrated probabilities: sigmoid(slope * logit + intercept), with one slope and K intercepts (after Platt 1999).

    Focal loss and class weights give probabilities that rank the clips well but are not frequencies. All classes share
    one slope, because a slope fitted to a few positives could reverse the ranking of their class.
    """

    slope: float
    intercepts: np.ndarray

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(self.slope * _logit(probability) + self.intercepts)))


def fit_calibration(truth: np.ndarray, probability: np.ndarray) -> Calibration:
    """Logistic regression of truth (N, K) on the logits of probability (N, K), for clips that were not trained on.

    The slope is at least 0.1, so calibration never changes the order of the clips.
    """
    n, k = truth.shape
    if not 0 < truth.sum() < truth.size:
        return Calibration(1.0, np.zeros(k))
    rows = np.column_stack([_logit(probability).ravel(), np.tile(np.eye(k), (n, 1))])
    model = LogisticRegression(fit_intercept=False, C=10.0, max_iter=1000)
    slope, *intercepts = model.fit(rows, truth.ravel() > 0).coef_[0]
    return Calibration(float(max(slope, 0.1)), np.array(intercepts))


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def _sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def _cuts(ordered: np.ndarray) -> np.ndarray:
    """Cuts between descending logits: cut i is halfway between logits i and i + 1, the last cut below the last one."""
    return (ordered + np.append(ordered[1:], ordered[-1] - 0.1)) / 2


def _bagged_cut(p: np.ndarray, y: np.ndarray, resamples: np.ndarray) -> float:
    """Mean, over resamples (R, N) of the clips, of the cut (a logit) of p (N,) with the largest F1 for truth y (N,)."""
    order = np.argsort(-p, kind="stable")
    ordered, drawn = _logit(p[order]), resamples[:, order]
    hits = np.cumsum(drawn * y[order], axis=1)  # true positives of each cut
    f1 = 2 * hits / np.maximum(np.cumsum(drawn, axis=1) + hits[:, -1:], 1)
    usable = np.append(ordered[:-1] > ordered[1:], True)  # no cut separates equal probabilities
    return _cuts(ordered)[np.where(usable, f1, -1).argmax(axis=1)].mean()


def _expected_cut(p: np.ndarray, frequency: np.ndarray) -> float:
    """The cut (a logit) of p (N,) with the largest expected F1 if `frequency` (N,), the calibrated p, is right."""
    order = np.argsort(-p, kind="stable")
    f1 = 2 * np.cumsum(frequency[order]) / (np.arange(1, len(p) + 1) + frequency.sum())
    return _cuts(_logit(p[order]))[f1.argmax()]
