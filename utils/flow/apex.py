"""Apex spotting: find the frame in which the expression moves the face most, despite blinks, head motion and noise.

The motion curve of a view is m(t) = mean of the largest tenth of |flow(onset -> t)| over the face without the eyes; the
flow excludes the head's motion. The curves of all views are added and smoothed over time; the peak is the apex. Every
third frame is measured first, then all frames around the largest motion, which takes three fifths of the flows.

If only noise moves the rest of the face, the eyes count instead, because some people show surprise with their upper
lids alone. Only upward motion counts there, because the lids move downwards in a blink.

The method and its constants were chosen on 72 clips of 18 people (data seeds 201 to 203), and the rule for the eyes on
30 clips (seeds 211 to 215). None of these people is in any other data set.
"""

from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter1d

from utils.flow.methods import estimate_flows
from utils.render.faces import cascade

TOP_SHARE = 0.1  # share of the face's pixels: an expression moves a part of the face, noise moves all of it a little
SMOOTHING_FRAMES = 0.7  # sigma of the smoothing over time
STRIDE = 3  # frames between those that are measured first
NEAR_PEAK = 0.8  # share of the largest motion; all frames around a measured frame with more motion are measured too
CHUNK = 16  # flows that are held in memory at once
# Mean places of both eyes in the crop of each view, (x, y) as shares of its side, for clips with one view and with two.
# Their deviation over 40 identities of the face model is 0.02. The eyes are detected around these places.
EYES = {
    1: (((0.33, 0.41), (0.67, 0.41)),),
    2: (((0.48, 0.36), (0.75, 0.36)), ((0.25, 0.36), (0.52, 0.36))),
}
EYE_SEARCH = 0.12  # largest distance of a detected eye from its mean place, share of the side
EYE_RADII = (0.13, 0.09)  # half width and height of the ellipse that masks an eye with its lids, shares of the side
# The expression lasts while the motion is above this share of the way from its least value to its value at the apex.
# Chosen on 16 recordings of 8 synthetic people before one camera, with still frames before and after the expression. On
# 16 recordings of 8 other people, the mean error is 2.1 frames for the onset and 3.8 frames for the offset.
ENDS_SHARE = 0.2
VISIBLE_PX = 0.125  # motion of a 256 px view, mean over the views; less is noise

Places = tuple[tuple[float, float], tuple[float, float]]  # (x, y) of the left and of the right eye


class Spotting(NamedTuple):
    """The apex of a sequence, as a position in it, and the motion curve in which it was found."""

    apex: int
    curve: np.ndarray  # (T,) float32 px, smoothed, sum over the views

    def moments(self, longer: bool) -> tuple[int, int, int]:
        """Onset, apex and offset. Onset and offset are the first and the last frame, unless the sequence is `longer`.

        The onset is then the last frame before the apex whose motion is at most the level of ENDS_SHARE, and the offset
        is the first such frame after the apex, if there are such frames.
        """
        onset, offset = 0, len(self.curve) - 1
        if longer:
            before, after, peak = self.curve[: self.apex], self.curve[self.apex + 1 :], self.curve[self.apex]
            still = np.flatnonzero(before <= _end_level(before[1:], peak))  # frame 0 never moves against itself
            over = np.flatnonzero(after <= _end_level(after, peak))
            onset = int(still[-1]) if len(still) else onset
            offset = self.apex + 1 + int(over[0]) if len(over) else offset
        return onset, self.apex, offset


def _end_level(motion: np.ndarray, peak: float) -> float:
    """The motion at ENDS_SHARE of the way from the least motion (T,) to the peak."""
    least = motion.min(initial=peak)
    return least + ENDS_SHARE * (peak - least)


def find_eyes(image: np.ndarray, places: Places) -> np.ndarray:
    """Centres (2, 2) of both eyes, (x, y) pixels in a crop (S, S, 3): detections near `places`, else `places`."""
    size = image.shape[0]
    eyes = np.array(places) * size
    scale = 256 / size
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (256, 256), interpolation=interpolation)
    boxes = cascade("eye").detectMultiScale(grey[40:150], 1.05, 3, minSize=(22, 22), maxSize=(80, 80))
    centres = np.array([[x + w / 2, y + 40 + h / 2] for x, y, w, h in boxes]).reshape(-1, 2) / scale
    for eye in eyes:
        distance = np.linalg.norm(centres - eye, axis=1)
        if len(centres) and distance.min() < EYE_SEARCH * size:
            eye[:] = centres[distance.argmin()]
    return eyes


