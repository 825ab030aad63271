"""The evaluation protocol: subject-disjoint folds, and held-out predictions joined by Id.

    folds      leave_one_subject_out, grouped_folds             -> list of (train, test) positions
    protocol   cross_validate(samples, estimator, folds, seeds) -> OutOfFold

An estimator never receives a held-out clip. After its training, `predict_fold` shows the held-out clips to its
classifier, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from utils.parallel import parallel_map
from utils.train.decision import Thresholds, average_thresholds, decide
from utils.train.estimator import Classifier, Estimator, Fold
from utils.train.samples import Samples

# truth (N, K), probability (P, N, K) of P parts, subjects (N,) -> weights (P,)
Weighting = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
RESTARTS = 12  # of the greedy search in `grouped_folds`

# Folds -----------------------------------------------------------------------------------------------


def leave_one_subject_out(subjects: np.ndarray) -> list[Fold]:
    """One fold per subject, in the order of their names. Raises ValueError for fewer than two subjects."""
    names = np.unique(subjects)
    if len(names) < 2:
        raise ValueError(f"subjects {names.tolist()}: nothing is left to train on. Remedy: give two subjects or more.")
    return [(np.flatnonzero(subjects != name), np.flatnonzero(subjects == name)) for name in names]


def grouped_folds(y: np.ndarray, subjects: np.ndarray, k: int, seed: int = 0) -> list[Fold]:
    """k subject-disjoint folds with about equal numbers of clips and of every label. y (N, K) 0/1, subjects (N,).

    A greedy search, ours: the subjects with most labels come first, after a random jitter. Each subject joins the fold
    where the squared deviation from equal shares, summed over labels and clips, grows least. The best of RESTARTS
    searches is kept. Raises ValueError if there are fewer subjects than folds.
    """
    names, subject_of = np.unique(subjects, return_inverse=True)
    if k < 2 or len(names) < k:
        raise ValueError(f"{k} folds of {len(names)} subjects. Remedy: choose between 2 and {len(names)} folds.")
    counts = np.zeros((len(names), y.shape[1] + 1))
    np.add.at(counts, subject_of, np.column_stack([y, np.ones(len(y))]))
    share = counts / np.maximum(counts.sum(axis=0), 1)  # (subjects, K + 1): a subject's share of labels and clips
    rng = np.random.default_rng(seed)
    fold_of = min((_assign(share, k, rng) for _ in range(RESTARTS)), key=lambda folds: _imbalance(share, folds, k))
    return [(np.flatnonzero(fold_of[subject_of] != f), np.flatnonzero(fold_of[subject_of] == f)) for f in range(k)]


def _assign(share: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    order = np.argsort(-share.sum(axis=1) * rng.uniform(0.7, 1.3, len(share)))
    load, size = np.zeros((k, share.shape[1])), np.zeros(k, dtype=int)
    fold_of = np.empty(len(share), dtype=int)
    for place, subject in enumerate(order):
        growth = ((load + share[subject] - 1 / k) ** 2 - (load - 1 / k) ** 2).sum(axis=1)
        if len(order) - place <= (size == 0).sum():
            growth[size > 0] = np.inf  # the last subjects go to the empty folds
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
    """Held-out predictions of N clips for R seeds and F folds, clips in the order of `ids`.

    truth (N, K) bool; probability (R, N, K) float; decision (R, N, K) bool; fold (N,) int; seeds (R,)
    thresholds  (R, F, K), NaN if the decision is the arg max
    notes       notes[r][f]: the classifier's notes
    seconds     of training and prediction, summed over folds and seeds
    inner       (R, F, N, K) inner out-of-fold probabilities of the training clips of each fold; NaN for the clips that
                the fold holds out, and everywhere if the classifiers keep none; None without cross-validation
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
    inner: np.ndarray | None = None

    def subset(self, keep: np.ndarray) -> OutOfFold:
        """The predictions of the clips at `keep` (positions or mask), for instance those of one database."""
        by_clip = {name: getattr(self, name)[keep] for name in ("ids", "subjects", "fold", "truth")}
        by_seed = {name: getattr(self, name)[:, keep] for name in ("probability", "decision")}
        return replace(self, **by_clip, **by_seed, inner=None if self.inner is None else self.inner[:, :, keep])

    def table(self) -> pd.DataFrame:
        """One row per seed and clip: Id, subject, seed, fold; truth, probability and decision of each class."""
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
    """The result of one fold and seed, for its n held-out clips of N: ids (n,), probability and decision (n, K).

    inner (N - n, K): the inner out-of-fold probabilities of the training clips, if the classifier keeps them.
    """

    ids: np.ndarray
    probability: np.ndarray
    decision: np.ndarray
    thresholds: np.ndarray
    notes: dict
    seconds: float
    inner: np.ndarray | None


