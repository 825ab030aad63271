"""Photographs of real faces moved by exact known warps: pairs of frames whose true flow is known, on real skin.

Both frames are resampled from the larger original, each off its pixel grid, so that interpolation is no cue; the ground
can be changed for one that stands still. Then `CONDITIONS` damage them as cameras and files do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from utils.dataset.images import IMAGE_SUFFIXES, read_image
from utils.errors import DataError
from utils.flow.truth import exact_flow
from utils.lab.teachers.frontal import FrontalCrop, frontal_view
from utils.render.crops import crop_image, square_box
from utils.render.faces import cascade, seen_twice
from utils.report.film import write_film
from utils.synthetic.face_model import load_face_model, sample_identity

SIZE = 256  # pixels of a frame
FINE = 3  # times as fine is the grid on which a frame is sampled before it is averaged
LEAST = 90  # pixels of a face: a smaller one has no detail left
HAAR_CROP = FrontalCrop(0.5, 0.38, 0.38, 0.36)  # where eyes and mouth stand in the box of the frontal face detector
FACE_AXES = (0.40, 0.47)  # half axes of the face's ellipse, shares of the crop


@dataclass(frozen=True)
class Portrait:
    """A photograph (H, W) float32 grey, whose, and the square box (x, y, side) of its face."""

    person: str
    image: np.ndarray
    box: tuple[float, float, float]


@dataclass(frozen=True)
class Warp:
    """A true flow and the part of it that is not the head's rigid motion, (S, S, 2) float32 px each."""

    kind: str
    flow: np.ndarray
    nonrigid: np.ndarray


@dataclass(frozen=True)
class SkinPair:
    """Two grey frames (S, S) uint8 of a person, what truly moved, and the face (S, S) bool."""

    person: str
    warp: Warp
    first: np.ndarray
    second: np.ndarray
    face: np.ndarray


# Portraits ----------------------------------------------------------------------------------------------------------


def portraits(folder: Path | None) -> list[Portrait]:
    """The faces of a folder's photographs, or of the portrait in the public domain that scikit-image ships.

    A person is a subfolder, and of a photograph that lies beside these its name. Photographs in which no face of LEAST
    pixels is found are left out. Raises DataError where nothing is left.
    """
    if folder is None:
        from skimage.data import astronaut

        images = [("astronaut", astronaut())]
    else:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        images = [(_person(folder, file), read_image(file, upright=True)) for file in files]
    found = [portrait for person, image in images if (portrait := find_face(person, image))]
    if not found:
        raise DataError.at(folder, f"no photograph shows a face of {LEAST} pixels", "give larger frontal portraits")
    return found


def _person(folder: Path, file: Path) -> str:
    inner = file.relative_to(folder).parts
    return inner[0] if len(inner) > 1 else file.stem


def find_face(person: str, image: np.ndarray) -> Portrait | None:
    """The surest frontal face of a photograph (H, W, 3), reduced where it is larger than the fine grid.

    A second detector must see it too: one alone takes a tie, or a shadow, for a face now and then.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, 1000 / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    faces, _, sure = cascade("frontalface_default").detectMultiScale3(
        small, 1.05, 3, minSize=(60, 60), outputRejectLevels=True
    )
    faces = seen_twice(small, [faces[k] for k in np.argsort(-np.ravel(sure))]) if len(faces) else []
    if not faces or faces[0][2] < LEAST * scale:
        return None
    x, y, width, height = faces[0] / scale
    box = np.array(square_box(np.array([x, y]), np.array([x + width, y + height])))
    reduce = min(1.0, SIZE * FINE / box[2])
    if reduce < 1:
        grey = cv2.resize(grey, None, fx=reduce, fy=reduce, interpolation=cv2.INTER_AREA)
    return Portrait(person, grey.astype(np.float32), tuple(float(value) for value in box * reduce))


def ellipse(zoom: float = 1.0, grow: float = 1.0) -> np.ndarray:
    """The share (S, S) float32 of the face at each pixel, with a soft edge: an ellipse about the middle."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE - 0.5
    radius = np.hypot(x / FACE_AXES[0], y / FACE_AXES[1]) / (zoom * grow)
    return np.clip((1.06 - radius) / 0.12, 0, 1).astype(np.float32)


