"""The figure that `make predict` writes."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils.dataset.labels import MOMENT_COLUMNS
from utils.render.view_set import Views
from utils.report.figures.common import PHASE_NAMES, VIEW_NAMES, answer_bars, bare
from utils.report.figures.flow import colour_wheel, draw_moments, flow_on_face, largest_motion


def prediction(
    views: Views,
    moments: Sequence[int],
    curve: np.ndarray,
    flows: np.ndarray,
    answers: pd.DataFrame,
    units: pd.Series,
    title: str,
) -> Figure:
    """The answer to one clip: motion curve and moments, probabilities, and its views with the flow of both phases.

    curve (T,) px and flows (V, P, S, S, 2) px; answers: index label of the class, columns probability and threshold;
    units: probability by label of the action unit, only those to be drawn.
    """
    n_views = len(flows)
    figure = plt.figure(figsize=(13, 3.6 + 2.4 * n_views), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(3, 2.4 * n_views))
    motion, classes, muscles = top.subplots(1, 3, width_ratios=(1.3, 1, 1))
    draw_moments(motion, curve, moments)
    answer_bars(classes, muscles, answers, units, "probability (line: threshold)")
    largest = largest_motion(flows, views.masks)
    grid = bottom.subplots(n_views, 6, width_ratios=(1, 1, 1, 1, 1, 0.6), squeeze=False)
    for v, name in enumerate(VIEW_NAMES[n_views]):
        for axis, moment, t in zip(grid[v], MOMENT_COLUMNS, moments, strict=False):
            axis.imshow(views.frames[t, v])
            bare(axis, f"{moment} (frame {t})" if v == 0 else "")
        for axis, phase, t, flow in zip(grid[v, 3:], PHASE_NAMES, moments, flows[v], strict=False):
            axis.imshow(flow_on_face(views.frames[t, v], flow * views.masks[v][..., None], largest))
            bare(axis, phase if v == 0 else "")
        grid[v, 0].set_ylabel(name, fontsize=9)
        bare(grid[v, 5])
    colour_wheel(grid[0, 5], largest)
    figure.suptitle(title, fontsize=11)
    return figure
