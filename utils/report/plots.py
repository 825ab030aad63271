"""Figures of the notebooks. Each function returns a Figure and shows nothing; `save_figure` writes it.

Colours: the five classes have one colour each (Okabe and Ito 2008, readable by the colour-blind); views or
methods side by side share one colour scale.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.artefacts import atomic_path
from utils.dataset.labels import PHASE_COLUMNS
from utils.face.expressions import CONFOUNDERS
from utils.render.axes import AXES
from utils.render.view_set import Views
from utils.render.views import wide_cameras
from utils.report.mesh_picture import shaded_mesh
from utils.train.protocol import OutOfFold
from utils.train.scores import Interval, confusion_counts, interval, pooled_score, reliability

CLASS_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#0072B2", "#999999")
UNIT_COLOURS = (CLASS_COLOURS[3], CLASS_COLOURS[0], CLASS_COLOURS[1])
VIEW_NAMES = {1: ("view",), 2: ("left view", "right view")}  # by number of views
PHASE_NAMES = ("onset to apex", "apex to offset")
STREAM_COLOURS = ("#56B4E9", "#E69F00", "#009E73")  # u, v, magnitude
GREY = "#555555"
FLOW_COVER = 0.8  # of the picture at most, by flow in colour over it


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


# Sequences and views ------------------------------------------------------------------------------------------------


def sequence_overview(sequence, views: Views, yaw_deg: float) -> Figure:
    """One sequence: its mesh with the two cameras' crops and its texture, or the picture with its crops; and its views
    over time."""
    n_views = views.frames.shape[1]
    figure = plt.figure(figsize=(11, 2.9 + 1.75 * n_views), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.1, 0.65 * n_views))
    frame = sequence.frame(0)
    if frame.vertices is None:
        _draw_picture(top.subplots(), frame.texture, views)
    else:
        _draw_rendering(top.subplots(1, 4, width_ratios=(1, 1, 1, 2)), frame, views, yaw_deg)
    times = np.unique(np.linspace(0, len(sequence) - 1, 7).round().astype(int))
    grid = bottom.subplots(n_views, len(times), squeeze=False)
    for v, name in enumerate(VIEW_NAMES[n_views]):
        for axis, t in zip(grid[v], times, strict=True):
            axis.imshow(views.frames[t, v])
            bare(axis, f"frame {t}" if v == 0 else "")
        grid[v, 0].set_ylabel(name, fontsize=9)
    figure.suptitle(f"{sequence.id}: {len(sequence)} frames at {sequence.fps:g} fps", fontsize=11)
    return figure


def _draw_rendering(axes: Many[plt.Axes], frame, views: Views, yaw_deg: float) -> None:
    """A mesh from the front, where its points stand before both cameras with the crops, and its texture."""
    frame = _turned(frame, views)
    _draw_mesh(axes[0], frame)
    for axis, camera, box, name in zip(
        axes[1:3], wide_cameras(frame.vertices, yaw_deg), views.boxes, VIEW_NAMES[2], strict=True
    ):
        axis.plot(*camera.project(frame.vertices)[::3].T, ".", ms=0.6, color=GREY)
        x, y, side = box
        axis.add_patch(Rectangle((x, y), side, side, fill=False, ec=CLASS_COLOURS[0], lw=1.5))
        axis.set(xlim=(x - 12, x + side + 12), ylim=(y + side + 12, y - 12), aspect="equal")
        bare(axis, f"{name}, yaw {camera.yaw_deg:+.0f} deg, crop")
    axes[3].imshow(frame.texture)
    bare(axes[3], "texture")


def _turned(frame, views: Views):
    """The frame with its mesh in the axes in which it was drawn."""
    return replace(frame, vertices=frame.vertices @ AXES[views.axes].T.astype(np.float32))


def _draw_picture(axis: plt.Axes, picture: np.ndarray, views: Views) -> None:
    """A picture of one or of several views side by side, with their crops."""
    width = picture.shape[1] / len(views.boxes)
    axis.imshow(picture)
    for v, (x, y, side) in enumerate(views.boxes):
        corner = (x + v * width - 0.5, y - 0.5)
        axis.add_patch(Rectangle(corner, side, side, fill=False, ec=CLASS_COLOURS[0], lw=1.5))
    axis.set(xlim=(-0.5, picture.shape[1] - 0.5), ylim=(picture.shape[0] - 0.5, -0.5))
    bare(axis, f"first picture, {picture.shape[1]} x {picture.shape[0]} pixels, crop from: {views.source}")


def _draw_mesh(axis: plt.Axes, frame) -> None:
    """The frame's mesh from the front, smoothly shaded; a frame of images alone has none."""
    if frame.vertices is None:
        bare(axis, "no mesh")
        return
    axis.imshow(shaded_mesh(frame.vertices, frame.faces))
    bare(axis, f"mesh, {len(frame.vertices):,} vertices")