# Warps --------------------------------------------------------------------------------------------------------------


def bumps(rng: np.random.Generator) -> Warp:
    """One to four places of the face pushed by up to a pixel and a half, each about 10 to 25 px wide."""
    flow = sum(one_bump(rng, rng.uniform(0.3, 1.5), rng.uniform(10, 25)) for _ in range(rng.integers(1, 5)))
    return Warp("bumps", flow, flow)


def one_bump(rng: np.random.Generator, peak: float, sigma: float) -> np.ndarray:
    """A Gaussian push (S, S, 2) of `peak` px somewhere within the face, in any direction."""
    angle, turn, far = rng.uniform(0, 2 * np.pi, 2).tolist() + [np.sqrt(rng.random()) * 0.7]
    x0, y0 = SIZE / 2 + far * SIZE * np.array([FACE_AXES[0] * np.cos(turn), FACE_AXES[1] * np.sin(turn)])
    y, x = np.mgrid[:SIZE, :SIZE]
    shape = peak * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))
    return np.stack([shape * np.cos(angle), shape * np.sin(angle)], -1).astype(np.float32)


def plate(rng: np.random.Generator) -> Warp:
    """A thin plate that is pushed at eight places within the face and held at its rim."""
    rim = np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 16, endpoint=False)])
    inner = rng.uniform(-0.65, 0.65, (8, 2))
    pushes = np.concatenate([np.zeros_like(rim), rng.normal(0, rng.uniform(0.2, 0.7), (8, 2))])
    ensemble = RBFInterpolator(np.concatenate([1.05 * rim, inner]), pushes, kernel="thin_plate_spline")
    coarse = np.stack(np.meshgrid(*[(np.arange(64) + 0.5) / 32 - 1] * 2), -1).reshape(-1, 2)
    field = ensemble(coarse / (2 * np.array(FACE_AXES))).reshape(64, 64, 2).astype(np.float32)
    flow = cv2.resize(field, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) * ellipse()[..., None]
    return Warp("plate", flow, flow)


