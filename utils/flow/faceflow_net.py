"""FaceFlow: a small network that estimates the motion of a face between two frames, with and without the head's.

    first, second (B, 1, 256, 256) grey
     |-- detail, without slow brightness: at full, half and quarter size
     |-- half and quarter: Lucas-Kanade features -> U-Net -> coarse flow            (B, 2, 32, 32)
     |-- backward warp of the second frame's detail by the coarse flow
     |-- full and half: Lucas-Kanade features -> U-Net -> residual flow; relief and rigidity of the face; correction
     |-- the head's motion: a rigid motion that is fitted to the flow where the face is rigid, plus the correction
     |-- convex upsampling: each quarter of a cell is a weighted mean of the nine flows around it, weights by the U-Net
     |-> flow, nonrigid                                    (B, 2, 128, 128) each, pixels of the 256 px picture

    Lucas-Kanade features: the products of the normal equations at each cell of a grid, their least squares solutions
             in three windows, the change that each solution leaves unexplained, and the amount of texture
    nonrigid: the flow minus the head's rigid motion, which leaves the motion of the expression

Classical methods end with one least squares flow; here the U-Nets learn from faces how to weight several of them. They
were trained on rendered synthetic faces with exact flow (see the model card in `utils/weights`).
Sources: features by Lucas and Kanade 1981; U-Net by Ronneberger et al. 2015; warping between two stages as in PWC-Net
(Sun et al. 2018); convex upsampling as in RAFT (Teed and Deng 2020), because the edge of a lid runs through cells.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE, OUT, GRID, ROUGH = 256, 128, 64, 32  # sides in pixels: frames, flow, inputs of the fine and the coarse U-Net
SMOOTHINGS = (0, 1, 3)  # number of 3 x 3 means over the grid for each of the three least squares windows
LUCAS_KANADE_MAPS = 6 + 3 * len(SMOOTHINGS)  # maps of `lucas_kanade_features`
CONTEXT_MAPS, EDGE_MAPS = 5, 8  # maps of `context_features` and of `edge_features`
UPSAMPLING_MAPS = 4 * 9  # weights of `convex_upsample` for each cell
RIDGE = 0.02  # added to the normal equations, share of the mean texture energy


@dataclass(frozen=True)
class FlowNetConfig:
    """Channels of the two U-Nets at each level, from the full resolution down to 8 x 8."""

    coarse: tuple[int, ...] = (16, 32, 48)
    fine: tuple[int, ...] = (24, 32, 48, 64)


# Features and warps -------------------------------------------------------------------------------------------------


def detail(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both frames (B, 1, H, W) without slow brightness, divided by the contrast of the first one."""
    both = torch.cat([first, second], 1)
    fine = both - upsample(smooth(downsample(both, 2)), both.shape[-1])  # subtracts a blur with a sigma of 2 pixels
    scale = fine[:, :1].square().mean((2, 3), keepdim=True).sqrt() + 0.1
    return (fine / scale).clamp(-5, 5).chunk(2, 1)


def lucas_kanade_features(first: Tensor, second: Tensor, grid: int) -> Tensor:
    """Lucas-Kanade features (B, LUCAS_KANADE_MAPS, grid, grid) of the motion between two details (B, 1, H, W)."""
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
    """The derivative along x of `doubled` / 2, by differences over five pixels: over three, fine texture looks flat."""
    padded = F.pad(doubled, (2, 2, 0, 0), "replicate")
    near, far = padded[..., 3:-1] - padded[..., 1:-3], padded[..., 4:] - padded[..., :-4]
    return near / 3 - far / 24


