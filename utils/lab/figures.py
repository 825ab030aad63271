"""Figures of the laboratory."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils.report.figures.common import CLASS_COLOURS, bare
from utils.report.figures.flow import flow_colours


def flow_comparison(rows: Mapping[str, tuple[np.ndarray, dict[str, np.ndarray]]], face: np.ndarray) -> Figure:
    """Flows side by side, within the face (S, S) bool.

    rows: by title, a grey frame (S, S) and its flows (S, S, 2) by method. The first flow sets the scale of its row.
    """
    names = list(next(iter(rows.values()))[1])
    size = 1.7 * (len(names) + 1), 1.9 * len(rows)
    figure, axes = plt.subplots(len(rows), len(names) + 1, figsize=size, layout="constrained", squeeze=False)
    for row, (title, (frame, flows)) in zip(axes, rows.items(), strict=True):
        row[0].imshow(frame, cmap="gray", vmin=0, vmax=255)
        bare(row[0], title)
        largest = float(np.quantile(np.linalg.norm(flows[names[0]], axis=-1)[face], 0.99))
        for axis, name in zip(row[1:], names, strict=True):
            axis.imshow(flow_colours(flows[name] * face[..., None], largest))
            bare(axis, f"{name}\nrim {largest:.2f} px" if name == names[0] else name)
    return figure


def crop_scores(table: pd.DataFrame) -> Figure:
    """UF1 with its interval by crop, one colour per label. table: columns label, clips, value, low, high."""
    crops = list(table["clips"].unique())[::-1]  # the first one on top
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(crops) + 1.4), layout="constrained")
    shift = 0.14 * (table["label"].nunique() - 1) / 2
    for number, (label, scores) in enumerate(table.groupby("label", sort=False)):
        height = [crops.index(crop) - 0.14 * number + shift for crop in scores["clips"]]
        reach = (scores["value"] - scores["low"], scores["high"] - scores["value"])
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        axis.errorbar(scores["value"], height, xerr=reach, fmt="o", color=colour, capsize=3, ms=5, lw=1.4, label=label)
    axis.set(yticks=range(len(crops)), yticklabels=crops, xlabel="UF1, 95% interval", xlim=(0, 1))
    axis.legend(loc="lower left", fontsize=9)
    return figure


def memory_curves(curves: Mapping[int, np.ndarray]) -> Figure:
    """Resident memory of runs over more and more clips: over time on the left; its peak, and the run's time, by the
    number of clips on the right.

    curves: by number of clips, (N, 2) of seconds and MB.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    for colour, (count, curve) in zip(CLASS_COLOURS, curves.items(), strict=False):
        left.plot(*curve.T, color=colour, lw=1, label=f"{count} clips")
    counts, peaks = list(curves), [curve[:, 1].max() for curve in curves.values()]
    limits = 0, 1.1 * max(peaks)
    left.set(xlabel="seconds since the start", ylabel="resident memory of all processes, MB", ylim=limits)
    left.legend()
    right.plot(counts, peaks, "o-", color=CLASS_COLOURS[3])
    right.set(xlabel="clips", ylim=limits)
    right.set_ylabel("peak, MB", color=CLASS_COLOURS[3])
    seconds = right.twinx()
    seconds.plot(counts, [curve[-1, 0] for curve in curves.values()], "s--", color=CLASS_COLOURS[0])
    seconds.set(ylim=(0, None))
    seconds.set_ylabel("seconds", color=CLASS_COLOURS[0])
    return figure