def units(rng: np.random.Generator) -> Warp:
    """A few of the face model's units, contracted until some skin moves by 0.4 to 2.5 px, seen from the front."""
    identity, camera = frontal_view(sample_identity(rng), HAAR_CROP)
    chosen = rng.choice(len(load_face_model().shape_names), rng.integers(1, 6), replace=False)
    amount = np.zeros(len(identity.shape_offsets), np.float32)
    amount[chosen] = rng.uniform(0.2, 1, len(chosen))
    moved = identity.vertices + np.einsum("u,uvc->vc", amount, identity.shape_offsets)
    flow, seen = exact_flow(identity.vertices, moved, load_face_model().faces, camera)
    flow = cv2.resize(flow * seen[..., None], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    flow = cv2.GaussianBlur(flow, (0, 0), 2.0)  # what a mesh hides, lips and lids, opens no gap in a photograph
    flow *= rng.uniform(0.4, 2.5) / max(np.linalg.norm(flow, axis=-1).max(), 1e-6)
    return Warp("units", flow, flow)


def head(rng: np.random.Generator) -> Warp:
    """An ellipsoid that turns and shifts by about a pixel, with bumps upon it; the ground stays where it is."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2).astype(np.float32)
    a, b = SIZE * FACE_AXES[0], SIZE * FACE_AXES[1]
    z = a * np.sqrt(np.clip(1 - (x / (1.15 * a)) ** 2 - (y / (1.15 * b)) ** 2, 0.05, None))
    turn, shift = rng.normal(0, [0.008, 0.008, 0.006]), rng.normal(0, 0.5, 2)
    rigid = np.stack([turn[1] * z - turn[2] * y + shift[0], turn[2] * x - turn[0] * z + shift[1]], -1)
    rigid = (rigid * ellipse(grow=1.15)[..., None]).astype(np.float32)
    own = bumps(rng).flow
    return Warp("head", rigid + own, own)


WARPS: tuple[Callable[[np.random.Generator], Warp], ...] = (bumps, plate, units, head)


def inverse(flow: np.ndarray) -> np.ndarray:
    """Where each pixel of the second frame came from: back(x) = -flow(x + back(x)), (S, S, 2) px."""
    pixels = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1).astype(np.float32)
    back = -flow
    for _ in range(12):
        back = -cv2.remap(flow, pixels + back, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return back


# Frames -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """How a pair is taken: how close, before what, and what happens to both frames together afterwards."""

    damage: Callable[[np.ndarray, np.random.Generator], np.ndarray]  # (2, S, S) float -> the same
    zoom: float = 1.0
    ground: Callable[[np.random.Generator], np.ndarray] | None = None  # (S, S) float that stands still; None: its own
    skin_blur: float = 0.0  # px, of the photograph before any noise


def make_pair(portrait: Portrait, warp: Warp, scene: Scene, rng: np.random.Generator) -> SkinPair:
    """The portrait and the portrait moved by the warp, as the scene has them."""
    start = rng.uniform(-0.5, 0.5, 2)  # off the grid of the original
    moves = (np.zeros_like(warp.flow), inverse(warp.flow))
    frames = np.stack([sampled(portrait, move, start, scene.zoom) for move in moves])
    if scene.skin_blur:
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), scene.skin_blur) for frame in frames])
    if scene.ground:
        frames = _before(frames, moves, scene, rng)
    first, second = np.clip(np.rint(scene.damage(frames, rng)), 0, 255).astype(np.uint8)
    return SkinPair(portrait.person, warp, first, second, ellipse(scene.zoom, 0.95) > 0.5)


def sampled(portrait: Portrait, move: np.ndarray, start: np.ndarray, zoom: float) -> np.ndarray:
    """A frame (S, S) float32 of the portrait's box, each of its points taken from `move` (S, S, 2) px beside it."""
    x, y, side = portrait.box
    fine = SIZE * FINE
    beside = cv2.resize(move, (fine, fine), interpolation=cv2.INTER_CUBIC)
    grid = (np.stack(np.meshgrid(np.arange(fine), np.arange(fine)), -1) + 0.5) / FINE + beside + start
    share = (grid / SIZE - 0.5) / zoom + 0.5
    places = (np.array([x, y]) + share * side - 0.5).astype(np.float32)
    picture = cv2.remap(portrait.image, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def _before(frames: np.ndarray, moves: Sequence[np.ndarray], scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The face of both frames before one ground: the ellipse moves with the face, the ground does not."""
    pixels = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1).astype(np.float32)
    ground, cut_out = scene.ground(rng), ellipse(scene.zoom, 1.1)
    shares = [cv2.remap(cut_out, pixels + move, None, cv2.INTER_LINEAR) for move in moves]
    return np.stack([share * frame + (1 - share) * ground for share, frame in zip(shares, frames, strict=True)])


# Damage -------------------------------------------------------------------------------------------------------------


def noise(frames: np.ndarray, rng: np.random.Generator, sigma: float = 1.5, length: float = 0.0) -> np.ndarray:
    """Noise of `sigma` grey levels, correlated over about `length` px where that is given."""
    grain = rng.standard_normal(frames.shape).astype(np.float32)
    if length:
        grain = np.stack([cv2.GaussianBlur(one, (0, 0), length) for one in grain])
    return frames + sigma * grain / grain.std()


def exposed(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The second frame 3% brighter or darker."""
    return np.stack([frames[0], frames[1] * (1 + rng.choice([-0.03, 0.03]))])


def jpeg(frames: np.ndarray, quality: int = 90) -> np.ndarray:
    """Frames (T, S, S) through JPEG."""
    packed = [cv2.imencode(".jpg", _uint8(frame), [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for frame in frames]
    return np.stack([cv2.imdecode(one, cv2.IMREAD_GRAYSCALE) for one in packed]).astype(np.float32)


def h264(frames: np.ndarray, side: int) -> np.ndarray:
    """Frames (T, S, S) as neighbours in an H.264 film of `side` px at its usual quality (x264, crf 23)."""
    film = BytesIO()
    resized = [_uint8(cv2.resize(frame, (side, side), interpolation=cv2.INTER_CUBIC)) for frame in frames]
    write_film(film, [cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) for picture in resized], fps=60)
    film.seek(0)
    with av.open(film) as source:
        pictures = [frame.to_ndarray(format="gray").astype(np.float32) for frame in source.decode(video=0)]
    return np.stack([cv2.resize(one, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for one in pictures])


def small(frames: np.ndarray, side: int = 100) -> np.ndarray:
    """Frames (T, S, S) reduced to `side` px."""
    return np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames])


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames (T, s, s) enlarged to SIZE as `crop_image` enlarges them."""
    side = frames.shape[1]
    return np.stack([crop_image(frame, (0, 0, side), SIZE) for frame in frames.astype(np.float32)])


def textured(rng: np.random.Generator) -> np.ndarray:
    """A ground (S, S) of coarse and fine grain."""
    layers = [cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)), (0, 0), s) * s for s in (1, 3, 9)]
    return np.clip(120 + 25 * sum(layers), 0, 255).astype(np.float32)


def flat(low: float, high: float) -> Callable[[np.random.Generator], np.ndarray]:
    """A ground (S, S) of one grey between two."""
    return lambda rng: np.full((SIZE, SIZE), rng.uniform(low, high), np.float32)


def _uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


CONDITIONS: dict[str, Scene] = {
    "noise 1.5": Scene(noise),
    "noise 3": Scene(lambda frames, rng: noise(frames, rng, 3.0)),
    "correlated noise 2": Scene(lambda frames, rng: noise(frames, rng, 2.0, 0.8)),
    "exposure 3%": Scene(lambda frames, rng: noise(exposed(frames, rng), rng)),
    "JPEG 90": Scene(lambda frames, rng: jpeg(noise(frames, rng))),
    "H.264, 384 px": Scene(lambda frames, rng: h264(noise(frames, rng), 384)),
    "H.264, 256 px": Scene(lambda frames, rng: h264(noise(frames, rng), 256)),
    "100 px": Scene(lambda frames, rng: enlarged(small(frames))),
    "100 px, noise, JPEG": Scene(lambda frames, rng: enlarged(jpeg(noise(small(frames), rng)))),
    "a third of the contrast": Scene(lambda frames, rng: noise(90 + (frames - 90) / 3, rng)),
    "tight crop": Scene(noise, zoom=1.4),
    "white ground, exposure": Scene(lambda frames, rng: noise(exposed(frames, rng), rng), ground=flat(250, 255)),
    "black ground": Scene(noise, ground=flat(0, 5)),
    "textured ground": Scene(noise, ground=textured),
    "soft skin": Scene(noise, skin_blur=3.0),
}


def scaled(warp: Warp, zoom: float) -> Warp:
    """The warp as a closer crop sees it: `zoom` times as wide, and as many times as far."""
    if zoom == 1:
        return warp
    cut = SIZE * (1 - 1 / zoom) / 2
    box = (cut, cut, SIZE / zoom)
    flow, nonrigid = (np.float32(crop_image(part, box, SIZE) * zoom) for part in (warp.flow, warp.nonrigid))
    return replace(warp, flow=flow, nonrigid=nonrigid)
