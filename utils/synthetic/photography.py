"""How a face is photographed: two stereo cameras, fixed lights, flicker, a noisy sensor, and the scanner's mesh."""

import cv2
import numpy as np

from utils.render.camera import Camera
from utils.render.renderer import TexturedMesh, get_renderer
from utils.synthetic.face_model import Surface, load_face_model

PHOTO = 320  # pixels a side of each stereo photograph
STEREO = tuple(
    Camera(yaw, 1100.0, (0.0, 0.0, 0.0), PHOTO * 4.7, ((PHOTO - 1) / 2,) * 2, (PHOTO, PHOTO)) for yaw in (-18.0, 18.0)
)
BACKGROUND = np.array([34, 33, 38], np.uint8)
SENSOR_BLUR, SENSOR_NOISE = 0.6, 1.5  # pixels; grey levels at mid grey


def scanner_surface(model: Surface | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mesh as the scanner delivers it: the model's vertex and the camera of each vertex (W,), and faces (F, 3).

    Each face takes its texture from the camera on its side. A vertex on the border is delivered once for each camera.
    """
    model = model or load_face_model()
    camera_of_face = (model.template[model.faces, 0].mean(1) > 0).astype(int)
    keys = model.faces + len(model.template) * camera_of_face[:, None]
    kept, faces = np.unique(keys, return_inverse=True)
    return kept % len(model.template), kept // len(model.template), faces.reshape(-1, 3).astype(np.int32)


def light_face(vertices: np.ndarray, rng_light: np.random.Generator, model: Surface) -> np.ndarray:
    """Light (T, V, 3) in 0..1 at each vertex: ambient, key and fill light, which are the same in all frames."""
    key = rng_light.normal([0, 0.55, 0.8], [0.35, 0.15, 0.1])
    fill = rng_light.normal([0, 0.1, 0.9], [0.6, 0.2, 0.1])
    lights = np.stack([key, fill]) / np.linalg.norm([key, fill], axis=1, keepdims=True)
    lit = np.clip(model.normals(vertices) @ lights.T.astype(np.float32), 0, None)
    warmth = 1 + rng_light.normal(0, 0.02, 3)
    return np.clip((0.38 + 0.42 * lit[..., :1] + 0.2 * lit[..., 1:]) * warmth, 0, 1)


def photograph(
    vertices: np.ndarray,
    albedo: np.ndarray,
    rng_light: np.random.Generator,
    rng: np.random.Generator,
    flicker: bool,
    noise: float = SENSOR_NOISE,
    model: Surface | None = None,
):
    """Yield the composite (PHOTO, 2 PHOTO, 3) uint8 of both cameras' photographs for each frame of vertices (T, V, 3).

    noise: standard deviation of the sensor's noise at mid grey, grey levels. model: the mesh, ours by default.
    """
    model, renderer = model or load_face_model(), get_renderer()
    tints = light_face(vertices, rng_light, model)
    frames = np.arange(len(vertices))
    gain = 1 + flicker * 0.01 * np.sin(2 * np.pi * (rng.uniform(0.05, 0.4) * frames + rng.random()))
    gain = gain * (1 + rng.normal(0, 0.003, len(frames)))
    background = np.full((PHOTO, 2 * PHOTO, 3), BACKGROUND, np.uint8)
    for t in frames:
        mesh = TexturedMesh(vertices[t], model.faces, model.uv, albedo, tints[t])
        rgb, mask = (np.concatenate(part, 1) for part in zip(*renderer.render(mesh, list(STEREO)), strict=True))
        cv2.copyTo(background, (~mask).astype(np.uint8), rgb)
        photo = cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), SENSOR_BLUR) * gain[t]
        photo += rng.standard_normal(photo.shape, np.float32) * noise * np.sqrt(0.25 + 0.75 * photo / 128)
        yield cv2.add(photo, 0.0, dtype=cv2.CV_8U)  # rounded, within 0..255


def scanner_uv(vertices: np.ndarray, source: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """UVs (T, W, 2) of the scanner's vertices: where each appears in its camera's half of the composite.

    vertices (T, V, 3) of the model; source and camera (W,) as `scanner_surface` returns them.
    """
    pixels = np.stack([c.project(vertices[:, source]) for c in STEREO])
    pixels = np.where(camera[:, None] == 0, pixels[0], pixels[1] + [PHOTO, 0])
    return np.stack([(pixels[..., 0] + 0.5) / (2 * PHOTO), 1 - (pixels[..., 1] + 0.5) / PHOTO], -1).astype(np.float32)
