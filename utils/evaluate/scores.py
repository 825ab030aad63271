"""Scores of held-out predictions, with intervals by bootstrap over subjects.

scores     score, pooled_score, reliability              -> dict, table
intervals  interval, compare (paired), results_table     bootstrap over subjects
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from utils.evaluate.protocol import OutOfFold, check_paired
from utils.train.decision import bootstrap_counts

# Scores ----------------------------------------------------------------------------------------------

# The columns of `results_table` that a reader looks at first.
SHOWN = ["macro_uf1", "low", "high", "difference", "difference_low", "difference_high", "uar", "map"]
SHOWN += ["seeds", "folds", "parameters", "seconds"]
COUNT_METRICS = ("macro_uf1", "macro_f1_both", "uar", "balanced_accuracy", "subset_accuracy")


def confusion_counts(truth: np.ndarray, decision: np.ndarray) -> np.ndarray:
    """(..., K, 4) float: true positives, false positives, false negatives, true negatives, summed over axis
    -2.
    """
    truth, decision = truth.astype(bool), decision.astype(bool)
    cells = np.stack([truth & decision, ~truth & decision, truth & ~decision, ~truth & ~decision], axis=-1)
    return cells.sum(axis=-3).astype(float)


def _ratio(part: np.ndarray, whole: np.ndarray, absent: float = 0.0) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1e-12), absent)


def _measures(counts: np.ndarray, absent: float = 0.0) -> dict[str, np.ndarray]:
    """Measures per class and their means from counts (..., K, 4); `absent` is the F1 and recall of an empty
    class.
    """
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    f1, f1_of_zero = _ratio(2 * tp, 2 * tp + fp + fn, absent), _ratio(2 * tn, 2 * tn + fp + fn, absent)
    recall, recall_of_zero = _ratio(tp, tp + fn, absent), _ratio(tn, tn + fp, absent)
    return {
        "f1": f1,
        "recall": recall,
        "precision": _ratio(tp, tp + fp, absent),
        "macro_uf1": f1.mean(-1),
        "macro_f1_both": ((f1 + f1_of_zero) / 2).mean(-1),
        "uar": recall.mean(-1),
        "balanced_accuracy": ((recall + recall_of_zero) / 2).mean(-1),
    }


def score(
    truth: np.ndarray, decision: np.ndarray, probability: np.ndarray, classes: Sequence[str], absent: float = 0.0
) -> dict:
    """All figures of one set of pooled predictions; truth, decision, probability (N, K).

    macro_uf1          mean over classes of F1 of the positive class, 2TP / (2TP + FP + FN)
    macro_f1_both      mean over classes of the mean F1 of label values 1 and 0 (the other "macro F1")
    uar                mean over classes of the recall of the positive class
    balanced_accuracy  mean over classes of the mean recall of label values 1 and 0
    map                mean over classes present in truth of average precision
    subset_accuracy    share of clips with every label right
    ece                expected calibration error over all clip-label pairs (see `reliability`)
    A class absent from truth and decisions scores `absent` (0: it never raises a mean) and is named in
    "absent".
    """
    counts = confusion_counts(truth, decision)
    measures = _measures(counts, absent)
    support = truth.astype(bool).sum(axis=0)
    precision_curve = [
        average_precision_score(truth[:, k], probability[:, k]) if support[k] else np.nan for k in range(len(classes))
    ]
    bins = reliability(truth, probability)
    return {
        **{name: float(measures[name]) for name in COUNT_METRICS[:-1]},
        "map": float(np.nanmean(precision_curve)) if support.any() else float("nan"),
        "subset_accuracy": float((truth.astype(bool) == decision.astype(bool)).all(axis=1).mean()),
        "ece": float((bins["count"] * (bins["observed"] - bins["predicted"]).abs()).sum() / bins["count"].sum()),
        "per_class": {
            name: {
                "f1": float(measures["f1"][k]),
                "precision": float(measures["precision"][k]),
                "recall": float(measures["recall"][k]),
                "average_precision": float(precision_curve[k]),
                "support": int(support[k]),
            }
            for k, name in enumerate(classes)
        },
        "absent": [name for k, name in enumerate(classes) if counts[k, :3].sum() == 0],
    }


def pooled_score(oof: OutOfFold, absent: float = 0.0) -> dict:
    """`score` of each seed's pooled predictions, averaged over the seeds; "seeds" holds macro_uf1 of each."""
    each = [score(oof.truth, oof.decision[r], oof.probability[r], oof.classes, absent) for r in range(len(oof.seeds))]
    mean = {name: float(np.mean([one[name] for one in each])) for name in (*COUNT_METRICS, "map", "ece")}
    mean["per_class"] = {
        name: {key: float(np.mean([one["per_class"][name][key] for one in each])) for key in each[0]["per_class"][name]}
        for name in oof.classes
    }
    mean["absent"] = sorted({name for one in each for name in one["absent"]})
    mean["seeds"] = {int(seed): one["macro_uf1"] for seed, one in zip(oof.seeds, each, strict=True)}
    return mean


