"""The one container that features fill and every classifier reads."""

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

    x         (N, V views, P phases, C=3 channels u v magnitude, H, W) float32, flow in pixels, x right, y
              down;
              views in order from left to right, so that a mirror reverses them
    y         (N, K) float32, 0 or 1, columns in the order of `classes`
    ids       (N,) str, each once
    subjects  (N,) str
    classes   names of the K columns of y
    units     (N, A) float32 action unit targets in 0..1 where they are known, else None
    Raises ValueError, naming the first Id at fault, when the parts do not fit together.
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
        n, k = len(self.x), len(self.classes)
        if self.y.shape != (n, k):
            raise ValueError(f"y has shape {self.y.shape} for {n} clips of {k} classes. Remedy: give ({n}, {k}).")
        for name, part in (("ids", self.ids), ("subjects", self.subjects)):
            if part.shape != (n,):
                raise ValueError(f"{name} has shape {part.shape} for {n} clips. Remedy: give one per clip.")
        if self.units is not None and (self.units.ndim != 2 or len(self.units) != n):
            raise ValueError(f"units has shape {self.units.shape} for {n} clips. Remedy: give one row per clip.")
        values, counts = np.unique(self.ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"Id {values[counts > 1][0]} appears more than once. Remedy: give each clip its own Id.")
        finite = np.isfinite(self.x).all(axis=(1, 2, 3, 4, 5))
        if not finite.all():
            raise ValueError(f"Id {self.ids[~finite][0]}: x holds NaN or infinity. Remedy: make its flow again.")
        binary = np.isin(self.y, (0, 1)).all(axis=1)
        if not binary.all():
            raise ValueError(f"Id {self.ids[~binary][0]}: a label is not 0 or 1. Remedy: correct the label table.")

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, index: np.ndarray) -> Samples:
        """The clips at `index` (positions or a boolean mask), in that order."""
        units = None if self.units is None else self.units[index]
        return replace(
            self, x=self.x[index], y=self.y[index], ids=self.ids[index], subjects=self.subjects[index], units=units
        )

    def take_views(self, views: Sequence[int]) -> Samples:
        """The same clips seen from some of the views only (for ablations)."""
        return replace(self, x=self.x[:, list(views)])

    def take_phases(self, phases: Sequence[int]) -> Samples:
        """The same clips with some of the phases only (for ablations)."""
        return replace(self, x=self.x[:, :, list(phases)])

    def save(self, path: str | Path, key: str | None = None) -> None:
        """Write one .npz, without pickles, under a key where one is given (`utils.artefacts.write_artefact`)."""
        parts = {name: getattr(self, name) for name in ("x", "y", "ids", "subjects")}
        parts["classes"] = np.array(self.classes, dtype=str)
        write_artefact(path, parts if self.units is None else parts | {"units": self.units}, key)

    @classmethod
    def load(cls, path: str | Path) -> Samples:
        """Read what `save` wrote. Raises DamagedError when the file is not whole or holds something else."""
        parts = read_artefact(path)
        try:
            return cls(**{**parts, "classes": tuple(parts["classes"].tolist())})
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{path}: no samples ({error}). Remedy: run 02_flow_apex again.") from error
