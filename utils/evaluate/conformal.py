"""Answers that may abstain: which values (no, yes) of a class a clip leaves possible, by conformal prediction.

Split conformal prediction, separately for each value of each class (Mondrian: Vovk 2012, "Conditional validity of
inductive conformal estimators"). The clips of a person resemble each other, so each person counts once, and its clips
share this weight (Lee, Barber and Willett 2023, "Distribution-free inference with hierarchical data"). A value that
fewer than nine people showed is never excluded at ERROR.

The guarantee holds for new people from the same distribution as the held-out people. The networks of the outer folds
judged the held-out people; they were trained on fewer people than the network that a run submits.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils.evaluate.protocol import OutOfFold

ERROR = 0.1  # largest share of clips for which the true value of a class may be excluded


def conformal_scores(oof: OutOfFold) -> pd.DataFrame:
    """A row per held-out clip, class and seed: class, value (the truth, 0 or 1), person (a number), and score, the
    distance of the probability from the value."""
    person = np.unique(oof.subjects, return_inverse=True)[1]
    _, n, k = (axis.ravel() for axis in np.indices(oof.probability.shape))
    value = oof.truth[n, k].astype(int)
    score = np.abs(value - oof.probability.ravel())
    return pd.DataFrame({"class": np.array(oof.classes)[k], "value": value, "person": person[n], "score": score})


def possible_values(scores: pd.DataFrame, classes: Sequence[str], probability: np.ndarray) -> np.ndarray:
    """Whether no and yes are possible, (N, K, 2) bool, for probabilities (N, K) of clips of new people.

    scores: from `conformal_scores`. A value is excluded if at most the share ERROR of the people who showed it, the
    new person included, have a score as large as the clip's.
    """
    possible = np.empty((*probability.shape, 2), bool)
    for k, value in np.ndindex(possible.shape[1:]):
        rows = scores[(scores["class"] == classes[k]) & (scores["value"] == value)]
        weight = 1 / rows.groupby("person")["score"].transform("size").to_numpy()
        as_far = rows["score"].to_numpy() >= np.abs(value - probability[:, k, None])
        possible[:, k, value] = (as_far @ weight + 1) / (rows["person"].nunique() + 1) > ERROR
    return possible


def answer(possible: np.ndarray) -> str:
    """The possible values (2,) of a class in words: "no", "yes", or "cannot tell" if both or none are possible."""
    return {(True, False): "no", (False, True): "yes"}.get(tuple(possible.tolist()), "cannot tell")
