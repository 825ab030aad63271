"""Figures of 03_train: scores on held-out people, why a network decided, and the whole method on one clip."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from utils.evaluate.explain import UnitEvidence
from utils.evaluate.protocol import OutOfFold
from utils.evaluate.scores import confusion_counts, interval, pooled_score, reliability
from utils.render.view_set import Views
from utils.report.figures.common import CLASS_COLOURS, GREY, PHASE_NAMES, VIEW_NAMES, bare, interval_reach, share_bars
from utils.report.figures.flow import draw_arrows, flow_colours
from utils.report.figures.mesh import draw_mesh, turned
from utils.train.ensemble import Ensemble

STREAM_COLOURS = ("#56B4E9", "#E69F00", "#009E73")  # u, v, magnitude
UNIT_COLOURS = (CLASS_COLOURS[3], CLASS_COLOURS[0], CLASS_COLOURS[1])  # of the action units that are shown
Texts = Mapping[str, str]  # by AU


def class_scores(oof: OutOfFold) -> Figure:
    """F1 per class and macro-UF1, with 95% intervals by bootstrap over subjects."""
    names = [*oof.classes, "macro-UF1"]
    spans = np.array([astuple(interval(oof, f"f1:{name}")) for name in oof.classes] + [astuple(interval(oof))]).T
    labels = [f"{name}\n{value:.2f}" for name, value in zip(names, spans[0], strict=True)]
    style = {"color": [*CLASS_COLOURS[: len(oof.classes)], "white"], "edgecolor": "black", "linewidth": 0.8}
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    axis.bar(labels, spans[0], yerr=interval_reach(*spans), capsize=4, alpha=0.85, **style)
    axis.set(ylabel="F1 of the positive class", ylim=(0, 1), title="held-out subjects, 95% intervals")
    return figure


def calibration(oof: OutOfFold) -> Figure:
    """Reliability curve over all clip-label pairs of held-out subjects, all seeds together, with its ECE."""
    table = reliability(np.concatenate([oof.truth] * len(oof.seeds)), np.concatenate(list(oof.probability)))
    figure = plt.figure(figsize=(4.6, 4.8), layout="constrained")
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="perfect")
    curve.plot(table["predicted"], table["observed"], "o-", color=CLASS_COLOURS[0], label="ours")
    curve.set(ylabel="share of labels that hold", ylim=(0, 1), title=f"ECE {pooled_score(oof)['ece']:.3f}")
    curve.legend(fontsize=8)
    counts.bar(table["low"], table["count"], width=table["high"] - table["low"], align="edge", color=GREY)
    counts.set(xlabel="predicted probability", ylabel="pairs", yscale="log", xlim=(0, 1))
    counts.set_ylim(0.5)
    counts.yaxis.set_minor_formatter("")
    return figure


def confusion_per_label(oof: OutOfFold) -> Figure:
    """A two by two table per class: clips by truth and decision, mean over the seeds."""
    counts = np.mean([confusion_counts(oof.truth, decision) for decision in oof.decision], axis=0)
    figure, axes = plt.subplots(1, len(oof.classes), figsize=(2.3 * len(oof.classes), 2.5), layout="constrained")
    style = {"annot": True, "fmt": ".0f", "cmap": "Blues", "cbar": False, "vmin": 0, "vmax": counts.max()}
    ticks = {"xticklabels": ["yes", "no"], "yticklabels": ["yes", "no"]}
    for k, (axis, (tp, fp, fn, tn)) in enumerate(zip(axes, counts, strict=True)):
        sns.heatmap([[tp, fn], [fp, tn]], ax=axis, **style, **ticks)
        axis.set(title=oof.classes[k], xlabel="decided", ylabel="true" if k == 0 else "")
    return figure


def learning_curves(ensemble: Ensemble) -> Figure:
    """Training and validation loss of every member network; the dot marks the epoch that was kept."""
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for number, member in enumerate(ensemble.members):
        history = pd.DataFrame(member.history)
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        axis.plot(history["epoch"], history["train_loss"], color=colour, lw=1, ls=":")
        axis.plot(history["epoch"], history["val_loss"], color=colour, lw=1.6, label=f"inner fold {number + 1}")
        kept = history[history["epoch"] == member.epoch]
        axis.plot(kept["epoch"], kept["val_loss"], "o", color=colour)
    axis.set(xlabel="epoch", ylabel="loss (dotted: of training, all its terms)", title="learning curves")
    axis.legend(fontsize=8)
    return figure


def attention_by_class(weights: np.ndarray, y: np.ndarray, classes: Sequence[str], streams: Sequence[str]) -> Figure:
    """Boxes of the attention weights (N, S) over the clips of each class, from labels y (N, K); dashed: uniform."""
    rows = [
        {"class": classes[k], "stream": stream, "weight": weight}
        for k in range(len(classes))
        for row in weights[y[:, k] > 0]
        for stream, weight in zip(streams, row, strict=True)
    ]
    figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
    colours = STREAM_COLOURS[: len(streams)]
    sns.boxplot(pd.DataFrame(rows), x="class", y="weight", hue="stream", ax=axis, fliersize=2, palette=colours)
    axis.axhline(1 / len(streams), color=GREY, ls="--", lw=1)
    sns.move_legend(axis, "upper left", bbox_to_anchor=(1, 1))
    axis.set(xlabel="", ylabel="attention weight (sums to 1)", title="which stream is listened to, held-out clips")
    return figure


def saliency_on_face(maps: np.ndarray, face: np.ndarray, classes: Sequence[str]) -> Figure:
    """Mean saliency (K, V, S, S) >= 0 of each class over the views of a face (V, H, W, 3) uint8, on one scale."""
    n_views, size = face.shape[:2]
    figure = plt.figure(figsize=(2.1 * len(classes), 2.2 * n_views), layout="constrained")
    axes = figure.subplots(n_views, len(classes), squeeze=False)
    for v, view in enumerate(VIEW_NAMES[n_views]):
        for k, name in enumerate(classes):
            axes[v, k].imshow(face[v].mean(-1), cmap="gray")
            strength = cv2.resize(maps[k, v], (size, size), interpolation=cv2.INTER_CUBIC) / max(maps.max(), 1e-12)
            axes[v, k].imshow(strength, cmap="inferno", alpha=strength.clip(0, 0.5) ** 0.5, vmin=0, vmax=1)
            bare(axes[v, k], (name if maps[k].any() else f"{name} (no clip)") if v == 0 else "")
        axes[v, 0].set_ylabel(view, fontsize=9)
    return figure


def unit_precisions(table: pd.DataFrame) -> Figure:
    """Average precision of each action unit with its interval, beside its prevalence. table: `explain.unit_scores`."""
    rows, precision = np.arange(len(table))[::-1], table["average_precision"]
    figure, axis = plt.subplots(figsize=(8, 0.27 * len(table) + 1.2), layout="constrained")
    style = {"fmt": "o", "color": CLASS_COLOURS[3], "capsize": 3, "ms": 5, "lw": 1.2}
    reach = interval_reach(precision, table["low"], table["high"])
    axis.errorbar(precision, rows, xerr=reach, label="average precision, 95% interval by subject", **style)
    axis.plot(table["prevalence"], rows, "|", color=CLASS_COLOURS[0], ms=11, mew=2.5, label="a guess (share of clips)")
    axis.set_yticks(rows, [f"{row.name} ({row.clips})  {row.Index}" for row in table.itertuples()])
    axis.set(xlim=(0, 1.02), xlabel="average precision (in brackets: clips with the unit)")
    axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return figure


def unit_evidence(evidence: UnitEvidence, names: Texts, title: str, truth: pd.DataFrame | None) -> Figure:
    """Which action units move in a clip, where in the face, and when; with the truth (`load_truth`) if it is known."""
    colours = dict(zip(evidence.shown, UNIT_COLOURS, strict=False))
    row = None if truth is None else truth.loc[evidence.id]
    figure = plt.figure(figsize=(15, 5.4), layout="constrained")
    which, where, when = figure.subfigures(1, 3, width_ratios=(1.15, 1, 1.15))
    _draw_which(which.subplots(), evidence.units[::-1], names, colours, row)
    _draw_where(where, evidence, names, colours)
    _draw_when(when.subplots(), evidence, colours, row)
    figure.suptitle(title, fontsize=11)
    return figure


def _draw_which(axis: plt.Axes, units: pd.Series, names: Texts, colours: Texts, truth: pd.Series | None) -> None:
    """A bar per action unit, with a mark where it truly moved."""
    labels = [f"{names[au]}  {au}" for au in units.index]
    axis.barh(labels, units, color=[colours.get(au, CLASS_COLOURS[4]) for au in units.index])
    if truth is not None:
        moved = [row for row, au in enumerate(units.index) if truth[au] > 0]
        axis.plot([1.03] * len(moved), moved, "k<", ms=7, clip_on=False, label="truly moved")
        axis.legend(fontsize=8, loc="lower right")
    axis.set(xlim=(0, 1), xlabel="probability", title="which muscles moved (coloured: named)")
    axis.margins(y=0.01)


def _draw_where(panel, evidence: UnitEvidence, names: Texts, colours: Texts) -> None:
    """A row per shown unit, a column per view: the unit's colour is opaque where motion speaks most for the unit."""
    n_views, size = evidence.face.shape[:2]
    axes = panel.subplots(len(evidence.shown), n_views, squeeze=False)
    for row, au, maps in zip(axes, evidence.shown, evidence.maps, strict=True):
        blurred = [cv2.GaussianBlur(view, (0, 0), 1) for view in maps]  # gradients are ragged from pixel to pixel
        smooth = np.array([cv2.resize(view, (size, size), interpolation=cv2.INTER_CUBIC).clip(0) for view in blurred])
        for v, axis in enumerate(row):
            tint = np.full((size, size, 4), to_rgba(colours[au]))
            tint[..., 3] = smooth[v] / max(smooth.max(), 1e-12)
            axis.imshow(evidence.face[v].mean(-1), cmap="gray")
            axis.imshow(tint)
            bare(axis, VIEW_NAMES[n_views][v] if au == evidence.shown[0] else "")
        row[0].set_ylabel(f"{au}\n{names[au]}", fontsize=9, color=colours[au])
    panel.suptitle("where motion speaks for them", fontsize=12)