def contact_sheet(images: Many[np.ndarray], titles: Many[str], columns: int = 8) -> Figure:
    """Images (H, W, 3) uint8 of one shape in a grid with a title each."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    size = columns * 1.5 * images[0].shape[1] / images[0].shape[0], rows * 1.8
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.ravel():
        bare(axis)
    for axis, image, title in zip(axes.ravel(), images, titles, strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=8)
    return figure


def label_counts(table: pd.DataFrame, classes: Many[str]) -> Figure:
    """Clips per class and clips that carry two classes at once (counts in the cells; the diagonal: alone)."""
    labels = table[list(classes)].to_numpy(int)
    together = labels.T @ labels
    alone = labels[labels.sum(1) == 1].sum(0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.bar(classes, labels.sum(0), color=CLASS_COLOURS)
    left.bar_label(left.containers[0])
    left.margins(y=0.1)  # room for the number over the tallest bar
    left.yaxis.get_major_locator().set_params(integer=True)
    left.set(ylabel="clips", title="clips per class")
    np.fill_diagonal(together, alone)
    sns.heatmap(
        together, annot=True, fmt="d", cmap="Blues", cbar=False, ax=right, xticklabels=classes, yticklabels=classes
    )
    right.set_title("clips with both labels (diagonal: one label alone)")
    return figure


def clip_statistics(truth: pd.DataFrame) -> Figure:
    """Synthetic clips only: durations, place of the apex, peak motion, and how often each confounder occurs."""
    figure, axes = plt.subplots(1, 4, figsize=(12, 2.9), layout="constrained")
    axes[0].hist(truth["n_frames"], bins=np.arange(8, 34, 2), color=CLASS_COLOURS[3])
    axes[0].set(xlabel="frames (60 a second)", ylabel="clips", title="length")
    axes[1].hist(truth["apex"] / (truth["n_frames"] - 1), bins=12, color=CLASS_COLOURS[3])
    axes[1].set(xlabel="apex / last frame", title="place of the apex")
    axes[2].hist(truth["peak_px"], bins=14, color=CLASS_COLOURS[3])
    axes[2].set(xlabel="pixels of a 256 px face", title="peak motion")
    names = list(CONFOUNDERS)
    axes[3].barh(names, truth[names].mean() * 100, color=CLASS_COLOURS[4])
    axes[3].set(xlabel="% of clips", title="confounders")
    return figure


# Flow and apex ------------------------------------------------------------------------------------------------------


def flow_colours(flow: np.ndarray, largest: float) -> np.ndarray:
    """Flow (H, W, 2) px as RGB (H, W, 3) uint8: hue is the direction, brightness the magnitude over `largest`."""
    angle = np.degrees(np.arctan2(flow[..., 1], flow[..., 0])) % 360
    strength = np.clip(np.linalg.norm(flow, axis=-1) / max(largest, 1e-6), 0, 1)
    hsv = np.stack([angle / 2, np.full_like(angle, 255), strength * 255], -1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def flow_wheel(size: int = 101) -> np.ndarray:
    """Each direction of motion from the centre in its colour, (size, size, 3) uint8; white beside it."""
    ys, xs = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    wheel = flow_colours(np.stack([xs, ys], -1), 1)
    wheel[np.hypot(xs, ys) > 1] = 255
    return wheel


def colour_wheel(axis: plt.Axes, largest: float) -> None:
    """The legend of `flow_colours`: direction of motion from the centre, brightness up to `largest` px."""
    axis.imshow(flow_wheel())
    bare(axis, f"direction of motion\nrim: {largest:.2f} px or more")


def largest_motion(flows: np.ndarray, masks: np.ndarray) -> float:
    """Where the colours of flows (V, P, S, S, 2) end, px: all but half a percent of what moves within masks (V, S, S)
    is slower."""
    magnitude = np.linalg.norm(flows, axis=-1) * masks[:, None]
    return float(np.quantile(magnitude[magnitude > 0], 0.995)) if magnitude.any() else 1.0


def flow_on_face(picture: np.ndarray, flow: np.ndarray, largest: float) -> np.ndarray:
    """A picture (H, W, 3) uint8 with flow (H, W, 2) px over it: hue is the direction, the faster the less of the
    picture shows through, up to `largest`."""
    cover = np.clip(np.linalg.norm(flow, axis=-1, keepdims=True) / largest, 0, 1) * FLOW_COVER
    return np.rint(picture * (1 - cover) + flow_colours(flow, 0) * cover).astype(np.uint8)


def flow_figure(
    frames: np.ndarray, moments: Many[int], flows: np.ndarray, masks: np.ndarray, title: str = ""
) -> Figure:
    """Each view (rows): the apex frame, then each phase as colours and as arrows; one scale for all.

    frames (T, V, S, S, 3), flows (V, P, S, S, 2), masks (V, S, S).
    """
    n_views = len(flows)
    figure, axes = plt.subplots(
        n_views,
        6,
        figsize=(13, 0.4 + 2.1 * n_views),
        layout="constrained",
        width_ratios=(1, 1, 1, 1, 1, 0.6),
        squeeze=False,
    )
    largest = largest_motion(flows, masks)
    for v, name in enumerate(VIEW_NAMES[n_views]):
        axes[v, 0].imshow(frames[moments[1], v])
        bare(axes[v, 0], f"{name}, apex (frame {moments[1]})")
        for p, phase in enumerate(PHASE_NAMES):
            flow = flows[v, p] * masks[v][..., None]
            axes[v, 1 + 2 * p].imshow(flow_colours(flow, largest))
            bare(axes[v, 1 + 2 * p], phase)
            arrows = axes[v, 2 + 2 * p]
            arrows.imshow(frames[moments[1], v], alpha=0.45)
            _draw_arrows(arrows, flow, largest, CLASS_COLOURS[3])
            bare(arrows, f"{phase}, arrows")
    colour_wheel(axes[0, 5], largest)
    for axis in axes[1:, 5]:
        bare(axis)
    figure.suptitle(title, fontsize=11)
    return figure


def _draw_arrows(axis: plt.Axes, flow: np.ndarray, largest: float, colour: str, across: int = 24) -> None:
    """Arrows over a picture of flow (H, W, 2) px, `across` a side, where it moves by a tenth of `largest` or more."""
    step = max(flow.shape[0] // across, 1)
    rows, columns = np.mgrid[step // 2 : flow.shape[0] : step, step // 2 : flow.shape[1] : step].reshape(2, -1)
    u, v = flow[rows, columns].T
    moves = np.hypot(u, v) > largest / 10
    scale = largest * across / 1.6  # the largest reaches over 1.6 of their distances
    axis.quiver(columns[moves], rows[moves], u[moves], -v[moves], angles="uv", scale=scale, width=0.006, color=colour)


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


def motion_curves(curves: dict[str, np.ndarray], found: pd.Series, known: pd.Series) -> Figure:
    """Motion against the onset over time, one panel per clip, with the apex found and that of the data.

    known: the latter by Id, of the clips whose data tell it.
    """
    columns = 4
    rows = -(-len(curves) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(12, 2.1 * rows), layout="constrained", squeeze=False)
    for axis, (id, curve) in zip(axes.ravel(), curves.items(), strict=False):
        axis.plot(curve, color="black", lw=1.3)
        axis.axvline(found[id], color=CLASS_COLOURS[0], lw=2, label="found apex")
        if id in known:
            axis.axvline(known[id], color=CLASS_COLOURS[3], ls="--", lw=2, label="apex of the data")
        axis.set_title(id, fontsize=9)
        axis.set_ylim(0)
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes.ravel()[len(curves) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("motion, px (sum of the views)", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("frame")
    axes[0, 0].legend(fontsize=7)
    return figure


def mean_flow(samples) -> Figure:
    """Mean onset-to-apex flow of the clips of each class, in every view, as colours on one scale.

    Lids move far more than the rest: the scale ends at the hundredth that moves most, so that the rest is seen.
    """
    n_views = samples.x.shape[1]
    figure, axes = plt.subplots(
        n_views,
        len(samples.classes) + 1,
        figsize=(11, 1.9 * n_views + 0.4),
        squeeze=False,
        layout="constrained",
        width_ratios=[1] * len(samples.classes) + [0.7],
    )
    weights = samples.y / np.maximum(samples.y.sum(0), 1)  # (N, K); a class without clips has no flow
    chosen = np.moveaxis(np.einsum("nk,nvchw->kvchw", weights, samples.x[:, :, 0, :2]), 2, -1)
    largest = max(float(np.quantile(np.linalg.norm(chosen, axis=-1), 0.99)), 1e-6)
    for k, name in enumerate(samples.classes):
        for v in range(n_views):
            axes[v, k].imshow(flow_colours(chosen[k][v], largest))
            bare(axes[v, k], f"{name} ({int(samples.y[:, k].sum())} clips)" if v == 0 else "")
    for v in range(n_views):
        axes[v, 0].set_ylabel(VIEW_NAMES[n_views][v], fontsize=9)
        bare(axes[v, -1])
    colour_wheel(axes[0, -1], largest)
    return figure


def overview(
    sequence,
    views: Views,
    moments: Many[int],
    flows: np.ndarray,
    weights: np.ndarray,
    streams: Many[str],
    probability: np.ndarray,
    classes: Many[str],
) -> Figure:
    """The method in one picture: mesh, views, both phase flows of each, attention of the streams, probabilities.

    flows (V, P, S, S, 2) px; weights (S,) of one clip; probability (K,).
    """
    frame, names = sequence.frame(moments[1]), VIEW_NAMES[len(flows)]
    sources = ["mesh", "texture"] if frame.vertices is not None else ["texture"] * 2
    middle = [[name, f"{name} 0", f"{name} 1"] for name in (names * 2)[:2]]
    rows = [[source, *row, last] for source, row, last in zip(sources, middle, ("weights", "answer"), strict=True)]
    figure = plt.figure(figsize=(12, 5), layout="constrained")
    axes = figure.subplot_mosaic(rows, width_ratios=(1.2, 1, 1, 1, 0.9))
    if frame.vertices is not None:
        _draw_mesh(axes["mesh"], _turned(frame, views))
    axes["texture"].imshow(frame.texture)
    bare(axes["texture"], "its picture" if frame.vertices is None else "its texture")
    shown = flows * views.masks[:, None, ..., None]
    moving = np.linalg.norm(shown, axis=-1)[shown.any(-1)]
    largest = float(np.quantile(moving, 0.98)) if len(moving) else 1.0  # lids move more
    for v, name in enumerate(names):
        axes[name].imshow(views.frames[moments[1], v])
        bare(axes[name], f"{name}, apex")
        for p, phase in enumerate(PHASE_NAMES):
            axis = axes[f"{name} {p}"]
            axis.imshow(flow_colours(shown[v, p], largest))
            _draw_arrows(axis, shown[v, p], largest, "white", across=16)
            bare(axis, f"flow, {phase}" if v == 0 else "")
    axes[f"{names[-1]} 0"].set_xlabel(f"full brightness: {largest:.1f} px or more", fontsize=11)
    share_bars(axes["weights"], streams, weights, STREAM_COLOURS, "attention")
    share_bars(axes["answer"], classes, probability, CLASS_COLOURS, "probability")
    for axis in axes.values():
        axis.title.set_fontsize(11)
    return figure


def prediction(
    views: Views,
    moments: Many[int],
    curve: np.ndarray,
    flows: np.ndarray,
    answers: pd.DataFrame,
    units: pd.Series,
    title: str = "",
) -> Figure:
    """What one clip shows: its motion with the moments, probabilities, and its views with the flow of both phases.

    curve (T,), flows (V, P, S, S, 2), both px; answers: index class, or what to call it, columns probability and
    threshold; units: probability by name, those to be shown.
    """
    n_views = len(flows)
    figure = plt.figure(figsize=(13, 3.6 + 2.4 * n_views), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(3, 2.4 * n_views))
    motion, classes, muscles = top.subplots(1, 3, width_ratios=(1.3, 1, 1))
    draw_moments(motion, curve, moments)
    share_bars(classes, answers.index, answers["probability"], CLASS_COLOURS, "probability (line: threshold)")
    classes.plot(answers["threshold"], range(len(answers)), "k|", ms=16, mew=2)
    share_bars(muscles, units.index, units, [CLASS_COLOURS[4]] * len(units), "action units")
    largest = largest_motion(flows, views.masks)
    grid = bottom.subplots(n_views, 6, width_ratios=(1, 1, 1, 1, 1, 0.6), squeeze=False)
    for v, name in enumerate(VIEW_NAMES[n_views]):
        for axis, word, t in zip(grid[v], PHASE_COLUMNS, moments, strict=False):
            axis.imshow(views.frames[t, v])
            bare(axis, f"{word} (frame {t})" if v == 0 else "")
        for axis, phase, t, flow in zip(grid[v, 3:], PHASE_NAMES, moments, flows[v], strict=False):
            axis.imshow(flow_on_face(views.frames[t, v], flow * views.masks[v][..., None], largest))
            bare(axis, phase if v == 0 else "")
        grid[v, 0].set_ylabel(name, fontsize=9)
        bare(grid[v, 5])
    colour_wheel(grid[0, 5], largest)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_moments(axis: plt.Axes, curve: np.ndarray, moments: Many[int]) -> None:
    """Motion against the onset over time, with onset, apex and offset."""
    axis.plot(curve, color="black", lw=1.3)
    for word, t, style in zip(PHASE_COLUMNS, moments, (":", "-", "--"), strict=True):
        axis.axvline(t, color=CLASS_COLOURS[0], ls=style, lw=2, label=f"{word} {t}")
    axis.set(xlabel="frame", ylabel="motion, px (sum of the views)")
    axis.set_ylim(0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8)


def share_bars(axis: plt.Axes, names: Many[str], values: np.ndarray, colours: Many[str], title: str) -> None:
    """Bars from 0 to 1, the first on top."""
    axis.barh(names, values, color=colours[: len(names)])
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xticks=(0, 0.5, 1), title=title)
    axis.tick_params(labelsize=11)
    axis.spines[["top", "right"]].set_visible(False)


# Training and scores ------------------------------------------------------------------------------------------------


def learning_curves(fitted) -> Figure:
    """Training and validation loss of every member network; the dot marks the epoch that was kept."""
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for number, member in enumerate(fitted.members):
        history = pd.DataFrame(member.history)
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        axis.plot(history["epoch"], history["train_loss"], color=colour, lw=1, ls=":")
        axis.plot(history["epoch"], history["val_loss"], color=colour, lw=1.6, label=f"inner fold {number + 1}")
        kept = history[history["epoch"] == member.epoch]
        axis.plot(kept["epoch"], kept["val_loss"], "o", color=colour)
    axis.set(xlabel="epoch", ylabel="loss (dotted: of training, all its terms)", title="learning curves")
    axis.legend(fontsize=8)
    return figure


def class_scores(oof: OutOfFold) -> Figure:
    """F1 per class and macro-UF1, with 95% intervals by bootstrap over subjects."""
    names = [*oof.classes, "macro-UF1"]
    spans = [interval(oof, f"f1:{name}") for name in oof.classes] + [interval(oof)]
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    _bars(axis, names, spans, [*CLASS_COLOURS[: len(oof.classes)], "white"])
    axis.set(ylabel="F1 of the positive class", ylim=(0, 1), title="held-out subjects, 95% intervals")
    return figure


def calibration(oof: OutOfFold) -> Figure:
    """Reliability curve over all clip-label pairs of held-out subjects, all seeds together, with its ECE."""
    table = reliability(np.concatenate([oof.truth] * len(oof.seeds)), np.concatenate(list(oof.probability)))
    figure, (curve, counts) = plt.subplots(
        2, 1, figsize=(4.6, 4.8), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    curve.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="perfect")
    curve.plot(table["predicted"], table["observed"], "o-", color=CLASS_COLOURS[0], label="ours")
    curve.set(ylabel="share of labels that hold", ylim=(0, 1), title=f"ECE {pooled_score(oof)['ece']:.3f}")
    curve.legend(fontsize=8)
    counts.bar(table["low"], table["count"], width=table["high"] - table["low"], align="edge", color=GREY)
    counts.set(xlabel="predicted probability", ylabel="pairs", yscale="log", xlim=(0, 1))
    counts.set_ylim(0.5)
    counts.yaxis.set_minor_formatter("")
    return figure


def _bars(axis: plt.Axes, names: Many[str], spans: Many[Interval], colours: Many[str]) -> None:
    values = np.array([span.value for span in spans])
    reach = np.array([[span.value - span.low, span.high - span.value] for span in spans]).T.clip(0)
    labels = [f"{name}\n{value:.2f}" for name, value in zip(names, values, strict=True)]
    axis.bar(labels, values, yerr=reach, capsize=4, color=colours, edgecolor="black", linewidth=0.8, alpha=0.85)


def confusion_per_label(oof: OutOfFold) -> Figure:
    """One two by two table per class: clips by truth and decision, mean over the seeds."""
    counts = np.mean([confusion_counts(oof.truth, decision) for decision in oof.decision], axis=0)
    figure, axes = plt.subplots(1, len(oof.classes), figsize=(2.3 * len(oof.classes), 2.5), layout="constrained")
    for k, axis in enumerate(axes):
        tp, fp, fn, tn = counts[k]
        sns.heatmap(
            [[tp, fn], [fp, tn]],
            annot=True,
            fmt=".0f",
            cmap="Blues",
            cbar=False,
            ax=axis,
            vmin=0,
            vmax=counts.max(),
            xticklabels=["yes", "no"],
            yticklabels=["yes", "no"],
        )
        axis.set(title=oof.classes[k], xlabel="decided", ylabel="true" if k == 0 else "")
    return figure


def attention_by_class(weights: np.ndarray, y: np.ndarray, classes: Many[str], streams: Many[str]) -> Figure:
    """Fusion attention weights (N, S) of the clips of each class: boxes over clips; the dashed line is uniform."""
    rows = [
        {"class": classes[k], "stream": stream, "weight": weight}
        for k in range(len(classes))
        for row in weights[y[:, k] > 0]
        for stream, weight in zip(streams, row, strict=True)
    ]
    figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
    sns.boxplot(
        pd.DataFrame(rows),
        x="class",
        y="weight",
        hue="stream",
        ax=axis,
        fliersize=2,
        palette=STREAM_COLOURS[: len(streams)],
    )
    axis.axhline(1 / len(streams), color=GREY, ls="--", lw=1)
    sns.move_legend(axis, "upper left", bbox_to_anchor=(1, 1))
    axis.set(xlabel="", ylabel="attention weight (sums to 1)", title="which stream is listened to, held-out clips")
    return figure


def saliency_on_face(maps: np.ndarray, face: np.ndarray, classes: Many[str]) -> Figure:
    """Mean saliency per class and view over a face: maps (K, V, S, S) >= 0, face (V, H, W, 3) uint8; one scale."""
    figure, axes = plt.subplots(
        maps.shape[1],
        len(classes),
        figsize=(2.1 * len(classes), 2.2 * maps.shape[1]),
        layout="constrained",
        squeeze=False,
    )
    size = face.shape[1]
    for k, name in enumerate(classes):
        for v in range(maps.shape[1]):
            axes[v, k].imshow(face[v].mean(-1), cmap="gray")
            strength = cv2.resize(maps[k, v], (size, size), interpolation=cv2.INTER_CUBIC) / max(maps.max(), 1e-12)
            axes[v, k].imshow(strength, cmap="inferno", alpha=strength.clip(0, 0.5) ** 0.5, vmin=0, vmax=1)
            bare(axes[v, k], (name if maps[k].any() else f"{name} (no clip)") if v == 0 else "")
    for v in range(maps.shape[1]):
        axes[v, 0].set_ylabel(VIEW_NAMES[maps.shape[1]][v], fontsize=9)
    return figure


def unit_precisions(table: pd.DataFrame) -> Figure:
    """Average precision of each action unit with its interval, beside its prevalence (`explain.unit_scores`)."""
    rows = np.arange(len(table))[::-1]
    figure, axis = plt.subplots(figsize=(8, 0.27 * len(table) + 1.2), layout="constrained")
    reach = np.stack([table["average_precision"] - table["low"], table["high"] - table["average_precision"]]).clip(0)
    axis.errorbar(
        table["average_precision"],
        rows,
        xerr=reach,
        fmt="o",
        color=CLASS_COLOURS[3],
        capsize=3,
        ms=5,
        lw=1.2,
        label="average precision, 95% interval by subject",
    )
    axis.plot(table["prevalence"], rows, "|", color=CLASS_COLOURS[0], ms=11, mew=2.5, label="a guess (share of clips)")
    names = [f"{row.name} ({row.clips})  {au}" for au, row in zip(table.index, table.itertuples(), strict=True)]
    axis.set(
        yticks=rows, yticklabels=names, xlim=(0, 1.02), xlabel="average precision (in brackets: clips with the unit)"
    )
    axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return figure


def unit_evidence(evidence, names: Mapping[str, str], title: str = "", truth: pd.DataFrame | None = None) -> Figure:
    """Which action units move in a clip, where and when: an `utils.experiments.explain.UnitEvidence`.

    names: by AU; truth: `load_truth`, which has the clip as a row, where it is known.
    """
    colours = dict(zip(evidence.shown, UNIT_COLOURS, strict=False))
    truth = None if truth is None else truth.loc[evidence.id]
    figure = plt.figure(figsize=(15, 5.4), layout="constrained")
    which, where, when = figure.subfigures(1, 3, width_ratios=(1.15, 1, 1.15))
    _which_units(which.subplots(), evidence.units[::-1], names, colours, truth)
    _where_units(where, evidence, names, colours)
    _when_units(when.subplots(), evidence, colours, truth)
    figure.suptitle(title, fontsize=11)
    return figure


def _which_units(axis: plt.Axes, units: pd.Series, names: Mapping[str, str], colours: Mapping[str, str], truth) -> None:
    labels = [f"{names[au]}  {au}" for au in units.index]
    axis.barh(labels, units, color=[colours.get(au, CLASS_COLOURS[4]) for au in units.index])
    if truth is not None:
        moved = [row for row, au in enumerate(units.index) if truth[au] > 0]
        axis.plot([1.03] * len(moved), moved, "k<", ms=7, clip_on=False, label="truly moved")
        axis.legend(fontsize=8, loc="lower right")
    axis.set(xlim=(0, 1), xlabel="probability", title="which muscles moved (coloured: named)")
    axis.margins(y=0.01)


def _where_units(panel, evidence, names: Mapping[str, str], colours: Mapping[str, str]) -> None:
    """A row per unit, a column per view: the unit's colour over the face, full where motion speaks most for it."""
    n_views, size = evidence.face.shape[:2]
    axes = panel.subplots(len(evidence.shown), n_views, squeeze=False)
    for row, au, maps in zip(axes, evidence.shown, evidence.maps, strict=True):
        blurred = [cv2.GaussianBlur(view, (0, 0), 1) for view in maps]  # gradients are ragged from pixel to pixel
        smooth = np.array([cv2.resize(view, (size, size), interpolation=cv2.INTER_CUBIC).clip(0) for view in blurred])
        for v in range(n_views):
            tint = np.full((size, size, 4), to_rgba(colours[au]))
            tint[..., 3] = smooth[v] / max(smooth.max(), 1e-12)
            row[v].imshow(evidence.face[v].mean(-1), cmap="gray")
            row[v].imshow(tint)
            bare(row[v], VIEW_NAMES[n_views][v] if au == evidence.shown[0] else "")
        row[0].set_ylabel(f"{au}\n{names[au]}", fontsize=9, color=colours[au])
    panel.suptitle("where motion speaks for them", fontsize=12)


