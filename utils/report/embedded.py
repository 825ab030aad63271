"""Pictures within a page: as data URIs, with their sizes and what they show in words."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 88  # of photographs as JPEG
WIDE = 900  # pixels of width from which a picture takes the whole width of the page
LEAST = 0.6  # of its size, below which the words in a figure cannot be read: a narrow screen scrolls it


@dataclass(frozen=True)
class Picture:
    """A picture as a page holds it."""

    source: str  # data URI
    width: int  # pixels
    height: int
    alt: str  # what it shows, for those who do not see it
    caption: str = ""

    @property
    def wide(self) -> bool:
        return self.width >= WIDE

    @property
    def least(self) -> int:
        """Pixels of width down to which a screen may shrink it."""
        return round(LEAST * self.width)


def picture_of_file(path: Path, alt: str, caption: str = "") -> Picture:
    """A PNG as it lies on disk. Raises OSError where it is none."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        width, height = image.size
    return Picture(_data_uri(content, "png"), width, height, alt, caption)


def picture_of_array(array: np.ndarray, alt: str, caption: str = "") -> Picture:
    """A photograph (H, W, 3) uint8 as JPEG."""
    target = io.BytesIO()
    Image.fromarray(array).save(target, "JPEG", quality=QUALITY)
    return Picture(_data_uri(target.getvalue(), "jpeg"), array.shape[1], array.shape[0], alt, caption)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