def motion_masks(image: np.ndarray, face: np.ndarray, places: Places) -> tuple[np.ndarray, np.ndarray]:
    """Two parts (S, S) bool of the face mask (S, S), eroded a little: the face without the eyes, and the eyes."""
    size = image.shape[0]
    inner = cv2.erode(face.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=max(1, size // 64))
    eyes = np.zeros_like(inner)
    for x, y in find_eyes(image, places):
        radii = (round(EYE_RADII[0] * size), round(EYE_RADII[1] * size))
        cv2.ellipse(eyes, (round(x), round(y)), radii, 0, 0, 360, 1, -1)
    return inner > eyes, (inner & eyes) > 0


def mean_of_largest(vectors: np.ndarray) -> float:
    """Mean of the largest tenth of the lengths of vectors (N, C); 0 if there are none."""
    if not len(vectors):
        return 0.0
    lengths = np.sqrt(sum(part * part for part in vectors.T))  # takes a third of the time of np.linalg.norm
    top = max(1, int(len(lengths) * TOP_SHARE))
    return float(np.partition(lengths, -top)[-top:].mean())


class MeasuredView(NamedTuple):
    """One view of a sequence, prepared for measuring its motion."""

    grey: np.ndarray  # (T, S, S) uint8
    skin: np.ndarray  # (S, S) bool, the face without the eyes
    eyes: np.ndarray  # (S, S) bool


def prepare_view(frames: np.ndarray, face: np.ndarray, places: Places, size: int) -> MeasuredView:
    """Reduce the frames (T, S, S, 3) uint8 and the face mask (S, S) of a view to `size`, if they are larger."""
    side = min(size, frames.shape[1])
    small = [cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames]
    face = cv2.resize(face.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST).astype(bool)
    grey = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in small])
    return MeasuredView(grey, *motion_masks(small[0], face, places))


def motion_at(views: list[MeasuredView], times: np.ndarray, method: str) -> np.ndarray:
    """Motion (N, 2) float32 px of the frames `times` (N,) against frame 0, without the head's motion, sum over views.

    Column 0 is the motion of the skin, column 1 the upward motion at the eyes.
    """
    motion = np.zeros((len(views) * len(times), 2), np.float32)
    pairs = [(view, t) for view in views for t in times]
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        frames, faces = [(view.grey[0], view.grey[t]) for view, t in chunk], [view.skin for view, _ in chunk]
        for i, (flow, (view, _)) in enumerate(zip(estimate_flows(frames, method, faces), chunk, strict=True), start):
            motion[i] = mean_of_largest(flow[view.skin]), mean_of_largest(np.minimum(flow[view.eyes][:, 1:], 0))
    return motion.reshape(len(views), len(times), 2).sum(0)


def motion_curve(frames: np.ndarray, masks: np.ndarray, size: int = 256, method: str = "faceflow") -> np.ndarray:
    """The motion curve of the module's docstring before smoothing: (T,) float32 px at `size`.

    frames (T, V, S, S, 3) uint8, reduced to `size` first; masks (V, S, S) bool. Frames that are not measured are
    interpolated linearly. The eyes count instead of the skin if the skin never moves by VISIBLE_PX.
    """
    n_frames = len(frames)
    eyes = EYES[frames.shape[1]]
    views = [prepare_view(frames[:, v], masks[v], places, size) for v, places in enumerate(eyes)]
    times = np.unique([*range(0, n_frames, STRIDE), n_frames - 1])[1:]
    motion = np.full((n_frames, 2), np.nan, np.float32)
    motion[0] = 0
    motion[times] = motion_at(views, times, method)
    visible = np.nanmax(motion[:, 0]) >= VISIBLE_PX * len(views) * views[0].grey.shape[1] / 256
    curve = motion[:, 0 if visible else 1]
    near = binary_dilation(curve >= NEAR_PEAK * np.nanmax(curve), iterations=STRIDE - 1)
    times = np.flatnonzero(near & np.isnan(curve))
    motion[times] = motion_at(views, times, method)  # fills `curve` too, which is a column of `motion`
    measured = np.flatnonzero(np.isfinite(curve))
    return np.interp(np.arange(n_frames), measured, curve[measured]).astype(np.float32)


def spot_apex(frames: np.ndarray, masks: np.ndarray, size: int = 256, method: str = "faceflow") -> Spotting:
    """Spot the peak of the smoothed motion curve between the first and the last frame; of two frames, the last."""
    curve = gaussian_filter1d(motion_curve(frames, masks, size, method), SMOOTHING_FRAMES, mode="nearest")
    return Spotting(1 + int(curve[1 : max(len(curve) - 1, 2)].argmax()), curve)
