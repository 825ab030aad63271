"""The held-out clips with a wrong decision: their labels, the answers, their action units and their flow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from utils.artefacts import DamagedError, read_artefact
from utils.flow.apex import VISIBLE_PX
from utils.report.embedded import Picture, picture_of_array
from utils.report.figures.common import PHASE_NAMES, VIEW_NAMES
from utils.report.figures.flow import flow_on_face, largest_motion
from utils.synthetic.action_units import AU_NAMES
from utils.train.samples import Samples

PARTS = ("truth", "probability", "decision")  # of each class in a table of predictions
TILE = 144  # side of a face in the picture, pixels
SHOWN_UNITS = 3  # most probable action units of a clip
LEAST = 1e-4  # smallest probability in the log loss, which keeps it finite


@dataclass(frozen=True)
class WrongClip:
    """A clip with at least one wrong decision."""

    id: str
    subject: str
    answers: list[tuple[str, float, float, int]]  # class, truth 0/1, probability, decision 0/1
    units: list[tuple[str, str, float]]  # AU, name, probability of the most probable ones; [] if unknown
    picture: Picture | None  # apex and flows; None if the run no longer has them


def joined_seeds(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One row per clip from `OutOfFold.table`: mean probability over the seeds, and the decision of most seeds."""
    parts = [f"{name}_{part}" for name in classes for part in PARTS]
    joined = predictions.groupby(["Id", "subject"], sort=False)[parts].mean().reset_index()
    decided = [f"{name}_decision" for name in classes]
    return joined.assign(**{name: (joined[name] >= 0.5).astype(int) for name in decided})


def wrong_rows(joined: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The rows with at least one wrong decision, ordered by log loss summed over the classes, largest first."""
    truth, probability, decision = (joined[[f"{name}_{part}" for name in classes]].to_numpy(float) for part in PARTS)
    of_truth = np.where(truth > 0, probability, 1 - probability).clip(LEAST)
    loss, wrong = -np.log(of_truth).sum(axis=1), (truth != decision).any(axis=1)
    order = np.argsort(-loss, kind="stable")
    return joined.iloc[order[wrong[order]]]


def wrong_clips(rows: pd.DataFrame, classes: Sequence[str], work: Path) -> list[WrongClip]:
    """The clips of rows from `wrong_rows`, with their action units and flow from the artefacts in the folder `work`."""
    units, moments = (_load(read_artefact, work / name) for name in ("held_out/units.csv", "features/moments.csv"))
    samples = _load(Samples.load, work / "features" / "train.npz")
    clips = []
    for _, row in rows.iterrows():
        id = row["Id"]
        views = _load(read_artefact, work / "views" / "train" / f"{id}.npz")
        missing = samples is None or moments is None or views is None or id not in samples.ids
        picture = None if missing or id not in set(moments["Id"]) else _flow_picture(id, samples, moments, views)
        answers = [(name, *(row[f"{name}_{part}"] for part in PARTS)) for name in classes]
        clips.append(WrongClip(id, row["subject"], answers, _units(units, id), picture))
    return clips


def _units(units: pd.DataFrame | None, id: str) -> list[tuple[str, str, float]]:
    """The most probable action units of a clip, from the table that `03_train` writes."""
    if units is None or id not in set(units["Id"]):
        return []
    probabilities = units.set_index("Id").loc[id]
    if probabilities.isna().any():
        return []
    return [(au, AU_NAMES[au], float(p)) for au, p in probabilities.nlargest(SHOWN_UNITS).items()]


def _flow_picture(id: str, samples: Samples, moments: pd.DataFrame, views: Mapping[str, np.ndarray]) -> Picture:
    """A row per view: the apex frame, then the flow of each phase over the face, at the network's resolution."""
    apex = int(moments.set_index("Id").loc[id, "apex"])
    frames = views["frames"][apex]  # (V, S, S, 3)
    flows = np.moveaxis(samples.x[samples.ids == id][0, :, :, :2], 2, -1)  # (V, P, S, S, 2) px
    largest = largest_motion(flows, np.ones((len(flows), *flows.shape[2:4]), bool))
    largest = max(largest, VISIBLE_PX * frames.shape[1] / 256)  # noise stays pale
    rows = []
    for frame, phases in zip(frames, flows, strict=True):
        face = cv2.resize(frame, (TILE, TILE), interpolation=cv2.INTER_AREA)
        fine = [cv2.resize(flow, (TILE, TILE), interpolation=cv2.INTER_LINEAR) for flow in phases]
        rows.append(np.hstack([face, *(flow_on_face(face, flow, largest) for flow in fine)]))
    names = " and ".join(VIEW_NAMES[len(flows)])
    alt = f"{id}: the face at its apex and the flow of both phases in colour, {names}"
    scale = f"Full colour: {largest:.2f} px or more on a {frames.shape[1]} px face."
    caption = f"Apex (frame {apex}), then the flow from {' and from '.join(PHASE_NAMES)}. {scale}"
    return picture_of_array(np.vstack(rows), alt, caption)


def _load(load: Callable[[Path], Any], path: Path) -> Any:
    """An artefact; None if the run has none or it is damaged."""
    try:
        return load(path)
    except (DamagedError, FileNotFoundError):
        return None
