"""Pictures for tests: clips of given frames, and shifted pictures."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from utils.dataset.images import write_image
from utils.dataset.readers import open_sequence
from utils.dataset.sequence import Sequence


def picture_clip(folder: Path, frames: Iterable[np.ndarray]) -> Sequence:
    """Write frames (H, W, 3) uint8 as `<folder>/img0.png`, `img1.png` and so on, and open them as a sequence."""
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        write_image(folder / f"img{t}.png", frame)
    return open_sequence(folder)


def shifted(image: np.ndarray, x: float, y: float, size: int = 256) -> np.ndarray:
    """The middle (size, size) of a picture of 256 px after all of it moved by (x, y) pixels, right and down."""
    border = (256 - size) / 2
    move = np.array([[1, 0, x - border], [0, 1, y - border]])
    return cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_CUBIC)
