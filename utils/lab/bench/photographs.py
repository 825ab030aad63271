"""Photographs of real faces moved by known warps: pairs of frames of real skin with exact flow.

Both frames are resampled from the larger original off its pixel grid, so that interpolation blurs both equally.
`CONDITIONS` lists how the frames are degraded afterwards.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from numpy.random import Generator
from scipy.interpolate import RBFInterpolator

from utils.dataset.images import IMAGE_SUFFIXES, read_image
from utils.errors import DataError
from utils.flow.truth import exact_flow
from utils.lab.teachers.frontal import FrontalCrop, frontal_view
from utils.render.crops import crop_image, square_box
from utils.render.faces import cascade, seen_twice
from utils.report.film import write_film
from utils.synthetic.face_model import load_face_model, sample_identity

SIZE = 256  # side of a frame, pixels
FINE = 3  # a frame is sampled on a grid that is so many times finer, and then averaged
LEAST = 90  # pixels of a face: a smaller one has no detail
HAAR_CROP = FrontalCrop(0.5, 0.38, 0.38, 0.36)  # eyes and mouth in the box of the frontal face detector
FACE_AXES = (0.40, 0.47)  # half axes of the face's ellipse, shares of the crop
PIXELS = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1).astype(np.float32)  # (S, S, 2): x, y


class Portrait(NamedTuple):
    """A photograph (H, W) float32 grey, the person, and the square box (x, y, side) of the face."""

    person: str
    image: np.ndarray
    box: tuple[float, float, float]


class Warp(NamedTuple):
    """A true flow, and the flow without the head's rigid motion, (S, S, 2) float32 px each."""

    kind: str
    flow: np.ndarray
    nonrigid: np.ndarray


class SkinPair(NamedTuple):
    """Two grey frames (S, S) uint8 of a person, their true flow, and the face (S, S) bool."""

    person: str
    warp: Warp
    first: np.ndarray
    second: np.ndarray
    face: np.ndarray


def portraits(folder: Path | None) -> list[Portrait]:
    """The faces in the photographs of a folder, by default the portrait in the public domain that scikit-image ships.

    Photographs of one person lie in a subfolder; a photograph beside the subfolders is a person of its own. Photographs
    without a face of LEAST pixels are left out. Raises DataError if none is left.
    """
    if folder is None:
        from skimage.data import astronaut

        images = [("astronaut", astronaut())]
    else:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        people = [file.relative_to(folder).with_suffix("").parts[0] for file in files]
        images = [(person, read_image(file, upright=True)) for person, file in zip(people, files, strict=True)]
    faces = [portrait for person, image in images if (portrait := find_face(person, image))]
    if not faces:
        raise DataError.at(folder, f"no photograph shows a face of {LEAST} pixels", "give larger frontal portraits")
    return faces


def find_face(person: str, image: np.ndarray) -> Portrait | None:
    """The most certain frontal face of a photograph (H, W, 3), reduced if it is larger than the fine grid.

    A second detector must find it, too, since the first one sometimes takes a tie or a shadow for a face.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, 1000 / max(grey.shape))
    reduced = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    detector = cascade("frontalface_default")
    faces, _, certainty = detector.detectMultiScale3(reduced, 1.05, 3, minSize=(60, 60), outputRejectLevels=True)
    faces = seen_twice(reduced, [faces[k] for k in np.argsort(-np.ravel(certainty))]) if len(faces) else []
    if not faces or faces[0][2] < LEAST * scale:
        return None
    x, y, width, height = faces[0] / scale
    box = np.array(square_box(np.array([x, y]), np.array([x + width, y + height])))
    scale = min(1.0, SIZE * FINE / box[2])
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return Portrait(person, grey.astype(np.float32), tuple(float(value) for value in box * scale))


def ellipse(zoom: float = 1.0, grow: float = 1.0) -> np.ndarray:
    """The share (S, S) float32 of the face at each pixel: an ellipse around the middle with a soft edge."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE - 0.5
    radius = np.hypot(x / FACE_AXES[0], y / FACE_AXES[1]) / (zoom * grow)
    return np.clip((1.06 - radius) / 0.12, 0, 1).astype(np.float32)


def bumps(rng: Generator) -> Warp:
    """One to four Gaussian pushes by up to a pixel and a half, each about 10 to 25 px wide."""
    flow = sum(one_bump(rng, rng.uniform(0.3, 1.5), rng.uniform(10, 25)) for _ in range(rng.integers(1, 5)))
    return Warp("bumps", flow, flow)


def one_bump(rng: Generator, peak: float, sigma: float) -> np.ndarray:
    """A Gaussian push (S, S, 2) by `peak` px at a random place of the face in a random direction."""
    angle, turn, far = rng.uniform(0, 2 * np.pi, 2).tolist() + [np.sqrt(rng.random()) * 0.7]
    x0, y0 = SIZE / 2 + far * SIZE * np.array([FACE_AXES[0] * np.cos(turn), FACE_AXES[1] * np.sin(turn)])
    y, x = np.mgrid[:SIZE, :SIZE]
    push = peak * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))
    return np.stack([push * np.cos(angle), push * np.sin(angle)], -1).astype(np.float32)


