"""What all figures share: colours, names, files.

The five classes have one colour each (Okabe and Ito 2008, readable by the colour-blind). Figures are functions that
return a Figure and show nothing; `save_figure` writes it.
"""

from collections.abc import Sequence as Many
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from utils.artefacts import atomic_path

CLASS_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#0072B2", "#999999")


UNIT_COLOURS = (CLASS_COLOURS[3], CLASS_COLOURS[0], CLASS_COLOURS[1])


VIEW_NAMES = {1: ("view",), 2: ("left view", "right view")}  # by number of views


PHASE_NAMES = ("onset to apex", "apex to offset")


STREAM_COLOURS = ("#56B4E9", "#E69F00", "#009E73")  # u, v, magnitude


GREY = "#555555"


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG (or what the suffix says), 110 dpi, atomically; returns the path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", metadata={"Software": None})
    return Path(path)


def bare(axis: plt.Axes, title: str = "") -> plt.Axes:
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if title:
        axis.set_title(title, fontsize=9)
    return axis


def share_bars(axis: plt.Axes, names: Many[str], values: np.ndarray, colours: Many[str], title: str) -> None:
    """Bars from 0 to 1, the first on top."""
    axis.barh(names, values, color=colours[: len(names)])
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xticks=(0, 0.5, 1), title=title)
    axis.tick_params(labelsize=11)
    axis.spines[["top", "right"]].set_visible(False)
