"""Rendered clips of synthetic faces with their exact flow, to train and to test flow methods.

A clip passes through the steps of the pipeline: stereo cameras photograph the face, the composite becomes the texture,
and both virtual cameras draw the textured mesh. The exact flow is computed from the mesh.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from utils.config import Config
from utils.flow.truth import exact_flows
from utils.render.renderer import TexturedMesh, get_renderer
from utils.render.views import view_cameras
from utils.synthetic.face_model import load_face_model
from utils.synthetic.performance import move_head
from utils.synthetic.photography import SENSOR_NOISE, photograph, scanner_surface, scanner_uv

YAW_DEG = Config.yaw_deg  # of the virtual cameras in a run with default settings


class Performed(NamedTuple):
    """A face at T moments: shapes (T, V, 3) mm in the head's frame, angles and shift (T, 3) of the head."""

    shapes: np.ndarray
    angles: np.ndarray  # degrees about x, y, z
    shift: np.ndarray  # mm


@dataclass(frozen=True)
class Conditions:
    """How a clip is photographed and drawn."""

    size: int = 256  # side of a view, pixels
    noise: float = SENSOR_NOISE  # grey levels at mid grey
    flicker: bool = True
    stabilised: bool = True  # the head's motion is removed from the meshes before they are drawn
    yaw_deg: float = YAW_DEG  # of the virtual cameras, to either side


class FlowClip(NamedTuple):
    """Views of T moments, and the truth for the P = T - 1 pairs of neighbouring moments."""

    frames: np.ndarray  # (T, V=2, S, S, 3) uint8
    flow: np.ndarray  # (V, P, S, S, 2) float32 px, all motion
    nonrigid: np.ndarray  # the same without the head's rigid motion
    visible: np.ndarray  # (V, P, S, S) bool, where the truth is defined

    def grey(self) -> np.ndarray:
        """The views in grey, (T, V, S, S) uint8."""
        return np.stack([[cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in moment] for moment in self.frames])


def record_clip(
    act: Performed,
    albedo: np.ndarray,
    light_seed: int,
    rng: np.random.Generator,
    conditions: Conditions = Conditions(),
    truth_size: int | None = None,
) -> FlowClip:
    """Photograph and draw a performance, with its exact flow.

    albedo: the skin, as `paint_skin` returns it. truth_size: side of the truth's maps, by default that of the views;
    the flow is in pixels of the views in either case. The virtual cameras stand before the face of the first moment.
    """
    posed = move_head(act.shapes, act.angles, act.shift)
    light = np.random.default_rng(light_seed)
    photos = list(photograph(posed, albedo, light, rng, conditions.flicker, conditions.noise))
    pose = np.stack([act.angles, act.shift])
    if conditions.stabilised:
        pose = np.repeat(pose[:, :1], len(posed), axis=1)
    shown = move_head(act.shapes, *pose)
    nonrigid = move_head(act.shapes[1:], *pose[:, :-1])  # the face of the next moment, the head still at this moment's
    source, side, faces = scanner_surface()
    uv = scanner_uv(posed, source, side)
    cameras = view_cameras(shown[0][source], conditions.size, conditions.yaw_deg)
    meshes = [TexturedMesh(shape[source], faces, at, photo) for shape, at, photo in zip(shown, uv, photos, strict=True)]
    frames = np.stack([[picture.rgb for picture in get_renderer().render(mesh, cameras)] for mesh in meshes])

    size = truth_size or conditions.size
    lenses = [camera.cropped((0, 0, conditions.size), size) for camera in cameras]
    pairs = list(zip(shown[:-1], np.stack([shown[1:], nonrigid], axis=1), strict=True))
    model_faces = load_face_model().faces
    truth = [[exact_flows(before, afters, model_faces, lens) for before, afters in pairs] for lens in lenses]
    flows = np.array([[flow for flow, _ in view] for view in truth]) * np.float32(conditions.size / size)
    visible = np.array([[mask for _, mask in view] for view in truth])
    return FlowClip(frames, flows[:, :, 0], flows[:, :, 1], visible)
