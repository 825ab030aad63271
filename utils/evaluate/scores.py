"""Scores of held-out predictions, with intervals by bootstrap over subjects.

scores     score, pooled_score, reliability
intervals  interval, compare (paired differences), results_table, verdicts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from utils.evaluate.protocol import OutOfFold, check_paired
from utils.train.decision import bootstrap_counts

# The columns of `results_table` that 04 shows.
SHOWN = ["macro_uf1", "low", "high", "difference", "difference_low", "difference_high", "uar", "map"]
SHOWN += ["seeds", "folds", "parameters", "seconds"]
COUNT_METRICS = ("macro_uf1", "macro_f1_both", "uar", "balanced_accuracy", "subset_accuracy")
BINS = 10  # of the calibration curve
RESAMPLES = 5000  # of the bootstrap

# Scores ----------------------------------------------------------------------------------------------


def confusion_counts(truth: np.ndarray, decision: np.ndarray) -> np.ndarray:
    """(..., K, 4) float from (..., N, K): true and false positives, false and true negatives, summed over clips."""
    truth, decision = truth.astype(bool), decision.astype(bool)
    cells = np.stack([truth & decision, ~truth & decision, truth & ~decision, ~truth & ~decision], axis=-1)
    return cells.sum(axis=-3).astype(float)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1e-12), 0.0)


def _measures(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Measures per class and their means, from counts (..., K, 4)."""
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    f1, f1_of_zero = _ratio(2 * tp, 2 * tp + fp + fn), _ratio(2 * tn, 2 * tn + fp + fn)
    recall, recall_of_zero = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "f1": f1,
        "recall": recall,
        "precision": _ratio(tp, tp + fp),
        "macro_uf1": f1.mean(-1),
        "macro_f1_both": ((f1 + f1_of_zero) / 2).mean(-1),
        "uar": recall.mean(-1),
        "balanced_accuracy": ((recall + recall_of_zero) / 2).mean(-1),
    }


def score(truth: np.ndarray, decision: np.ndarray, probability: np.ndarray, classes: Sequence[str]) -> dict:
    """All scores of one set of pooled predictions; truth, decision, probability (N, K).

    macro_uf1          mean over classes of F1 of the positive class, 2TP / (2TP + FP + FN)
    macro_f1_both      mean over classes of the mean F1 of label values 1 and 0 (the other "macro F1")
    uar                mean over classes of the recall of the positive class
    balanced_accuracy  mean over classes of the mean recall of label values 1 and 0
    map                mean over classes present in truth of average precision
    subset_accuracy    share of clips with every label right
    ece                expected calibration error over all clip-label pairs (see `reliability`)
    absent             classes that occur neither in truth nor in decision; they score 0, which lowers the means
    """
    counts = confusion_counts(truth, decision)
    measures = _measures(counts)
    support = truth.astype(bool).sum(axis=0)
    measures["average_precision"] = np.array(
        [average_precision_score(truth[:, k], probability[:, k]) if n else np.nan for k, n in enumerate(support)]
    )
    curve = reliability(truth, probability)
    per_class = ("f1", "precision", "recall", "average_precision")
    return {
        **{name: float(measures[name]) for name in COUNT_METRICS[:-1]},
        "map": float(np.nanmean(measures["average_precision"])) if support.any() else float("nan"),
        "subset_accuracy": float((truth.astype(bool) == decision.astype(bool)).all(axis=1).mean()),
        "ece": float((curve["count"] * (curve["observed"] - curve["predicted"]).abs()).sum() / curve["count"].sum()),
        "per_class": {
            name: {key: float(measures[key][k]) for key in per_class} | {"support": int(support[k])}
            for k, name in enumerate(classes)
        },
        "absent": [name for k, name in enumerate(classes) if counts[k, :3].sum() == 0],
    }


def pooled_score(oof: OutOfFold) -> dict:
    """`score` of the pooled predictions of each seed, averaged over the seeds; "seeds" holds the macro_uf1 of each."""
    by_seed = [score(oof.truth, oof.decision[r], oof.probability[r], oof.classes) for r in range(len(oof.seeds))]
    mean = {name: float(np.mean([scores[name] for scores in by_seed])) for name in (*COUNT_METRICS, "map", "ece")}
    mean["per_class"] = {
        name: {
            key: float(np.mean([scores["per_class"][name][key] for scores in by_seed]))
            for key in by_seed[0]["per_class"][name]
        }
        for name in oof.classes
    }
    mean["absent"] = sorted({name for scores in by_seed for name in scores["absent"]})
    mean["seeds"] = {int(seed): scores["macro_uf1"] for seed, scores in zip(oof.seeds, by_seed, strict=True)}
    return mean


