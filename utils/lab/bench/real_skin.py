"""Benchmark of flow methods on photographs of real skin, moved by exact known warps (`utils.lab.bench.photographs`)."""

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
import pandas as pd

from utils.flow.classical import deepflow, dis, farneback, fit_affine
from utils.flow.faceflow import face_motions, faceflow
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
from utils.lab.bench.real_clips import clip_rows
from utils.lab.bench.setting import Setting, row
from utils.lab.figures import flow_comparison
from utils.parallel import parallel_map
from utils.report.figures.common import save_figure

OURS = "faceflow"
# The library methods that ours is held against: the best of them differs from condition to condition.
OTHERS: dict[str, FlowMethod] = {
    "deepflow": deepflow,
    "dis": dis,
    "farneback": farneback,
    "OpenCV DIS medium": partial(opencv_dis, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
}
MOVING_PX, QUIET_PX, GROSS_PX = 0.3, 0.1, 1.0
DRAWS = 2000  # of the bootstrap over people
PEAK_PX, PEAK_SIGMA = 0.7, 10.0  # of the bump whose peak should be kept
MEASURES = ("epe", "moving_epe", "quiet_epe", "magnitude_ratio", "direction_deg", "gross", "nonrigid_epe")


def real_skin(setting: Setting) -> list[dict]:
    """Flow methods on photographs of real faces (those of `--faces DIR`, else the one that scikit-image ships, in the
    public domain) moved by exact warps: bumps, thin plates, the face model's units, a turning head. Value: end-point
    error over the face of a 256 px frame; moving, quiet: over skin that truly moves by more than 0.3 and less than
    0.1 px; gross: share of errors over 1 px; nonrigid epe: of the flow less the head's motion; kept peak: of a local
    push of 0.7 px. Ratio: the row's error divided by that of FaceFlow; lead: the row's error less FaceFlow's, [95%
    interval by bootstrap over people], positive where FaceFlow is nearer the truth. With `--clips DIR` also how far
    each method disagrees with itself on real clips: with its flow backwards, and over ten frames with five and five.
    Some of the flows: real_skin.png."""
    people = portraits(setting.faces)
    names = list(CONDITIONS)[: setting.count(len(CONDITIONS), 2)]
    rounds = setting.count(2, 1)
    found = parallel_map(partial(condition_errors, people, rounds), names, setting.jobs, description="real skin")
    save_figure(flow_comparison(*examples(people)), setting.folder / "real_skin.png")
    rows = [one for name, table in zip(names, found, strict=True) for one in condition_rows(name, table)]
    return rows + (clip_rows(setting, {OURS: faceflow, **OTHERS}) if setting.clips else [])


def examples(people: Sequence[Portrait]) -> tuple[dict[str, tuple[np.ndarray, dict[str, np.ndarray]]], np.ndarray]:
    """For `flow_comparison`: three people, each under another warp, one of them before white too; and the face."""
    firsts = list({portrait.person: portrait for portrait in people}.values())
    kinds = [("JPEG 90", 0), ("noise 3", 1), ("100 px, noise, JPEG", 2), ("white ground, exposure", 0)]
    rows, face = {}, None
    for number, (condition, warp) in enumerate(kinds):
        rng = np.random.default_rng([71, number])
        pair = make_pair(firsts[number % len(firsts)], WARPS[warp](rng), CONDITIONS[condition], rng)
        flows = {name: found[0] for name, (found, _) in estimates([pair]).items()}
        rows[f"{condition}\n{pair.warp.kind}"] = pair.first, {"truth": pair.warp.flow} | flows
        face = pair.face
    return rows, face


def condition_errors(people: Sequence[Portrait], rounds: int, condition: str) -> pd.DataFrame:
    """Errors of every method on every pair of a condition: person, method, kind, and MEASURES with kept_peak."""
    scene, rows = CONDITIONS[condition], []
    for number, portrait in enumerate(people):
        for turn in range(rounds):
            rng = np.random.default_rng([70, number, turn])  # the same warps in every condition
            warps = [*(warp(rng) for warp in WARPS), peak_warp(rng)]
            pairs = [make_pair(portrait, scaled(warp, scene.zoom), scene, rng) for warp in warps]
            for method, (flows, nonrigid) in estimates(pairs).items():
                for pair, flow, own in zip(pairs, flows, nonrigid, strict=True):
                    rows.append(
                        {"person": pair.person, "method": method, "kind": pair.warp.kind, **errors(pair, flow, own)}
                    )
    return pd.DataFrame(rows)


def peak_warp(rng: np.random.Generator) -> Warp:
    """One local push whose peak is known."""
    flow = one_bump(rng, PEAK_PX, PEAK_SIGMA)
    return Warp("peak", flow, flow)


def estimates(pairs: list[SkinPair]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of every method the flows, and the flows less the head's motion, (N, S, S, 2) each."""
    first, second, faces = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("first", "second", "face"))
    found = {OURS: face_motions(first, second, faces)}
    for name, method in OTHERS.items():
        flows = np.stack([method(a, b) for a, b in zip(first, second, strict=True)])
        own = [flow - fit_affine(flow, face) for flow, face in zip(flows, faces, strict=True)]
        found[name] = flows, np.stack(own)
    return found


def errors(pair: SkinPair, flow: np.ndarray, nonrigid: np.ndarray) -> dict[str, float]:
    """MEASURES of one estimate, NaN where a pair has no such skin, and the share that is kept of a known peak."""
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
    """The rows of a condition: means over its pairs, and the paired lead of ours with its interval over people."""
    table = table.set_index("method")
    ours = table.loc[OURS]
    best = ours["epe"].mean()
    rows = []
    for method in (OURS, *OTHERS):
        own = table.loc[method]
        means = own[[*MEASURES, "kept_peak"]].mean()
        lead = "" if method == OURS else paired_lead(own["epe"] - ours["epe"].to_numpy(), ours["person"])
        rows.append(
            row(
                f"{condition}: {method}",
                means["epe"],
                "px",
                means["epe"] / best,
                len(own),
                **means.drop("epe").to_dict(),
                lead=lead,
            )
        )
    return rows


def paired_lead(difference: pd.Series, people: pd.Series) -> str:
    """The mean of a difference per pair with its 95% interval, by bootstrap over people."""
    means = pd.Series(difference.to_numpy()).groupby(people.to_numpy()).agg(["sum", "size"]).to_numpy()
    drawn = means[np.random.default_rng(0).integers(0, len(means), (DRAWS, len(means)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
