"""What rendered lessons lack of life: other motions, skins, grounds, crops, cameras, codecs; drawn anew each epoch.

A lesson is a rendered pair before a black ground, without noise. Each change keeps the flow exact: what moves with the
skin is put into the second frame, and found in the first where the flow says. Shapes: frames (B, 1, S, S), flows
(B, 2, OUT, OUT) px of the S px picture, known (B, OUT, OUT) 0 or 1. Every function draws from torch's generator.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.flow.faceflow_net import OUT, SIZE, backward_warp, upsample

# Sample pictures that ship with scikit-image: their fine detail is what procedural skin lacks. Its portrait of an
# astronaut is not among them, since flow is measured on that.
PICTURES = ("brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "motorcycle_left", "retina")
DETAIL_SIGMA = 4.0  # px: what is finer is detail


@dataclass(frozen=True)
class Lesson:
    """A batch of pairs with their truth."""

    first: Tensor
    second: Tensor
    flow: Tensor
    nonrigid: Tensor
    known: Tensor  # where the flow is known
    known_nonrigid: Tensor  # where the flow without the head's motion is known


@dataclass(frozen=True)
class Degradation:
    """How often each change is made to a pair, as shares, and how far it goes."""

    moved: float = 0.45  # by another motion than the rendered one
    detailed: float = 0.6  # detail of natural pictures over the skin,
    detail: tuple[float, float] = (0.7, 8.0)  # grey levels
    softened: float = 0.2  # skin without fine detail,
    softness: tuple[float, float] = (0.7, 4.0)  # px
    grounded: float = 0.75  # another ground than black
    cropped: float = 0.5  # closer or from farther away
    zoom: tuple[float, float] = (0.75, 1.7)
    small: float = 0.35  # of batches: taken with a face of fewer pixels
    side: tuple[int, int] = (64, 220)
    lit: float = 0.5  # another exposure of the second frame, uneven too
    contrast: tuple[float, float] = (0.4, 3.5)  # times that of the rendered face; photographs have 2.5 times as much
    brightness: tuple[float, float] = (50.0, 180.0)  # grey levels, of the middle of the first frame
    noise: tuple[float, float] = (0.3, 5.0)  # grey levels
    correlated: float = 0.5  # noise that hangs together, as demosaicing and scaling leave it,
    noise_width: tuple[float, float] = (0.4, 2.5)  # px
    coded: float = 0.4  # through a still picture's codec or a film's


def degrade(lesson: Lesson, how: Degradation) -> Lesson:
    """The lesson as other people, places, cameras and files would have it."""
    ground = (lesson.second == 0).float()
    lesson, ground_first = move_otherwise(lesson, ground, how)
    lesson = change_skin(lesson, 1 - ground, how)
    lesson = change_ground(lesson, ground_first, ground, how)
    lesson = change_crop(lesson, how)
    first, second = take(lesson.first, lesson.second, how)
    return replace(lesson, first=first, second=second)


# Chances ------------------------------------------------------------------------------------------------------------


def chance(like: Tensor, share: float) -> Tensor:
    """True for a share of the batch, (B, 1, 1, 1)."""
    return torch.rand(len(like), 1, 1, 1, device=like.device) < share


def between(like: Tensor, low: float, high: float) -> Tensor:
    """A number between two for each of the batch, (B, 1, 1, 1)."""
    return torch.rand(len(like), 1, 1, 1, device=like.device) * (high - low) + low


def log_between(like: Tensor, low: float, high: float) -> Tensor:
    return between(like, math.log(low), math.log(high)).exp()


# Motion -------------------------------------------------------------------------------------------------------------


def move_otherwise(lesson: Lesson, ground: Tensor, how: Degradation) -> tuple[Lesson, Tensor]:
    """Some pairs are the second frame and where it came from by a flow of another kind; also the first one's ground.

    The flow is another face's, in part, with local pushes and plates, and the turn of a head upon it.
    """
    own = lesson.nonrigid.roll(1, 0) * log_between(lesson.flow, 0.3, 1.5) * chance(lesson.flow, 0.6)
    own = own + pushes(lesson.flow) + plates(lesson.flow) * chance(lesson.flow, 0.5)
    flow = own + head_turn(lesson.flow) * chance(lesson.flow, 0.5)
    which = chance(lesson.first, how.moved)
    maps = which[:, 0]
    first = torch.where(which, backward_warp(lesson.second, flow), lesson.first)
    ground_first = torch.where(which, (backward_warp(ground, flow) > 0.5).float(), (lesson.first == 0).float())
    everywhere = torch.ones_like(lesson.known)
    return replace(
        lesson,
        first=first,
        flow=torch.where(which, flow, lesson.flow),
        nonrigid=torch.where(which, own, lesson.nonrigid),
        known=torch.where(maps, everywhere, lesson.known),
        known_nonrigid=torch.where(maps, everywhere, lesson.known_nonrigid),
    ), ground_first


def places(like: Tensor) -> Tensor:
    """x and y of the cells of flows, (2, OUT, OUT) from -1 to 1."""
    steps = (torch.arange(OUT, device=like.device) + 0.5) * (2 / OUT) - 1
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"))


def pushes(like: Tensor, count: int = 3) -> Tensor:
    """Local pushes of up to a pixel or two, 8 to 40 px wide: flows as `like`."""
    n = len(like) * count
    middle = torch.rand(n, 2, 1, 1, device=like.device) * 1.4 - 0.7
    width = (torch.rand(n, 1, 1, 1, device=like.device) * math.log(5)).exp() * (8 / (SIZE / 2))
    peak = 0.5 * torch.randn(n, 2, 1, 1, device=like.device) * (torch.rand(n, 1, 1, 1, device=like.device) < 0.6)
    squared = (places(like)[None] - middle).square().sum(1, keepdim=True)
    return (peak * (-squared / (2 * width**2)).exp()).view(len(like), count, 2, OUT, OUT).sum(1)


def plates(like: Tensor) -> Tensor:
    """Smooth random flows with three to eight bends across the picture."""
    cells = int(torch.randint(3, 9, ()))
    far = log_between(like, 0.1, 0.7)
    return F.interpolate(far * torch.randn(len(like), 2, cells, cells, device=like.device), OUT, mode="bicubic")


def head_turn(like: Tensor) -> Tensor:
    """An ellipsoid that turns by half a degree and shifts by half a pixel or so, seen from the front."""
    x, y = places(like) * (SIZE / 2)
    depth = 90 * (1 - (x / 128) ** 2 - (y / 140) ** 2).clamp(min=0.02).sqrt()
    turn = 0.008 * torch.randn(len(like), 3, 1, 1, device=like.device)
    shift = 0.6 * torch.randn(len(like), 2, 1, 1, device=like.device)
    u = turn[:, 1] * depth - turn[:, 2] * y + shift[:, 0]
    v = turn[:, 2] * x - turn[:, 0] * depth + shift[:, 1]
    return torch.stack([u, v], 1)


# Skin and ground ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def pictures(device: str) -> tuple[Tensor, ...]:
    """The sample pictures (H, W) in grey, each side of SIZE px or more."""
    from skimage import data
    from skimage.io import imread

    folder = data.__path__[0]
    found = []
    for name in PICTURES:
        file = f"{folder}/{name}.{'jpg' if name == 'retina' else 'png'}"
        image = imread(file)
        grey = cv2.cvtColor(image[..., :3], cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
        grow = max(1.0, (SIZE + 1) / min(grey.shape))
        found.append(torch.from_numpy(np.float32(cv2.resize(grey, None, fx=grow, fy=grow))).to(device))
    return tuple(found)


def cut_outs(like: Tensor) -> Tensor:
    """A piece (B, 1, S, S) of a sample picture for each pair, turned or mirrored."""
    found = []
    for _ in range(len(like)):
        shelf = pictures(str(like.device))
        picture = shelf[int(torch.randint(len(shelf), ()))]
        top, left = (int(torch.randint(side - SIZE + 1, ())) for side in picture.shape)
        piece = picture[top : top + SIZE, left : left + SIZE]
        piece = piece.mT if torch.rand(()) < 0.5 else piece
        found.append(piece.flip(-1) if torch.rand(()) < 0.5 else piece)
    return torch.stack(found)[:, None]


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (B, 1, S, S) under a Gaussian of each one's own sigma (B, 1, 1, 1) px."""
    radius = 10
    steps = torch.arange(-radius, radius + 1, device=images.device)
    kernel = (-(steps**2) / (2 * sigma.view(-1, 1) ** 2 + 1e-6)).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None, None]  # (B, 1, 1, K)
    rows = images.view(1, len(images), *images.shape[2:])
    rows = F.conv2d(F.pad(rows, (radius, radius, 0, 0), "replicate"), kernel, groups=len(images))
    rows = F.conv2d(F.pad(rows, (0, 0, radius, radius), "replicate"), kernel.mT, groups=len(images))
    return rows.view_as(images)


