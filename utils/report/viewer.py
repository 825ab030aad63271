"""A viewer of clips for JupyterLab: choose a clip, a frame, and what to see of it.

`frames`, `flow` and `answers` (notebooks 01, 02 and 03) return controls and a picture that follows them. Without a
front end (`utils.progress.in_notebook`), as when `utils.run` executes the notebooks, they return only the picture of
the first choice, the same in every run.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import Image
from matplotlib.figure import Figure, SubFigure

from utils.evaluate.protocol import OutOfFold
from utils.flow.features import Moments
from utils.flow.methods import FLOW_METHODS, estimate_flows
from utils.progress import in_notebook
from utils.render.view_set import Views
from utils.report.figures.common import CLASS_COLOURS, PHASE_NAMES, VIEW_NAMES, answer_bars, bare
from utils.report.figures.flow import draw_moments, flow_on_face, largest_motion

ALL_VIEWS = "all views"
CHANNELS = ("picture", "flow over picture", "u", "v", "magnitude")
SHOWN_UNITS = 8  # most probable action units
Options = Mapping[str, Sequence[str]]  # values to choose from, by field of Choice
CLIPS, FLOWS = 4, 48  # how many recent ones stay in memory: about 15 MB per clip, 1 MB per flow


@dataclass(frozen=True)
class Choice:
    """What a person has chosen to see."""

    id: str
    frame: int
    view: str = ALL_VIEWS
    channel: str = CHANNELS[1]
    phase: str = PHASE_NAMES[0]  # flow is measured from the first moment of this phase
    method: str = "faceflow"


class Clips:
    """Views, features and flows of clips (`utils.pipeline.Job` by Id), made when needed; recent ones stay in memory."""

    def __init__(self, jobs: Mapping):
        self.views: Callable[[str], Views] = lru_cache(CLIPS)(lambda id: jobs[id].views())
        self.features: Callable[[str], Mapping[str, np.ndarray]] = lru_cache(CLIPS)(lambda id: jobs[id].features())
        self._flow = lru_cache(FLOWS)(self._estimate_flow)

    def moments(self, id: str) -> Moments:
        return tuple(self.features(id)["moments"].tolist())

    def apex(self, id: str) -> int:
        return self.moments(id)[1]

    def flow(self, choice: Choice) -> np.ndarray:
        """Flow (V, S, S, 2) px from the first moment of the chosen phase to the chosen frame."""
        start = self.moments(choice.id)[PHASE_NAMES.index(choice.phase)]
        return self._flow(choice.id, start, choice.frame, choice.method)

    def largest(self, choice: Choice) -> float:
        """The motion, px, that gets full colour in every frame and phase of a clip: from its flow at the apex."""
        onset, apex, _ = self.moments(choice.id)
        return largest_motion(self._flow(choice.id, onset, apex, choice.method)[:, None], self.views(choice.id).masks)

    def _estimate_flow(self, id: str, start: int, frame: int, method: str) -> np.ndarray:
        views = self.views(id)
        pairs = list(zip(views.frames[start], views.frames[frame], strict=True))
        flows = estimate_flows(pairs, method, None if views.stabilised else list(views.masks))
        return flows * views.masks[..., None]


# Pictures -----------------------------------------------------------------------------------------------------------


def draw_frames(clips: Clips, choice: Choice) -> Figure:
    """01: the chosen frame in every view."""
    figure = _titled_figure(clips, choice, (3.4 * clips.views(choice.id).frames.shape[1], 3.8))
    _draw_views(figure, clips, replace(choice, channel="picture"))
    return figure


def draw_flow(clips: Clips, choice: Choice) -> Figure:
    """02: the chosen frame or its flow in the chosen views, and the clip's motion with its moments."""
    figure = _titled_figure(clips, choice, (11, 3.8))
    _draw_clip(figure, clips, choice)
    return figure


