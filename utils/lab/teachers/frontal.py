"""The frontal crop in which the field shares real clips."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from utils.lab.teachers.motion_fields import CROP
from utils.render.camera import Camera
from utils.render.views import DISTANCE_MM
from utils.synthetic.face_model import Identity, load_face_model

# A camera straight in front of the face, before its picture is cropped
FRONT = Camera(0.0, DISTANCE_MM, (0.0, 0.0, 0.0), DISTANCE_MM, (255.5, 255.5), (512, 512))


class FrontalCrop(NamedTuple):
    """Where the eyes and the mouth lie in the square crop of a frontal face, in shares of its side.

    Width and height are scaled separately, as when a crop by landmarks is resized to a square.
    """

    eye_x: float  # middle between the eyes, from the left
    eye_y: float  # from the top
    eye_distance: float
    mouth_drop: float  # from the line of the eyes down to the mouth


def eye_centres(vertices: np.ndarray) -> np.ndarray:
    """Pixels (2, 2) of both eyes of a face (V, 3) mm in the picture of FRONT."""
    model = load_face_model()
    return FRONT.project(np.array([vertices[model.island == island].mean(0) for island in model.eyes]))


def frontal_view(identity: Identity, crop: FrontalCrop) -> tuple[Identity, Camera]:
    """The person, stretched in height to fit both scales of the crop, and the camera of the crop."""
    left, right = sorted(eye_centres(identity.vertices), key=lambda point: point[0])
    mouth = FRONT.project(identity.vertices[load_face_model().masks["lips"] > 0.5].mean(0))
    x, y = (left + right) / 2
    side = (right[0] - left[0]) / crop.eye_distance
    stretch = crop.mouth_drop * side / (mouth[1] - y)
    scale = np.array([1, stretch, 1], np.float32)
    y = 255.5 + (y - 255.5) * stretch
    camera = FRONT.cropped((x + 0.5 - crop.eye_x * side, y + 0.5 - crop.eye_y * side, side), CROP)
    return replace(identity, vertices=identity.vertices * scale, shape_offsets=identity.shape_offsets * scale), camera
