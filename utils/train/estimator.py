"""The interface of everything that learns: an estimator is fitted on training clips and returns a classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from utils.train.decision import Thresholds
from utils.train.samples import Samples


@dataclass(frozen=True)
class Classifier:
    """What an estimator returns once trained: everything needed to judge unseen clips, and nothing else.

    probabilities  function from x (N, V, P, 3, H, W) to (N, K) float
    thresholds     None: one label per clip, the most probable class (single label)
    notes          what was chosen on the inner validation, for the record (epochs, C, pooling, parameters)
    held_out       (N of the training clips, K) inner out-of-fold probabilities, where every clip has one
    """

    probabilities: Callable[[np.ndarray], np.ndarray]
    thresholds: Thresholds | None
    notes: dict = field(default_factory=dict)
    held_out: np.ndarray | None = None


Fold = tuple[np.ndarray, np.ndarray]


Estimator = Callable[[Samples, list[Fold], int], Classifier]
