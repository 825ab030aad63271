"""Answers that may abstain: which values of a class a clip leaves possible, as held-out people showed them.

Split conformal prediction for each value, no and yes, of each class by itself (Mondrian: Vovk 2012, "Conditional
validity of inductive conformal estimators"). The clips of one person resemble one another, so people count and not
clips: each has one voice, shared among its clips (Lee, Barber and Willett 2023, "Distribution-free inference with
hierarchical data"). A value that fewer than nine people showed is never excluded at ERROR.

It holds for a person drawn as those were, and no other. They were judged by networks of outer folds, which saw fewer
people than the network that a run submits.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils.evaluate.protocol import OutOfFold

ERROR = 0.1  # how often, at most, the true value of a class is excluded


def conformal_scores(oof: OutOfFold) -> pd.DataFrame:
    """A row per held-out clip, class and seed: class, value (the truth, 0 or 1), person (a number, no name), score: how
    far the probability was from the value."""
    person = np.unique(oof.subjects, return_inverse=True)[1]
    _, n, k = (axis.ravel() for axis in np.indices(oof.probability.shape))
    value = oof.truth[n, k].astype(int)
    score = np.abs(value - oof.probability.ravel())
    return pd.DataFrame({"class": np.array(oof.classes)[k], "value": value, "person": person[n], "score": score})


def possible_values(
    scores: pd.DataFrame, classes: Sequence[str], probability: np.ndarray, error: float = ERROR
) -> np.ndarray:
    """Whether no and yes cannot be excluded (N, K, 2) bool, for probabilities (N, K) of clips of new people.

    scores: `conformal_scores`. A value is excluded where at most the share `error` of its people, the new one among
    them, was as far from it.
    """
    possible = np.empty((*probability.shape, 2), bool)
    for k, value in np.ndindex(possible.shape[1:]):
        own = scores[(scores["class"] == classes[k]) & (scores["value"] == value)]
        voice = 1 / own.groupby("person")["score"].transform("size").to_numpy()
        as_far = own["score"].to_numpy() >= np.abs(value - probability[:, k, None])
        possible[:, k, value] = (as_far @ voice + 1) / (own["person"].nunique() + 1) > error
    return possible


def answer(possible: np.ndarray) -> str:
    """`possible` (2,) of one class in words: "no", "yes", or "cannot tell" where both values are possible or neither
    is."""
    return {(True, False): "no", (False, True): "yes"}.get(tuple(possible.tolist()), "cannot tell")
