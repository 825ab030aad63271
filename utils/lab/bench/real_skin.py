"""Benchmark of flow methods on photographs of real skin that exact warps move (`utils.lab.bench.photographs`)."""

from collections.abc import Sequence
from functools import partial
from itertools import chain

import cv2
import numpy as np
import pandas as pd

from utils.evaluate.scores import Interval
from utils.flow.classical import deepflow, dis, farneback, fit_affine
from utils.flow.faceflow import face_motions
from utils.flow.methods import FlowMethod
from utils.flow.truth import flow_errors
from utils.lab.bench.flow import opencv_dis
from utils.lab.bench.photographs import (
    CONDITIONS,
    WARPS,
    Portrait,
    SkinPair,
    Warp,
    make_pair,
    one_bump,
    portraits,
    scaled,
)
from utils.lab.bench.setting import Setting, row
from utils.lab.figures import flow_comparison
from utils.parallel import parallel_map
from utils.report.figures.common import save_figure

OURS = "faceflow"
OTHERS: dict[str, FlowMethod] = {
    "deepflow": deepflow,
    "dis": dis,
    "farneback": farneback,
    "OpenCV DIS medium": partial(opencv_dis, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
}
MOVING_PX, QUIET_PX, GROSS_PX = 0.3, 0.1, 1.0
DRAWS = 2000  # of the bootstrap over people
PEAK_PX, PEAK_SIGMA = 0.7, 10.0  # height and width of the local push whose peak should be kept


def real_skin(setting: Setting) -> list[dict]:
    """Flow methods on photographs of real faces (those of `--faces DIR`, or else the public domain portrait of
    scikit-image) that exact warps move: bumps, thin plates, the face model's action units, a turning head. Value:
    end-point error over the face of a 256 px frame; moving, quiet: error over skin that truly moves by more than
    0.3 px, and by less than 0.1 px; gross: share of errors over 1 px; nonrigid epe: error of the flow minus the head's
    motion; kept peak: the share of a local push of 0.7 px that the method finds. Ratio: the row's error divided by the
    error of FaceFlow. Lead: the row's error minus FaceFlow's, with its 95% interval by bootstrap over people.
    It is positive where FaceFlow is nearer the truth. real_skin.png shows some of the flows."""
    people = portraits(setting.faces)
    conditions = list(CONDITIONS)[: setting.count(len(CONDITIONS), 2)]
    task = partial(condition_errors, people, setting.count(2, 1))
    tables = parallel_map(task, conditions, setting.jobs, description="real skin")
    save_figure(flow_comparison(*examples(people)), setting.folder / "real_skin.png")
    return list(chain(*map(condition_rows, conditions, tables)))


def examples(people: Sequence[Portrait]) -> tuple[dict[str, tuple[np.ndarray, dict[str, np.ndarray]]], np.ndarray]:
    """The arguments of `flow_comparison`: three people, each with another warp, one of them also before white."""
    by_person = list({portrait.person: portrait for portrait in people}.values())
    kinds = [("JPEG 90", 0), ("noise 3", 1), ("100 px, noise, JPEG", 2), ("white ground, exposure", 0)]
    rows, face = {}, None
    for number, (condition, warp) in enumerate(kinds):
        rng = np.random.default_rng([71, number])
        pair = make_pair(by_person[number % len(by_person)], WARPS[warp](rng), CONDITIONS[condition], rng)
        flows = {method: flow[0] for method, (flow, _) in estimates([pair]).items()}
        rows[f"{condition}\n{pair.warp.kind}"] = pair.first, {"truth": pair.warp.flow} | flows
        face = pair.face
    return rows, face


def condition_errors(people: Sequence[Portrait], rounds: int, condition: str) -> pd.DataFrame:
    """The errors of every method on every pair of a condition: columns person, method and those of `errors`."""
    scene, rows = CONDITIONS[condition], []
    for number, portrait in enumerate(people):
        for turn in range(rounds):
            rng = np.random.default_rng([70, number, turn])  # the same warps in every condition
            warps = [*(warp(rng) for warp in WARPS), peak_warp(rng)]
            pairs = [make_pair(portrait, scaled(warp, scene.zoom), scene, rng) for warp in warps]
            for method, flows in estimates(pairs).items():
                for pair, flow, nonrigid in zip(pairs, *flows, strict=True):
                    rows.append({"person": pair.person, "method": method, **errors(pair, flow, nonrigid)})
    return pd.DataFrame(rows)


def peak_warp(rng: np.random.Generator) -> Warp:
    """One local push whose peak is known."""
    flow = one_bump(rng, PEAK_PX, PEAK_SIGMA)
    return Warp("peak", flow, flow)


def estimates(pairs: list[SkinPair]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The flows of every method, and the same less the head's motion, (N, S, S, 2) each."""
    first, second, faces = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("first", "second", "face"))
    estimates = {OURS: face_motions(first, second, faces)}
    for name, method in OTHERS.items():
        flows = np.stack([method(a, b) for a, b in zip(first, second, strict=True)])
        nonrigid = [flow - fit_affine(flow, face) for flow, face in zip(flows, faces, strict=True)]
        estimates[name] = flows, np.stack(nonrigid)
    return estimates


def errors(pair: SkinPair, flow: np.ndarray, nonrigid: np.ndarray) -> dict[str, float]:
    """The errors of one estimate, px, over the face, over moving and over quiet skin, and other measures; NaN where a
    pair has no such skin or no known peak."""
    truth, face = pair.warp.flow, pair.face
    size, error = np.linalg.norm(truth, axis=-1), np.linalg.norm(flow - truth, axis=-1)
    moving, quiet = face & (size > MOVING_PX), face & (size < QUIET_PX)
    whole = flow_errors(flow, truth, face, MOVING_PX)
    peak = np.unravel_index((size * face).argmax(), size.shape)
    kept = float(flow[peak] @ truth[peak] / size[peak] ** 2) if pair.warp.kind == "peak" else np.nan
    return {
        "epe": whole["epe"],
        "moving_epe": float(error[moving].mean()) if moving.any() else np.nan,
        "quiet_epe": float(error[quiet].mean()) if quiet.any() else np.nan,
        "magnitude_ratio": whole["magnitude_ratio"],
        "direction_deg": whole["direction_deg"],
        "gross": float((error[face] > GROSS_PX).mean()),
        "nonrigid_epe": flow_errors(nonrigid, pair.warp.nonrigid, face)["epe"],
        "kept_peak": kept,
    }


def condition_rows(condition: str, table: pd.DataFrame) -> list[dict]:
    """The rows of a condition: means over its pairs, and the lead of ours with its interval."""
    errors = {method: part.reset_index(drop=True) for method, part in table.groupby("method", sort=False)}
    ours, rows = errors[OURS], []
    for method, theirs in errors.items():
        means = theirs.mean(numeric_only=True).to_dict()
        epe = means.pop("epe")
        lead = None if method == OURS else paired_lead(theirs["epe"] - ours["epe"], ours["person"])
        rows.append(row(method, epe, "px", epe / ours["epe"].mean(), len(theirs), condition, **means, lead=lead))
    return rows


def paired_lead(difference: pd.Series, people: pd.Series) -> Interval:
    """The mean of a difference per pair with its 95% interval, by bootstrap over people."""
    sums = difference.groupby(people).agg(["sum", "size"]).to_numpy()
    drawn = sums[np.random.default_rng(0).integers(0, len(sums), (DRAWS, len(sums)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return Interval(float(difference.mean()), float(low), float(high))
