"""Clips of synthetic people in front of one camera, and their files: pictures or a video."""

from pathlib import Path

import cv2
import numpy as np

from utils.dataset.images import write_image
from utils.render.camera import Camera
from utils.render.renderer import TexturedMesh, get_renderer
from utils.synthetic.data_root import make_identity
from utils.synthetic.face_model import load_face_model
from utils.synthetic.performance import perform, pose_vertices
from utils.synthetic.photography import SENSOR_NOISE, light_face
from utils.synthetic.skin import paint_skin

SIDE = 360  # pixels of a frame; the face is about 150 pixels wide
CAMERA = Camera(0.0, 1100.0, (0.0, 0.0, 0.0), SIDE * 4.7 / 1.5, ((SIDE - 1) / 2,) * 2, (SIDE, SIDE))


def film(person: int, emotions: list[str], seed: int) -> tuple[np.ndarray, dict[str, int]]:
    """A clip (T, SIDE, SIDE, 3) uint8 of a person, and its true onset, apex and offset."""
    model = load_face_model()
    identity, rng = make_identity(700 + person, "S01")
    albedo, light = paint_skin(identity, rng), np.random.default_rng(person)
    rng = np.random.default_rng([seed, person])
    act = perform(identity, emotions, rng)
    vertices = pose_vertices(identity, act.contraction, act.angles, act.shift).astype(np.float32)
    background = rng.uniform(40, 220)
    frames = []
    for shape, tint in zip(vertices, light_face(vertices, light, model), strict=True):
        picture = get_renderer().render(TexturedMesh(shape, model.faces, model.uv, albedo, tint), [CAMERA])[0]
        image = np.where(picture.mask[..., None], picture.rgb, background).astype(np.float32)
        image = cv2.GaussianBlur(image, (0, 0), 0.6) + rng.normal(0, SENSOR_NOISE, image.shape)
        frames.append(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    return np.stack(frames), dict(zip(("onset", "apex", "offset"), act.course.moments, strict=True))


def write_video(path: Path, frames: np.ndarray, codec: str = "mp4v", fps: float = 60.0) -> None:
    """Write frames (T, H, W, 3) uint8 as an MP4 or AVI."""
    size = (frames.shape[2], frames.shape[1])
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), fps, size)
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def write_film(folder: Path, id: str, frames: np.ndarray, video: str = "") -> None:
    """Write frames (T, H, W, 3) uint8 as `<folder>/<id>/img1.jpg`, `img2.jpg` and so on."""
    (folder / id).mkdir(parents=True)
    for t, frame in enumerate(frames):
        write_image(folder / id / f"img{t + 1}.jpg", frame)
