"""Benchmark of flow methods against exact flow: ours, and those of the libraries with their default settings."""

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
from utils.lab.bench.photographs import jpeg
from utils.lab.bench.setting import SEEDS, Setting, row
from utils.lab.teachers.flow_clips import Conditions, FlowClip, Performed, record_clip
from utils.synthetic.data_root import make_identity
from utils.synthetic.performance import face_shapes, perform
from utils.synthetic.photography import SENSOR_NOISE
from utils.synthetic.skin import paint_skin
from utils.train.samples import CLASSES

# (data seed, subject) of each person. No setting of the flow was chosen on them.
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
    conditions: Conditions, people: Sequence[tuple[int, str]] = PEOPLE, quiet_eyes: bool = False
) -> list[Pair]:
    """One clip per person as onset to apex and apex to offset in both views, with all confounders of the challenge.

    people: data seed and subject of each person, as `make_identity` takes them. quiet_eyes: without blinks and glances.
    """
    pairs = []
    for number, (seed, subject) in enumerate(people):
        identity, rng_person = make_identity(seed, subject)
        albedo = paint_skin(identity, rng_person)
        rng = np.random.default_rng([seed, 50, number, 0])
        act = perform(identity, [CLASSES[number % len(CLASSES)]], rng)
        moments = act.course.moments
        contraction = (act.expression if quiet_eyes else act.contraction)[moments]
        performed = Performed(face_shapes(identity, contraction), act.angles[moments], act.shift[moments])
        flickering = replace(conditions, flicker=act.confounders["flicker"])
        pairs += _pairs_of(record_clip(performed, albedo, 1, rng, flickering))
    return pairs


def _pairs_of(clip: FlowClip) -> list[Pair]:
    grey = clip.grey()
    views, phases = clip.flow.shape[:2]
    return [
        Pair(grey[p, v], grey[p + 1, v], clip.flow[v, p], clip.nonrigid[v, p], clip.visible[v, p])
        for v in range(views)
        for p in range(phases)
    ]


# Methods of the libraries -----------------------------------------------------------------------------------------


