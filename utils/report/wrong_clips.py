"""The held-out clips that a run judged wrongly: which, what was true, what was said, and how their skin moved."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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

TILE = 144  # pixels of a face's side
SHOWN_UNITS = 3  # most probable action units of a clip
LEAST = 1e-4  # probability: one that said never, and erred, is not infinitely wrong


@dataclass(frozen=True)
class WrongClip:
    """One of them; columns of `answers`: class, truth, probability, answer, verdict."""

    id: str
    subject: str
    answers: pd.DataFrame
    units: tuple[tuple[str, str, float], ...]  # AU, name, probability: the most probable ones, none where unknown
    picture: Picture | None  # apex and flows; None where the run no longer has them


def joined_seeds(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One row per clip from `OutOfFold.table`: mean probability over the seeds, and what most of them decided."""
    parts = [f"{name}_{part}" for name in classes for part in ("truth", "probability", "decision")]
    joined = predictions.groupby(["Id", "subject"], sort=False)[parts].mean().reset_index()
    decided = [f"{name}_decision" for name in classes]
    return joined.assign(**{name: (joined[name] >= 0.5).astype(int) for name in decided})


def wrong_rows(joined: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The rows in which a label was decided wrongly, those first whose probabilities lie furthest from the truth.

    Furthest by the log loss, summed over the classes.
    """
    truth, probability, decision = (
        joined[[f"{name}_{part}" for name in classes]].to_numpy(float) for part in ("truth", "probability", "decision")
    )
    of_truth = np.where(truth > 0, probability, 1 - probability).clip(LEAST)
    loss, wrong = -np.log(of_truth).sum(axis=1), (truth != decision).any(axis=1)
    order = np.argsort(-loss, kind="stable")
    return joined.iloc[order[wrong[order]]]


def wrong_clips(rows: pd.DataFrame, classes: Sequence[str], work: Path) -> list[WrongClip]:
    """The clips of some rows of `wrong_rows` with what the run's folder of artefacts has of them."""
    units = _read(work / "held_out" / "units.csv")
    maps, moments = _maps(work), _read(work / "features" / "moments.csv")
    return [
        WrongClip(
            row["Id"],
            row["subject"],
            _answers(row, classes),
            () if units is None else _units(units, row["Id"]),
            _flow_picture(row["Id"], maps, moments, work),
        )
        for _, row in rows.iterrows()
    ]


def _answers(row: pd.Series, classes: Sequence[str]) -> pd.DataFrame:
    truth, decision = ([int(row[f"{name}_{part}"]) for name in classes] for part in ("truth", "decision"))
    words = {(1, 0): "missed", (0, 1): "false alarm"}
    return pd.DataFrame(
        {
            "class": list(classes),
            "truth": ["yes" if value else "no" for value in truth],
            "probability": [f"{row[f'{name}_probability']:.2f}" for name in classes],
            "answer": ["yes" if value else "no" for value in decision],
            "verdict": [words.get(pair, "right") for pair in zip(truth, decision, strict=True)],
        }
    )


def _units(units: pd.DataFrame, id: str) -> tuple[tuple[str, str, float], ...]:
    """The most probable action units of a clip, of the table that `03_train` leaves."""
    own = units[units["Id"] == id].drop(columns="Id")
    if own.empty or own.isna().any(axis=None):
        return ()
    return tuple((au, AU_NAMES[au], float(p)) for au, p in own.iloc[0].nlargest(SHOWN_UNITS).items())


def _flow_picture(id: str, maps: Samples | None, moments: pd.DataFrame | None, work: Path) -> Picture | None:
    """A row per view: the apex frame, then both phases' flow as the network saw it, over the face."""
    views = _read(work / "views" / "train" / f"{id}.npz")
    if maps is None or moments is None or views is None or id not in maps.ids or id not in set(moments["Id"]):
        return None
    apex = int(moments.set_index("Id").loc[id, "apex"])
    flows = np.moveaxis(maps.x[maps.ids == id][0, :, :, :2], 2, -1)  # (V, P, S, S, 2) px
    largest = largest_motion(flows, np.ones((len(flows), *flows.shape[2:4]), bool))
    frames = views["frames"][apex]
    largest = max(largest, VISIBLE_PX * frames.shape[1] / 256)  # noise stays pale
    rows = [
        np.hstack(
            [face := cv2.resize(frame, (TILE, TILE), interpolation=cv2.INTER_AREA)]
            + [
                flow_on_face(face, cv2.resize(flow, (TILE, TILE), interpolation=cv2.INTER_LINEAR), largest)
                for flow in phases
            ]
        )
        for frame, phases in zip(frames, flows, strict=True)
    ]
    names, side = " and ".join(VIEW_NAMES[len(flows)]), frames.shape[1]
    caption = f"Apex (frame {apex}), then {', then '.join(PHASE_NAMES)}. Full colour: {largest:.2f} px or more"
    return picture_of_array(
        np.vstack(rows),
        f"{id}: the face at its apex and the flow of both phases in colour, {names}",
        f"{caption} of a {side} px face.",
    )


def _maps(work: Path) -> Samples | None:
    try:
        return Samples.load(work / "features" / "train.npz")
    except (DamagedError, FileNotFoundError):
        return None


def _read(path: Path):
    """An artefact, None where the run has none that is whole."""
    try:
        return read_artefact(path)
    except (DamagedError, FileNotFoundError):
        return None
