"""A clip under one's own hands: pick it, go through its frames, choose what is shown of them.

In a notebook's front end `frames`, `flow` and `answers` (notebooks 01, 02 and 03) are controls beside a picture that
follows them. A kernel without a front end, as in a run, has nobody to move controls (`utils.progress.in_notebook`
tells, by a variable that `utils.run` sets), and shows the picture of the first choice alone, the same in every run.
"""

import io
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import Image
from matplotlib.figure import Figure, SubFigure

from utils.dataset.labels import MOMENT_COLUMNS
from utils.evaluate.protocol import OutOfFold
from utils.flow.features import Moments
from utils.flow.methods import FLOW_METHODS, estimate_flows
from utils.progress import in_notebook
from utils.render.view_set import Views
from utils.report.figures.common import CLASS_COLOURS, PHASE_NAMES, VIEW_NAMES, bare, share_bars
from utils.report.figures.flow import draw_moments, flow_on_face, largest_motion

BOTH = "all views"
CHANNELS = ("picture", "flow over picture", "u", "v", "magnitude")
SHOWN_UNITS = 8  # most probable action units
CLIPS, FLOWS = 4, 48  # kept of what was read and computed last: some 15 MB a clip, 1 MB a flow


@dataclass(frozen=True)
class Choice:
    """What is looked at."""

    id: str
    frame: int
    view: str = BOTH
    channel: str = CHANNELS[1]
    phase: str = PHASE_NAMES[0]  # it tells from which moment on flow is counted
    method: str = "faceflow"


class Clips:
    """What the stages left of clips, by Id, and flows between their frames: made when asked for, the last ones kept.

    jobs: by Id, with `views()` and `features()` as `utils.pipeline.Job` has them.
    """

    def __init__(self, jobs: Mapping):
        self.views: Callable[[str], Views] = lru_cache(CLIPS)(lambda id: jobs[id].views())
        self.features: Callable[[str], Mapping[str, np.ndarray]] = lru_cache(CLIPS)(lambda id: jobs[id].features())
        self.flow = lru_cache(FLOWS)(self._flow)

    def moments(self, id: str) -> Moments:
        return tuple(self.features(id)["moments"].tolist())

    def shown_flow(self, choice: Choice) -> np.ndarray:
        """Flow (V, S, S, 2) px from the start of the chosen phase to the chosen frame."""
        start = self.moments(choice.id)[PHASE_NAMES.index(choice.phase)]
        return self.flow(choice.id, start, choice.frame, choice.method)

    def largest(self, choice: Choice) -> float:
        """Where the colours of a clip end, px: one scale for its frames and both phases, by its flow at the apex."""
        onset, apex, _ = self.moments(choice.id)
        flows = self.flow(choice.id, onset, apex, choice.method)
        return largest_motion(flows[:, None], self.views(choice.id).masks)

    def _flow(self, id: str, start: int, frame: int, method: str) -> np.ndarray:
        views = self.views(id)
        pairs = list(zip(views.frames[start], views.frames[frame], strict=True))
        flows = estimate_flows(pairs, method, None if views.stabilised else list(views.masks))
        return flows * views.masks[..., None]


# What is drawn ------------------------------------------------------------------------------------------------------


def draw_frames(clips: Clips, choice: Choice) -> Figure:
    """01: the frame in every view."""
    views = clips.views(choice.id)
    figure = Figure(figsize=(3.4 * views.frames.shape[1], 3.8), layout="constrained")
    _draw_views(figure, clips, replace(choice, channel="picture"))
    _name(figure, clips, choice)
    return figure


