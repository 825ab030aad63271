"""Where the face is in pictures: in composites of two cameras side by side, or in the pictures of one camera."""

import cv2
import numpy as np

from utils.dataset.geometry import TRIM, Box, is_box
from utils.dataset.sequence import Sequence
from utils.errors import DataError
from utils.render.crops import ellipse_mask, square_box
from utils.render.faces import frontal_face, is_a_face

DETECTOR_FRAMES = 5  # frames in which the detector searches for a face
BEYOND = 0.25  # largest part of a face's box outside its half of a composite, share of the box's side
ALIKE = 1.5  # largest ratio of the sizes of one person's faces in the pictures of two cameras
SMALL = 0.5  # share of the picture's side; a smaller detection may be the nose or mouth of a face that fills it
FAR = 100  # sides of a crop: vertices farther away are drawn at this distance


def strips(sequence: Sequence, t: int, n_views: int) -> list[np.ndarray]:
    """The views (H, W / n_views, 3) that lie side by side in the picture of frame t.

    Raises DataError if the width of the picture is not a multiple of `n_views`.
    """
    picture = sequence.texture(t)
    width = picture.shape[1]
    if width % n_views:
        fault = f"a composite has two halves, but its width {width} is odd"
        raise DataError.at(sequence.files[t], fault, "export both views with the same width")
    return np.split(picture, n_views, axis=1)


def find_boxes(sequence: Sequence, n_views: int) -> tuple[list[Box], str]:
    """A box for each view, and its source: the UVs of a mesh, else a face detector, else the whole picture.

    Raises DataError for the picture of one camera that should be a composite, for a composite that should be the
    picture of one camera, and for a texture that is no composite.
    """
    if sequence.kind == "mesh":
        points = [half_projection(sequence, v) for v in range(n_views)]
        if all(pixels is not None for pixels in points):
            boxes = [square_box(*np.quantile(pixels, [TRIM, 1 - TRIM], axis=0)) for pixels in points]
            _check_halves(sequence, boxes, n_views)
            return boxes, "mesh"
    boxes = [detect_box(sequence, v, n_views) for v in range(n_views)]
    _check_count(sequence, boxes, n_views)
    pictures = strips(sequence, 0, n_views)
    height, width = pictures[0].shape[:2]
    side = float(min(height, width))
    if all(boxes) and min(box[2] for box in boxes) >= SMALL * side:
        return boxes, "detector"
    filled = all(is_a_face(picture) for picture in pictures)
    if all(boxes) and not filled:
        return boxes, "detector"
    middle = (width - side) / 2, (height - side) / 2, side
    return [middle] * n_views, "picture" if filled else "centred"


def _check_halves(sequence: Sequence, boxes: list[Box], n_views: int) -> None:
    """Raise DataError if boxes reach out of their halves: then the texture is an atlas, not a composite."""
    if not all(map(is_box, boxes)):
        return  # the caller refuses boxes without an extent
    height, width = strips(sequence, 0, n_views)[0].shape[:2]
    for x, y, side in boxes:
        beyond = max(-x, -y, x + side - width, y + side - height)
        if beyond > BEYOND * side:
            fault = f"its texture is no composite: the face would reach {beyond:.0f} pixels out of its half"
            raise DataError.at(sequence.files[0], fault, "set views to 'render'")


def _check_count(sequence: Sequence, boxes: list[Box | None], n_views: int) -> None:
    """Raise DataError if the first picture shows one face where two views are expected, or two faces for one view."""
    whole = strips(sequence, 0, 1)[0]
    middle = whole.shape[1] / 2
    if n_views == 2 and not all(boxes):
        face = frontal_face(whole)
        if face is not None and face[0] + face[2] / 4 < middle < face[0] + 3 * face[2] / 4:
            fault = "it shows one face in its middle: it is the picture of one camera, not a composite of two"
            raise DataError.at(sequence.files[0], fault, "set views to 'single'")
    if n_views == 1 and whole.shape[1] > whole.shape[0] and whole.shape[1] % 2 == 0:
        faces = [frontal_face(half) for half in np.split(whole, 2, axis=1)]
        if all(faces) and max(faces[0][2], faces[1][2]) < ALIKE * min(faces[0][2], faces[1][2]):
            fault = "it shows two faces of one size side by side: it is a composite of two cameras"
            raise DataError.at(sequence.files[0], fault, "set views to 'split'")


def detect_box(sequence: Sequence, view: int, n_views: int) -> Box | None:
    """The median of the faces that the detector finds in several frames; None if it finds one in fewer than half."""
    times = np.unique(np.linspace(0, len(sequence) - 1, DETECTOR_FRAMES).round().astype(int))
    faces = [face for t in times if (face := frontal_face(strips(sequence, t, n_views)[view])) is not None]
    if len(faces) * 2 < len(times):
        return None
    return tuple(float(value) for value in np.median(faces, axis=0))


def half_projection(sequence: Sequence, view: int) -> np.ndarray | None:
    """Pixels (V, 2) of all vertices of the first frame in one half of its composite.

    The UVs give the pixels of those vertices that take their texture from this half. An affine camera is fitted to
    them by least squares and projects the other vertices too. None if fewer than 100 vertices belong to this half.
    """
    vertices, _, uv = sequence.geometry(0)
    rows, columns = sequence.texture(0).shape[:2]
    in_half = (uv[:, 0] >= 0.5) == bool(view)
    if in_half.sum() < 100:
        return None
    pixels = np.stack([uv[:, 0] * columns - view * columns / 2 - 0.5, (1 - uv[:, 1]) * rows - 0.5], -1)
    points = np.column_stack([vertices, np.ones(len(vertices))])
    camera = np.linalg.lstsq(points[in_half], pixels[in_half], rcond=None)[0]
    return points @ camera


def silhouette(sequence: Sequence, view: int, box: Box, size: int) -> np.ndarray:
    """(size, size) bool: where one half of the composite shows the first frame's mesh, in the crop."""
    points = half_projection(sequence, view)
    if points is None:
        return ellipse_mask(size)
    x, y, side = box
    corners = (points - [x, y] + 0.5) * size / side - 0.5
    corners = corners.clip(-FAR * size, FAR * size)  # OpenCV's drawing coordinates are 32 bit integers
    canvas = np.zeros((size, size), np.uint8)
    for triangle in np.rint(corners[sequence.geometry(0)[1]] * 16).astype(np.int32):
        cv2.fillConvexPoly(canvas, triangle, 1, shift=4)
    return canvas.astype(bool)
