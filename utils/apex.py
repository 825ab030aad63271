"""Apex spotting: when does the expression move most, blinks, head motion and noise notwithstanding?

Motion curve of one view: m(t) = mean of the largest tenth of |flow(onset -> t)| over the face without the
eyes, the flow without the head's motion. The views' curves are added and smoothed over time; the peak is the apex.
Method, share and smoothing were chosen on 72 clips of 18 people who are in no other set (data seeds 201 to 203).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from utils.flow import estimate_flows

TOP_SHARE = (
    0.1  # of the face's pixels: an expression moves a part of the face, noise moves all of it a little
)
SMOOTHING_FRAMES = 0.7  # sigma over time
CHUNK = 16  # frames whose flows are held at once
# Where the eyes stand in a crop (x, y as shares of its side), per view: the mean over 40 synthetic identities, with a
# spread of 0.02. They are looked for near there, and taken from here where the detector finds none.
EYES = {0: ((0.48, 0.36), (0.75, 0.36)), 1: ((0.25, 0.36), (0.52, 0.36))}
EYE_SEARCH = 0.12  # how far from there a detection may lie, share of the side
EYE_RADII = (0.13, 0.09)  # of the masked ellipse, lids included, shares of the side


@dataclass(frozen=True)
class Spotting:
    """The found moments of a sequence, as positions in it, and the curve that they were read from."""

    onset: int
    apex: int
    offset: int
    curve: np.ndarray  # (T,) float32 px, smoothed, both views together

    @property
    def moments(self) -> tuple[int, int, int]:
        return self.onset, self.apex, self.offset


@lru_cache(maxsize=1)
def _eye_detector() -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_eye.xml"))


def find_eyes(image: np.ndarray, view: int) -> np.ndarray:
    """Centres (2, 2) of both eyes as (x, y) pixels in a crop (S, S, 3): Haar detections near the usual places."""
    size = image.shape[0]
    usual = np.array(EYES[view % 2]) * size
    scale = 256 / size
    grey = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
        (256, 256),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    boxes = _eye_detector().detectMultiScale(grey[40:150], 1.05, 3, minSize=(22, 22), maxSize=(80, 80))
    found = np.array([[x + w / 2, y + 40 + h / 2] for x, y, w, h in boxes]).reshape(-1, 2) / scale
    eyes = usual.copy()
    for i, place in enumerate(usual):
        distance = np.linalg.norm(found - place, axis=1)
        if len(found) and distance.min() < EYE_SEARCH * size:
            eyes[i] = found[distance.argmin()]
    return eyes


def motion_mask(image: np.ndarray, face: np.ndarray, view: int) -> np.ndarray:
    """(S, S) bool: the face mask, a little eroded, without the eyes."""
    size = image.shape[0]
    mask = cv2.erode(face.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=max(1, size // 64))
    for x, y in find_eyes(image, view):
        radii = (round(EYE_RADII[0] * size), round(EYE_RADII[1] * size))
        cv2.ellipse(mask, (round(x), round(y)), radii, 0, 0, 360, 0, -1)
    return mask.astype(bool)


def motion_amount(flow: np.ndarray, mask: np.ndarray) -> float:
    """Mean of the largest tenth of the masked flow's magnitudes, px."""
    if not mask.any():
        return 0.0
    magnitude = np.linalg.norm(flow, axis=-1)[mask]
    top = max(1, int(len(magnitude) * TOP_SHARE))
    return float(np.partition(magnitude, -top)[-top:].mean())


def motion_curve(frames: np.ndarray, masks: np.ndarray, size: int = 256, method: str = "faceflow") -> np.ndarray:
    """Motion of every frame against the first without the head's, (T, V) float32 px at `size`.

    frames (T, V, S, S, 3) uint8, reduced to `size` first; masks (V, S, S) bool.
    """
    n_frames, n_views, full = frames.shape[:3]
    side = min(size, full)
    curve = np.zeros((n_frames, n_views), np.float32)
    for v in range(n_views):
        small = [cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames[:, v]]
        face = cv2.resize(masks[v].astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST).astype(
            bool
        )
        mask = motion_mask(small[0], face, v)
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in small]
        for start in range(1, n_frames, CHUNK):
            pairs = [(grey[0], other) for other in grey[start : start + CHUNK]]
            flows = estimate_flows(pairs, method, [mask] * len(pairs))
            curve[start : start + CHUNK, v] = [motion_amount(flow, mask) for flow in flows]
    return curve


def spot_apex(frames: np.ndarray, masks: np.ndarray, size: int = 256, method: str = "faceflow") -> Spotting:
    """Onset (the first frame), apex and offset (the last frame) of a sequence's expression.

    The apex lies strictly between where there are three frames or more; with two it is the last.
    """
    curve = gaussian_filter1d(
        motion_curve(frames, masks, size, method).sum(1), SMOOTHING_FRAMES, mode="nearest"
    )
    last = len(curve) - 1
    apex = 1 + int(curve[1 : max(last, 2)].argmax())
    return Spotting(0, apex, last, curve.astype(np.float32))