@dataclass(frozen=True)
class Variant:
    """A row of the results table: an estimator, the change of the samples before it sees them, and whether it leaks."""

    estimator: Estimator
    transform: Callable[[Samples], Samples] = lambda samples: samples
    leaking: bool = False  # evaluated by `run_leaking_fold`


def run_fold(samples: Samples, estimator: Estimator, fold: Fold, seed: int, inner_folds: int = 4) -> FoldResult:
    """Train on the training clips of a fold, with inner folds of these clips, and predict its held-out clips."""
    train, test = samples.subset(fold[0]), samples.subset(fold[1])
    check_disjoint(train, test)
    inner = grouped_folds(train.y, train.subjects, min(inner_folds, len(np.unique(train.subjects))), seed)
    return predict_fold(lambda: estimator(train, inner, seed), test)


def run_leaking_fold(samples: Samples, estimator: Estimator, fold: Fold, seed: int) -> FoldResult:
    """NOT an honest score: the estimator chooses its epoch and thresholds on the held-out clips, its only inner fold.

    This is common in the field. The row exists to measure how much it raises the score.
    """
    return replace(predict_fold(lambda: estimator(samples, [fold], seed), samples.subset(fold[1])), inner=None)


def predict_fold(train: Callable[[], Classifier], test: Samples) -> FoldResult:
    """Predict the held-out clips by the classifier that `train()` returns, and measure the time of both."""
    start = time.perf_counter()
    classifier = train()
    probability = np.asarray(classifier.probabilities(test.x))
    seconds = time.perf_counter() - start
    notes, thresholds = dict(classifier.notes), np.full(len(test.classes), np.nan)
    decision = decide(probability, classifier.thresholds and classifier.thresholds.values)
    if classifier.thresholds is not None:
        notes["threshold_sources"] = list(classifier.thresholds.sources)
        thresholds = classifier.thresholds.values
    return FoldResult(test.ids, probability, decision, thresholds, notes, seconds, classifier.held_out)


def cross_validate(
    samples: Samples,
    estimator: Estimator,
    folds: Sequence[Fold],
    seeds: Sequence[int] = (0,),
    n_jobs: int = 1,
    inner_folds: int = 4,
    description: str = "",
) -> OutOfFold:
    """Predict every clip once per seed by a classifier that was not trained on its subject.

    All seeds use the same `folds`. The inner folds depend on seed and fold only, so all estimators are trained on the
    same splits, and their results can be compared in pairs. Raises ValueError if a subject is on two sides of a fold,
    or if an Id is not held out exactly once.
    """
    variants = {"": Variant(estimator)}
    return cross_validate_variants(samples, variants, folds, seeds, n_jobs, inner_folds, description)[""]


def cross_validate_variants(
    samples: Samples,
    variants: Mapping[Any, Variant],
    folds: Sequence[Fold],
    seeds: Sequence[int] = (0,),
    n_jobs: int = 1,
    inner_folds: int = 4,
    description: str = "",
) -> dict[Any, OutOfFold]:
    """`cross_validate` of variants by name. They share one pool, so no worker waits for the end of a variant."""
    shown = {name: variant.transform(samples) for name, variant in variants.items()}
    tasks = [(shown[name], variants[name], seed, fold) for name in variants for seed in seeds for fold in folds]
    results = iter(parallel_map(partial(_run_task, inner_folds), tasks, n_jobs, description=description))
    return {
        name: join_folds(shown[name], folds, seeds, [[next(results) for _ in folds] for _ in seeds])
        for name in variants
    }


def _run_task(inner_folds: int, task: tuple[Samples, Variant, int, Fold]) -> FoldResult:
    samples, variant, seed, fold = task
    if variant.leaking:
        return run_leaking_fold(samples, variant.estimator, fold, seed)
    return run_fold(samples, variant.estimator, fold, seed, inner_folds)


def join_folds(
    samples: Samples, folds: Sequence[Fold], seeds: Sequence[int], by_seed: list[list[FoldResult]]
) -> OutOfFold:
    """Join the results of all folds, by_seed[r][f]. Predictions are matched by Id, never by position."""
    orders = [_order_by_id(samples.ids, parts) for parts in by_seed]
    fold_of = np.empty(len(samples), dtype=int)
    inner = np.full((len(seeds), len(folds), *samples.y.shape), np.nan)
    for f, (train, test) in enumerate(folds):
        fold_of[test] = f
        for r, parts in enumerate(by_seed):
            if parts[f].inner is not None:
                inner[r, f, train] = parts[f].inner

    def joined(name: str) -> np.ndarray:
        rows = (np.concatenate([getattr(part, name) for part in parts]) for parts in by_seed)
        return np.stack([values[order] for values, order in zip(rows, orders, strict=True)])

    return OutOfFold(
        classes=samples.classes,
        ids=samples.ids,
        subjects=samples.subjects,
        fold=fold_of,
        seeds=tuple(seeds),
        truth=samples.y > 0,
        probability=joined("probability"),
        decision=joined("decision"),
        thresholds=np.array([[part.thresholds for part in parts] for parts in by_seed]),
        notes=[[part.notes for part in parts] for parts in by_seed],
        seconds=float(sum(part.seconds for parts in by_seed for part in parts)),
        inner=inner,
    )


