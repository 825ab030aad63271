"""Benchmark of flow methods against exact flow: ours beside what the libraries offer as they come."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import pandas as pd

from utils.config import load_config
from utils.flow.classical import fit_affine
from utils.flow.faceflow import BATCH, face_motion, face_motions, faceflow
from utils.flow.methods import FLOW_METHODS, FlowMethod
from utils.flow.truth import flow_errors
from utils.lab.bench.setting import SEEDS, Setting, row
from utils.lab.teachers.flow_clips import Conditions, FlowClip, Performed, record_clip
from utils.synthetic.data_root import make_identity
from utils.synthetic.performance import face_shapes, perform
from utils.synthetic.photography import SENSOR_NOISE
from utils.synthetic.skin import paint_skin
from utils.train.samples import CLASSES

# Nothing of the flow was chosen on these: two seeds of the measured people, and two that only the apex rule has met.
PEOPLE = tuple((seed, f"S{number:02d}") for seed in (*SEEDS[:2], 101, 102) for number in (1, 2, 3))
SETTINGS = {
    f"{size} px, head {'moves' if moving else 'still'}, noise x{factor}": Conditions(
        size=size, noise=SENSOR_NOISE * factor, stabilised=not moving
    )
    for size in (256, 128)
    for moving in (False, True)
    for factor in (1, 2)
}
QUIET_EYES = "256 px, head still, noise x1, no blink or glance"
# The places of which `utils.lab.readme` makes a table, by what they are called there.
SHOWN = {
    "256 px, head still, noise x1": "head still",
    "256 px, head moves, noise x1": "head moves",
    QUIET_EYES: "no blink or glance",
    "128 px, head still, noise x1": "128 px",
}


@dataclass(frozen=True)
class Pair:
    """Two grey frames (S, S) uint8 and the truth: flow, nonrigid (S, S, 2) px, visible (S, S) bool."""

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    nonrigid: np.ndarray
    visible: np.ndarray


# Pairs ------------------------------------------------------------------------------------------------------------


def make_pairs(
    conditions: Conditions, clips_each: int = 1, people: Sequence[tuple[int, str]] = PEOPLE, quiet_eyes: bool = False
) -> list[Pair]:
    """Onset to apex and apex to offset in both views, of clips with all confounders drawn as in the challenge.

    people: (data seed, subject) of each, as `make_identity` takes them. quiet_eyes: without blinks and glances.
    """
    pairs = []
    for number, (seed, subject) in enumerate(people):
        identity, rng_person = make_identity(seed, subject)
        albedo = paint_skin(identity, rng_person)
        for clip in range(clips_each):
            rng = np.random.default_rng([seed, 50, number, clip])
            act = perform(identity, [CLASSES[(number + clip) % len(CLASSES)]], rng)
            moments = act.course.moments
            contraction = (act.expression if quiet_eyes else act.contraction)[moments]
            shown = Performed(face_shapes(identity, contraction), act.angles[moments], act.shift[moments])
            lit = replace(conditions, flicker=act.confounders["flicker"])
            pairs += _pairs_of(record_clip(identity, shown, albedo, 1, rng, lit))
    return pairs


def _pairs_of(clip: FlowClip) -> list[Pair]:
    grey = clip.grey()
    views, phases = clip.flow.shape[:2]
    return [
        Pair(grey[p, v], grey[p + 1, v], clip.flow[v, p], clip.nonrigid[v, p], clip.visible[v, p])
        for v in range(views)
        for p in range(phases)
    ]


# What the libraries offer, as it comes ----------------------------------------------------------------------------


def opencv_dis(preset: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return cv2.DISOpticalFlow.create(preset).calc(first, second, None)


def opencv_farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """With the arguments of OpenCV's tutorial."""
    return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def opencv_tvl1(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return cv2.optflow.DualTVL1OpticalFlow.create().calc(first, second, None)


def skimage_tvl1(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    from skimage.registration import optical_flow_tvl1

    return _as_uv(optical_flow_tvl1(first, second))


def skimage_ilk(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Iterative Lucas-Kanade."""
    from skimage.registration import optical_flow_ilk

    return _as_uv(optical_flow_ilk(first, second))


def _as_uv(rows_columns: np.ndarray) -> np.ndarray:
    return np.stack([rows_columns[1], rows_columns[0]], -1).astype(np.float32)


AS_THEY_COME: dict[str, FlowMethod] = {
    "OpenCV DIS ultrafast": partial(opencv_dis, cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
    "OpenCV DIS fast": partial(opencv_dis, cv2.DISOPTICAL_FLOW_PRESET_FAST),
    "OpenCV DIS medium": partial(opencv_dis, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
    "OpenCV Farneback": opencv_farneback,
    "OpenCV TV-L1": opencv_tvl1,
    "scikit-image TV-L1": skimage_tvl1,
    "scikit-image ILK": skimage_ilk,
}


# Sections ---------------------------------------------------------------------------------------------------------


def flow(setting: Setting) -> list[dict]:
    """Flow methods, those of our registry and those of OpenCV and scikit-image as they come, against the exact flow of
    the visible surface: twelve people, onset to apex and apex to offset in both views, all confounders, and once
    without blinks and glances. Value: end-point error; nonrigid epe: of the flow less a robust affine fit (FaceFlow
    estimates it itself), against the flow without the head's rigid motion; direction: where the skin moves by more than
    0.3 px. Ratio: the row's error divided by our default's, so 3 errs three times as much as ours."""
    people = PEOPLE[: setting.count(len(PEOPLE), 1)]
    methods = FLOW_METHODS if setting.quick else FLOW_METHODS | AS_THEY_COME
    places = {place: partial(make_pairs, conditions) for place, conditions in SETTINGS.items()}
    places[QUIET_EYES] = partial(make_pairs, Conditions(), quiet_eyes=True)
    rows = []
    for place in ["128 px, head still, noise x1"] if setting.quick else places:
        pairs = places[place](people=people)
        table = compare_methods(pairs, methods)
        table.loc["faceflow, in batches"] = batch_errors(pairs)
        rows += _rows(place, table, len(pairs))
        print(f"{place}: {len(pairs)} pairs", flush=True)
    return rows


def _rows(place: str, table: pd.DataFrame, n: int) -> list[dict]:
    best = table.loc[load_config().flow_method, "epe"]
    return [
        row(
            f"{place}: {method}",
            one["epe"],
            "px",
            one["epe"] / best if best else None,
            n,
            nonrigid_epe=one["nonrigid_epe"],
            direction_deg=one["direction_deg"],
            magnitude_ratio=one["magnitude_ratio"],
            no_motion_epe=one["zero_epe"],
            ms=one["ms"],
            shown=SHOWN.get(place),
        )
        for method, one in table.iterrows()
    ]


def damaged_flow(setting: Setting) -> list[dict]:
    """The same at 256 px on damaged frames and on motion that no face makes: our default against DeepFlow. Ratio:
    the row's error divided by our default's, so 3 errs three times as much as ours."""
    methods = {name: FLOW_METHODS[name] for name in (load_config().flow_method, "deepflow")}
    pairs = make_pairs(Conditions(), 1, PEOPLE[: setting.count(len(PEOPLE), 1)])
    rows = []
    for name, damage in DAMAGES.items():
        rng = np.random.default_rng(51)
        rows += _rows(name, compare_methods([damage(pair, rng) for pair in pairs], methods), len(pairs))
    return rows


def compare_methods(pairs: list[Pair], methods: dict[str, FlowMethod]) -> pd.DataFrame:
    """One row per method, means over the pairs: epe, direction_deg, magnitude_ratio, zero_epe as in `flow_errors`;
    nonrigid_epe: of the flow without the head's motion; ms: median per pair."""
    return pd.DataFrame({name: _method_errors(method, pairs) for name, method in methods.items()}).T


def batch_errors(pairs: list[Pair]) -> dict[str, float]:
    """The same of FaceFlow given all pairs at once, as the stages give it a clip's; ms: the mean per pair."""
    first, second = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("first", "second"))
    face_motions(first[:BATCH], second[:BATCH])
    start = time.perf_counter()
    flow, nonrigid = face_motions(first, second)
    seconds = time.perf_counter() - start
    return _errors(pairs, flow, nonrigid) | {"ms": seconds / len(pairs) * 1000}


def _method_errors(method: FlowMethod, pairs: list[Pair]) -> dict[str, float]:
    method(pairs[0].first, pairs[0].second)  # what is loaded at first use does not count
    flows, seconds = [], []
    for pair in pairs:
        start = time.perf_counter()
        flows.append(method(pair.first, pair.second))
        seconds.append(time.perf_counter() - start)
    if method is faceflow:  # it tells itself what of the flow is the head's
        nonrigid_flows = [face_motion(pair.first, pair.second)[1] for pair in pairs]
    else:
        nonrigid_flows = [flow - fit_affine(flow, pair.visible) for flow, pair in zip(flows, pairs, strict=True)]
    return _errors(pairs, flows, nonrigid_flows) | {"ms": np.median(seconds) * 1000}


def _errors(pairs: list[Pair], flows: Sequence[np.ndarray], nonrigid_flows: Sequence[np.ndarray]) -> dict[str, float]:
    rows = [
        flow_errors(flow, pair.flow, pair.visible)
        | {"nonrigid_epe": flow_errors(nonrigid, pair.nonrigid, pair.visible)["epe"]}
        for pair, flow, nonrigid in zip(pairs, flows, nonrigid_flows, strict=True)
    ]
    return {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}


# Unusual input ----------------------------------------------------------------------------------------------------


def _both(pair: Pair, change: Callable[[np.ndarray], np.ndarray]) -> Pair:
    return replace(
        pair, first=_uint8(change(pair.first.astype(float))), second=_uint8(change(pair.second.astype(float)))
    )


def _jpeg(image: np.ndarray) -> np.ndarray:
    packed = cv2.imencode(".jpg", _uint8(image), [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    return cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE)


def _uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def moved(pair: Pair, flow: np.ndarray, rng: np.random.Generator) -> Pair:
    """The pair's first frame, moved by `flow` (S, S, 2) px in the picture itself, with new noise on the second."""
    height, width = pair.first.shape
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    back = -flow.astype(np.float32)
    for _ in range(10):  # where each pixel of the second frame came from: back(x) = -flow(x + back(x))
        back = -cv2.remap(
            flow.astype(np.float32), pixels + back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    second = cv2.remap(
        pair.first.astype(np.float32), pixels + back, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    noisy = _uint8(second + rng.normal(0, SENSOR_NOISE, second.shape))
    return replace(pair, second=noisy, flow=flow.astype(np.float32), nonrigid=flow.astype(np.float32))


def waves(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A flow of sines of a pixel or less, a quarter of the picture long or longer."""
    y, x = np.mgrid[: shape[0], : shape[1]] / shape[0]
    phase, turns = rng.uniform(0, 2 * np.pi, (2, 2)), rng.uniform(0.5, 4, (2, 2))
    both = [
        np.sin(2 * np.pi * t[0] * x + p[0]) * np.cos(2 * np.pi * t[1] * y + p[1])
        for t, p in zip(turns, phase, strict=True)
    ]
    return np.stack(both, -1) * shape[0] / 256


def turn_and_zoom(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A flow of up to two pixels at the border from turning and zooming about the middle."""
    y, x = np.mgrid[: shape[0], : shape[1]] / shape[0] - 0.5
    zoom, turn = rng.uniform(-4, 4, 2) * shape[0] / 256
    return np.stack([zoom * x - turn * y, zoom * y + turn * x], -1)


def grain(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), 2.0)
    return _uint8(128 + 40 * noise / noise.std())


# Name -> what is done to a pair: the frames are degraded; but for the motions, the truth stays.
DAMAGES: dict[str, Callable[[Pair, np.random.Generator], Pair]] = {
    "noise of 6 grey levels": lambda pair, rng: _both(pair, lambda image: image + rng.normal(0, 6, image.shape)),
    "a third of the contrast": lambda pair, rng: _both(pair, lambda image: 90 + (image - 90) / 3),
    "blurred, sigma 1.5": lambda pair, rng: _both(pair, lambda image: cv2.GaussianBlur(image, (0, 0), 1.5)),
    "JPEG, quality 50": lambda pair, rng: _both(pair, _jpeg),
    "second frame 10% brighter": lambda pair, rng: replace(pair, second=_uint8(pair.second * 1.1)),
    "waves over the picture": lambda pair, rng: moved(pair, waves(rng, pair.first.shape), rng),
    "turned and zoomed": lambda pair, rng: moved(pair, turn_and_zoom(rng, pair.first.shape), rng),
    "shifted by 6 px": lambda pair, rng: moved(pair, np.full((*pair.first.shape, 2), 6.0), rng),
    "shifted by 14 px": lambda pair, rng: moved(pair, np.full((*pair.first.shape, 2), 14.0), rng),
    "no face, grain of 2 px": lambda pair, rng: moved(
        replace(pair, first=grain(rng, pair.first.shape)), waves(rng, pair.first.shape), rng
    ),
}
