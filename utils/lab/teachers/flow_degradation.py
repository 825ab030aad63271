"""Degradation of rendered lessons: other motion, skin, background, crop, camera and codec, drawn anew in each epoch.

A rendered lesson shows a face on black, without noise. Each change keeps the flow exact: texture that moves with the
skin is added to the second frame, and warped by the flow into the first. Shapes: frames (B, 1, S, S); flows
(B, 2, OUT, OUT) in px of the S px picture; known (B, OUT, OUT) 0 or 1. All random numbers come from torch's generator.
An argument `like` only gives the batch size and the device.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.flow.faceflow_net import OUT, SIZE, backward_warp, upsample

# Sample pictures of scikit-image, for fine detail that procedural skin lacks. Its portrait `astronaut` is left out,
# since the benchmark measures flow on it.
PICTURES = ("brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png", "moon.png")
PICTURES += ("motorcycle_left.png", "retina.jpg")
DETAIL_SIGMA = 4.0  # px of the Gaussian that separates detail from slow brightness


class Lesson(NamedTuple):
    """A batch of pairs of frames with their truth."""

    first: Tensor
    second: Tensor
    flow: Tensor
    nonrigid: Tensor  # the flow without the head's rigid motion
    known: Tensor  # where `flow` is known
    known_nonrigid: Tensor  # where `nonrigid` is known


@dataclass(frozen=True)
class Degradation:
    """Share of the pairs that get each change, and the range of its strength."""

    moved: float = 0.45  # another motion than the rendered one
    detailed: float = 0.6  # detail of natural pictures on the skin
    detail: tuple[float, float] = (0.7, 8.0)  # its standard deviation, grey levels
    softened: float = 0.2  # both frames blurred
    softness: tuple[float, float] = (0.7, 4.0)  # sigma of the blur, px
    grounded: float = 0.75  # another background than black
    cropped: float = 0.5  # a closer or a wider crop
    zoom: tuple[float, float] = (0.75, 1.7)
    small: float = 0.35  # of the batches: recorded with fewer pixels, then enlarged
    side: tuple[int, int] = (64, 220)  # pixels of a side then
    lit: float = 0.5  # other light on the second frame
    contrast: tuple[float, float] = (0.4, 3.5)  # times that of the rendered face; photographs have about 2.5 times
    brightness: tuple[float, float] = (50.0, 180.0)  # mean of the middle of the first frame, grey levels
    noise: tuple[float, float] = (0.3, 5.0)  # standard deviation, grey levels
    correlated: float = 0.5  # noise that is correlated between pixels, as after demosaicing and scaling
    noise_width: tuple[float, float] = (0.4, 2.5)  # sigma of the correlated noise, px
    coded: float = 0.4  # compressed as a still picture or as a film


def degrade(lesson: Lesson, config: Degradation) -> Lesson:
    """The lesson after all changes."""
    background = (lesson.second == 0).float()
    lesson, first_background = replace_motion(lesson, background, config)
    lesson = change_skin(lesson, 1 - background, config)
    lesson = change_background(lesson, first_background, background, config)
    lesson = change_crop(lesson, config)
    first, second = record(lesson.first, lesson.second, config)
    return lesson._replace(first=first, second=second)


def choose(which: Tensor, new: Lesson, old: Lesson) -> Lesson:
    """The pairs of `new` where `which` (B, 1, 1, 1) is true, else those of `old`."""
    maps = zip(new, old, strict=True)
    return Lesson(*(torch.where(which if a.ndim == 4 else which[:, 0], a, b) for a, b in maps))


def selected(like: Tensor, share: float) -> Tensor:
    """True for a random share of the batch, (B, 1, 1, 1)."""
    return torch.rand(len(like), 1, 1, 1, device=like.device) < share


def uniform(like: Tensor, low: float, high: float) -> Tensor:
    """A uniform random number for each item of the batch, (B, 1, 1, 1)."""
    return torch.rand(len(like), 1, 1, 1, device=like.device) * (high - low) + low


def log_uniform(like: Tensor, low: float, high: float) -> Tensor:
    return uniform(like, math.log(low), math.log(high)).exp()


def replace_motion(lesson: Lesson, background: Tensor, config: Degradation) -> tuple[Lesson, Tensor]:
    """Replace the motion of some pairs: their first frame becomes the second frame, warped by another flow.

    The new flow adds up another face's motion, local pushes, a smooth flow and the turn of a head, each at random.
    background: of the second frame. Also returns the background of the first frame.
    """
    nonrigid = lesson.nonrigid.roll(1, 0) * log_uniform(lesson.flow, 0.3, 1.5) * selected(lesson.flow, 0.6)
    nonrigid = nonrigid + local_pushes(lesson.flow) + smooth_flow(lesson.flow) * selected(lesson.flow, 0.5)
    flow = nonrigid + head_turn(lesson.flow) * selected(lesson.flow, 0.5)
    moved, known = selected(lesson.first, config.moved), torch.ones_like(lesson.known)
    first_background = torch.where(moved, backward_warp(background, flow) > 0.5, lesson.first == 0).float()
    new = Lesson(backward_warp(lesson.second, flow), lesson.second, flow, nonrigid, known, known)
    return choose(moved, new, lesson), first_background


def coordinates(size: int, device: torch.device) -> Tensor:
    """x and y of the cells of a map, (2, size, size), -1 at the first edge and 1 at the last."""
    steps = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"))


def local_pushes(like: Tensor) -> Tensor:
    """Flows of up to three Gaussian pushes by a pixel or two, 8 to 40 px wide."""
    n = len(like) * 3
    middle = torch.rand(n, 2, 1, 1, device=like.device) * 1.4 - 0.7
    width = (torch.rand(n, 1, 1, 1, device=like.device) * math.log(5)).exp() * (8 / (SIZE / 2))
    peak = 0.5 * torch.randn(n, 2, 1, 1, device=like.device) * (torch.rand(n, 1, 1, 1, device=like.device) < 0.6)
    squared = (coordinates(OUT, like.device)[None] - middle).square().sum(1, keepdim=True)
    return (peak * (-squared / (2 * width**2)).exp()).view(len(like), 3, 2, OUT, OUT).sum(1)


def smooth_flow(like: Tensor) -> Tensor:
    """Smooth random flows, interpolated between 3 x 3 to 8 x 8 random vectors."""
    cells, strength = int(torch.randint(3, 9, ())), log_uniform(like, 0.1, 0.7)
    return F.interpolate(strength * torch.randn(len(like), 2, cells, cells, device=like.device), OUT, mode="bicubic")


def head_turn(like: Tensor) -> Tensor:
    """Flows of an ellipsoid, seen from the front, that turns by about half a degree and shifts by half a pixel."""
    x, y = coordinates(OUT, like.device) * (SIZE / 2)
    depth = 90 * (1 - (x / 128) ** 2 - (y / 140) ** 2).clamp(min=0.02).sqrt()
    turn = 0.008 * torch.randn(len(like), 3, 1, 1, device=like.device)
    shift = 0.6 * torch.randn(len(like), 2, 1, 1, device=like.device)
    u = turn[:, 1] * depth - turn[:, 2] * y + shift[:, 0]
    v = turn[:, 2] * x - turn[:, 0] * depth + shift[:, 1]
    return torch.stack([u, v], 1)


@lru_cache(maxsize=2)
def sample_pictures(device: str) -> tuple[Tensor, ...]:
    """PICTURES (H, W) in grey, each side longer than SIZE px."""
    from skimage import data
    from skimage.io import imread

    pictures = []
    for name in PICTURES:
        image = imread(f"{data.__path__[0]}/{name}")
        grey = cv2.cvtColor(image[..., :3], cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
        scale = max(1.0, (SIZE + 1) / min(grey.shape))
        pictures.append(torch.from_numpy(np.float32(cv2.resize(grey, None, fx=scale, fy=scale))).to(device))
    return tuple(pictures)


def picture_patches(like: Tensor) -> Tensor:
    """A random patch (B, 1, S, S) of a sample picture for each pair, some transposed or mirrored."""
    pictures, patches = sample_pictures(str(like.device)), []
    for _ in range(len(like)):
        picture = pictures[int(torch.randint(len(pictures), ()))]
        top, left = (int(torch.randint(side - SIZE + 1, ())) for side in picture.shape)
        patch = picture[top : top + SIZE, left : left + SIZE]
        patch = patch.mT if torch.rand(()) < 0.5 else patch
        patches.append(patch.flip(-1) if torch.rand(()) < 0.5 else patch)
    return torch.stack(patches)[:, None]


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (B, 1, S, S), each blurred by a Gaussian of its own sigma (B, 1, 1, 1) px."""
    radius = 10
    steps = torch.arange(-radius, radius + 1, device=images.device)
    kernel = (-(steps**2) / (2 * sigma.view(-1, 1) ** 2 + 1e-6)).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None, None]  # (B, 1, 1, K)
    rows = images.view(1, len(images), *images.shape[2:])
    rows = F.conv2d(F.pad(rows, (radius, radius, 0, 0), "replicate"), kernel, groups=len(images))
    rows = F.conv2d(F.pad(rows, (0, 0, radius, radius), "replicate"), kernel.mT, groups=len(images))
    return rows.view_as(images)


