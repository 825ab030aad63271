"""The evaluation protocol: subject-disjoint folds, predictions joined by Id.

    folds      leave_one_subject_out, grouped_folds             -> list of (train, test) positions
    protocol   cross_validate(samples, estimator, folds, seeds) -> OutOfFold

An estimator is any callable `(train: Samples, inner: list of (train, validation) positions, seed) -> Classifier`. It
never receives a held-out clip; `cross_validate` alone touches those, once, after training.
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

Weighting = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # truth (N, K), (P, N, K), subjects (N,) -> (P,)

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
    thresholds (R, F folds, K), NaN where the decision is an arg max, `notes[r][f]` what the estimator
    recorded, seconds: training and prediction time summed over folds and seeds. inner (R, F, N, K): what the networks
    of a fold's inner folds said of its training clips, each held out there; NaN for the fold's own held-out clips,
    and where an estimator keeps no such thing; None where there was no cross-validation.
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
            None if self.inner is None else self.inner[:, :, keep],
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
    """What one fold of one seed yields: probabilities and decisions (n, K) of its held-out clips, with their Ids, and
    the inner out-of-fold probabilities (N - n, K) of its training clips, where the estimator keeps them.
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
    """A row of the results table: an estimator, what it is shown of the samples, and whether it leaks."""

    estimator: Estimator
    transform: Callable[[Samples], Samples] = lambda samples: samples
    leaking: bool = False  # by `run_leaking_fold`


def run_fold(samples: Samples, estimator: Estimator, fold: Fold, seed: int, inner_folds: int = 4) -> FoldResult:
    """Train on a fold's training clips, with inner folds made of those alone, and predict its held-out
    clips.
    """
    train, test = samples.subset(fold[0]), samples.subset(fold[1])
    check_disjoint(train, test)
    inner = grouped_folds(train.y, train.subjects, min(inner_folds, len(np.unique(train.subjects))), seed)
    return predict_fold(lambda: estimator(train, inner, seed), test)


def run_leaking_fold(samples: Samples, estimator: Estimator, fold: Fold, seed: int, inner_folds: int = 4) -> FoldResult:
    """NOT an honest score: the estimator chooses its epoch and thresholds on the held-out clips themselves.

    The field's habit, kept apart so that its price can be measured. `inner_folds` is unused: there is one
    inner fold, and it validates on the test clips.
    """
    test = samples.subset(fold[1])
    return replace(predict_fold(lambda: estimator(samples, [fold], seed), test), inner=None)


def predict_fold(train: Callable[[], Classifier], test: Samples) -> FoldResult:
    start = time.perf_counter()
    classifier = train()
    probability = np.asarray(classifier.probabilities(test.x))
    values = None if classifier.thresholds is None else classifier.thresholds.values
    notes = dict(classifier.notes)
    if classifier.thresholds is not None:
        notes["threshold_sources"] = list(classifier.thresholds.sources)
    recorded = np.full(len(test.classes), np.nan) if values is None else values
    seconds = time.perf_counter() - start
    decision = decide(probability, values)
    return FoldResult(test.ids, probability, decision, recorded, notes, seconds, classifier.held_out)


