"""Figures of 05_submit."""

from collections.abc import Sequence as Many

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from utils.report.figures.common import CLASS_COLOURS


def leaderboard_bars(board: pd.DataFrame) -> Figure:
    """Local leaderboard: macro-UF1 of ours and of trivial answers, with intervals where the table has them."""
    board = board.set_index("prediction")
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    reach = np.stack([board["macro_uf1"] - board["low"], board["high"] - board["macro_uf1"]]).clip(0)
    axis.barh(
        board.index[::-1],
        board["macro_uf1"][::-1],
        xerr=reach[:, ::-1],
        capsize=4,
        color=[CLASS_COLOURS[3] if i == 0 else CLASS_COLOURS[4] for i in range(len(board))][::-1],
    )
    axis.set(xlabel="macro-UF1 on the hidden labels, 95% interval by subject", xlim=(0, 1))
    return figure


def predicted_shares(decision: np.ndarray, train_y: np.ndarray, classes: Many[str]) -> Figure:
    """Share of clips per class: decided for the test split beside true in training."""
    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    shares = pd.DataFrame(
        {
            "class": [*classes] * 2,
            "share": [*decision.mean(0), *train_y.mean(0)],
            "clips": ["test, decided"] * len(classes) + ["training, true"] * len(classes),
        }
    )
    sns.barplot(shares, x="class", y="share", hue="clips", ax=axis, palette=[CLASS_COLOURS[3], CLASS_COLOURS[4]])
    axis.set(xlabel="", ylabel="share of clips", ylim=(0, 1))
    return figure
