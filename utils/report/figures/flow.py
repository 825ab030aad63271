"""Figures of 02_flow_apex: flow as colours and as arrows, and motion over time."""

from collections.abc import Mapping, Sequence

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils.dataset.labels import MOMENT_COLUMNS
from utils.report.figures.common import CLASS_COLOURS, PHASE_NAMES, VIEW_NAMES, bare
from utils.train.samples import Samples

FLOW_COVER = 0.8  # opacity of the flow colours over a picture, at the largest motion


def flow_colours(flow: np.ndarray, largest: float) -> np.ndarray:
    """Flow (H, W, 2) px as RGB (H, W, 3) uint8: hue is the direction, brightness the magnitude over `largest`."""
    angle = np.degrees(np.arctan2(flow[..., 1], flow[..., 0])) % 360
    strength = np.clip(np.linalg.norm(flow, axis=-1) / max(largest, 1e-6), 0, 1)
    hsv = np.stack([angle / 2, np.full_like(angle, 255), strength * 255], -1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def flow_on_face(picture: np.ndarray, flow: np.ndarray, largest: float) -> np.ndarray:
    """A picture (H, W, 3) uint8 with a flow (H, W, 2) px in colour over it, more opaque where it is faster."""
    cover = np.clip(np.linalg.norm(flow, axis=-1, keepdims=True) / largest, 0, 1) * FLOW_COVER
    colours = flow_colours(flow, largest=0)  # full brightness everywhere
    return np.rint(picture * (1 - cover) + colours * cover).astype(np.uint8)


def largest_motion(flows: np.ndarray, masks: np.ndarray) -> float:
    """The motion, px, that gets full colour: the 99.5% quantile of flows (V, P, S, S, 2) within masks (V, S, S)."""
    magnitude = np.linalg.norm(flows, axis=-1) * masks[:, None]
    return float(np.quantile(magnitude[magnitude > 0], 0.995)) if magnitude.any() else 1.0


def flow_wheel(size: int = 101) -> np.ndarray:
    """A disc (size, size, 3) uint8 with the colour of each direction of motion from its centre; white outside."""
    ys, xs = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    wheel = flow_colours(np.stack([xs, ys], -1), 1)
    wheel[np.hypot(xs, ys) > 1] = 255
    return wheel


def colour_wheel(axis: plt.Axes, largest: float) -> None:
    """The legend of `flow_colours`."""
    axis.imshow(flow_wheel())
    bare(axis, f"direction of motion\nrim: {largest:.2f} px or more")


def draw_arrows(axis: plt.Axes, flow: np.ndarray, largest: float, colour: str, across: int = 24) -> None:
    """Arrows of a flow (H, W, 2) px on a grid of `across` per side, where it is more than a tenth of `largest`."""
    step = max(flow.shape[0] // across, 1)
    rows, columns = np.mgrid[step // 2 : flow.shape[0] : step, step // 2 : flow.shape[1] : step].reshape(2, -1)
    u, v = flow[rows, columns].T
    moves = np.hypot(u, v) > largest / 10
    scale = largest * across / 1.6  # an arrow of the largest motion is 1.6 grid steps long
    axis.quiver(columns[moves], rows[moves], u[moves], -v[moves], angles="uv", scale=scale, width=0.006, color=colour)


def motion_curves(curves: Mapping[str, np.ndarray], spotted: pd.Series, true: pd.Series) -> Figure:
    """A panel per clip: motion since the onset, spotted apex, and true apex if the data tell it; all are by Id."""
    columns = 4
    rows = -(-len(curves) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(12, 2.1 * rows), layout="constrained", squeeze=False)
    for axis, (id, curve) in zip(axes.ravel(), curves.items(), strict=False):
        _draw_curve(axis, curve)
        axis.axvline(spotted[id], color=CLASS_COLOURS[0], lw=2, label="found apex")
        if id in true:
            axis.axvline(true[id], color=CLASS_COLOURS[3], ls="--", lw=2, label="apex of the data")
        axis.set_title(id, fontsize=9)
    for axis in axes.ravel()[len(curves) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("motion, px (sum of the views)", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("frame")
    axes[0, 0].legend(fontsize=7)
    return figure


def draw_moments(axis: plt.Axes, curve: np.ndarray, moments: Sequence[int]) -> None:
    """Motion since the onset over time, with onset, apex and offset."""
    _draw_curve(axis, curve)
    for name, t, style in zip(MOMENT_COLUMNS, moments, (":", "-", "--"), strict=True):
        axis.axvline(t, color=CLASS_COLOURS[0], ls=style, lw=2, label=f"{name} {t}")
    axis.set(xlabel="frame", ylabel="motion, px (sum of the views)")
    axis.legend(fontsize=8)


def _draw_curve(axis: plt.Axes, curve: np.ndarray) -> None:
    axis.plot(curve, color="black", lw=1.3)
    axis.set_ylim(0)
    axis.xaxis.get_major_locator().set_params(integer=True)


def flow_figure(frames: np.ndarray, moments: Sequence[int], flows: np.ndarray, masks: np.ndarray, title: str) -> Figure:
    """A row per view: the apex frame, then the flow of each phase as colours and as arrows, all on one scale.

    frames (T, V, S, S, 3) uint8, flows (V, P, S, S, 2) px, masks (V, S, S) bool.
    """
    n_views, size = len(flows), (13, 0.4 + 2.1 * len(flows))
    figure = plt.figure(figsize=size, layout="constrained")
    axes = figure.subplots(n_views, 6, width_ratios=(1, 1, 1, 1, 1, 0.6), squeeze=False)
    largest = largest_motion(flows, masks)
    for v, name in enumerate(VIEW_NAMES[n_views]):
        apex = frames[moments[1], v]
        axes[v, 0].imshow(apex)
        bare(axes[v, 0], f"{name}, apex (frame {moments[1]})")
        for p, phase in enumerate(PHASE_NAMES):
            flow, (colours, arrows) = flows[v, p] * masks[v][..., None], axes[v, 1 + 2 * p : 3 + 2 * p]
            colours.imshow(flow_colours(flow, largest))
            bare(colours, phase)
            arrows.imshow(apex, alpha=0.45)
            draw_arrows(arrows, flow, largest, CLASS_COLOURS[3])
            bare(arrows, f"{phase}, arrows")
        bare(axes[v, 5])
    colour_wheel(axes[0, 5], largest)
    figure.suptitle(title, fontsize=11)
    return figure


def mean_flow(samples: Samples) -> Figure:
    """Mean onset-to-apex flow of the clips of each class, in every view, as colours on one scale."""
    n_views, size = samples.x.shape[1], (11, 1.9 * samples.x.shape[1] + 0.4)
    ratios = [1] * len(samples.classes) + [0.7]
    figure = plt.figure(figsize=size, layout="constrained")
    axes = figure.subplots(n_views, len(ratios), squeeze=False, width_ratios=ratios)
    weights = samples.y / np.maximum(samples.y.sum(0), 1)  # (N, K); a class without clips gets zero flow
    means = np.moveaxis(np.einsum("nk,nvchw->kvchw", weights, samples.x[:, :, 0, :2]), 2, -1)
    largest = max(float(np.quantile(np.linalg.norm(means, axis=-1), 0.99)), 1e-6)  # the eyelids move far more
    for v, view in enumerate(VIEW_NAMES[n_views]):
        for k, name in enumerate(samples.classes):
            axes[v, k].imshow(flow_colours(means[k, v], largest))
            bare(axes[v, k], f"{name} ({int(samples.y[:, k].sum())} clips)" if v == 0 else "")
        axes[v, 0].set_ylabel(view, fontsize=9)
        bare(axes[v, -1])
    colour_wheel(axes[0, -1], largest)
    return figure
