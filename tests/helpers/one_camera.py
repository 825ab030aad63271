"""Synthetic people before one camera in front of them: frames, and data roots of such frames or videos."""

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
from utils.train.samples import CLASSES

SIDE = 360  # pixels of a frame; the face has about 150 of them
CAMERA = Camera(0.0, 1100.0, (0.0, 0.0, 0.0), SIDE * 4.7 / 1.5, ((SIDE - 1) / 2,) * 2, (SIDE, SIDE))


def film(person: int, emotions: list[str], seed: int) -> tuple[np.ndarray, dict]:
    """A clip (T, SIDE, SIDE, 3) uint8 of a person, and what truly happens: onset, apex, offset, units, confounders."""
    model = load_face_model()
    identity, rng = make_identity(700 + person, "S01")
    albedo, light = paint_skin(identity, rng), np.random.default_rng(person)
    rng = np.random.default_rng([seed, person])
    act = perform(identity, emotions, rng)
    vertices = pose_vertices(identity, act.contraction, act.angles, act.shift).astype(np.float32)
    ground = rng.uniform(40, 220)
    frames = []
    for shape, tint in zip(vertices, light_face(vertices, light, model), strict=True):
        picture = get_renderer().render(TexturedMesh(shape, model.faces, model.uv, albedo, tint), [CAMERA])[0]
        image = np.where(picture.mask[..., None], picture.rgb, ground).astype(np.float32)
        image = cv2.GaussianBlur(image, (0, 0), 0.6) + rng.normal(0, SENSOR_NOISE, image.shape)
        frames.append(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    onset, apex, offset = act.course.moments
    truth = {"onset": onset, "apex": apex, "offset": offset, "confounders": act.confounders}
    return np.stack(frames), truth


def write_video(path: Path, frames: np.ndarray, codec: str = "mp4v", fps: float = 60.0) -> None:
    """Frames (T, H, W, 3) uint8 as an MP4 or AVI."""
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), fps, (frames.shape[2], frames.shape[1])
    )
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def write_one_camera(root: Path, people: int = 4, each: int = 3, video: str = "") -> Path:
    """A data root of one camera's clips, the last person's for the test; frames, or videos of the suffix `video`."""
    rows = {split: ["Id," + ",".join(CLASSES)] for split in ("train", "test")}
    rows["train"][0] = "Id,subject," + ",".join((*CLASSES, "onset", "apex", "offset"))
    for person in range(people):
        split = "test" if person == people - 1 else "train"
        for number in range(each):
            id, emotion = f"P{person}_{number}", CLASSES[(person + number) % len(CLASSES)]
            frames, truth = film(person, [emotion], number)
            write_film(root / split, id, frames, video)
            label = [str(int(name == emotion)) for name in CLASSES]
            moments = [str(truth[name]) for name in ("onset", "apex", "offset")]
            rows[split].append(",".join([id, f"P{person}", *label, *moments] if split == "train" else [id, *"00000"]))
    (root / "train.csv").write_text("\n".join(rows["train"]) + "\n")
    (root / "sample_submission.csv").write_text("\n".join(rows["test"]) + "\n")
    return root


def write_film(folder: Path, id: str, frames: np.ndarray, video: str) -> None:
    """One clip as `<id>/<t>.jpg` or as a video `<id><suffix>`."""
    if video:
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{id}{video}", frames, "MJPG" if video == ".avi" else "mp4v")
        return
    (folder / id).mkdir(parents=True)
    for t, frame in enumerate(frames):
        write_image(folder / id / f"img{t + 1}.jpg", frame)