def _when_units(axis: plt.Axes, evidence, colours: Mapping[str, str], truth) -> None:
    axis.axvline(evidence.apex, color="#CCCCCC", lw=5, label="found apex")
    if truth is not None:
        axis.axvline(truth["apex"], color="black", lw=1.5, ls=":", label="true apex")
    for au, marker in zip(evidence.shown, "osD", strict=False):
        axis.plot(evidence.course[au], marker=marker, ms=4, color=colours[au], label=au)
    axis.set(ylim=(0, 1.02), xlabel=f"frame ({evidence.fps:g} a second)", ylabel="probability")
    axis.set_title("when: each frame taken as the apex")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=5, frameon=False)


def forest(table: pd.DataFrame, reference: str, title: str = "") -> Figure:
    """Variants against the reference: left, macro-UF1 with its interval; right, the paired difference with its.

    table: index variant; columns macro_uf1, low, high, difference, difference_low, difference_high.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.32 * len(table) + 1.4), sharey=True, layout="constrained")
    rows = np.arange(len(table))[::-1]
    for axis, (value, low, high) in (
        (left, ("macro_uf1", "low", "high")),
        (right, ("difference", "difference_low", "difference_high")),
    ):
        reach = np.stack([table[value] - table[low], table[high] - table[value]]).clip(0)
        colours = [CLASS_COLOURS[0] if name == reference else "black" for name in table.index]
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