def plate(rng: Generator) -> Warp:
    """A thin plate that is pushed at eight places within the face and held at its rim."""
    rim = np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 16, endpoint=False)])
    inner = rng.uniform(-0.65, 0.65, (8, 2))
    pushes = np.concatenate([np.zeros_like(rim), rng.normal(0, rng.uniform(0.2, 0.7), (8, 2))])
    spline = RBFInterpolator(np.concatenate([1.05 * rim, inner]), pushes, kernel="thin_plate_spline")
    coarse = np.stack(np.meshgrid(*[(np.arange(64) + 0.5) / 32 - 1] * 2), -1).reshape(-1, 2)
    field = spline(coarse / (2 * np.array(FACE_AXES))).reshape(64, 64, 2).astype(np.float32)
    flow = cv2.resize(field, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) * ellipse()[..., None]
    return Warp("plate", flow, flow)


def shapes(rng: Generator) -> Warp:
    """A few blend shapes of the face model, seen from the front, with a peak motion of 0.4 to 2.5 px."""
    identity, camera = frontal_view(sample_identity(rng), HAAR_CROP)
    chosen = rng.choice(len(identity.shape_offsets), rng.integers(1, 6), replace=False)
    amount = np.zeros(len(identity.shape_offsets), np.float32)
    amount[chosen] = rng.uniform(0.2, 1, len(chosen))
    moved = identity.vertices + np.einsum("u,uvc->vc", amount, identity.shape_offsets)
    flow, visible = exact_flow(identity.vertices, moved, load_face_model().faces, camera)
    flow = cv2.resize(flow * visible[..., None], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    flow = cv2.GaussianBlur(flow, (0, 0), 2.0)  # closes gaps of the mesh, which a photograph does not have
    flow *= rng.uniform(0.4, 2.5) / max(np.linalg.norm(flow, axis=-1).max(), 1e-6)
    return Warp("blend shapes", flow, flow)


def head(rng: Generator) -> Warp:
    """An ellipsoid that turns and shifts by about a pixel, with bumps on it; the background does not move."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2).astype(np.float32)
    a, b = SIZE * FACE_AXES[0], SIZE * FACE_AXES[1]
    z = a * np.sqrt(np.clip(1 - (x / (1.15 * a)) ** 2 - (y / (1.15 * b)) ** 2, 0.05, None))
    turn, shift = rng.normal(0, [0.008, 0.008, 0.006]), rng.normal(0, 0.5, 2)
    rigid = np.stack([turn[1] * z - turn[2] * y + shift[0], turn[2] * x - turn[0] * z + shift[1]], -1)
    rigid = (rigid * ellipse(grow=1.15)[..., None]).astype(np.float32)
    nonrigid = bumps(rng).flow
    return Warp("head", rigid + nonrigid, nonrigid)


WARPS: tuple[Callable[[Generator], Warp], ...] = (bumps, plate, shapes, head)


def inverse(flow: np.ndarray) -> np.ndarray:
    """The flow from the second frame back to the first: back(x) = -flow(x + back(x)), (S, S, 2) px."""
    back = -flow
    for _ in range(12):
        back = -cv2.remap(flow, PIXELS + back, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return back


def scaled(warp: Warp, zoom: float) -> Warp:
    """The warp in a crop that is `zoom` times closer: `zoom` times as wide, with `zoom` times the motion."""
    if zoom == 1:
        return warp
    cut = SIZE * (1 - 1 / zoom) / 2
    flows = (crop_image(flow, (cut, cut, SIZE / zoom), SIZE) * zoom for flow in (warp.flow, warp.nonrigid))
    return Warp(warp.kind, *map(np.float32, flows))


class Scene(NamedTuple):
    """How a pair is photographed, and how both frames are degraded afterwards."""

    damage: Callable[[np.ndarray, Generator], np.ndarray]  # (2, S, S) float -> the same
    zoom: float = 1.0
    background: Callable[[Generator], np.ndarray] | None = None  # (S, S) float, still; None: the photograph's
    skin_blur: float = 0.0  # sigma, px, before any noise


def make_pair(portrait: Portrait, warp: Warp, scene: Scene, rng: Generator) -> SkinPair:
    """The portrait, and the portrait moved by the warp, in a scene."""
    start = rng.uniform(-0.5, 0.5, 2)  # off the grid of the original
    moves = (np.zeros_like(warp.flow), inverse(warp.flow))
    frames = np.stack([sampled(portrait, move, start, scene.zoom) for move in moves])
    if scene.skin_blur:
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), scene.skin_blur) for frame in frames])
    if scene.background:
        background, cut_out = scene.background(rng), ellipse(scene.zoom, 1.1)
        shares = np.stack([cv2.remap(cut_out, PIXELS + move, None, cv2.INTER_LINEAR) for move in moves])
        frames = shares * frames + (1 - shares) * background
    first, second = _uint8(scene.damage(frames, rng))
    return SkinPair(portrait.person, warp, first, second, ellipse(scene.zoom, 0.95) > 0.5)


def sampled(portrait: Portrait, move: np.ndarray, start: np.ndarray, zoom: float) -> np.ndarray:
    """A frame (S, S) float32 of the portrait's box; each pixel is sampled `move` (S, S, 2) + `start` px away."""
    x, y, side = portrait.box
    fine = SIZE * FINE
    move = cv2.resize(move, (fine, fine), interpolation=cv2.INTER_CUBIC)
    grid = (np.stack(np.meshgrid(np.arange(fine), np.arange(fine)), -1) + 0.5) / FINE + move + start
    share = (grid / SIZE - 0.5) / zoom + 0.5
    places = (np.array([x, y]) + share * side - 0.5).astype(np.float32)
    picture = cv2.remap(portrait.image, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def noise(frames: np.ndarray, rng: Generator, sigma: float = 1.5, length: float = 0.0) -> np.ndarray:
    """Noise of `sigma` grey levels, white or correlated over about `length` px."""
    grain = rng.standard_normal(frames.shape).astype(np.float32)
    if length:
        grain = np.stack([cv2.GaussianBlur(white, (0, 0), length) for white in grain])
    return frames + sigma * grain / grain.std()


def exposed(frames: np.ndarray, rng: Generator) -> np.ndarray:
    """Noisy frames, the second one 3% brighter or darker."""
    return noise(np.stack([frames[0], frames[1] * (1 + rng.choice([-0.03, 0.03]))]), rng)


def jpeg(frames: np.ndarray, quality: int = 90) -> np.ndarray:
    """Frames (T, S, S) through JPEG."""
    files = [cv2.imencode(".jpg", _uint8(frame), [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for frame in frames]
    return np.stack([cv2.imdecode(file, cv2.IMREAD_GRAYSCALE) for file in files]).astype(np.float32)


def h264(frames: np.ndarray, side: int) -> np.ndarray:
    """Frames (T, S, S) through an H.264 film of `side` px with the default quality of x264 (crf 23)."""
    film = BytesIO()
    resized = [_uint8(cv2.resize(frame, (side, side), interpolation=cv2.INTER_CUBIC)) for frame in frames]
    write_film(film, [cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) for picture in resized], fps=60)
    film.seek(0)
    with av.open(film) as source:
        return small([frame.to_ndarray(format="gray").astype(np.float32) for frame in source.decode(video=0)], SIZE)


def small(frames: Sequence[np.ndarray], side: int = 100) -> np.ndarray:
    """Frames (T, S, S) reduced to `side` px."""
    return np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames])


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames (T, s, s) enlarged to SIZE by `crop_image`."""
    return np.stack([crop_image(frame, (0, 0, len(frame)), SIZE) for frame in frames.astype(np.float32)])


def textured(rng: Generator) -> np.ndarray:
    """A background (S, S) of coarse and fine grain."""
    layers = [cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)), (0, 0), s) * s for s in (1, 3, 9)]
    return np.clip(120 + 25 * sum(layers), 0, 255).astype(np.float32)


def flat(low: float, high: float) -> Callable[[Generator], np.ndarray]:
    """A background (S, S) of one random grey from `low` to `high`."""
    return lambda rng: np.full((SIZE, SIZE), rng.uniform(low, high), np.float32)


def _uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


CONDITIONS: dict[str, Scene] = {
    "noise 1.5": Scene(noise),
    "noise 3": Scene(lambda frames, rng: noise(frames, rng, 3.0)),
    "correlated noise 2": Scene(lambda frames, rng: noise(frames, rng, 2.0, 0.8)),
    "exposure 3%": Scene(exposed),
    "JPEG 90": Scene(lambda frames, rng: jpeg(noise(frames, rng))),
    "H.264, 384 px": Scene(lambda frames, rng: h264(noise(frames, rng), 384)),
    "H.264, 256 px": Scene(lambda frames, rng: h264(noise(frames, rng), 256)),
    "100 px": Scene(lambda frames, rng: enlarged(small(frames))),
    "100 px, noise, JPEG": Scene(lambda frames, rng: enlarged(jpeg(noise(small(frames), rng)))),
    "a third of the contrast": Scene(lambda frames, rng: noise(90 + (frames - 90) / 3, rng)),
    "tight crop": Scene(noise, zoom=1.4),
    "white ground, exposure": Scene(exposed, background=flat(250, 255)),
    "black ground": Scene(noise, background=flat(0, 5)),
    "textured ground": Scene(noise, background=textured),
    "soft skin": Scene(noise, skin_blur=3.0),
}