def grain(like: Tensor) -> Tensor:
    """Detail of natural pictures, or noise of several widths: zero mean, deviation one."""
    noise = sum(
        upsample(torch.randn(len(like), 1, SIZE >> k, SIZE >> k, device=like.device), SIZE) * (1 + k) for k in range(3)
    )
    natural = torch.where(chance(like, 0.75), cut_outs(like), 40 * noise)
    fine = natural - blur(natural, torch.full((len(like), 1, 1, 1), DETAIL_SIGMA, device=like.device))
    return (fine / (fine.std((2, 3), keepdim=True) + 1)).clamp(-4, 4)


def change_skin(lesson: Lesson, face: Tensor, how: Degradation) -> Lesson:
    """Some skins get detail, some lose it; face (B, 1, S, S): where the second frame is no ground."""
    amount = log_between(face, *how.detail) * chance(face, how.detailed)
    laid = grain(face) * amount * face
    first = lesson.first + backward_warp(laid, lesson.flow) * (lesson.first > 0)
    second = lesson.second + laid
    soft = between(face, *how.softness) * chance(face, how.softened)
    return replace(lesson, first=blur(first, soft), second=blur(second, soft))


def change_ground(lesson: Lesson, first_ground: Tensor, second_ground: Tensor, how: Degradation) -> Lesson:
    """Some pairs stand before white, a grey or a picture, which stays where it is, and where nothing is known."""
    plain = torch.where(chance(first_ground, 0.4), between(first_ground, 240, 258), between(first_ground, 0, 255))
    picture = blur(cut_outs(first_ground), between(first_ground, 0.3, 6.0))
    ground = torch.where(chance(first_ground, 0.6), plain.expand_as(picture), picture)
    which = chance(first_ground, how.grounded).float()
    edge = torch.full_like(which, 0.6)
    a, b = (blur(mask, edge) * which for mask in (first_ground, second_ground))
    covered = F.adaptive_max_pool2d(first_ground * which, OUT)[:, 0] > 0
    still = torch.zeros_like(lesson.known)
    return replace(
        lesson,
        first=torch.lerp(lesson.first, ground, a),
        second=torch.lerp(lesson.second, ground, b),
        known=torch.where(covered, still, lesson.known),
        known_nonrigid=torch.where(covered, still, lesson.known_nonrigid),
    )