def change_skin(lesson: Lesson, face: Tensor, config: Degradation) -> Lesson:
    """Add detail of natural pictures, or noise of several widths, to some skins, and blur some pairs.

    face (B, 1, S, S): 1 where the second frame shows the face.
    """
    n, device = len(face), face.device
    amount = log_uniform(face, *config.detail) * selected(face, config.detailed)
    noises = [upsample(torch.randn(n, 1, SIZE >> k, SIZE >> k, device=device), SIZE) * (1 + k) for k in range(3)]
    texture = torch.where(selected(face, 0.75), picture_patches(face), 40 * sum(noises))
    detail = texture - blur(texture, torch.full((n, 1, 1, 1), DETAIL_SIGMA, device=device))
    detail = (detail / (detail.std((2, 3), keepdim=True) + 1)).clamp(-4, 4) * amount * face
    first = lesson.first + backward_warp(detail, lesson.flow) * (lesson.first > 0)
    second = lesson.second + detail
    sigma = uniform(face, *config.softness) * selected(face, config.softened)
    return lesson._replace(first=blur(first, sigma), second=blur(second, sigma))


def change_background(lesson: Lesson, first: Tensor, second: Tensor, config: Degradation) -> Lesson:
    """Put some faces before white, a grey or a picture that stands still; the flow is unknown there.

    first, second (B, 1, S, S): 1 where the frames show background.
    """
    plain = torch.where(selected(first, 0.4), uniform(first, 240, 258), uniform(first, 0, 255))
    picture = blur(picture_patches(first), uniform(first, 0.3, 6.0))
    background = torch.where(selected(first, 0.6), plain.expand_as(picture), picture)
    changed = selected(first, config.grounded).float()
    edge = torch.full_like(changed, 0.6)
    first_share, second_share = (blur(mask, edge) * changed for mask in (first, second))
    covered = F.adaptive_max_pool2d(first * changed, OUT)[:, 0] > 0
    return lesson._replace(
        first=torch.lerp(lesson.first, background, first_share),
        second=torch.lerp(lesson.second, background, second_share),
        known=lesson.known.masked_fill(covered, 0),
        known_nonrigid=lesson.known_nonrigid.masked_fill(covered, 0),
    )


