"""`Samples`: flow maps with labels, the input of every classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.artefacts import DamagedError, read_artefact, write_artefact

CLASSES = ("Negative", "Positive", "Repression", "Surprise", "Others")  # in this order everywhere
CHANNELS = ("u", "v", "magnitude")


@dataclass(frozen=True)
class Samples:
    """Flow maps of N clips with labels and subjects.

    x         (N, V views, P phases, C=3 channels u v magnitude, H, W) float32, flow in pixels, x right, y down;
              views from left to right
    y         (N, K) float32, 0 or 1, columns in the order of `classes`
    ids       (N,) str, unique
    subjects  (N,) str
    classes   names of the K columns of y
    units     (N, A) float32 action unit targets in 0..1, or None
    Raises ValueError, which names the first wrong Id, if the parts do not fit together.
    """

    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray
    subjects: np.ndarray
    classes: tuple[str, ...]
    units: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", np.ascontiguousarray(self.x, dtype=np.float32))
        object.__setattr__(self, "y", np.asarray(self.y, dtype=np.float32))
        object.__setattr__(self, "ids", np.asarray(self.ids, dtype=str))
        object.__setattr__(self, "subjects", np.asarray(self.subjects, dtype=str))
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        if self.units is not None:
            object.__setattr__(self, "units", np.asarray(self.units, dtype=np.float32))
        self._check()

    def _check(self) -> None:
        if self.x.ndim != 6 or self.x.shape[3] != len(CHANNELS):
            raise ValueError(f"x has shape {self.x.shape}. Remedy: give (N, views, phases, 3 channels, H, W).")
        n = len(self.x)
        shapes = {"y": (n, len(self.classes)), "ids": (n,), "subjects": (n,)}
        if self.units is not None:
            shapes["units"] = (n, *self.units.shape[-1:])
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}. Remedy: give {shape}, a row per clip.")
        ids, counts = np.unique(self.ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"Id {ids[counts > 1][0]} appears more than once. Remedy: give each clip its own Id.")
        finite = np.isfinite(self.x).all(axis=(1, 2, 3, 4, 5))
        if not finite.all():
            raise ValueError(f"Id {self.ids[~finite][0]}: x holds NaN or infinity. Remedy: compute its flow again.")
        binary = np.isin(self.y, (0, 1)).all(axis=1)
        if not binary.all():
            raise ValueError(f"Id {self.ids[~binary][0]}: a label is not 0 or 1. Remedy: correct the label table.")

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, index: np.ndarray) -> Samples:
        """The clips at `index` (positions or a boolean mask), in that order."""
        rows = {name: getattr(self, name)[index] for name in ("x", "y", "ids", "subjects")}
        return replace(self, **rows, units=None if self.units is None else self.units[index])

    def take_views(self, views: Sequence[int]) -> Samples:
        """The same clips with the views of these positions only."""
        return replace(self, x=self.x[:, list(views)])

    def take_phases(self, phases: Sequence[int]) -> Samples:
        """The same clips with the phases of these positions only."""
        return replace(self, x=self.x[:, :, list(phases)])

    def save(self, path: str | Path, key: str | None = None) -> None:
        """Write one .npz without pickles, with the key if there is one (`utils.artefacts.write_artefact`)."""
        parts = {name: getattr(self, name) for name in ("x", "y", "ids", "subjects")}
        parts["classes"] = np.array(self.classes, dtype=str)
        write_artefact(path, parts if self.units is None else parts | {"units": self.units}, key)

    @classmethod
    def load(cls, path: str | Path) -> Samples:
        """Read what `save` wrote. Raises DamagedError if the file is incomplete or holds something else."""
        parts = read_artefact(path)
        try:
            return cls(**{**parts, "classes": tuple(parts["classes"].tolist())})
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{path}: no samples ({error}). Remedy: run 02_flow_apex again.") from error
