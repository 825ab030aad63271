"""Colours, names and small drawings that all figures share; `save_figure` writes a figure to a file.

The five classes have one colour each (Okabe and Ito 2008; colour-blind readers can tell them apart). Every function
that makes a figure returns it and does not show it.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils.artefacts import atomic_path

CLASS_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#0072B2", "#999999")
GREY = "#555555"
VIEW_NAMES = {1: ("view",), 2: ("left view", "right view")}  # by number of views
PHASE_NAMES = ("onset to apex", "apex to offset")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure atomically at 110 dpi, in the format of the suffix."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", metadata={"Software": None})


def bare(axis: plt.Axes, title: str = "") -> None:
    """Remove ticks and spines."""
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if title:
        axis.set_title(title, fontsize=9)


def share_bars(axis: plt.Axes, names: Sequence[str], values: np.ndarray, colours: Sequence[str], title: str) -> None:
    """Horizontal bars from 0 to 1, the first on top."""
    axis.barh(names, values, color=colours[: len(names)])
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xticks=(0, 0.5, 1), title=title)
    axis.tick_params(labelsize=11)
    axis.spines[["top", "right"]].set_visible(False)


def answer_bars(classes: plt.Axes, muscles: plt.Axes, answers: pd.DataFrame, units: pd.Series, title: str) -> None:
    """Probabilities of the classes with a tick at each threshold, and probabilities of action units.

    answers: index class, columns probability and threshold; units: probability by name.
    """
    share_bars(classes, answers.index, answers["probability"], CLASS_COLOURS, title)
    classes.plot(answers["threshold"], range(len(answers)), "k|", ms=16, mew=2)
    share_bars(muscles, units.index, units, [CLASS_COLOURS[4]] * len(units), "action units")


def interval_reach(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Lengths (2, N) of error bars from values (N,) down to `low` and up to `high`."""
    return np.stack([value - low, high - value]).clip(0)