def draw_answers(
    clips: Clips, choice: Choice, answers: Callable[[str], pd.DataFrame], units: Callable[[str], pd.Series]
) -> Figure:
    """03: the same, above the probabilities of the emotions (`held_out_answers`) and of the action units, by Id."""
    figure = _titled_figure(clips, choice, (11, 6.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    _draw_clip(top, clips, choice)
    title = "held-out probability (line: threshold; *: true)"
    answer_bars(*bottom.subplots(1, 2), answers(choice.id), units(choice.id).nlargest(SHOWN_UNITS), title)
    return figure


def held_out_answers(oof: OutOfFold, id: str) -> pd.DataFrame:
    """Held-out probability and threshold of each class, means over the seeds; true classes have a star in the index."""
    [row] = np.flatnonzero(oof.ids == id)
    names = [f"{name} *" if true else name for name, true in zip(oof.classes, oof.truth[row], strict=True)]
    thresholds = oof.thresholds[:, oof.fold[row]].mean(0)
    return pd.DataFrame({"probability": oof.probability[:, row].mean(0), "threshold": thresholds}, index=names)


def _titled_figure(clips: Clips, choice: Choice, size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    last = len(clips.views(choice.id).frames) - 1
    figure.suptitle(f"{choice.id}, frame {choice.frame} of 0 to {last}", fontsize=11)
    return figure


def _draw_clip(figure: Figure | SubFigure, clips: Clips, choice: Choice) -> None:
    left, right = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    _draw_views(left, clips, choice)
    curve, axis = clips.features(choice.id)["curve"], right.subplots()
    draw_moments(axis, curve, clips.moments(choice.id))
    axis.plot(choice.frame, curve[choice.frame], "o", color=CLASS_COLOURS[3], ms=9)


def _draw_views(figure: Figure | SubFigure, clips: Clips, choice: Choice) -> None:
    """A panel for each chosen view, which shows the frame or its flow."""
    frame = clips.views(choice.id).frames[choice.frame]
    names = VIEW_NAMES[len(frame)]
    chosen = [v for v, name in enumerate(names) if choice.view in (ALL_VIEWS, name)]
    axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    for axis, v in zip(axes, chosen, strict=True):
        bare(axis, names[v])
        if choice.channel == "picture":
            axis.imshow(frame[v])
            continue
        flow, largest = clips.flow(choice)[v], clips.largest(choice)
        if choice.channel == "flow over picture":
            axis.imshow(flow_on_face(frame[v], flow, largest))
        elif choice.channel == "magnitude":
            shown = axis.imshow(np.linalg.norm(flow, axis=-1), cmap="viridis", vmin=0, vmax=largest)
        else:
            shown = axis.imshow(flow[..., ("u", "v").index(choice.channel)], cmap="RdBu_r", vmin=-largest, vmax=largest)
    if choice.channel in CHANNELS[2:]:
        figure.colorbar(shown, ax=axes, shrink=0.7, label=f"{choice.channel}, px")


def png(figure: Figure) -> bytes:
    """A figure as PNG at 100 dpi; equal figures give equal bytes."""
    out = io.BytesIO()
    figure.savefig(out, dpi=100, metadata={"Software": None})
    return out.getvalue()


# Controls -----------------------------------------------------------------------------------------------------------


def frames(jobs: Mapping, ids: Sequence[str]) -> widgets.Widget | Image:
    """01: the views of these clips."""
    clips = Clips(jobs)
    return _shown(partial(draw_frames, clips), clips, Choice(ids[0], 0), {"id": ids}, lambda id: 0)


def flow(jobs: Mapping, ids: Sequence[str], method: str) -> widgets.Widget | Image:
    """02: the flow of these clips, at first by this method, and their motion over time."""
    clips = Clips(jobs)
    return _shown(partial(draw_flow, clips), clips, *_flow_options(clips, ids, method))


def answers(jobs: Mapping, oof: OutOfFold, units: pd.DataFrame, method: str) -> widgets.Widget | Image:
    """03: the same for the clips of `oof`, with its answers and the probabilities of action units (index Id)."""
    clips = Clips(jobs)
    draw = partial(draw_answers, clips, answers=partial(held_out_answers, oof), units=lambda id: units.loc[id])
    return _shown(draw, clips, *_flow_options(clips, list(oof.ids), method))


def _flow_options(clips: Clips, ids: Sequence[str], method: str) -> tuple[Choice, Options, Callable[[str], int]]:
    """The last three arguments of `controls` for clips with flow, which start at the apex."""
    views = VIEW_NAMES[clips.views(ids[0]).frames.shape[1]]
    options = {"id": ids, "view": (ALL_VIEWS, *views), "channel": CHANNELS, "phase": PHASE_NAMES}
    return Choice(ids[0], clips.apex(ids[0]), method=method), options | {"method": tuple(FLOW_METHODS)}, clips.apex


def _shown(draw: Callable[[Choice], Figure], clips: Clips, first: Choice, *how) -> widgets.Widget | Image:
    """The `controls`, or the picture of the first choice if there is no front end."""
    return controls(draw, clips, first, *how) if in_notebook() else Image(png(draw(first)))


def controls(
    draw: Callable[[Choice], Figure],
    clips: Clips,
    first: Choice,
    options: Options,
    first_frame: Callable[[str], int],
) -> widgets.VBox:
    """A dropdown for each of the options, a slider for the frame, and the picture that `draw` makes of the choice.

    first_frame: the frame, by Id, at which the slider stands when a clip is chosen.
    """
    chosen = {
        name: widgets.Dropdown(options=list(values), value=getattr(first, name), description=name)
        for name, values in options.items()
    }
    last = len(clips.views(first.id).frames) - 1
    slider = chosen["frame"] = widgets.IntSlider(first.frame, 0, last, description="frame")
    picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", object_fit="contain"))

    def show(_) -> None:
        picture.value = png(draw(replace(first, **{name: control.value for name, control in chosen.items()})))

    def reset_slider(change) -> None:
        start = first_frame(change["new"])
        slider.unobserve(show, "value")  # so that the new clip is drawn once, and only at a frame that it has
        slider.max = len(clips.views(change["new"]).frames) - 1
        slider.value = start
        slider.observe(show, "value")

    chosen["id"].observe(reset_slider, "value")
    for control in chosen.values():
        control.observe(show, "value")
    show(None)
    return widgets.VBox([widgets.Box(list(chosen.values()), layout=widgets.Layout(flex_flow="row wrap")), picture])
