"""Faces in pictures, by the cascades that OpenCV ships, and whether a picture shows anything at all."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from utils.dataset.geometry import Box
from utils.render.crops import square_box

LEAST_CONTRAST = 10  # grey levels from the 2nd to the 98th percentile; skins, dark ones and lit ones, have 40 and more
PADDING = 0.3  # of a side, about a picture that may be a face and nothing else
FILLED = 0.7  # share of a picture's side that a face fills which has no picture about it
SAME = 0.2  # of a face's width: farther apart the middles of two boxes are not of one face
SMALL = 0.5  # share below which the detector may have taken a nose or a mouth of such a face


@lru_cache(maxsize=4)
def cascade(name: str) -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / f"haarcascade_{name}.xml"))


def frontal_face(picture: np.ndarray) -> Box | None:
    """The square about the largest frontal face of a picture (H, W, 3), a fifth of its width or more, or None.

    Where a second detector sees a face too, it is one that both see: one alone takes a tie, or a shadow, for a face now
    and then.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    faces = cascade("frontalface_default").detectMultiScale(grey, 1.05, 4, minSize=(grey.shape[1] // 5,) * 2)
    if not len(faces):
        return None
    x, y, width, height = max(seen_twice(grey, faces) or faces, key=lambda face: face[2])
    return square_box(np.array([x, y]), np.array([x + width, y + height]))


def seen_twice(grey: np.ndarray, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Those of the boxes x, y, width, height in a picture (H, W) whose middle is the middle of another detector's."""
    least = min(face[2] for face in faces) // 2
    others = cascade("frontalface_alt").detectMultiScale(grey, 1.05, 3, minSize=(least, least))
    middles = [other[:2] + other[2:] / 2 for other in others]
    return [face for face in faces if any(np.hypot(*(face[:2] + face[2:] / 2 - at)) < SAME * face[2] for at in middles)]


def is_a_face(picture: np.ndarray) -> bool:
    """Whether a picture (H, W, 3) is filled by a face that the detector only sees with a margin about it."""
    pad = round(PADDING * max(picture.shape[:2]))
    colour = tuple(int(value) for value in np.median(picture.reshape(-1, 3), axis=0))
    wider = cv2.copyMakeBorder(picture, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=colour)
    found = frontal_face(wider)
    return found is not None and found[2] >= FILLED * min(picture.shape[:2])


def sureness(grey: np.ndarray, least: int) -> float:
    """How surely a picture (H, W) uint8 shows an upright face of `least` pixels or more; 0 where it shows none."""
    faces, _, weights = cascade("frontalface_alt").detectMultiScale3(
        grey, 1.05, 3, minSize=(least, least), outputRejectLevels=True
    )
    return float(np.max(weights)) if len(faces) else 0.0


def has_contrast(picture: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a picture (H, W, 3) shows more than one grey where the mask (H, W) is."""
    low, high = np.percentile(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[mask], (2, 98))
    return high - low >= LEAST_CONTRAST
