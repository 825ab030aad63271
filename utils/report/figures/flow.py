"""Figures of 02_flow_apex: flow in colours and arrows, motion over time."""

from collections.abc import Sequence as Many

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils.dataset.labels import MOMENT_COLUMNS
from utils.report.figures.common import CLASS_COLOURS, PHASE_NAMES, VIEW_NAMES, bare

FLOW_COVER = 0.8  # of the picture at most, by flow in colour over it


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
            draw_arrows(arrows, flow, largest, CLASS_COLOURS[3])
            bare(arrows, f"{phase}, arrows")
    colour_wheel(axes[0, 5], largest)
    for axis in axes[1:, 5]:
        bare(axis)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_arrows(axis: plt.Axes, flow: np.ndarray, largest: float, colour: str, across: int = 24) -> None:
    """Arrows over a picture of flow (H, W, 2) px, `across` a side, where it moves by a tenth of `largest` or more."""
    step = max(flow.shape[0] // across, 1)
    rows, columns = np.mgrid[step // 2 : flow.shape[0] : step, step // 2 : flow.shape[1] : step].reshape(2, -1)
    u, v = flow[rows, columns].T
    moves = np.hypot(u, v) > largest / 10
    scale = largest * across / 1.6  # the largest reaches over 1.6 of their distances
    axis.quiver(columns[moves], rows[moves], u[moves], -v[moves], angles="uv", scale=scale, width=0.006, color=colour)


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


def draw_moments(axis: plt.Axes, curve: np.ndarray, moments: Many[int]) -> None:
    """Motion against the onset over time, with onset, apex and offset."""
    axis.plot(curve, color="black", lw=1.3)
    for word, t, style in zip(MOMENT_COLUMNS, moments, (":", "-", "--"), strict=True):
        axis.axvline(t, color=CLASS_COLOURS[0], ls=style, lw=2, label=f"{word} {t}")
    axis.set(xlabel="frame", ylabel="motion, px (sum of the views)")
    axis.set_ylim(0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8)