def _draw_when(axis: plt.Axes, evidence: UnitEvidence, colours: Texts, truth: pd.Series | None) -> None:
    """The probability of the shown units over time, with the apex found and the true apex."""
    axis.axvline(evidence.apex, color="#CCCCCC", lw=5, label="found apex")
    if truth is not None:
        axis.axvline(truth["apex"], color="black", lw=1.5, ls=":", label="true apex")
    for au, marker in zip(evidence.shown, "osD", strict=False):
        axis.plot(evidence.course[au], marker=marker, ms=4, color=colours[au], label=au)
    axis.set(ylim=(0, 1.02), xlabel=f"frame ({evidence.fps:g} a second)", ylabel="probability")
    axis.set_title("when: each frame taken as the apex")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=5, frameon=False)


def overview(
    sequence,
    views: Views,
    moments: Sequence[int],
    flows: np.ndarray,
    weights: np.ndarray,
    streams: Sequence[str],
    probability: np.ndarray,
    classes: Sequence[str],
) -> Figure:
    """The method on one clip: mesh, views, flow of both phases in each view, attention weights, probabilities.

    flows (V, P, S, S, 2) px; weights of the streams (S,); probability (K,).
    """
    frame, names = sequence.frame(moments[1]), VIEW_NAMES[len(flows)]
    has_mesh = frame.vertices is not None
    middle = [[name, f"{name} 0", f"{name} 1"] for name in (names * 2)[:2]]
    sources = ["mesh" if has_mesh else "texture", "texture"]
    rows = [[source, *row, last] for source, row, last in zip(sources, middle, ("weights", "answer"), strict=True)]
    figure = plt.figure(figsize=(12, 5), layout="constrained")
    axes = figure.subplot_mosaic(rows, width_ratios=(1.2, 1, 1, 1, 0.9))
    if has_mesh:
        draw_mesh(axes["mesh"], turned(frame, views))
    axes["texture"].imshow(frame.texture)
    bare(axes["texture"], "its texture" if has_mesh else "its picture")
    shown = flows * views.masks[:, None, ..., None]
    moving = np.linalg.norm(shown, axis=-1)[shown.any(-1)]
    largest = float(np.quantile(moving, 0.98)) if len(moving) else 1.0  # the eyelids move more and get full colour
    for v, name in enumerate(names):
        axes[name].imshow(views.frames[moments[1], v])
        bare(axes[name], f"{name}, apex")
        for p, phase in enumerate(PHASE_NAMES):
            axis = axes[f"{name} {p}"]
            axis.imshow(flow_colours(shown[v, p], largest))
            draw_arrows(axis, shown[v, p], largest, "white", across=16)
            bare(axis, f"flow, {phase}" if v == 0 else "")
    axes[f"{names[-1]} 0"].set_xlabel(f"full brightness: {largest:.1f} px or more", fontsize=11)
    share_bars(axes["weights"], streams, weights, STREAM_COLOURS, "attention")
    share_bars(axes["answer"], classes, probability, CLASS_COLOURS, "probability")
    for axis in axes.values():
        axis.title.set_fontsize(11)
    return figure
