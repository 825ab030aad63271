"""The interface of every model: an estimator is fitted on training clips and returns a classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from utils.train.decision import Thresholds
from utils.train.samples import Samples


@dataclass(frozen=True)
class Classifier:
    """A fitted model: it holds everything that is needed to judge unseen clips.

    probabilities  function from x (N, V, P, 3, H, W) to (N, K) float
    thresholds     None for single labels: the decision is the most probable class
    notes          for the record: parameters, and the choices made on the inner folds (epochs, C, input)
    held_out       (N, K) inner out-of-fold probabilities of the N training clips, if the inner folds cover them all
    """

    probabilities: Callable[[np.ndarray], np.ndarray]
    thresholds: Thresholds | None
    notes: dict = field(default_factory=dict)
    held_out: np.ndarray | None = None


Fold = tuple[np.ndarray, np.ndarray]  # positions of the clips to train on, and of the held-out clips
Estimator = Callable[[Samples, list[Fold], int], Classifier]  # estimator(train, inner, seed)