def opencv_dis(preset: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return cv2.DISOpticalFlow.create(preset).calc(first, second, None)


def scikit_image(name: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A method of `skimage.registration`, which gives the flow as (v, u): TV-L1, or iterative Lucas-Kanade (ILK)."""
    from skimage import registration

    v, u = getattr(registration, f"optical_flow_{name}")(first, second)
    return np.stack([u, v], -1).astype(np.float32)


LIBRARY_METHODS: dict[str, FlowMethod] = {
    "OpenCV DIS ultrafast": partial(opencv_dis, cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
    "OpenCV DIS fast": partial(opencv_dis, cv2.DISOPTICAL_FLOW_PRESET_FAST),
    "OpenCV DIS medium": partial(opencv_dis, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
    "OpenCV Farneback": lambda first, second: cv2.calcOpticalFlowFarneback(  # with the arguments of OpenCV's tutorial
        first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0
    ),
    "OpenCV TV-L1": lambda first, second: cv2.optflow.DualTVL1OpticalFlow.create().calc(first, second, None),
    "scikit-image TV-L1": partial(scikit_image, "tvl1"),
    "scikit-image ILK": partial(scikit_image, "ilk"),
}


# Sections ---------------------------------------------------------------------------------------------------------


def flow(setting: Setting) -> list[dict]:
    """Flow methods of our registry, and of OpenCV and scikit-image with their default settings, against the exact flow
    of the visible surface: twelve people, onset to apex and apex to offset in both views, all confounders, and once
    without blinks and glances. Value: end-point error; nonrigid epe: error of the flow without the head's rigid motion,
    where FaceFlow gives its own estimate and the other methods the flow less a robust affine fit; direction: where the
    skin moves by more than 0.3 px. Ratio: the row's error divided by the error of our default method, so 3 means an
    error three times as large."""
    people = PEOPLE[: setting.count(len(PEOPLE), 1)]
    methods = FLOW_METHODS if setting.quick else FLOW_METHODS | LIBRARY_METHODS
    makers = {frames: partial(make_pairs, conditions) for frames, conditions in SETTINGS.items()}
    makers[QUIET_EYES] = partial(make_pairs, Conditions(), quiet_eyes=True)
    rows = []
    for frames in ["128 px, head still, noise x1"] if setting.quick else makers:
        pairs = makers[frames](people=people)
        table = compare_methods(pairs, methods)
        table.loc["faceflow, in batches"] = batch_errors(pairs)
        rows += _rows(frames, table, len(pairs))
        print(f"{frames}: {len(pairs)} pairs", flush=True)
    return rows


def _rows(frames: str, table: pd.DataFrame, n: int) -> list[dict]:
    """Rows of the errors of `compare_methods` on n pairs of one kind."""
    ours = table.loc[load_config().flow_method, "epe"]
    table = table.rename(columns={"epe": "value", "zero_epe": "no_motion_epe"})
    return [
        row(method, unit="px", ratio=errors["value"] / ours if ours else None, n=n, frames=frames, **errors)
        for method, errors in table.T.to_dict().items()
    ]


def damaged_flow(setting: Setting) -> list[dict]:
    """Our default flow method and DeepFlow on the same pairs at 256 px, with damaged frames and with motion that no
    face makes. Ratio: the row's error divided by the error of our default method, so 3 means an error three times as
    large."""
    methods = {name: FLOW_METHODS[name] for name in (load_config().flow_method, "deepflow")}
    pairs = make_pairs(Conditions(), PEOPLE[: setting.count(len(PEOPLE), 1)])
    rows = []
    for name, damage in DAMAGES.items():
        rng = np.random.default_rng(51)
        rows += _rows(name, compare_methods([damage(pair, rng) for pair in pairs], methods), len(pairs))
    return rows


def compare_methods(pairs: list[Pair], methods: dict[str, FlowMethod]) -> pd.DataFrame:
    """One row per method, means over the pairs: epe, direction_deg, magnitude_ratio and zero_epe as in `flow_errors`;
    nonrigid_epe: error of the flow without the head's motion; ms: median per pair."""
    return pd.DataFrame({name: _method_errors(method, pairs) for name, method in methods.items()}).T


def _method_errors(method: FlowMethod, pairs: list[Pair]) -> dict[str, float]:
    method(pairs[0].first, pairs[0].second)  # the time of loading does not count
    flows, seconds = [], []
    for pair in pairs:
        start = time.perf_counter()
        flows.append(method(pair.first, pair.second))
        seconds.append(time.perf_counter() - start)
    if method is faceflow:  # it estimates the head's motion itself
        nonrigid = [face_motion(pair.first, pair.second)[1] for pair in pairs]
    else:
        nonrigid = [flow - fit_affine(flow, pair.visible) for flow, pair in zip(flows, pairs, strict=True)]
    return _errors(pairs, flows, nonrigid) | {"ms": np.median(seconds) * 1000}


def batch_errors(pairs: list[Pair]) -> dict[str, float]:
    """The errors of FaceFlow if it gets all pairs at once, as in the pipeline; ms: mean per pair."""
    first, second = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("first", "second"))
    face_motions(first[:BATCH], second[:BATCH])
    start = time.perf_counter()
    flows, nonrigid = face_motions(first, second)
    seconds = time.perf_counter() - start
    return _errors(pairs, flows, nonrigid) | {"ms": seconds / len(pairs) * 1000}


def _errors(pairs: list[Pair], flows: Sequence[np.ndarray], nonrigid: Sequence[np.ndarray]) -> dict[str, float]:
    rows = []
    for pair, flow, nonrigid_flow in zip(pairs, flows, nonrigid, strict=True):
        nonrigid_epe = flow_errors(nonrigid_flow, pair.nonrigid, pair.visible)["epe"]
        rows.append(flow_errors(flow, pair.flow, pair.visible) | {"nonrigid_epe": nonrigid_epe})
    return {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}


# Damaged frames and other motion ----------------------------------------------------------------------------------


def _both(pair: Pair, change: Callable[[np.ndarray], np.ndarray]) -> Pair:
    first, second = (_uint8(change(frame.astype(float))) for frame in (pair.first, pair.second))
    return replace(pair, first=first, second=second)


def _uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def moved(pair: Pair, flow: np.ndarray, rng: np.random.Generator) -> Pair:
    """The pair's first frame, and the same frame warped by `flow` (S, S, 2) px, with new noise on the second one."""
    height, width = pair.first.shape
    flow = flow.astype(np.float32)
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    back = -flow
    for _ in range(10):  # where each pixel of the second frame came from: back(x) = -flow(x + back(x))
        back = -cv2.remap(flow, pixels + back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    first = pair.first.astype(np.float32)
    second = cv2.remap(first, pixels + back, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    noisy = _uint8(second + rng.normal(0, SENSOR_NOISE, second.shape))
    return replace(pair, second=noisy, flow=flow, nonrigid=flow)


def waves(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A flow of sines of at most a pixel, with a wavelength of a quarter of the picture or more."""
    y, x = np.mgrid[: shape[0], : shape[1]] / shape[0]
    phase, turns = rng.uniform(0, 2 * np.pi, (2, 2)), rng.uniform(0.5, 4, (2, 2))
    u, v = (
        np.sin(2 * np.pi * t[0] * x + p[0]) * np.cos(2 * np.pi * t[1] * y + p[1])
        for t, p in zip(turns, phase, strict=True)
    )
    return np.stack([u, v], -1) * shape[0] / 256


def turn_and_zoom(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A flow that turns and zooms about the middle, by up to two pixels at the border."""
    y, x = np.mgrid[: shape[0], : shape[1]] / shape[0] - 0.5
    zoom, turn = rng.uniform(-4, 4, 2) * shape[0] / 256
    return np.stack([zoom * x - turn * y, zoom * y + turn * x], -1)


def grain(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), 2.0)
    return _uint8(128 + 40 * noise / noise.std())


# Changes of a pair by name. Most damage the frames and keep the truth; those that call `moved` set a new truth.
DAMAGES: dict[str, Callable[[Pair, np.random.Generator], Pair]] = {
    "noise of 6 grey levels": lambda pair, rng: _both(pair, lambda image: image + rng.normal(0, 6, image.shape)),
    "a third of the contrast": lambda pair, rng: _both(pair, lambda image: 90 + (image - 90) / 3),
    "blurred, sigma 1.5": lambda pair, rng: _both(pair, lambda image: cv2.GaussianBlur(image, (0, 0), 1.5)),
    "JPEG, quality 50": lambda pair, rng: _both(pair, lambda image: jpeg(image[None], 50)[0]),
    "second frame 10% brighter": lambda pair, rng: replace(pair, second=_uint8(pair.second * 1.1)),
    "waves over the picture": lambda pair, rng: moved(pair, waves(rng, pair.first.shape), rng),
    "turned and zoomed": lambda pair, rng: moved(pair, turn_and_zoom(rng, pair.first.shape), rng),
    "shifted by 6 px": lambda pair, rng: moved(pair, np.full((*pair.first.shape, 2), 6.0), rng),
    "shifted by 14 px": lambda pair, rng: moved(pair, np.full((*pair.first.shape, 2), 14.0), rng),
    "no face, grain of 2 px": lambda pair, rng: moved(
        replace(pair, first=grain(rng, pair.first.shape)), waves(rng, pair.first.shape), rng
    ),
}
