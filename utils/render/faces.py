"""Detection of faces by the Haar cascades that OpenCV ships, and a check that a picture has contrast."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from utils.dataset.geometry import Box
from utils.render.crops import square_box

LEAST_CONTRAST = 10  # grey levels between the 2nd and the 98th percentile; dark and bright skin have 40 or more
PADDING = 0.3  # margin added to a picture before the search for a face that fills it, share of its longer side
FILLED = 0.7  # least size of a face that fills its picture, share of the picture's shorter side
SAME = 0.2  # largest distance between the centres of two detections of one face, share of the face's width


@lru_cache(maxsize=4)
def cascade(name: str) -> cv2.CascadeClassifier:
    """The detector in OpenCV's file haarcascade_<name>.xml."""
    return cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / f"haarcascade_{name}.xml"))


def frontal_face(picture: np.ndarray) -> Box | None:
    """A square around the largest frontal face of a picture (H, W, 3), at least a fifth of its width, or None.

    Faces that a second detector confirms are preferred: each detector alone sometimes takes a tie or a shadow for a
    face.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    faces = cascade("frontalface_default").detectMultiScale(grey, 1.05, 4, minSize=(grey.shape[1] // 5,) * 2)
    if not len(faces):
        return None
    x, y, width, height = max(seen_twice(grey, faces) or faces, key=lambda face: face[2])
    return square_box(np.array([x, y]), np.array([x + width, y + height]))


def seen_twice(grey: np.ndarray, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The boxes (x, y, width, height) in a picture (H, W) that a second detector confirms: its centre is the same."""
    least = min(face[2] for face in faces) // 2
    boxes = cascade("frontalface_alt").detectMultiScale(grey, 1.05, 3, minSize=(least, least))
    centres = [box[:2] + box[2:] / 2 for box in boxes]
    return [face for face in faces if any(np.hypot(*(face[:2] + face[2:] / 2 - at)) < SAME * face[2] for at in centres)]


def is_a_face(picture: np.ndarray) -> bool:
    """Whether a face fills the picture (H, W, 3). The detector sees such a face only if a margin is added."""
    pad = round(PADDING * max(picture.shape[:2]))
    colour = tuple(int(value) for value in np.median(picture.reshape(-1, 3), axis=0))
    face = frontal_face(cv2.copyMakeBorder(picture, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=colour))
    return face is not None and face[2] >= FILLED * min(picture.shape[:2])


def face_confidence(grey: np.ndarray, least: int) -> float:
    """The detector's confidence that a picture (H, W) uint8 shows an upright face of `least` pixels or more, else 0."""
    faces, _, weights = cascade("frontalface_alt").detectMultiScale3(
        grey, 1.05, 3, minSize=(least, least), outputRejectLevels=True
    )
    return float(np.max(weights)) if len(faces) else 0.0


def has_contrast(picture: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a picture (H, W, 3) shows more than one grey within the mask (H, W)."""
    low, high = np.percentile(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[mask], (2, 98))
    return high - low >= LEAST_CONTRAST