def reliability(truth: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Calibration curve over all clip-label pairs: columns low, high, predicted (mean), observed (share), count.

    A row per bin of equal width, without the empty bins (Guo et al. 2017, "On calibration of modern neural networks").
    """
    place = np.clip((probability.ravel() * BINS).astype(int), 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    predicted = np.bincount(place, probability.ravel().astype(float), minlength=BINS)
    observed = np.bincount(place, truth.ravel().astype(float), minlength=BINS)
    low = np.arange(BINS) / BINS
    means = {"predicted": predicted / np.maximum(count, 1), "observed": observed / np.maximum(count, 1)}
    table = pd.DataFrame({"low": low, "high": low + 1 / BINS, **means, "count": count})
    return table[table["count"] > 0].reset_index(drop=True)


# Intervals -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A value, averaged over seeds, and the bounds of its 95% interval by bootstrap over subjects."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def subject_weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n subjects counts, (1 + resamples, n): once in the first row, the data; then as drawn."""
    return np.concatenate([np.ones((1, n)), bootstrap_counts(n, resamples, seed)])


def _bootstrap(oof: OutOfFold, metric: str) -> tuple[float, np.ndarray]:
    """The metric, averaged over seeds, of all subjects, and (RESAMPLES,) of subjects drawn with replacement."""
    if metric not in COUNT_METRICS and metric.removeprefix("f1:") not in oof.classes:
        raise ValueError(f"metric {metric} has no interval. Remedy: one of {COUNT_METRICS} or f1:<class>.")
    names, subject_of = np.unique(oof.subjects, return_inverse=True)
    weights = subject_weights(len(names), RESAMPLES, seed=0)
    if metric == "subset_accuracy":
        right = (oof.truth == oof.decision).all(axis=2).mean(axis=0)
        values = (weights @ np.bincount(subject_of, right)) / (weights @ np.bincount(subject_of))
        return float(values[0]), values[1:]
    by_subject = (subject_of == s for s in range(len(names)))
    counts = np.stack([confusion_counts(oof.truth[mask], oof.decision[:, mask]) for mask in by_subject])  # (S, R, K, 4)
    measures = _measures((weights @ counts.reshape(len(names), -1)).reshape(-1, *counts.shape[1:]))
    if metric in COUNT_METRICS:
        values = measures[metric].mean(axis=1)
    else:
        values = measures["f1"][..., oof.classes.index(metric.removeprefix("f1:"))].mean(axis=1)
    return float(values[0]), values[1:]


def interval(oof: OutOfFold, metric: str = "macro_uf1") -> Interval:
    """95% interval (percentiles) of a metric of COUNT_METRICS or of "f1:<class>"."""
    value, drawn = _bootstrap(oof, metric)
    return Interval(value, *(float(bound) for bound in np.percentile(drawn, (2.5, 97.5))))


def compare(a: OutOfFold, b: OutOfFold, metric: str = "macro_uf1") -> Interval:
    """Paired difference a - b of a metric with its 95% interval: the same subjects are drawn for both.

    Raises ValueError unless both come from the same clips, folds and seeds.
    """
    check_paired(a, b)
    (value_a, drawn_a), (value_b, drawn_b) = (_bootstrap(oof, metric) for oof in (a, b))
    return Interval(value_a - value_b, *(float(bound) for bound in np.percentile(drawn_a - drawn_b, (2.5, 97.5))))


def results_table(results: dict[str, OutOfFold], reference: str | None = None) -> pd.DataFrame:
    """One row per variant: scores with intervals, cost, and the paired difference to the variant `reference`."""
    rows = {}
    for name, oof in results.items():
        pooled, bounds = pooled_score(oof), interval(oof)
        row = {"macro_uf1": bounds.value, "low": bounds.low, "high": bounds.high}
        if reference is not None:
            gain = compare(oof, results[reference])
            row |= {"difference": gain.value, "difference_low": gain.low, "difference_high": gain.high}
        names = ("macro_f1_both", "uar", "balanced_accuracy", "map", "subset_accuracy", "ece")
        row |= {key: pooled[key] for key in names}
        row |= {f"f1_{label}": pooled["per_class"][label]["f1"] for label in oof.classes}
        row |= {"seeds": len(oof.seeds), "folds": len(np.unique(oof.fold))}
        rows[name] = row | {"parameters": oof.notes[0][0].get("parameters", 0), "seconds": oof.seconds}
    return pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name="variant"))


def verdicts(table: pd.DataFrame, reference: str) -> list[str]:
    """One line per row of `results_table`: the difference to the reference and what its interval shows."""
    words = {-1: f"worse than {reference}", 0: "no difference shown", 1: f"better than {reference}"}
    rows = table.drop(index=reference)
    sides = (rows["difference_low"] > 0).astype(int) - (rows["difference_high"] < 0).astype(int)
    return [
        f"{name:<45} {row.difference:+.3f} [{row.difference_low:+.3f}, {row.difference_high:+.3f}]  {words[side]}"
        for (name, row), side in zip(rows.iterrows(), sides, strict=True)
    ]