def least_squares_flow(products: Tensor, floor: Tensor) -> Tensor:
    """Maps (B, 3, g, g): least squares flow u, v in pixels of the frames, and the unexplained share of the change."""
    xx, xy, yy, xt, yt, tt = products.split(1, 1)
    xx, yy = xx + floor, yy + floor
    determinant = xx * yy - xy * xy
    u, v = (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant
    unexplained = (tt + u * xt + v * yt) / (tt + 0.1 * floor)
    return torch.cat([u, v, unexplained], 1).clamp(-4, 4)


def backward_warp(image: Tensor, flow: Tensor) -> Tensor:
    """Sample `image` (B, C, H, W) where `flow` (B, 2, g, g) points to. The flow is in pixels of SIZE at any H, W."""
    size = image.shape[-1]
    pixels = upsample(flow * (size / SIZE), size)
    steps = (torch.arange(size, dtype=image.dtype, device=image.device) + 0.5) * (2 / size) - 1
    at = torch.stack([steps + pixels[:, 0] * (2 / size), steps[:, None] + pixels[:, 1] * (2 / size)], -1)
    return F.grid_sample(image, at, mode="bicubic", padding_mode="border", align_corners=False)


def downsample(maps: Tensor, by: int) -> Tensor:
    """Means over cells of `by` x `by` pixels. Sums of slices take a third of the time of pooling on a CPU."""
    rows = sum(maps[..., i::by, :] for i in range(by))
    return sum(rows[..., i::by] for i in range(by)) / by**2


def smooth(maps: Tensor) -> Tensor:
    """Means over 3 x 3 pixels; the edges are repeated."""
    maps = F.pad(maps, (1, 1, 1, 1), "replicate")
    rows = maps[..., :-2, :] + maps[..., 1:-1, :] + maps[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def upsample(maps: Tensor, size: int) -> Tensor:
    """Maps (B, C, g, g) at `size` x `size` pixels, bilinear."""
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)


# The networks -----------------------------------------------------------------------------------------------------


def convolutions(*widths: int) -> nn.Sequential:
    """3 x 3 convolutions from each number of channels to the next, each followed by a leaky ReLU."""
    layers = [nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(0.1)) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Maps (B, before, g, g) -> (B, after, g, g), and the features (B, widths[0], g, g) before the last layer.

    The lowest level also sees the mean over the picture.
    """

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
        """Standardise the inputs from now on by the mean and the deviation of each channel of `x` (B, before, g, g).

        Both stay fixed during training: the deviation of a single batch would hide how large its motion is.
        """
        self.mean.copy_(x.mean((0, 2, 3))[:, None, None])
        self.spread.copy_(x.std((0, 2, 3))[:, None, None] + 1e-3)


class FlowNet(nn.Module):
    """The network of the module's diagram: `forward` returns flow, nonrigid (B, 2, OUT, OUT), and the coarse flow."""

    def __init__(self, config: FlowNetConfig = FlowNetConfig()) -> None:
        super().__init__()
        self.config = config
        weights = 2 * len(SMOOTHINGS) + 1  # of the least squares flows at two sizes, and of no motion
        self.coarse = UNet(2 * LUCAS_KANADE_MAPS + CONTEXT_MAPS, config.coarse, weights + 2)
        self.fine = UNet(2 * LUCAS_KANADE_MAPS + CONTEXT_MAPS + EDGE_MAPS + 2, config.fine, weights + 6)
        self.blend = nn.Conv2d(config.fine[0], UPSAMPLING_MAPS, 1)
        self.to(memory_format=torch.channels_last)  # the faster layout on a CPU

    @torch.no_grad()
    def standardise(self, first: Tensor, second: Tensor) -> None:
        """Standardise the inputs of both U-Nets by many pairs of frames, before training."""
        nets = self.coarse, self.fine
        hooks = [net.register_forward_pre_hook(lambda net, inputs: net.standardise(*inputs)) for net in nets]
        self(first, second)
        for hook in hooks:
            hook.remove()

    def forward(self, first: Tensor, second: Tensor, face: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """face: (B, 1, SIZE, SIZE) in 0..1, where the head's motion is fitted; everywhere if None."""
        full, half, quarter = (detail(downsample(first, by), downsample(second, by)) for by in (1, 2, 4))
        rough = [lucas_kanade_features(*half, ROUGH), lucas_kanade_features(*quarter, ROUGH)]
        context = context_features(first, second, ROUGH)
        coarse, *_ = self.weighted_flow(self.coarse, rough, (2, 4), context)  # (B, 2, ROUGH, ROUGH)
        start = coarse.detach()  # no gradient passes through the warp: each stage learns from its own error
        pairs = [(before, backward_warp(after, start)) for before, after in (full, half)]
        remaining = [lucas_kanade_features(*pair, GRID) for pair in pairs]
        start = upsample(start, GRID)
        context = torch.cat([context_features(first, second, GRID), edge_features(*pairs[0]), start], 1)
        residual, maps, features = self.weighted_flow(self.fine, remaining, (1, 2), context)
        correction, relief, rigidity = maps.split([2, 1, 1], 1)
        flow = start + residual  # (B, 2, GRID, GRID)
        full_flow = convex_upsample(flow, self.blend(features))  # (B, 2, OUT, OUT)
        face = torch.ones_like(rigidity) if face is None else downsample(face, SIZE // GRID)
        head = head_motion(flow, relief, rigidity, face) + correction
        return full_flow, full_flow - upsample(head, OUT), coarse

    @staticmethod
    def weighted_flow(
        net: UNet, lucas_kanade: list[Tensor], pixels: tuple[int, int], context: Tensor
    ) -> tuple[Tensor, ...]:
        """The flow (B, 2, g, g) by a U-Net, its further maps, and its features.

        The flow is a weighted mean of zero flow and of the least squares flows in `lucas_kanade`, the features at two
        sizes. The U-Net gives the weights for each cell, and a flow that is added.
        pixels: the width of a pixel at each of the two sizes, in pixels of the full picture.
        """
        maps, features = net(torch.cat([*lucas_kanade, context], 1))
        weights, maps = maps.tensor_split([2 * len(SMOOTHINGS) + 1], 1)
        weights = weights.softmax(1)
        sizes = zip(lucas_kanade, pixels, strict=True)
        flows = [part[:, 6:].unflatten(1, (-1, 3))[:, :, :2] * px for part, px in sizes]
        mean = (weights[:, 1:, None] * torch.cat(flows, 1)).sum(1)
        return mean + maps[:, :2], maps[:, 2:], features


def convex_upsample(flow: Tensor, blend: Tensor) -> Tensor:
    """Convex upsampling (Teed and Deng 2020) of flow (B, 2, g, g) to twice the size.

    Each quarter of a cell is a mean of the 3 x 3 flows around the cell. Its weights are the softmax over nine maps of
    `blend` (B, UPSAMPLING_MAPS, g, g).
    """
    size = flow.shape[-1]
    around = F.pad(flow, (1, 1, 1, 1), "replicate")
    nine = [around[:, :, None, i : i + size, j : j + size] for i in range(3) for j in range(3)]  # (B, 2, 1, g, g) each
    weights = blend.unflatten(1, (9, 1, 4)).softmax(1).unbind(1)  # (B, 1, 4, g, g) each
    quarters = sum(flows * weight for flows, weight in zip(nine, weights, strict=True))  # (B, 2, 4, g, g)
    return F.pixel_shuffle(quarters.flatten(1, 2), 2)


def head_motion(flow: Tensor, relief: Tensor, rigidity: Tensor, face: Tensor) -> Tensor:
    """The part of `flow` (B, 2, g, g) that a rigid motion of the head explains.

    In a picture from afar, a rigid motion makes u and v linear functions of x, y and depth. They are fitted by least
    squares with the weights sigmoid(rigidity) * face. The depth is a paraboloid plus `relief` (B, 1, g, g), in half
    widths of the picture.
    """
    x, y = coordinates(flow)
    depth = relief - x.square() - y.square()
    body = torch.stack([t.expand_as(depth) for t in (torch.ones_like(x), x, y, depth)], -1).flatten(1, 3)  # (B, N, 4)
    weighted = (body * (torch.sigmoid(rigidity) * face).reshape(len(flow), -1, 1)).mT
    ridge = 1e-2 * torch.eye(4, dtype=flow.dtype, device=flow.device)
    motion = torch.linalg.solve(weighted @ body + ridge, weighted @ flow.flatten(2).mT)  # (B, 4, 2)
    return (body @ motion).mT.reshape(flow.shape)


def edge_features(first: Tensor, second: Tensor) -> Tensor:
    """Maps (B, EDGE_MAPS, GRID, GRID): the detail (B, 1, SIZE, SIZE) in the four quarters of a cell, and its change."""
    return F.pixel_unshuffle(downsample(torch.cat([first, second - first], 1), SIZE // OUT), OUT // GRID)


def context_features(first: Tensor, second: Tensor, grid: int) -> Tensor:
    """Maps (B, CONTEXT_MAPS, grid, grid): brightness, blurred brightness, change of brightness, x and y of a cell."""
    small, later = (downsample(image, SIZE // grid) for image in (first, second))
    spread = small.std((2, 3), keepdim=True) + 1
    bright, later = ((image - image.mean((2, 3), keepdim=True)) / spread for image in (small, later))
    place = torch.stack(coordinates(small)).expand(len(first), -1, -1, -1)
    return torch.cat([bright, smooth(smooth(bright)), 4 * (later - bright), place], 1)


def coordinates(maps: Tensor) -> tuple[Tensor, Tensor]:
    """x and y (g, g) of the cells of maps (..., g, g), from -1 to 1."""
    steps = torch.linspace(-1, 1, maps.shape[-1], dtype=maps.dtype, device=maps.device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return x, y