def cross_validate(
    samples: Samples,
    estimator: Estimator,
    folds: Sequence[Fold],
    seeds: Sequence[int] = (0,),
    n_jobs: int = 1,
    inner_folds: int = 4,
    description: str = "",
) -> OutOfFold:
    """Predict every clip once per seed by an estimator that has not seen its subject.

    `folds` are used for every seed; the inner folds depend on the seed and the fold alone, so that two
    estimators meet the same splits and can be compared in pairs. Raises ValueError when a subject stands on two sides
    of a fold or an Id is not held out exactly once.
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
    """`cross_validate` of many variants, by name, through one pool: no worker waits for the end of a row."""
    shown = {name: variant.transform(samples) for name, variant in variants.items()}
    tasks = [(shown[name], one, seed, fold) for name, one in variants.items() for seed in seeds for fold in folds]
    results = iter(parallel_map(partial(_run_task, inner_folds), tasks, n_jobs, description=description))
    return {
        name: join_folds(shown[name], folds, seeds, [[next(results) for _ in folds] for _ in seeds])
        for name in variants
    }


def _run_task(inner_folds: int, task: tuple[Samples, Variant, int, Fold]) -> FoldResult:
    samples, variant, seed, fold = task
    run = run_leaking_fold if variant.leaking else run_fold
    return run(samples, variant.estimator, fold, seed, inner_folds)


def join_folds(
    samples: Samples, folds: Sequence[Fold], seeds: Sequence[int], by_seed: list[list[FoldResult]]
) -> OutOfFold:
    joined = [_join_by_id(samples.ids, parts) for parts in by_seed]
    fold_of = np.empty(len(samples), dtype=int)
    inner = np.full((len(seeds), len(folds), *samples.y.shape), np.nan)
    for f, (train, test) in enumerate(folds):
        fold_of[test] = f
        for r, parts in enumerate(by_seed):
            if parts[f].inner is not None:
                inner[r, f, train] = parts[f].inner
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
        seconds=float(sum(part.seconds for parts in by_seed for part in parts)),
        inner=inner,
    )


def average_predictions(*parts: OutOfFold, weighting: Weighting | None = None) -> OutOfFold:
    """Mean of several results. Of single labels the arg max decides; of several the thresholds of each fold are chosen
    on the same mean of the parts' inner out-of-fold probabilities.

    weighting: how the weights of the parts in a fold follow from what is known of its training clips, as
    `utils.train.stacking.stacking_weights`; without it they are equal. Raises ValueError when the results come from
    other clips, folds or seeds, when single labels meet several, and when weights or thresholds cannot be chosen
    because a part keeps no inner out-of-fold probabilities.
    """
    for part in parts[1:]:
        check_paired(parts[0], part)
    kinds = {bool(np.isnan(part.thresholds).all()) for part in parts}
    if len(kinds) > 1:
        raise ValueError("single labels do not average with several. Remedy: average results of one kind.")
    first = parts[0]
    several = kinds == {False}
    weights = np.full((*first.thresholds.shape[:2], len(parts)), 1 / len(parts))
    inner, chosen = None, [[None] * len(row) for row in first.notes]
    if several or weighting:
        each = _inner_probabilities(parts)
        if weighting:
            weights = _weights_of_folds(first, each, weighting)
        inner = np.einsum("rfp,prfnk->rfnk", weights, each)
    if several:
        chosen = [[average_thresholds(*_known(first, part)) for part in row] for row in inner]
    probability = np.einsum("rnp,prnk->rnk", weights[:, first.fold], np.stack([part.probability for part in parts]))
    thresholds, decision = first.thresholds.copy(), np.empty(probability.shape, dtype=bool)
    for r, f in np.ndindex(thresholds.shape[:2]):
        own = first.fold == f
        if chosen[r][f] is not None:
            thresholds[r, f] = chosen[r][f].values
        decision[r, own] = decide(probability[r, own], None if chosen[r][f] is None else thresholds[r, f])
    notes = [
        [_joint_notes([part.notes[r][f] for part in parts], weights[r, f], one) for f, one in enumerate(row)]
        for r, row in enumerate(chosen)
    ]
    return replace(
        first,
        probability=probability,
        decision=decision,
        thresholds=thresholds,
        notes=notes,
        seconds=sum(part.seconds for part in parts),
        inner=inner,
    )


def _inner_probabilities(parts: Sequence[OutOfFold]) -> np.ndarray:
    """What the inner folds of all parts said, (P, R, F, N, K). ValueError where one of them keeps no such thing."""
    if any(part.inner is None or np.isnan(part.inner).all(axis=(2, 3)).any() for part in parts):
        raise ValueError("a part has no out-of-fold probabilities. Remedy: how='inner' in network_estimator.")
    return np.stack([part.inner for part in parts])


def _known(oof: OutOfFold, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Truth (n, K) and inner out-of-fold probabilities (n, K) of the clips of inner (N, K) that have them."""
    train = np.isfinite(inner).all(axis=1)
    return oof.truth[train], inner[train]


def _weights_of_folds(oof: OutOfFold, inner: np.ndarray, weighting: Weighting) -> np.ndarray:
    """The weights (R, F, P) of parts by what their inner folds (P, R, F, N, K) said of a fold's training clips."""
    weights = np.empty((*inner.shape[1:3], len(inner)))
    for r, f in np.ndindex(weights.shape[:2]):
        train = np.isfinite(inner[:, r, f]).all(axis=(0, 2))
        weights[r, f] = weighting(oof.truth[train], inner[:, r, f, train], oof.subjects[train])
    return weights


def _joint_notes(notes: Sequence[dict], weights: np.ndarray, thresholds: Thresholds | None) -> dict:
    parameters = sum(note.get("parameters", 0) for note in notes)
    joint = {"parts": list(notes), "weights": weights.tolist(), "parameters": parameters}
    return joint if thresholds is None else joint | {"threshold_sources": list(thresholds.sources)}


def check_paired(a: OutOfFold, b: OutOfFold) -> None:
    for name in ("ids", "subjects", "fold", "seeds"):
        if not np.array_equal(getattr(a, name), getattr(b, name)):
            raise ValueError(f"the two results differ in {name}. Remedy: use the same clips, folds and seeds.")


def check_disjoint(train: Samples, test: Samples) -> None:
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
