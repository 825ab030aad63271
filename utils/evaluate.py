"""Scores that can be believed: subject-disjoint folds, predictions joined by Id, pooled scores, intervals by
subject.

    folds      leave_one_subject_out, grouped_folds          -> list of (train, test) positions
    protocol   cross_validate(samples, predictor, folds, seeds) -> OutOfFold
    scores     score, reliability                            -> dict, table
    intervals  interval, compare (paired), results_table     bootstrap over subjects

A predictor is any callable `(train: Samples, inner: list of (train, validation) positions, seed) ->
Classifier`. It never receives a held-out clip; `cross_validate` alone touches those, once, after training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from utils.dataset.samples import Samples
from utils.decision import Classifier, decide
from utils.parallel import parallel_map

Fold = tuple[np.ndarray, np.ndarray]
Predictor = Callable[[Samples, list[Fold], int], Classifier]


# Folds -----------------------------------------------------------------------------------------------


def leave_one_subject_out(subjects: np.ndarray) -> list[Fold]:
    """One fold per subject, in the order of their names. Raises ValueError for fewer than two subjects."""
    names = np.unique(subjects)
    if len(names) < 2:
        raise ValueError(
            f"only subject {names.tolist()}: nothing is left to train on. Remedy: give two subjects or more."
        )
    return [(np.flatnonzero(subjects != name), np.flatnonzero(subjects == name)) for name in names]


def grouped_folds(y: np.ndarray, subjects: np.ndarray, k: int, seed: int = 0, restarts: int = 12) -> list[Fold]:
    """k subject-disjoint folds balanced in clips and in the count of every label.

    Greedy, ours: subjects are taken from the one with most labels to the one with fewest (with a random
    jitter), each goes to the fold where it makes the summed squared deviation from an equal share, over all
    labels and the clip count, smallest. The best of `restarts` is kept. y (N, K) 0/1, subjects (N,).
    Raises ValueError when there are fewer subjects than folds.
    """
    names, member = np.unique(subjects, return_inverse=True)
    if k < 2 or len(names) < k:
        raise ValueError(f"{k} folds of {len(names)} subjects. Remedy: choose between 2 and {len(names)} folds.")
    counts = np.zeros((len(names), y.shape[1] + 1))
    np.add.at(counts, member, np.column_stack([y, np.ones(len(y))]))
    share = counts / np.maximum(counts.sum(axis=0), 1)  # of every label's clips, the part each subject holds
    rng = np.random.default_rng(seed)
    fold_of = min((_assign(share, k, rng) for _ in range(restarts)), key=lambda folds: _imbalance(share, folds, k))
    return [(np.flatnonzero(fold_of[member] != f), np.flatnonzero(fold_of[member] == f)) for f in range(k)]


def _assign(share: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    order = np.argsort(-share.sum(axis=1) * rng.uniform(0.7, 1.3, len(share)))
    load, size = np.zeros((k, share.shape[1])), np.zeros(k, dtype=int)
    fold_of = np.empty(len(share), dtype=int)
    for place, subject in enumerate(order):
        growth = ((load + share[subject] - 1 / k) ** 2 - (load - 1 / k) ** 2).sum(axis=1)
        if len(order) - place <= (size == 0).sum():
            growth[size > 0] = np.inf  # the last subjects go where a fold would stay empty
        best = growth.argmin()
        load[best] += share[subject]
        size[best] += 1
        fold_of[subject] = best
    return fold_of


def _imbalance(share: np.ndarray, fold_of: np.ndarray, k: int) -> float:
    load = np.stack([share[fold_of == f].sum(axis=0) for f in range(k)])
    return float(((load - 1 / k) ** 2).sum())


# Protocol --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutOfFold:
    """Held-out predictions of N clips for R seeds, rows in the order of `ids`.

    truth (N, K) bool, probability (R, N, K) float, decision (R, N, K) bool, fold (N,) int, seeds (R,),
    thresholds (R, F folds, K), NaN where the decision is an arg max, `notes[r][f]` what the predictor
    recorded, seconds: training and prediction time summed over folds and seeds.
    """

    classes: tuple[str, ...]
    ids: np.ndarray
    subjects: np.ndarray
    fold: np.ndarray
    seeds: tuple[int, ...]
    truth: np.ndarray
    probability: np.ndarray
    decision: np.ndarray
    thresholds: np.ndarray
    notes: list[list[dict]]
    seconds: float

    def subset(self, keep: np.ndarray) -> OutOfFold:
        """The rows of `keep` (positions or mask), for instance one database."""
        return OutOfFold(
            self.classes,
            self.ids[keep],
            self.subjects[keep],
            self.fold[keep],
            self.seeds,
            self.truth[keep],
            self.probability[:, keep],
            self.decision[:, keep],
            self.thresholds,
            self.notes,
            self.seconds,
        )

    def table(self) -> pd.DataFrame:
        """One row per seed and clip: Id, subject, seed, fold, then truth, probability and decision per
        class.
        """
        parts = []
        for r, seed in enumerate(self.seeds):
            part = pd.DataFrame({"Id": self.ids, "subject": self.subjects, "seed": seed, "fold": self.fold})
            for k, name in enumerate(self.classes):
                part[f"{name}_truth"] = self.truth[:, k].astype(int)
                part[f"{name}_probability"] = self.probability[r, :, k]
                part[f"{name}_decision"] = self.decision[r, :, k].astype(int)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class FoldResult:
    """What one fold of one seed yields: probabilities and decisions (n, K) of its held-out clips, with their
    Ids.
    """

    ids: np.ndarray
    probability: np.ndarray
    decision: np.ndarray
    thresholds: np.ndarray
    notes: dict
    seconds: float


def run_fold(samples: Samples, predictor: Predictor, fold: Fold, seed: int, inner_folds: int = 4) -> FoldResult:
    """Train on a fold's training clips, with inner folds made of those alone, and predict its held-out
    clips.
    """
    train, test = samples.subset(fold[0]), samples.subset(fold[1])
    _check_disjoint(train, test)
    inner = grouped_folds(train.y, train.subjects, min(inner_folds, len(np.unique(train.subjects))), seed)
    return _predict_fold(lambda: predictor(train, inner, seed), test)


def run_leaking_fold(samples: Samples, predictor: Predictor, fold: Fold, seed: int, inner_folds: int = 4) -> FoldResult:
    """NOT an honest score: the predictor chooses its epoch and thresholds on the held-out clips themselves.

    The field's habit, kept apart so that its price can be measured. `inner_folds` is unused: there is one
    inner fold, and it validates on the test clips.
    """
    test = samples.subset(fold[1])
    return _predict_fold(lambda: predictor(samples, [fold], seed), test)


def _predict_fold(train: Callable[[], Classifier], test: Samples) -> FoldResult:
    start = time.perf_counter()
    classifier = train()
    probability = np.asarray(classifier.probabilities(test.x))
    values = None if classifier.thresholds is None else classifier.thresholds.values
    notes = dict(classifier.notes)
    if classifier.thresholds is not None:
        notes["threshold_sources"] = list(classifier.thresholds.sources)
    recorded = np.full(len(test.classes), np.nan) if values is None else values
    seconds = time.perf_counter() - start
    return FoldResult(test.ids, probability, decide(probability, values), recorded, notes, seconds)


def cross_validate(
    samples: Samples,
    predictor: Predictor,
    folds: Sequence[Fold],
    seeds: Sequence[int] = (0,),
    n_jobs: int = 1,
    inner_folds: int = 4,
    run: Callable[..., FoldResult] = run_fold,
    description: str = "",
) -> OutOfFold:
    """Predict every clip once per seed by a predictor that has not seen its subject.

    `folds` are used for every seed; the inner folds depend on the seed and the fold alone, so that two
    predictors meet the same splits and can be compared in pairs. `run=run_leaking_fold` measures the leak
    instead. Raises ValueError when a subject stands on two sides of a fold or an Id is not held out exactly
    once.
    """
    tasks = [(seed, fold) for seed in seeds for fold in folds]
    results = parallel_map(
        partial(_run_task, samples, predictor, inner_folds, run), tasks, n_jobs, description=description
    )
    by_seed = [results[r * len(folds) : (r + 1) * len(folds)] for r in range(len(seeds))]
    joined = [_join_by_id(samples.ids, parts) for parts in by_seed]
    fold_of = np.empty(len(samples), dtype=int)
    for f, (_, test) in enumerate(folds):
        fold_of[test] = f
    return OutOfFold(
        classes=samples.classes,
        ids=samples.ids,
        subjects=samples.subjects,
        fold=fold_of,
        seeds=tuple(seeds),
        truth=samples.y > 0,
        probability=np.stack([probability for probability, _ in joined]),
        decision=np.stack([decision for _, decision in joined]),
        thresholds=np.array([[part.thresholds for part in parts] for parts in by_seed]),
        notes=[[part.notes for part in parts] for parts in by_seed],
        seconds=float(sum(part.seconds for part in results)),
    )


def average_predictions(*parts: OutOfFold) -> OutOfFold:
    """Mean of several results of single labels: probabilities weigh the same, the arg max decides.

    Raises ValueError when the results come from other clips, folds or seeds, or have thresholds.
    """
    for part in parts[1:]:
        _check_paired(parts[0], part)
    if not all(np.isnan(part.thresholds).all() for part in parts):
        raise ValueError("thresholds do not average. Remedy: cross-validate `baselines.average` instead.")
    probability = np.mean([part.probability for part in parts], axis=0)
    decision = np.stack([decide(one, None) for one in probability])
    return replace(parts[0], probability=probability, decision=decision, seconds=sum(part.seconds for part in parts))


def _check_paired(a: OutOfFold, b: OutOfFold) -> None:
    for name in ("ids", "subjects", "fold", "seeds"):
        if not np.array_equal(getattr(a, name), getattr(b, name)):
            raise ValueError(f"the two results differ in {name}. Remedy: use the same clips, folds and seeds.")


def _run_task(
    samples: Samples, predictor: Predictor, inner_folds: int, run: Callable[..., FoldResult], task
) -> FoldResult:
    seed, fold = task
    return run(samples, predictor, fold, seed, inner_folds)


def _check_disjoint(train: Samples, test: Samples) -> None:
    shared = np.intersect1d(train.subjects, test.subjects)
    if len(shared):
        raise ValueError(f"subject {shared[0]} stands on two sides of a fold. Remedy: split by subject.")


def _join_by_id(ids: np.ndarray, parts: Sequence[FoldResult]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and decisions in the order of `ids`, matched by Id and never by position."""
    found, counts = np.unique(np.concatenate([part.ids for part in parts]), return_counts=True)
    wrong = np.concatenate([found[counts > 1], np.setxor1d(ids, found)])
    if len(wrong):
        raise ValueError(f"Id {wrong[0]} is not held out exactly once. Remedy: let the folds cover every clip once.")
    row = {name: i for i, name in enumerate(ids)}
    place = np.concatenate([[row[name] for name in part.ids] for part in parts])
    order = np.argsort(place)
    return (
        np.concatenate([part.probability for part in parts])[order],
        np.concatenate([part.decision for part in parts])[order],
    )


# Scores ----------------------------------------------------------------------------------------------

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


def _bootstrap(oof: OutOfFold, metric: str, resamples: int, seed: int) -> tuple[float, np.ndarray]:
    """The metric averaged over seeds, for the clips as they are and (B,) for subjects drawn with
    replacement.
    """
    if metric not in COUNT_METRICS and metric.removeprefix("f1:") not in oof.classes:
        raise ValueError(f"metric {metric} has no interval. Remedy: one of {COUNT_METRICS} or f1:<class>.")
    names, member = np.unique(oof.subjects, return_inverse=True)
    weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    weights = np.concatenate([np.ones((1, len(names))), weights])  # the first row is the data itself
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
    _check_paired(a, b)
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
