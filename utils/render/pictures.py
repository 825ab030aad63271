"""Where the face stands in pictures of it: composites of two cameras, or the pictures of one."""

import cv2
import numpy as np

from utils.dataset.geometry import TRIM, Box, is_box
from utils.dataset.sequence import Sequence
from utils.errors import DataError
from utils.render.crops import ellipse_mask, square_box
from utils.render.faces import SMALL, frontal_face, is_a_face

DETECTOR_FRAMES = 5  # frames that the face detector sees
BEYOND = 0.25  # of a face's box that may lie outside its half of a composite
ALIKE = 1.5  # ratio of the sizes of two faces that are one person's, seen by two cameras
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
    """A box per view, and how it was found: the mesh's UVs there, else a face detector, else the centre.

    Raises DataError for one camera's picture that is taken for two, two that are taken for one, and a texture whose
    halves are no pictures of the face.
    """
    if sequence.kind == "mesh":
        points = [half_projection(sequence, v) for v in range(n_views)]
        if all(found is not None for found in points):
            boxes = [square_box(*np.quantile(found, [TRIM, 1 - TRIM], axis=0)) for found in points]
            _check_halves(sequence, boxes, n_views)
            return boxes, "mesh"
    boxes = [detect_box(sequence, v, n_views) for v in range(n_views)]
    _check_count(sequence, boxes, n_views)
    if all(boxes):
        height, width = strips(sequence, 0, n_views)[0].shape[:2]
        small = [box[2] < SMALL * min(height, width) for box in boxes]
        if not (any(small) and all(is_a_face(picture) for picture in strips(sequence, 0, n_views))):
            return boxes, "detector"
        return _whole(sequence, n_views), "picture"  # what was found is a nose or a mouth
    if all(is_a_face(picture) for picture in strips(sequence, 0, n_views)):
        return _whole(sequence, n_views), "picture"
    return _whole(sequence, n_views), "centred"


def _whole(sequence: Sequence, n_views: int) -> list[Box]:
    """The square in the middle of each view."""
    height, width = strips(sequence, 0, n_views)[0].shape[:2]
    side = float(min(height, width))
    return [((width - side) / 2, (height - side) / 2, side)] * n_views


def _check_halves(sequence: Sequence, boxes: list[Box], n_views: int) -> None:
    """Raise DataError for boxes that reach out of their halves: the texture is an atlas, and no two photographs."""
    if not all(map(is_box, boxes)):
        return  # without an extent, of which the caller tells
    height, width = strips(sequence, 0, n_views)[0].shape[:2]
    for x, y, side in boxes:
        beyond = max(-x, -y, x + side - width, y + side - height)
        if beyond > BEYOND * side:
            fault = f"the face would reach {beyond:.0f} pixels out of its half of the texture, which is no composite"
            raise DataError.at(sequence.files[0], fault, "set views to 'render'")


def _check_count(sequence: Sequence, boxes: list[Box | None], n_views: int) -> None:
    """Raise DataError where the picture shows another number of faces than it should have views."""
    whole = strips(sequence, 0, 1)[0]
    middle = whole.shape[1] / 2
    if n_views == 2 and not all(boxes):
        face = frontal_face(whole)
        if face is not None and face[0] + face[2] / 4 < middle < face[0] + 3 * face[2] / 4:
            fault = "it shows one face in its middle: it is the picture of one camera, and not of two side by side"
            raise DataError.at(sequence.files[0], fault, "set views to 'single'")
    if n_views == 1 and whole.shape[1] > whole.shape[0] and whole.shape[1] % 2 == 0:
        halves = [frontal_face(half) for half in np.split(whole, 2, axis=1)]
        if all(halves) and max(halves[0][2], halves[1][2]) < ALIKE * min(halves[0][2], halves[1][2]):
            fault = "it shows two faces of one size side by side: it is a composite of two cameras"
            raise DataError.at(sequence.files[0], fault, "set views to 'split'")


def detect_box(sequence: Sequence, view: int, n_views: int) -> Box | None:
    """The median of the largest faces that OpenCV's Haar cascade finds; None if in fewer than half."""
    times = np.unique(np.linspace(0, len(sequence) - 1, DETECTOR_FRAMES).round().astype(int))
    found = [face for t in times if (face := frontal_face(strips(sequence, t, n_views)[view])) is not None]
    if len(found) * 2 < len(times):
        return None
    return tuple(float(value) for value in np.median(found, axis=0))


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
