"""The frontal view and the flow image, in which the field shares real clips."""

from dataclasses import astuple, dataclass, replace

import numpy as np

from utils.lab.shared_image import from_image, strain_maps, to_image
from utils.lab.teachers.motion_fields import CROP
from utils.render.camera import Camera
from utils.render.views import DISTANCE_MM
from utils.synthetic.face_model import Identity, load_face_model


@dataclass(frozen=True)
class FrontalCrop:
    """Where the eyes and the mouth stand in the square crop of a frontal face, in shares of its side.

    Both axes are scaled on their own, as crops by landmarks are when they are resized to a square.
    """

    eye_x: float = 0.5  # middle between the eyes, from the left
    eye_y: float = 0.28  # from the top
    eye_distance: float = 0.57
    mouth_drop: float = 0.45  # from the eyes' line down to the mouth

    def jittered(self, rng: np.random.Generator, spread: float = 0.03) -> "FrontalCrop":
        """The crop as it differs from clip to clip: every number by a normal deviation of `spread`."""
        return FrontalCrop(*(np.array(astuple(self)) + rng.normal(0, spread, 4)))


def frontal_view(identity: Identity, crop: FrontalCrop) -> tuple[Identity, Camera]:
    """The person stretched so that the crop's two scales hold in a square picture, and the camera of it."""
    model = load_face_model()
    eyes = [identity.vertices[model.island == island].mean(0) for island in model.eyes]
    lips = model.masks["lips"] > 0.5
    wide = Camera(0.0, DISTANCE_MM, (0.0, 0.0, 0.0), DISTANCE_MM, (255.5, 255.5), (512, 512))
    left, right = sorted(wide.project(np.array(eyes)), key=lambda point: point[0])
    mouth = wide.project(identity.vertices[lips].mean(0))
    x, y = (left + right) / 2
    side = (right[0] - left[0]) / crop.eye_distance
    stretch = crop.mouth_drop * side / (mouth[1] - y)
    scale = np.array([1, stretch, 1], np.float32)
    y = 255.5 + (y - 255.5) * stretch
    camera = wide.cropped((x + 0.5 - crop.eye_x * side, y + 0.5 - crop.eye_y * side, side), CROP)
    return replace(identity, vertices=identity.vertices * scale, shape_offsets=identity.shape_offsets * scale), camera


def flow_image(flow: np.ndarray) -> np.ndarray:
    """Flow (..., 2, H, W) as the field shares it and a reader takes it from there: u, v, strain (..., 3, H, W) float32.

    See `utils.lab.shared_image`.
    """
    return from_image(to_image(strain_maps(flow)))
