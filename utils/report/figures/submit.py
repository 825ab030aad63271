"""Figures of 05_submit."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from utils.report.figures.common import CLASS_COLOURS, interval_reach

OURS, COMPARED = CLASS_COLOURS[3], CLASS_COLOURS[4]


def predicted_shares(decision: np.ndarray, train_y: np.ndarray, classes: Sequence[str]) -> Figure:
    """Share of clips per class: by the decisions (N, K) on the test split, and by the training labels (M, K)."""
    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    clips = np.repeat(["test, decided", "training, true"], len(classes))
    shares = {"class": [*classes] * 2, "share": [*decision.mean(0), *train_y.mean(0)], "clips": clips}
    sns.barplot(pd.DataFrame(shares), x="class", y="share", hue="clips", ax=axis, palette=[OURS, COMPARED])
    axis.set(xlabel="", ylabel="share of clips", ylim=(0, 1))
    return figure


def leaderboard_bars(board: pd.DataFrame) -> Figure:
    """Macro-UF1 of the submission and of trivial answers, with intervals. board: `submission.leaderboard`."""
    board = board.set_index("prediction")[::-1]  # the first bar is drawn lowest
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    colours = [COMPARED] * (len(board) - 1) + [OURS]
    reach = interval_reach(board["macro_uf1"], board["low"], board["high"])
    axis.barh(board.index, board["macro_uf1"], xerr=reach, capsize=4, color=colours)
    axis.set(xlabel="macro-UF1 on the hidden labels, 95% interval by subject", xlim=(0, 1))
    return figure
