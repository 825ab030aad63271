"""Figures of 01_render and of the data card: labels, sequences with their crops, clips of many people."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.render.view_set import Views
from utils.render.views import wide_cameras
from utils.report.figures.common import CLASS_COLOURS, GREY, VIEW_NAMES, bare
from utils.report.figures.mesh import draw_mesh, turned
from utils.synthetic.truth import CONFOUNDERS


def label_counts(table: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Left, clips per class; right, clips with each pair of classes, and on the diagonal clips with one class alone."""
    labels = table[list(classes)].to_numpy(int)
    together = labels.T @ labels
    np.fill_diagonal(together, labels[labels.sum(1) == 1].sum(0))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.bar(classes, labels.sum(0), color=CLASS_COLOURS)
    left.bar_label(left.containers[0])
    left.margins(y=0.1)  # room for the number above the tallest bar
    left.yaxis.get_major_locator().set_params(integer=True)
    left.set(ylabel="clips", title="clips per class")
    ticks = {"xticklabels": classes, "yticklabels": classes}
    sns.heatmap(together, annot=True, fmt="d", cmap="Blues", cbar=False, ax=right, **ticks)
    right.set_title("clips with both labels (diagonal: one label alone)")
    return figure


def clip_statistics(truth: pd.DataFrame) -> Figure:
    """Synthetic clips only: length, place of the apex, peak motion, and how often each confounder occurs."""
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


def contact_sheet(images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 8) -> Figure:
    """A grid of images (H, W, 3) uint8 of one shape, each with its title."""
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


def sequence_overview(sequence, views: Views, yaw_deg: float) -> Figure:
    """Above, the first frame with its crops: the mesh and its texture, or the picture. Below, the views over time."""
    n_views = views.frames.shape[1]
    figure = plt.figure(figsize=(11, 2.9 + 1.75 * n_views), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.1, 0.65 * n_views))
    frame = sequence.frame(0)
    if frame.vertices is None:
        _draw_picture(top.subplots(), frame.texture, views)
    else:
        _draw_rendering(top.subplots(1, 4, width_ratios=(1, 1, 1, 2)), turned(frame, views), views, yaw_deg)
    times = np.unique(np.linspace(0, len(sequence) - 1, 7).round().astype(int))
    grid = bottom.subplots(n_views, len(times), squeeze=False)
    for v, name in enumerate(VIEW_NAMES[n_views]):
        for axis, t in zip(grid[v], times, strict=True):
            axis.imshow(views.frames[t, v])
            bare(axis, f"frame {t}" if v == 0 else "")
        grid[v, 0].set_ylabel(name, fontsize=9)
    figure.suptitle(f"{sequence.id}: {len(sequence)} frames at {sequence.fps:g} fps", fontsize=11)
    return figure


def _draw_rendering(axes: Sequence[plt.Axes], frame, views: Views, yaw_deg: float) -> None:
    """A mesh from the front, its vertices in both uncropped views with the crops, and its texture."""
    draw_mesh(axes[0], frame)
    cameras = wide_cameras(frame.vertices, yaw_deg)
    for axis, camera, (x, y, side), name in zip(axes[1:3], cameras, views.boxes, VIEW_NAMES[2], strict=True):
        axis.plot(*camera.project(frame.vertices)[::3].T, ".", ms=0.6, color=GREY)
        axis.add_patch(Rectangle((x, y), side, side, fill=False, ec=CLASS_COLOURS[0], lw=1.5))
        axis.set(xlim=(x - 12, x + side + 12), ylim=(y + side + 12, y - 12), aspect="equal")
        bare(axis, f"{name}, yaw {camera.yaw_deg:+.0f} deg, crop")
    axes[3].imshow(frame.texture)
    bare(axes[3], "texture")


def _draw_picture(axis: plt.Axes, picture: np.ndarray, views: Views) -> None:
    """A picture that holds one view, or several side by side, with their crops."""
    height, width = picture.shape[:2]
    axis.imshow(picture)
    for v, (x, y, side) in enumerate(views.boxes):
        corner = (x + v * width / len(views.boxes) - 0.5, y - 0.5)
        axis.add_patch(Rectangle(corner, side, side, fill=False, ec=CLASS_COLOURS[0], lw=1.5))
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    bare(axis, f"first picture, {width} x {height} pixels, crop from: {views.source}")
