"""What a data root holds, in numbers: counts for any data; for synthetic data also how hard it was made.

Two bounds, by subject-held-out cross-validation on the training split: a classifier that is given the true
intensity of every action unit (nothing that sees pictures can be expected to do better), and the best trivial
answer.
"""

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesClassifier

from utils.decision import choose_thresholds, decide
from utils.evaluate import grouped_folds, score
from utils.motion import ACTION_UNITS

OUTER, INNER = 6, 3  # folds by subject, fewer where there are fewer subjects


def describe(table: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """Clips per class: all, alone, with a second label, and the share."""
    labels = table[list(classes)].to_numpy(int)
    alone = labels.sum(1) == 1
    return pd.DataFrame(
        {
            "clips": labels.sum(0),
            "alone": labels[alone].sum(0),
            "with another": labels[~alone].sum(0),
            "share": labels.mean(0).round(3),
        },
        index=list(classes),
    )


def bounds(truth: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, float]:
    """Macro-UF1 of the two bounds: `true_units` and `all_ones`. truth: rows of the training split from `load_truth`."""
    units = truth[
        [c for c in truth if c in ACTION_UNITS or c.removesuffix("_side") in ACTION_UNITS]
    ].to_numpy(float)
    peak = np.abs(units).max(1, keepdims=True)
    features = np.hstack([units, units / np.maximum(peak, 1e-9)])
    y, subjects = truth[list(classes)].to_numpy(int), truth["subject"].to_numpy(str)
    probability, decision = np.zeros(y.shape), np.zeros(y.shape, bool)
    for train, test in _folds(y, subjects, OUTER):
        inner = np.zeros(y[train].shape)
        for fit_on, check in _folds(y[train], subjects[train], INNER):
            inner[check] = _probabilities(features[train][fit_on], y[train][fit_on], features[train][check])
        probability[test] = _probabilities(features[train], y[train], features[test])
        decision[test] = decide(
            probability[test], choose_thresholds(y[train], inner, y[train].mean(0)).values
        )
    ones = np.ones_like(decision)
    return {
        "true_units": score(y, decision, probability, classes)["macro_uf1"],
        "all_ones": score(y, ones, ones.astype(float), classes)["macro_uf1"],
    }


def _folds(y: np.ndarray, subjects: np.ndarray, k: int) -> list:
    return grouped_folds(y, subjects, min(k, len(np.unique(subjects))))


def _probabilities(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    """Probability (N, K) of every class by a forest each; one that all or none carry keeps that share."""
    forest = ExtraTreesClassifier(100, min_samples_leaf=2, class_weight="balanced_subsample", random_state=0)
    return np.stack(
        [
            forest.fit(x, column).predict_proba(x_new)[:, 1]
            if 0 < column.mean() < 1
            else np.full(len(x_new), column.mean())
            for column in y.T
        ],
        axis=1,
    )
