"""Apex spotting: when does the expression move most, blinks, head motion and noise notwithstanding?

Motion curve of one view: m(t) = mean of the largest tenth of |flow(onset -> t)| over the face without the
eyes, the flow without the head's motion. The views' curves are added and smoothed over time; the peak is the apex.
Every third frame is measured, then all about those that move most: three fifths of the flows. Method, share, smoothing
and these steps were chosen on 72 clips of 18 people who are in no other set (data seeds 201 to 203).

Where nothing but noise moves in the rest of the face, the eyes count after all: some show surprise with their upper
lids alone. Only upward motion counts there, since a blink goes down (chosen on 30 such clips, data seeds 211 to 215).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter1d

from utils.flow.methods import estimate_flows

TOP_SHARE = 0.1  # of the face's pixels: an expression moves a part of the face, noise moves all of it a little
SMOOTHING_FRAMES = 0.7  # sigma over time
STRIDE = 3  # frames: how closely a sequence is looked through,
NEAR_PEAK = 0.8  # and from which share of the largest motion on closer; on those 72 clips the apexes were the same
CHUNK = 16  # frames whose flows are held at once
# Where the eyes stand in a crop (x, y as shares of its side), of each view by the number of views: the mean over 40
# synthetic identities, with a spread of 0.02. They are looked for near there, and taken from here where the detector
# finds none. Of a single view it is the crop by the detector of frontal faces, which found all of 60 identities.
EYES = {
    1: (((0.33, 0.41), (0.67, 0.41)),),
    2: (((0.48, 0.36), (0.75, 0.36)), ((0.25, 0.36), (0.52, 0.36))),
}
EYE_SEARCH = 0.12  # how far from there a detection may lie, share of the side
EYE_RADII = (0.13, 0.09)  # of the masked ellipse, lids included, shares of the side
# Of the motion at the apex above the least before it, and after it: below, the expression has not begun, or is over.
# Chosen on 16 recordings with still frames about the clip, of 8 synthetic people before one camera: onset 1.4 and
# offset 4.3 frames off; on 16 of 8 others 2.1 and 3.8, where the first and the last frame are 24 and 23 off.
ENDS_SHARE = 0.2
VISIBLE_PX = 0.125  # of a 256 px view, mean over the views: a largest motion below is noise


@dataclass(frozen=True)
class Spotting:
    """The found moments of a sequence, as positions in it, and the curve that they were read from."""

    onset: int
    apex: int
    offset: int
    curve: np.ndarray  # (T,) float32 px, smoothed, all views together

    @property
    def moments(self) -> tuple[int, int, int]:
        return self.onset, self.apex, self.offset

    @property
    def found(self) -> tuple[int, int, int]:
        """The moments of a recording that begins before the onset and goes on after the offset: the last frame before
        the apex, and the first after it, that move by no more than ENDS_SHARE; else as in `moments`."""
        before, after = self.curve[: self.apex], self.curve[self.apex + 1 :]
        peak = self.curve[self.apex]
        still = np.flatnonzero(before <= _share_above(before[1:], peak))
        over = np.flatnonzero(after <= _share_above(after, peak))
        onset = int(still[-1]) if len(still) else self.onset
        return onset, self.apex, self.apex + 1 + int(over[0]) if len(over) else self.offset


def _share_above(motion: np.ndarray, peak: float) -> float:
    """The motion ENDS_SHARE of the way from the least of some frames to the peak."""
    least = motion.min(initial=peak)
    return least + ENDS_SHARE * (peak - least)


@lru_cache(maxsize=1)
def _eye_detector() -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_eye.xml"))


Places = tuple[tuple[float, float], tuple[float, float]]  # x, y of the left and the right eye


def find_eyes(image: np.ndarray, places: Places) -> np.ndarray:
    """Centres (2, 2) of both eyes as (x, y) pixels in a crop (S, S, 3): Haar detections near the usual places."""
    size = image.shape[0]
    usual = np.array(places) * size
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


def motion_masks(image: np.ndarray, face: np.ndarray, places: Places) -> tuple[np.ndarray, np.ndarray]:
    """The face mask (S, S), a little eroded, in two parts (S, S) bool: without the eyes, and the eyes."""
    size = image.shape[0]
    inner = cv2.erode(face.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=max(1, size // 64))
    eyes = np.zeros_like(inner)
    for x, y in find_eyes(image, places):
        radii = (round(EYE_RADII[0] * size), round(EYE_RADII[1] * size))
        cv2.ellipse(eyes, (round(x), round(y)), radii, 0, 0, 360, 1, -1)
    return inner > eyes, (inner & eyes) > 0


def motion_amount(flow: np.ndarray, mask: np.ndarray) -> float:
    """Mean of the largest tenth of the masked flow's magnitudes, px."""
    return _mean_of_largest(flow[mask])