def reliability(truth: np.ndarray, probability: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Calibration curve over all clip-label pairs: columns low, high, predicted (mean), observed (share),
    count.

    Source: Guo et al. 2017, "On calibration of modern neural networks", equal-width bins; empty bins are
    left out.
    """
    place = np.clip((probability.ravel() * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    predicted = np.bincount(place, probability.ravel().astype(float), minlength=bins)
    observed = np.bincount(place, truth.ravel().astype(float), minlength=bins)
    edges = np.arange(bins) / bins
    table = pd.DataFrame(
        {
            "low": edges,
            "high": edges + 1 / bins,
            "predicted": predicted / np.maximum(count, 1),
            "observed": observed / np.maximum(count, 1),
            "count": count,
        }
    )
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
    """How often each of n subjects counts, (1 + resamples, n): once in the data itself, the first row, then as drawn
    with replacement.
    """
    return np.concatenate([np.ones((1, n)), bootstrap_counts(n, resamples, seed)])


def _bootstrap(oof: OutOfFold, metric: str, resamples: int, seed: int) -> tuple[float, np.ndarray]:
    """The metric averaged over seeds, for the clips as they are and (B,) for subjects drawn with
    replacement.
    """
    if metric not in COUNT_METRICS and metric.removeprefix("f1:") not in oof.classes:
        raise ValueError(f"metric {metric} has no interval. Remedy: one of {COUNT_METRICS} or f1:<class>.")
    names, member = np.unique(oof.subjects, return_inverse=True)
    weights = subject_weights(len(names), resamples, seed)
    if metric == "subset_accuracy":
        right = (oof.truth == oof.decision).all(axis=2).mean(axis=0)
        values = (weights @ np.bincount(member, right)) / (weights @ np.bincount(member))
    else:
        counts = np.stack(
            [confusion_counts(oof.truth[member == s], oof.decision[:, member == s]) for s in range(len(names))]
        )  # (S, R, K, 4)
        drawn = (weights @ counts.reshape(len(names), -1)).reshape(-1, *counts.shape[1:])
        measures = _measures(drawn)
        if metric in COUNT_METRICS:
            values = measures[metric].mean(axis=1)
        else:
            values = measures["f1"][..., oof.classes.index(metric.removeprefix("f1:"))].mean(axis=1)
    return float(values[0]), values[1:]


def interval(oof: OutOfFold, metric: str = "macro_uf1", resamples: int = 5000, seed: int = 0) -> Interval:
    """95% interval of a pooled score by bootstrap over subjects (percentiles); metric also "f1:<class>"."""
    value, drawn = _bootstrap(oof, metric, resamples, seed)
    return Interval(value, *(float(bound) for bound in np.percentile(drawn, (2.5, 97.5))))


def compare(a: OutOfFold, b: OutOfFold, metric: str = "macro_uf1", resamples: int = 5000, seed: int = 0) -> Interval:
    """Paired difference a - b with its 95% interval: the same subjects are drawn for both.

    Raises ValueError unless both come from the same clips, folds and seeds.
    """
    check_paired(a, b)
    value_a, drawn_a = _bootstrap(a, metric, resamples, seed)
    value_b, drawn_b = _bootstrap(b, metric, resamples, seed)
    low, high = np.percentile(drawn_a - drawn_b, (2.5, 97.5))
    return Interval(value_a - value_b, float(low), float(high))


def results_table(results: dict[str, OutOfFold], reference: str | None = None) -> pd.DataFrame:
    """One row per variant: scores, 95% intervals, seeds, folds, parameters, seconds, and the paired
    difference to `reference`.
    """
    rows = []
    for name, oof in results.items():
        pooled, bounds = pooled_score(oof), interval(oof)
        row = {"variant": name, "macro_uf1": bounds.value, "low": bounds.low, "high": bounds.high}
        if reference is not None:
            gain = compare(oof, results[reference])
            row |= {"difference": gain.value, "difference_low": gain.low, "difference_high": gain.high}
        row |= {
            key: pooled[key] for key in ("macro_f1_both", "uar", "balanced_accuracy", "map", "subset_accuracy", "ece")
        }
        row |= {f"f1_{label}": pooled["per_class"][label]["f1"] for label in oof.classes}
        row |= {
            "seeds": len(oof.seeds),
            "folds": len(np.unique(oof.fold)),
            "parameters": oof.notes[0][0].get("parameters", 0),
            "seconds": oof.seconds,
        }
        rows.append(row)
    return pd.DataFrame(rows).set_index("variant")


def verdicts(table: pd.DataFrame, reference: str) -> list[str]:
    """What the interval of each row's difference to the reference supports, a line per row of `results_table`."""
    words = {-1: f"worse than {reference}", 0: "no difference shown", 1: f"better than {reference}"}
    rows = table.drop(index=reference)
    sides = (rows["difference_low"] > 0).astype(int) - (rows["difference_high"] < 0).astype(int)
    return [
        f"{name:<45} {row.difference:+.3f} [{row.difference_low:+.3f}, {row.difference_high:+.3f}]  {words[side]}"
        for (name, row), side in zip(rows.iterrows(), sides, strict=True)
    ]