def change_crop(lesson: Lesson, how: Degradation) -> Lesson:
    """Some pairs are seen from nearer or farther, off the middle; the flow grows or shrinks as much."""
    which = chance(lesson.first, how.cropped)
    zoom = torch.where(which, log_between(lesson.first, *how.zoom), torch.ones_like(which, dtype=torch.float))
    reach = (1 - 1 / zoom).abs() * which
    middle = (torch.rand(len(zoom), 2, device=zoom.device) * 2 - 1) * reach.view(-1, 1)

    def seen(maps: Tensor, mode: str, padding: str = "border") -> Tensor:
        steps = (torch.arange(maps.shape[-1], device=maps.device) + 0.5) * (2 / maps.shape[-1]) - 1
        grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1) / zoom + middle[:, None, None]
        return F.grid_sample(maps, grid, mode=mode, padding_mode=padding, align_corners=False)

    return Lesson(
        seen(lesson.first, "bicubic"),
        seen(lesson.second, "bicubic"),
        seen(lesson.flow, "bilinear") * zoom,
        seen(lesson.nonrigid, "bilinear") * zoom,
        seen(lesson.known[:, None], "nearest", "zeros")[:, 0],
        seen(lesson.known_nonrigid[:, None], "nearest", "zeros")[:, 0],
    )