def upward_amount(flow: np.ndarray, mask: np.ndarray) -> float:
    """`motion_amount` of what moves up."""
    return _mean_of_largest(np.minimum(flow[mask][:, 1:], 0))


def _mean_of_largest(vectors: np.ndarray) -> float:
    """Mean of the largest tenth of the lengths of vectors (N, C)."""
    if not len(vectors):
        return 0.0
    lengths = np.sqrt(sum(part * part for part in vectors.T))  # a third of the time of np.linalg.norm
    top = max(1, int(len(lengths) * TOP_SHARE))
    return float(np.partition(lengths, -top)[-top:].mean())


@dataclass(frozen=True)
class MeasuredView:
    """One view of a sequence, ready for its motion to be measured: grey frames (T, S, S) uint8; the face
    without the eyes, and the eyes, (S, S) bool."""

    grey: np.ndarray
    skin: np.ndarray
    eyes: np.ndarray


def prepare_view(frames: np.ndarray, face: np.ndarray, places: Places, size: int) -> MeasuredView:
    """Frames (T, S, S, 3) uint8 and face mask (S, S) of a view, reduced to `size` where they are larger."""
    side = min(size, frames.shape[1])
    small = [cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames]
    face = cv2.resize(face.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST).astype(bool)
    grey = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in small])
    return MeasuredView(grey, *motion_masks(small[0], face, places))


def motion_at(views: list[MeasuredView], times: np.ndarray, method: str) -> np.ndarray:
    """Motion of the frames `times` (N,) against the first, without the head's, all views added, (N, 2) float32 px: of
    the skin, and upwards about the eyes."""
    motion = np.zeros((len(views) * len(times), 2), np.float32)
    pairs = [(view, t) for view in views for t in times]
    for start in range(0, len(pairs), CHUNK):
        some = pairs[start : start + CHUNK]
        flows = estimate_flows([(view.grey[0], view.grey[t]) for view, t in some], method, [v.skin for v, _ in some])
        for i, (flow, (view, _)) in enumerate(zip(flows, some, strict=True), start):
            motion[i] = motion_amount(flow, view.skin), upward_amount(flow, view.eyes)
    return motion.reshape(len(views), len(times), 2).sum(0)


def motion_curve(frames: np.ndarray, masks: np.ndarray, size: int = 256, method: str = "faceflow") -> np.ndarray:
    """Motion of every frame against the first without the head's, the views added, (T,) float32 px at `size`.

    Measured at every STRIDE-th frame, then at all around those that come near the largest; linear between. It is the
    skin's, or where that never reaches VISIBLE_PX the upward motion about the eyes.
    frames (T, V, S, S, 3) uint8, reduced to `size` first; masks (V, S, S) bool.
    """
    n_frames = len(frames)
    eyes = EYES[frames.shape[1]]
    views = [prepare_view(frames[:, v], masks[v], places, size) for v, places in enumerate(eyes)]
    known = np.unique([*range(0, n_frames, STRIDE), n_frames - 1])
    motion = np.full((n_frames, 2), np.nan, np.float32)
    motion[0] = 0
    motion[known[1:]] = motion_at(views, known[1:], method)
    visible = np.nanmax(motion[:, 0]) >= VISIBLE_PX * len(views) * views[0].grey.shape[1] / 256
    curve = motion[:, 0 if visible else 1]
    near = binary_dilation(curve >= NEAR_PEAK * np.nanmax(curve), iterations=STRIDE - 1)
    closer = np.flatnonzero(near & np.isnan(curve))
    motion[closer] = motion_at(views, closer, method)
    known = np.flatnonzero(np.isfinite(curve))
    return np.interp(np.arange(n_frames), known, curve[known]).astype(np.float32)


def spot_apex(frames: np.ndarray, masks: np.ndarray, size: int = 256, method: str = "faceflow") -> Spotting:
    """Onset (the first frame), apex and offset (the last frame) of a sequence's expression.

    The apex lies strictly between where there are three frames or more; with two it is the last.
    """
    curve = gaussian_filter1d(motion_curve(frames, masks, size, method), SMOOTHING_FRAMES, mode="nearest")
    last = len(curve) - 1
    apex = 1 + int(curve[1 : max(last, 2)].argmax())
    return Spotting(0, apex, last, curve)
