"""What is left of single files: composites are checked, images are written. Meshes: `meshes`; images: `images`.

Units and axes: vertices (V, 3) float32 in millimetres, x to the viewer's right, y up, z towards the viewer; faces
(F, 3) int32; uv (V, 2) float32 as in OBJ files, u right, v up from the lower left; textures (H, W, 3) uint8 RGB.
"""

from pathlib import Path

import cv2
import numpy as np

from utils.dataset.reading import DataError

MESH_SUFFIXES = (".obj", ".ply", ".glb", ".gltf")


def check_composite(image: np.ndarray, path: str | Path) -> None:
    """Raise DataError if the image (H, W, 3) cannot be cut into two halves of one width."""
    if image.shape[1] % 2:
        raise DataError.at(
            path, f"a composite has two halves, and its width {image.shape[1]} is odd", "export both views at one width"
        )


# Writing ------------------------------------------------------------------------------------------


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the suffix: PNG packed for speed, JPEG at quality 95.

    Sensor noise does not compress: without the search for repetitions a PNG is written in half the time, and smaller;
    with one filter for all rows, rather than the best of five for each, in half of that, and it is read sooner.
    """
    packing = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    packing += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG]
    is_jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if is_jpeg else packing if Path(path).suffix.lower() == ".png" else []
    if not cv2.imwrite(str(path), cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR), options):
        raise DataError.at(path, "the image cannot be written", "check the folder and the space on the disk")
