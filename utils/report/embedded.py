"""Pictures inside an HTML page, as data URIs."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

QUALITY = 88  # of JPEG


class Picture(NamedTuple):
    """A picture to be embedded in a page."""

    source: str  # data URI
    width: int  # pixels
    height: int
    alt: str  # description for readers who cannot see the picture
    caption: str


def picture_of_file(path: Path, caption: str) -> Picture:
    """A PNG file, unchanged; the caption also describes it. Raises OSError for a file of another format."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return Picture(_data_uri(content, "png"), *image.size, caption, caption)


def picture_of_array(array: np.ndarray, alt: str, caption: str = "") -> Picture:
    """An image (H, W, 3) uint8 as JPEG."""
    target = io.BytesIO()
    Image.fromarray(array).save(target, "JPEG", quality=QUALITY)
    return Picture(_data_uri(target.getvalue(), "jpeg"), array.shape[1], array.shape[0], alt, caption)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
