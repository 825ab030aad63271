"""Figures of the laboratory."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from utils.evaluate.scores import Interval
from utils.report.figures.common import (
    CLASS_COLOURS,
    bare,
)
from utils.report.figures.flow import (
    flow_colours,
)


def flow_comparison(rows: Mapping[str, tuple[np.ndarray, dict[str, np.ndarray]]], face: np.ndarray) -> Figure:
    """By title a grey frame (S, S) and its flows (S, S, 2) by name, side by side within the face (S, S) bool; one scale
    a row, that of the first flow."""
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


def crop_scores(spans: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """UF1 with its interval by the crop that clips are seen in: spans by row of the table, then by crop, a colour per
    row."""
    crops = list(dict.fromkeys(crop for row in spans.values() for crop in row))
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(crops) + 1.4), layout="constrained")
    for number, (name, row) in enumerate(spans.items()):
        at = [len(crops) - 1 - crops.index(crop) - 0.14 * (number - (len(spans) - 1) / 2) for crop in row]
        values = np.array([one.value for one in row.values()])
        reach = np.array([(one.value - one.low, one.high - one.value) for one in row.values()]).T
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        axis.errorbar(values, at, xerr=reach, fmt="o", color=colour, capsize=3, ms=5, lw=1.4, label=name)
    axis.set(yticks=range(len(crops)), yticklabels=crops[::-1], xlabel="UF1, 95% interval", xlim=(0, 1))
    axis.legend(loc="lower left", fontsize=9)
    return figure


def memory_curves(curves: dict[int, np.ndarray]) -> Figure:
    """Resident memory of runs over more and more clips: left, over time; right, its peak and the time by clips.

    curves: by number of clips, (N, 2) of seconds and MB.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    for colour, (count, curve) in zip(CLASS_COLOURS, curves.items(), strict=False):
        left.plot(*curve.T, color=colour, lw=1, label=f"{count} clips")
    top = 1.1 * max(curve[:, 1].max() for curve in curves.values())
    left.set(xlabel="seconds since the start", ylabel="resident memory of all processes, MB", ylim=(0, top))
    left.legend()
    counts = list(curves)
    right.plot(counts, [curve[:, 1].max() for curve in curves.values()], "o-", color=CLASS_COLOURS[3])
    right.set(xlabel="clips", ylim=(0, top))
    right.set_ylabel("peak, MB", color=CLASS_COLOURS[3])
    seconds = right.twinx()
    seconds.plot(counts, [curve[-1, 0] for curve in curves.values()], "s--", color=CLASS_COLOURS[0])
    seconds.set(ylim=(0, None))
    seconds.set_ylabel("seconds", color=CLASS_COLOURS[0])
    return figure
