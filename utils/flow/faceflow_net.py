"""FaceFlow: a small network for the motion of a face between two frames, with and without the head's own.

    first, second (B, 1, 256, 256) grey
     |-- detail, slow brightness gone: full, half and quarter size
     |-- half and quarter: Lucas-Kanade features -> U-Net -> coarse flow            (B, 2, 32, 32)
     |-- backward warp of the second frame's detail by the coarse flow
     |-- full and half: Lucas-Kanade features -> U-Net ----> residual flow; relief and rigidity of the face
     |-- the head's motion, fitted to the flow where the face is rigid, and a little more of the U-Net's
     |-- convex upsampling: each quarter of a cell is a mean of the nine flows about it, weighted by the U-Net
     |-> flow, nonrigid                                    (B, 2, 128, 128) each, pixels of the 256 px picture

    Lucas-Kanade features: what least squares knows of the motion at each cell of a grid: the products of the normal
             equations, their solutions in three windows, how well each explains the change, how much texture there is
    nonrigid: the flow less the head's rigid motion, which is what an expression moves

A classical method ends with a least squares flow; here the networks weight such flows by what they have learnt of how
faces move. It was taught by rendered synthetic faces with exact truth (see its model card in `utils/weights`). The
features follow Lucas and Kanade 1981; the U-Net Ronneberger et al. 2015; warping between two stages as in PWC-Net (Sun
et al. 2018); convex upsampling as in RAFT (Teed and Deng 2020): a lid's edge runs through cells.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE, OUT, GRID, ROUGH = 256, 128, 64, 32  # pixels a side: the frames, the flow, what the two networks see
SMOOTHINGS = (0, 1, 3)  # 3 x 3 means over the grid that make the three least squares windows
LUCAS_KANADE_MAPS = 6 + 3 * len(SMOOTHINGS)  # of `lucas_kanade_features`
CONTEXT_MAPS, EDGE_MAPS = 5, 8  # of `context_features`, of `edge_features`
UPSAMPLING_MAPS = 4 * 9  # the weights that `convex_upsample` takes for a cell
RIDGE = 0.02  # of the mean texture energy, added to the normal equations


@dataclass(frozen=True)
class FlowNetConfig:
    """Widths of the two U-Nets, from their whole maps down to 8 x 8."""

    coarse: tuple[int, ...] = (16, 32, 48)
    fine: tuple[int, ...] = (24, 32, 48, 64)

    def __post_init__(self) -> None:
        object.__setattr__(self, "coarse", tuple(self.coarse))  # lists, where it was read from JSON
        object.__setattr__(self, "fine", tuple(self.fine))


# Features and warps -------------------------------------------------------------------------------------------------


def detail(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both frames (B, 1, H, W) without slow brightness, in units of the first one's contrast."""
    both = torch.cat([first, second], 1)
    fine = both - upsample(smooth(downsample(both, 2)), both.shape[-1])  # less a blur of sigma 2 pixels
    scale = fine[:, :1].square().mean((2, 3), keepdim=True).sqrt() + 0.1
    return (fine / scale).clamp(-5, 5).chunk(2, 1)