def _order_by_id(ids: np.ndarray, parts: Sequence[FoldResult]) -> np.ndarray:
    """Positions of `ids` among the clips of all parts. Raises ValueError unless each Id appears exactly once."""
    joined = np.concatenate([part.ids for part in parts])
    names, counts = np.unique(joined, return_counts=True)
    wrong = np.concatenate([names[counts > 1], np.setxor1d(ids, names)])
    if len(wrong):
        raise ValueError(f"Id {wrong[0]} is not held out exactly once. Remedy: let the folds cover every clip once.")
    place = {name: i for i, name in enumerate(joined)}
    return np.array([place[name] for name in ids])


# Averages --------------------------------------------------------------------------------------------


def average_predictions(*parts: OutOfFold, weighting: Weighting | None = None) -> OutOfFold:
    """Mean of several results on the same clips, folds and seeds. The parts keep inner out-of-fold probabilities.

    weighting: chooses the weights of the parts in each fold from the inner out-of-fold probabilities, as
    `utils.train.stacking.stacking_weights` does; without it, all weights are equal. The thresholds of each fold are
    chosen on the mean of the inner out-of-fold probabilities; single labels have none and need no inner probabilities
    without `weighting`. Raises ValueError if the parts do not match.
    """
    first = parts[0]
    for part in parts[1:]:
        check_paired(first, part)
    single = np.array([np.isnan(part.thresholds).all() for part in parts])
    if single.any() and not single.all():
        raise ValueError("single labels do not average with several. Remedy: average results of one kind.")
    weights, inner = np.full((*first.thresholds.shape[:2], len(parts)), 1 / len(parts)), None  # (R, F, P)
    if weighting or not single.any():
        if any(part.inner is None or np.isnan(part.inner).all(axis=(2, 3)).any() for part in parts):
            raise ValueError("a part has no out-of-fold probabilities. Remedy: how='inner' in network_estimator.")
        stacked = np.stack([part.inner for part in parts])  # (P, R, F, N, K)
        for r, f in np.ndindex(weights.shape[:2]) if weighting else ():
            train = np.isfinite(stacked[:, r, f]).all(axis=(0, 2))
            weights[r, f] = weighting(first.truth[train], stacked[:, r, f, train], first.subjects[train])
        inner = np.einsum("rfp,prfnk->rfnk", weights, stacked)
    stacked = np.stack([part.probability for part in parts])
    probability = np.einsum("rnp,prnk->rnk", weights[:, first.fold], stacked)
    thresholds, decision = first.thresholds.copy(), np.empty(probability.shape, dtype=bool)
    notes: list[list[dict]] = [[] for _ in first.seeds]
    for r, f in np.ndindex(thresholds.shape[:2]):
        chosen, test = None, first.fold == f
        if not single.any():
            train = np.isfinite(inner[r, f]).all(axis=1)
            chosen = average_thresholds(first.truth[train], inner[r, f][train])
            thresholds[r, f] = chosen.values
        decision[r, test] = decide(probability[r, test], chosen and chosen.values)
        notes[r].append(_joint_notes([part.notes[r][f] for part in parts], weights[r, f], chosen))
    averaged = {"probability": probability, "decision": decision, "thresholds": thresholds, "inner": inner}
    return replace(first, **averaged, notes=notes, seconds=sum(part.seconds for part in parts))


def _joint_notes(notes: list[dict], weights: np.ndarray, thresholds: Thresholds | None) -> dict:
    parameters = sum(note.get("parameters", 0) for note in notes)
    joint = {"parts": notes, "weights": weights.tolist(), "parameters": parameters}
    return joint if thresholds is None else joint | {"threshold_sources": list(thresholds.sources)}


def check_paired(a: OutOfFold, b: OutOfFold) -> None:
    """Raises ValueError unless both results come from the same clips, folds and seeds."""
    for name in ("ids", "subjects", "fold", "seeds"):
        if not np.array_equal(getattr(a, name), getattr(b, name)):
            raise ValueError(f"the two results differ in {name}. Remedy: use the same clips, folds and seeds.")


def check_disjoint(train: Samples, test: Samples) -> None:
    """Raises ValueError if training and test clips share a subject."""
    shared = np.intersect1d(train.subjects, test.subjects)
    if len(shared):
        raise ValueError(f"subject {shared[0]} stands on two sides of a fold. Remedy: split by subject.")
