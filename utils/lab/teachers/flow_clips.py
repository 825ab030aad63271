"""Rendered clips of synthetic faces with their exact flow: what flow methods are trained on and measured against.

A clip goes the pipeline's way: photographed by the stereo cameras, textured from the composite, drawn by both virtual
cameras. The truth comes from the mesh: the flow of the visible surface, and the same without the head's rigid motion.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from utils.config import Config
from utils.flow.truth import exact_flows
from utils.render.renderer import TexturedMesh, get_renderer
from utils.render.views import view_cameras
from utils.synthetic.face_model import Identity, load_face_model
from utils.synthetic.performance import move_head
from utils.synthetic.photography import SENSOR_NOISE, photograph, scanner_surface, scanner_uv

YAW_DEG = Config.yaw_deg  # of the virtual cameras, as a run has it by default


@dataclass(frozen=True)
class Performed:
    """What a face does in a few moments: shapes (T, V, 3) mm in the head's frame, head angles and shifts (T, 3)."""

    shapes: np.ndarray
    angles: np.ndarray  # degrees
    shift: np.ndarray  # mm


@dataclass(frozen=True)
class Conditions:
    """How a clip is photographed and drawn."""

    size: int = 256  # pixels of a view's side
    noise: float = SENSOR_NOISE  # grey levels at mid grey
    flicker: bool = True
    stabilised: bool = True  # the head's motion is taken out of the meshes before drawing
    yaw_deg: float = YAW_DEG  # of the virtual cameras, to either side


@dataclass(frozen=True)
class FlowClip:
    """Views (T, V=2, S, S, 3) uint8 of T moments, and the truth of the P = T - 1 pairs of neighbouring moments.

    flow, nonrigid: (V, P, S, S, 2) float32 px, all motion, and without the head's rigid motion; visible (V, P, S, S)
    bool.
    """

    frames: np.ndarray
    flow: np.ndarray
    nonrigid: np.ndarray
    visible: np.ndarray

    def grey(self) -> np.ndarray:
        """The views in grey, (T, V, S, S) uint8."""
        return np.stack([[cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in moment] for moment in self.frames])


def record_clip(
    identity: Identity,
    act: Performed,
    albedo: np.ndarray,
    light_seed: int,
    rng: np.random.Generator,
    conditions: Conditions = Conditions(),
    truth_size: int | None = None,
) -> FlowClip:
    """Photograph and draw what `act` does. truth_size: side of the truth's maps, in px of the views all the same.

    albedo: of `paint_skin`. Where the head's motion is left in, the cameras stand before the first moment's face.
    """
    taken = move_head(act.shapes, act.angles, act.shift)
    light = np.random.default_rng(light_seed)
    photos = list(photograph(taken, albedo, light, rng, conditions.flicker, conditions.noise))
    pose = np.stack([act.angles, act.shift])
    if conditions.stabilised:
        pose = np.repeat(pose[:, :1], len(taken), axis=1)
    shown = move_head(act.shapes, *pose)
    nonrigid = move_head(act.shapes[1:], *pose[:, :-1])  # the next moment's shape where the head was before
    source, side, faces = scanner_surface()
    uv = scanner_uv(taken, source, side)
    cameras = view_cameras(shown[0][source], conditions.size, conditions.yaw_deg)
    meshes = [TexturedMesh(shape[source], faces, at, photo) for shape, at, photo in zip(shown, uv, photos, strict=True)]
    frames = np.stack([[picture.rgb for picture in get_renderer().render(mesh, cameras)] for mesh in meshes])

    size = truth_size or conditions.size
    lenses = [camera.cropped((0, 0, conditions.size), size) for camera in cameras]
    pairs = list(zip(shown[:-1], np.stack([shown[1:], nonrigid], axis=1), strict=True))
    model_faces = load_face_model().faces
    truth = [[exact_flows(before, afters, model_faces, lens) for before, afters in pairs] for lens in lenses]
    flows = np.array([[flow for flow, _ in view] for view in truth]) * np.float32(conditions.size / size)
    visible = np.array([[seen for _, seen in view] for view in truth])
    return FlowClip(frames, flows[:, :, 0], flows[:, :, 1], visible)