def lucas_kanade_features(first: Tensor, second: Tensor, grid: int) -> Tensor:
    """What least squares knows of the motion from `first` to `second`, detail (B, 1, H, W).

    Returns (B, LUCAS_KANADE_MAPS, grid, grid).
    """
    middle = first + second
    gx, gy = x_derivative(middle), x_derivative(middle.mT).mT
    gt = second - first
    products = (gx * gx, gx * gy, gy * gy, gx * gt, gy * gt, gt * gt)
    products = torch.cat([downsample(part, first.shape[-1] // grid) for part in products], 1)
    texture = products[:, :1] + products[:, 2:3]
    floor = RIDGE * texture.mean((2, 3), keepdim=True) + 1e-6
    maps = [products[:, :5] / (texture + floor), torch.log1p(texture / floor)]
    for smoothing in range(max(SMOOTHINGS) + 1):
        if smoothing:
            products = smooth(products)
        if smoothing in SMOOTHINGS:
            maps.append(least_squares_flow(products, floor))
    return torch.cat(maps, 1)


def x_derivative(doubled: Tensor) -> Tensor:
    """Derivative along x of half of `doubled`, by differences over five pixels: over three, fine texture looks flat."""
    padded = F.pad(doubled, (2, 2, 0, 0), "replicate")
    near, far = padded[..., 3:-1] - padded[..., 1:-3], padded[..., 4:] - padded[..., :-4]
    return near / 3 - far / 24


def least_squares_flow(products: Tensor, floor: Tensor) -> Tensor:
    """Least squares flow u, v in pixels of the frames given, and the share of the change that it leaves unexplained."""
    xx, xy, yy, xt, yt, tt = products.split(1, 1)
    xx, yy = xx + floor, yy + floor
    determinant = xx * yy - xy * xy
    u, v = (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant
    left = (tt + u * xt + v * yt) / (tt + 0.1 * floor)
    return torch.cat([u, v, left], 1).clamp(-4, 4)


def backward_warp(image: Tensor, flow: Tensor) -> Tensor:
    """`image` (B, C, H, W) sampled where each pixel went by `flow` (B, 2, g, g), pixels of the full size."""
    size = image.shape[-1]
    pixels = upsample(flow * (size / SIZE), size)
    steps = (torch.arange(size, dtype=image.dtype, device=image.device) + 0.5) * (2 / size) - 1
    at = torch.stack([steps + pixels[:, 0] * (2 / size), steps[:, None] + pixels[:, 1] * (2 / size)], -1)
    return F.grid_sample(image, at, mode="bicubic", padding_mode="border", align_corners=False)


def downsample(maps: Tensor, by: int) -> Tensor:
    """Means over cells of `by` x `by` pixels, as sums of slices: a third of the time of pooling on a CPU."""
    rows = sum(maps[..., i::by, :] for i in range(by))
    return sum(rows[..., i::by] for i in range(by)) / by**2


def smooth(maps: Tensor) -> Tensor:
    """Means over 3 x 3 pixels, edges repeated."""
    maps = F.pad(maps, (1, 1, 1, 1), "replicate")
    rows = maps[..., :-2, :] + maps[..., 1:-1, :] + maps[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def upsample(maps: Tensor, size: int) -> Tensor:
    """Maps (B, C, g, g) at `size` x `size` pixels, bilinear."""
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)


# The networks -----------------------------------------------------------------------------------------------------


def convolutions(*widths: int) -> nn.Sequential:
    """3x3 convolutions from each width to the next, each with a leaky ReLU."""
    layers = [nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(0.1)) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Maps (B, before, g, g) -> (B, after, g, g), and the features (B, widths[0], g, g) that they come of; the lowest
    level also sees the mean over the picture."""

    def __init__(self, before: int, widths: tuple[int, ...], after: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(before, 1, 1))
        self.register_buffer("spread", torch.ones(before, 1, 1))
        steps = list(itertools.pairwise(widths))
        self.down = nn.ModuleList([convolutions(before, widths[0]), *(convolutions(a, b, b) for a, b in steps)])
        self.whole = nn.Linear(widths[-1], widths[-1])
        inner = [convolutions(a + b, a, a) for a, b in steps[:0:-1]]
        self.up = nn.ModuleList([*inner, convolutions(widths[0] + widths[1], widths[0])])
        self.out = nn.Conv2d(widths[0], after, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, skips = ((x - self.mean) / self.spread).contiguous(memory_format=torch.channels_last), []
        for level, layers in enumerate(self.down):
            x = layers(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        x = x + self.whole(x.mean((2, 3)))[:, :, None, None]
        for layers, skip in zip(self.up, skips[-2::-1], strict=True):
            x = layers(torch.cat([upsample(x, skip.shape[-1]), skip], 1))
        return self.out(x), x

    def standardise(self, x: Tensor) -> None:
        """Bring the input to mean 0 and deviation 1 from now on, as counted over `x` (B, before, g, g).

        Fixed from the start of training: a batch's own deviation would hide how far things move in it.
        """
        self.mean.copy_(x.mean((0, 2, 3))[:, None, None])
        self.spread.copy_(x.std((0, 2, 3))[:, None, None] + 1e-3)


class FlowNet(nn.Module):
    """The network of the module's diagram: `forward` returns flow, nonrigid (B, 2, OUT, OUT), and the coarse flow."""

    def __init__(self, config: FlowNetConfig = FlowNetConfig()) -> None:
        super().__init__()
        self.config = config
        candidates = 2 * len(SMOOTHINGS) + 1
        self.coarse = UNet(2 * LUCAS_KANADE_MAPS + CONTEXT_MAPS, config.coarse, 2 + candidates)
        self.fine = UNet(2 * LUCAS_KANADE_MAPS + CONTEXT_MAPS + EDGE_MAPS + 2, config.fine, candidates + 6)
        self.blend = nn.Conv2d(config.fine[0], UPSAMPLING_MAPS, 1)
        self.to(memory_format=torch.channels_last)  # the faster layout on a CPU

    @torch.no_grad()
    def standardise(self, first: Tensor, second: Tensor) -> None:
        """Fix the scale of what both U-Nets see by many pairs, before training."""
        nets = self.coarse, self.fine
        hooks = [net.register_forward_pre_hook(lambda net, seen: net.standardise(*seen)) for net in nets]
        self(first, second)
        for hook in hooks:
            hook.remove()

    def forward(self, first: Tensor, second: Tensor, face: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """face: (B, 1, SIZE, SIZE) from 0 to 1, over which the head's motion is fitted; over all without it."""
        full, half, quarter = (detail(downsample(first, by), downsample(second, by)) for by in (1, 2, 4))
        rough = [lucas_kanade_features(*half, ROUGH), lucas_kanade_features(*quarter, ROUGH)]
        context = context_features(first, second, ROUGH)
        coarse, *_ = self.weighted_flow(self.coarse, rough, (2, 4), context)  # (B, 2, ROUGH, ROUGH)
        start = coarse.detach()  # each stage learns by its own error, which spares the gradient through the warp
        pairs = [(before, backward_warp(after, start)) for before, after in (full, half)]
        remaining = [lucas_kanade_features(*pair, GRID) for pair in pairs]
        start = upsample(start, GRID)
        context = torch.cat([context_features(first, second, GRID), edge_features(*pairs[0]), start], 1)
        residual, own, features = self.weighted_flow(self.fine, remaining, (1, 2), context)
        bent, relief, rigidity = own.split([2, 1, 1], 1)
        flow = start + residual  # (B, 2, GRID, GRID)
        full_flow = convex_upsample(flow, self.blend(features))  # (B, 2, OUT, OUT)
        face = torch.ones_like(rigidity) if face is None else downsample(face, SIZE // GRID)
        return full_flow, full_flow - upsample(head_motion(flow, relief, rigidity, face) + bent, OUT), coarse

    @staticmethod
    def weighted_flow(
        net: UNet, lucas_kanade: list[Tensor], pixels: tuple[int, int], context: Tensor
    ) -> tuple[Tensor, ...]:
        """The flow (B, 2, g, g) of a U-Net that sees `lucas_kanade_features` at two sizes, whose pixels are so many px
        wide: a mean of the least squares flows and of no motion, weighted by the network cell by cell, plus what it
        adds. Then the network's other maps, and its features."""
        maps, features = net(torch.cat([*lucas_kanade, context], 1))
        weights, own = maps.tensor_split([2 * len(SMOOTHINGS) + 1], 1)
        weights = weights.softmax(1)
        sizes = zip(lucas_kanade, pixels, strict=True)
        found = [part[:, 6:].unflatten(1, (-1, 3))[:, :, :2] * px for part, px in sizes]
        mean = (weights[:, 1:, None] * torch.cat(found, 1)).sum(1)
        return mean + own[:, :2], own[:, 2:], features


def convex_upsample(flow: Tensor, blend: Tensor) -> Tensor:
    """Convex upsampling (Teed and Deng 2020) of flow (B, 2, g, g) to twice the size: each quarter of a cell is a
    mean of the 3 x 3 flows about the cell, weighted by the softmax of its nine maps of `blend`
    (B, UPSAMPLING_MAPS, g, g)."""
    size = flow.shape[-1]
    around = F.pad(flow, (1, 1, 1, 1), "replicate")
    nine = [around[:, :, None, i : i + size, j : j + size] for i in range(3) for j in range(3)]  # (B, 2, 1, g, g) each
    weights = blend.unflatten(1, (9, 1, 4)).softmax(1).unbind(1)  # (B, 1, 4, g, g) each
    quarters = sum(flows * weight for flows, weight in zip(nine, weights, strict=True))  # (B, 2, 4, g, g)
    return F.pixel_shuffle(quarters.flatten(1, 2), 2)


def head_motion(flow: Tensor, relief: Tensor, rigidity: Tensor, face: Tensor) -> Tensor:
    """The part of `flow` (B, 2, g, g) that is the head's: what a rigid body of such a relief makes in a picture taken
    from afar, u and v each linear in x, y and depth, fitted by least squares weighted by sigmoid(rigidity) * face.

    relief (B, 1, g, g): what is added to the depth of a paraboloid, in half widths of the picture.
    """
    x, y = coordinates(flow)
    depth = relief - x.square() - y.square()
    body = torch.stack([t.expand_as(depth) for t in (torch.ones_like(x), x, y, depth)], -1).flatten(1, 3)  # (B, N, 4)
    weighted = (body * (torch.sigmoid(rigidity) * face).reshape(len(flow), -1, 1)).mT
    ridge = 1e-2 * torch.eye(4, dtype=flow.dtype, device=flow.device)
    motion = torch.linalg.solve(weighted @ body + ridge, weighted @ flow.flatten(2).mT)  # (B, 4, 2)
    return (body @ motion).mT.reshape(flow.shape)


def edge_features(first: Tensor, second: Tensor) -> Tensor:
    """Maps (B, EDGE_MAPS, GRID, GRID) of what lies within a cell: detail (B, 1, SIZE, SIZE) of its four quarters, and
    its change."""
    return F.pixel_unshuffle(downsample(torch.cat([first, second - first], 1), SIZE // OUT), OUT // GRID)


def context_features(first: Tensor, second: Tensor, grid: int) -> Tensor:
    """Maps (B, CONTEXT_MAPS, grid, grid) of what lies at a cell: brightness there and about it, its change, and the
    cell's coordinates."""
    small, later = (downsample(image, SIZE // grid) for image in (first, second))
    spread = small.std((2, 3), keepdim=True) + 1
    bright, later = ((image - image.mean((2, 3), keepdim=True)) / spread for image in (small, later))
    place = torch.stack(coordinates(small)).expand(len(first), -1, -1, -1)
    return torch.cat([bright, smooth(smooth(bright)), 4 * (later - bright), place], 1)


def coordinates(maps: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of the cells of maps (..., g, g), -1 to 1 from the first to the last, (g, g) each."""
    steps = torch.linspace(-1, 1, maps.shape[-1], dtype=maps.dtype, device=maps.device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return x, y
