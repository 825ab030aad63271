"""Where the face stands in pictures of it: composites of two cameras, or the pictures of one."""

from pathlib import Path

import cv2
import numpy as np

from utils.dataset.geometry import TRIM
from utils.dataset.reading import DataError
from utils.dataset.sequence import Sequence
from utils.render.crops import Box, ellipse_mask, square_box

DETECTOR_FRAMES = 5  # frames that the face detector sees
FAR = 100  # sides of a crop: a mesh's corner beyond is drawn there


def strips(sequence: Sequence, t: int, n_views: int) -> list[np.ndarray]:
    """The views (H, W / n_views, 3) that stand side by side in the picture of frame t.

    Raises DataError for a picture that cannot be cut into strips of one width.
    """
    picture = sequence.texture(t)
    width = picture.shape[1]
    if width % n_views:
        fault = f"a composite has two halves, and its width {width} is odd"
        raise DataError.at(sequence.files[t], fault, "export both views at one width")
    return np.split(picture, n_views, axis=1)


def find_boxes(sequence: Sequence, n_views: int) -> tuple[list[Box], str]:
    """A box per view, and how it was found: the mesh's UVs there, else a face detector, else the centre."""
    if sequence.kind == "mesh":
        points = [half_projection(sequence, v) for v in range(n_views)]
        if all(found is not None for found in points):
            return [square_box(*np.quantile(found, [TRIM, 1 - TRIM], axis=0)) for found in points], "mesh"
    boxes = [detect_box(sequence, v, n_views) for v in range(n_views)]
    if all(boxes):
        return boxes, "detector"
    height, width = strips(sequence, 0, n_views)[0].shape[:2]
    side = float(min(height, width))
    return [((width - side) / 2, (height - side) / 2, side)] * n_views, "centred"


def detect_box(sequence: Sequence, view: int, n_views: int) -> Box | None:
    """The median of the largest faces that OpenCV's Haar cascade finds; None if in fewer than half."""
    detector = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"))
    found = []
    times = np.unique(np.linspace(0, len(sequence) - 1, DETECTOR_FRAMES).round().astype(int))
    for t in times:
        image = cv2.cvtColor(strips(sequence, t, n_views)[view], cv2.COLOR_RGB2GRAY)
        faces = detector.detectMultiScale(image, 1.05, 4, minSize=(image.shape[1] // 5,) * 2)
        if len(faces):
            found.append(max(faces, key=lambda face: face[2]))
    if len(found) * 2 < len(times):
        return None
    x, y, width, height = np.median(found, axis=0)
    return square_box(np.array([x, y]), np.array([x + width, y + height]))


def half_projection(sequence: Sequence, view: int) -> np.ndarray | None:
    """Where all vertices of the first frame stand in one half of its composite: pixels (V, 2) of that half.

    A scanner's UVs tell it only of the vertices that take their texture from this half. The affine camera that
    fits those (least squares) carries the others over. None where fewer than 100 vertices lie there.
    """
    vertices, _, uv = sequence.geometry(0)
    rows, columns = sequence.texture(0).shape[:2]
    own = (uv[:, 0] >= 0.5) == bool(view)
    if own.sum() < 100:
        return None
    pixels = np.stack([uv[:, 0] * columns - view * columns / 2 - 0.5, (1 - uv[:, 1]) * rows - 0.5], -1)
    points = np.column_stack([vertices, np.ones(len(vertices))])
    camera = np.linalg.lstsq(points[own], pixels[own], rcond=None)[0]
    return points @ camera


def silhouette(sequence: Sequence, view: int, box: Box, size: int) -> np.ndarray:
    """(size, size) bool: the first frame's mesh as this half of the composite sees it, in the crop."""
    points = half_projection(sequence, view)
    if points is None:
        return ellipse_mask(size)
    x, y, side = box
    corners = (points - [x, y] + 0.5) * size / side - 0.5
    corners = corners.clip(-FAR * size, FAR * size)  # OpenCV draws with whole numbers of 32 bits
    canvas = np.zeros((size, size), np.uint8)
    for triangle in np.rint(corners[sequence.geometry(0)[1]] * 16).astype(np.int32):
        cv2.fillConvexPoly(canvas, triangle, 1, shift=4)
    return canvas.astype(bool)