def draw_flow(clips: Clips, choice: Choice) -> Figure:
    """02: the frame, or its flow, in the chosen views, and the motion of the clip with its moments."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    _draw_views(left, clips, choice)
    _draw_curve(right.subplots(), clips, choice)
    _name(figure, clips, choice)
    return figure


def draw_answers(
    clips: Clips, choice: Choice, answers: Callable[[str], pd.DataFrame], units: Callable[[str], pd.Series]
) -> Figure:
    """03: the same over the probabilities of the emotions (see `held_out_answers`) and of the action units."""
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    left, right = top.subfigures(1, 2, width_ratios=(1.7, 1))
    _draw_views(left, clips, choice)
    _draw_curve(right.subplots(), clips, choice)
    classes, muscles = bottom.subplots(1, 2)
    table, probable = answers(choice.id), units(choice.id).nlargest(SHOWN_UNITS)
    title = "held-out probability (line: threshold; *: true)"
    share_bars(classes, table.index, table["probability"], CLASS_COLOURS, title)
    classes.plot(table["threshold"], range(len(table)), "k|", ms=16, mew=2)
    share_bars(muscles, probable.index, probable, [CLASS_COLOURS[4]] * SHOWN_UNITS, "action units")
    _name(figure, clips, choice)
    return figure


def held_out_answers(oof: OutOfFold, id: str) -> pd.DataFrame:
    """Probability and threshold of each class for a clip, means over the seeds, by networks that never saw its person;
    in the index a star marks the classes that it carries."""
    [row] = np.flatnonzero(oof.ids == id)
    names = [f"{name} *" if true else name for name, true in zip(oof.classes, oof.truth[row], strict=True)]
    columns = {
        "probability": oof.probability[:, row].mean(0),
        "threshold": oof.thresholds[:, oof.fold[row]].mean(0),
    }
    return pd.DataFrame(columns, index=names)


def _draw_views(figure: Figure | SubFigure, clips: Clips, choice: Choice) -> None:
    """A panel for each chosen view, with the frame or its flow in the chosen channel."""
    views = clips.views(choice.id)
    names = VIEW_NAMES[views.frames.shape[1]]
    chosen = [v for v, name in enumerate(names) if choice.view in (BOTH, name)]
    axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    for axis, v in zip(axes, chosen, strict=True):
        bare(axis, names[v])
        if choice.channel == "picture":
            axis.imshow(views.frames[choice.frame, v])
            continue
        flow, largest = clips.shown_flow(choice)[v], clips.largest(choice)
        if choice.channel == "flow over picture":
            axis.imshow(flow_on_face(views.frames[choice.frame, v], flow, largest))
        elif choice.channel == "magnitude":
            shown = axis.imshow(np.linalg.norm(flow, axis=-1), cmap="viridis", vmin=0, vmax=largest)
        else:
            shown = axis.imshow(flow[..., ("u", "v").index(choice.channel)], cmap="RdBu_r", vmin=-largest, vmax=largest)
    if choice.channel in CHANNELS[2:]:
        figure.colorbar(shown, ax=axes, shrink=0.7, label=f"{choice.channel}, px")


def _draw_curve(axis, clips: Clips, choice: Choice) -> None:
    curve, moments = clips.features(choice.id)["curve"], clips.moments(choice.id)
    draw_moments(axis, curve, moments)
    axis.plot(choice.frame, curve[choice.frame], "o", color=CLASS_COLOURS[3], ms=9)


def _name(figure: Figure, clips: Clips, choice: Choice) -> None:
    figure.suptitle(f"{choice.id}, frame {choice.frame} of 0 to {len(clips.views(choice.id).frames) - 1}", fontsize=11)


# What is chosen -----------------------------------------------------------------------------------------------------


def frames(jobs: Mapping, ids: Many[str]) -> widgets.Widget | Image:
    """01: the views of these clips, from their first frame on."""
    clips = Clips(jobs)
    return viewer(partial(draw_frames, clips), clips, Choice(ids[0], 0), {"id": ids}, lambda id: 0)


def flow(jobs: Mapping, ids: Many[str], method: str) -> widgets.Widget | Image:
    """02: the flow and the motion of these clips, each from its apex on, at first by this method."""
    clips = Clips(jobs)
    return viewer(partial(draw_flow, clips), clips, *_of_flow(clips, ids, method))


def answers(jobs: Mapping, oof: OutOfFold, units: pd.DataFrame, method: str) -> widgets.Widget | Image:
    """03: beside them what the networks say of held-out clips; units: probability by Id (index) and name of the unit
    (columns)."""
    clips = Clips(jobs)
    said = {"answers": partial(held_out_answers, oof), "units": lambda id: units.loc[id]}
    return viewer(partial(draw_answers, clips, **said), clips, *_of_flow(clips, list(oof.ids), method))


def _of_flow(clips: Clips, ids: Many[str], method: str) -> tuple[Choice, dict[str, Many[str]], Callable[[str], int]]:
    """The first choice, the options of each control, and at which frame a clip is met."""
    options = {
        "id": ids,
        "view": (BOTH, *VIEW_NAMES[clips.views(ids[0]).frames.shape[1]]),
        "channel": CHANNELS,
        "phase": PHASE_NAMES,
        "method": tuple(FLOW_METHODS),
    }
    at = MOMENT_COLUMNS.index("apex")
    return Choice(ids[0], clips.moments(ids[0])[at], method=method), options, lambda id: clips.moments(id)[at]


def viewer(
    draw: Callable[[Choice], Figure],
    clips: Clips,
    first: Choice,
    options: Mapping[str, Many[str]],
    first_frame: Callable[[str], int],
) -> widgets.Widget | Image:
    """Controls and the picture that follows them, or the first picture alone where there is no front end."""
    return controls(draw, clips, first, options, first_frame) if in_notebook() else Image(png(draw(first)))


def controls(
    draw: Callable[[Choice], Figure],
    clips: Clips,
    first: Choice,
    options: Mapping[str, Many[str]],
    first_frame: Callable[[str], int],
) -> widgets.VBox:
    """A dropdown for each of `options`, by the field of Choice that it sets, a slider over the frames, and the picture
    that `draw` makes of the choice."""
    chosen = {
        name: widgets.Dropdown(options=list(values), value=getattr(first, name), description=name)
        for name, values in options.items()
    }
    last = len(clips.views(first.id).frames) - 1
    chosen["frame"] = widgets.IntSlider(first.frame, 0, last, description="frame")
    picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", object_fit="contain"))

    def show(_) -> None:
        picture.value = png(draw(replace(first, **{name: one.value for name, one in chosen.items()})))

    def other_clip(change) -> None:
        frame, start = chosen["frame"], first_frame(change["new"])
        frame.unobserve(show, "value")  # one picture of the other clip, and none of a frame that it may lack
        frame.max = len(clips.views(change["new"]).frames) - 1
        frame.value = start
        frame.observe(show, "value")

    chosen["id"].observe(other_clip, "value")
    for one in chosen.values():
        one.observe(show, "value")
    show(None)
    return widgets.VBox([widgets.Box(list(chosen.values()), layout=widgets.Layout(flex_flow="row wrap")), picture])


def png(figure: Figure) -> bytes:
    """A figure as PNG, 100 dpi, the same bytes for the same figure."""
    out = io.BytesIO()
    figure.savefig(out, dpi=100, metadata={"Software": None})
    return out.getvalue()
