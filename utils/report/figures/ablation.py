"""The figure of 04_ablation."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils.report.figures.common import CLASS_COLOURS, GREY, interval_reach


def forest(table: pd.DataFrame, reference: str, title: str) -> Figure:
    """Forest plot: on the left macro-UF1 of each variant, on the right its paired difference to the reference variant.

    table: index variant; columns macro_uf1, low, high, difference, difference_low, difference_high.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.32 * len(table) + 1.4), sharey=True, layout="constrained")
    rows = np.arange(len(table))[::-1]
    colours = [CLASS_COLOURS[0] if name == reference else "black" for name in table.index]
    for axis, value, bounds in ((left, "macro_uf1", ""), (right, "difference", "difference_")):
        reach = interval_reach(table[value], table[f"{bounds}low"], table[f"{bounds}high"])
        for row, x, span, colour in zip(rows, table[value], reach.T, colours, strict=True):
            axis.errorbar(x, row, xerr=span[:, None], fmt="o", color=colour, capsize=3, ms=4, lw=1.2)
        axis.grid(axis="y", color="#E5E5E5", lw=0.8)
        axis.set_axisbelow(True)
    left.set(yticks=rows, yticklabels=table.index, xlabel="macro-UF1, 95% interval", xlim=(0, 1))
    left.set_ylim(-0.7, len(table) - 0.3)
    right.axvline(0, color=GREY, ls="--", lw=1)
    right.set_xlabel(f"paired difference to {reference!r}, 95% interval")
    figure.suptitle(title, fontsize=11)
    return figure