# Camera and file ----------------------------------------------------------------------------------------------------


def take(first: Tensor, second: Tensor, how: Degradation) -> tuple[Tensor, Tensor]:
    """Both frames as a camera takes them and a file keeps them, in whole grey levels."""
    first, second = expose(first, second, how)
    second = relight(second, how)
    side = int(torch.randint(how.side[0] // 8, how.side[1] // 8 + 1, ())) * 8 if torch.rand(()) < how.small else SIZE
    if side < SIZE:
        first, second = (F.interpolate(frame, side, mode="area") for frame in (first, second))
    first, second = noisy(first, second, how)
    first, second = coded(first, second, how)
    if side < SIZE:
        first, second = (F.interpolate(frame, SIZE, mode="bicubic", align_corners=False) for frame in (first, second))
    return first.round().clamp(0, 255), second.round().clamp(0, 255)


def expose(first: Tensor, second: Tensor, how: Degradation) -> tuple[Tensor, Tensor]:
    """Both frames with another contrast and brightness, as far as 8 bits hold them."""
    quarter = SIZE // 4
    middle = first[..., quarter:-quarter, quarter:-quarter].mean((2, 3), keepdim=True)
    contrast, bright = log_between(first, *how.contrast), between(first, *how.brightness)
    return tuple(((frame - middle) * contrast + bright).clamp(0, 255) for frame in (first, second))


def relight(second: Tensor, how: Degradation) -> Tensor:
    """Some second frames brighter or darker by up to a tenth, and not everywhere alike."""
    steps = torch.linspace(-1, 1, second.shape[-1], device=second.device)
    slope = between(second, -0.03, 0.03) * steps + between(second, -0.03, 0.03) * steps[:, None]
    light = between(second, -0.05, 0.05) + slope * chance(second, 0.5)
    return second * (1 + light * chance(second, how.lit))


def noisy(first: Tensor, second: Tensor, how: Degradation) -> tuple[Tensor, Tensor]:
    """Sensor noise upon both, white or correlated."""
    grains = torch.randn(2, *first.shape, device=first.device)
    width, amount = log_between(first, *how.noise_width), log_between(first, *how.noise)
    correlated = chance(first, how.correlated)
    found = []
    for frame, white in zip((first, second), grains, strict=True):
        wide = blur(white, width)
        wide = wide / (wide.std((2, 3), keepdim=True) + 1e-6)
        found.append((frame + torch.where(correlated, wide, white) * amount).round().clamp(0, 255))
    return found[0], found[1]


@lru_cache(maxsize=2)
def cosines(device: str) -> Tensor:
    """The orthonormal discrete cosine transform of eight numbers, (8, 8)."""
    k = torch.arange(8.0)
    basis = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)
    return basis.to(device)


def rounded_blocks(images: Tensor, step: Tensor) -> Tensor:
    """Images (B, 1, S, S), S a multiple of 8, with their blocks' cosines rounded to multiples of `step` (B, 1, 1, 1),
    three times as coarse for the finest as for the slowest."""
    n, _, side, _ = images.shape
    basis = cosines(str(images.device))
    blocks = images.view(n, side // 8, 8, side // 8, 8).permute(0, 1, 3, 2, 4)
    waves = basis @ blocks @ basis.T
    order = torch.arange(8, device=images.device)
    steps = step[..., None] * (1 + (order + order[:, None]) / 7)
    blocks = basis.T @ ((waves / steps).round() * steps) @ basis
    return blocks.permute(0, 1, 3, 2, 4).reshape(images.shape)


def coded(first: Tensor, second: Tensor, how: Degradation) -> tuple[Tensor, Tensor]:
    """Some pairs through a codec: each frame by itself as JPEG does, or the second as its change, as a film does."""
    step = log_between(first, 1.5, 10.0)
    stills = rounded_blocks(first, step), rounded_blocks(second, step)
    change = rounded_blocks(second - stills[0], step * between(step, 1.0, 3.0))
    film = stills[0], stills[0] + change
    which, is_film = chance(first, how.coded), chance(first, 0.5)
    kept = [torch.where(is_film, b, a) for a, b in zip(stills, film, strict=True)]
    return torch.where(which, kept[0], first), torch.where(which, kept[1], second)