def change_crop(lesson: Lesson, config: Degradation) -> Lesson:
    """Show some pairs in a closer or wider crop off the middle, and scale their flow by the zoom."""
    cropped = selected(lesson.first, config.cropped)
    zoom = torch.where(cropped, log_uniform(lesson.first, *config.zoom), 1.0)
    reach = (1 - 1 / zoom).abs() * cropped
    middle = (torch.rand(len(zoom), 2, device=zoom.device) * 2 - 1) * reach.view(-1, 1)

    def crop(maps: Tensor, mode: str, padding: str = "border") -> Tensor:
        grid = coordinates(maps.shape[-1], maps.device).movedim(0, -1) / zoom + middle[:, None, None]
        return F.grid_sample(maps, grid, mode=mode, padding_mode=padding, align_corners=False)

    frames = (crop(frame, "bicubic") for frame in (lesson.first, lesson.second))
    flows = (crop(flow, "bilinear") * zoom for flow in (lesson.flow, lesson.nonrigid))
    known = (crop(mask[:, None], "nearest", "zeros")[:, 0] for mask in (lesson.known, lesson.known_nonrigid))
    return Lesson(*frames, *flows, *known)


def record(first: Tensor, second: Tensor, config: Degradation) -> tuple[Tensor, Tensor]:
    """Both frames as a camera records them and a file stores them, in whole grey levels."""
    first, second = expose(first, second, config)
    second = relight(second, config)
    low, high = config.side
    side = int(torch.randint(low // 8, high // 8 + 1, ())) * 8 if torch.rand(()) < config.small else SIZE
    if side < SIZE:
        first, second = (F.interpolate(frame, side, mode="area") for frame in (first, second))
    first, second = compress(*add_noise(first, second, config), config)
    if side < SIZE:
        first, second = (F.interpolate(frame, SIZE, mode="bicubic", align_corners=False) for frame in (first, second))
    return first.round().clamp(0, 255), second.round().clamp(0, 255)


def expose(first: Tensor, second: Tensor, config: Degradation) -> tuple[Tensor, Tensor]:
    """Both frames with another contrast and brightness, clipped to 8 bits."""
    quarter = SIZE // 4
    middle = first[..., quarter:-quarter, quarter:-quarter].mean((2, 3), keepdim=True)
    contrast, bright = log_uniform(first, *config.contrast), uniform(first, *config.brightness)
    return tuple(((frame - middle) * contrast + bright).clamp(0, 255) for frame in (first, second))


def relight(second: Tensor, config: Degradation) -> Tensor:
    """Make some second frames brighter or darker by up to a tenth, half of them unevenly."""
    steps = torch.linspace(-1, 1, second.shape[-1], device=second.device)
    slope = uniform(second, -0.03, 0.03) * steps + uniform(second, -0.03, 0.03) * steps[:, None]
    light = uniform(second, -0.05, 0.05) + slope * selected(second, 0.5)
    return second * (1 + light * selected(second, config.lit))


def add_noise(first: Tensor, second: Tensor, config: Degradation) -> tuple[Tensor, Tensor]:
    """Add sensor noise, white or correlated, to both frames."""
    noises = torch.randn(2, *first.shape, device=first.device)
    width, amount = log_uniform(first, *config.noise_width), log_uniform(first, *config.noise)
    correlated = selected(first, config.correlated)

    def noisy(frame: Tensor, white: Tensor) -> Tensor:
        wide = blur(white, width)
        wide = wide / (wide.std((2, 3), keepdim=True) + 1e-6)
        return (frame + torch.where(correlated, wide, white) * amount).round().clamp(0, 255)

    return noisy(first, noises[0]), noisy(second, noises[1])


def rounded_blocks(images: Tensor, step: Tensor) -> Tensor:
    """Images (B, 1, S, S), S a multiple of 8, with the cosine coefficients of their 8 x 8 blocks rounded to multiples
    of `step` (B, 1, 1, 1) for the lowest frequency, and of three times as much for the highest."""
    n, _, side, _ = images.shape
    k = torch.arange(8.0, device=images.device)
    basis = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)  # the orthonormal discrete cosine transform
    blocks = images.view(n, side // 8, 8, side // 8, 8).permute(0, 1, 3, 2, 4)
    steps = step[..., None] * (1 + (k + k[:, None]) / 7)
    blocks = basis.T @ ((basis @ blocks @ basis.T / steps).round() * steps) @ basis
    return blocks.permute(0, 1, 3, 2, 4).reshape(images.shape)


def compress(first: Tensor, second: Tensor, config: Degradation) -> tuple[Tensor, Tensor]:
    """Compress some pairs: each frame alone, as JPEG does, or the second as a change of the first, as a film does."""
    step = log_uniform(first, 1.5, 10.0)
    stills = rounded_blocks(first, step), rounded_blocks(second, step)
    change = rounded_blocks(second - stills[0], step * uniform(step, 1.0, 3.0))
    coded, as_film = selected(first, config.coded), selected(first, 0.5)
    second_coded = torch.where(as_film, stills[0] + change, stills[1])
    return torch.where(coded, stills[0], first), torch.where(coded, second_coded, second)
