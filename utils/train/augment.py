"""Augmentation of flow maps: mirror, rotation, zoom, shift, gain, mixup. Flow vectors change together with the maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.train.settings import TrainConfig


def mirror(x: Tensor) -> Tensor:
    """Mirror images of clips x (B, V, P, 3, H, W): maps are flipped, u changes its sign, the views are reversed."""
    x = x.flip(-1).flip(1)
    return x * x.new_tensor([-1, 1, 1])[:, None, None]


def warp(x: Tensor, angle: Tensor, zoom: Tensor, shift: Tensor, mirrored: Tensor, gain: Tensor) -> Tensor:
    """Mirror, rotate, zoom and shift clips in the image plane, in this order. The flow vectors turn and grow with them.

    x (B, V, P, 3, H, W). angle (B,) in radians, clockwise on the screen. zoom (B,) is a factor. shift (B, 2), right and
    down, is a share of half the side. mirrored (B,) bool. gain (B,) is a further factor on the flow. Pixels from
    outside the map get zero motion.
    """
    views = torch.arange(len(x) * x.shape[1], device=x.device).view(len(x), -1)
    order = torch.where(mirrored[:, None], views.flip(1), views)  # (B, V)
    # index_select, here and below, takes a quarter of the time of x[index].
    maps = x.flatten(0, 1).index_select(0, order.flatten()).view(len(x), -1, *x.shape[-2:])  # (B, V*P*3, H, W)
    cos, sin, sign = torch.cos(angle), torch.sin(angle), 1 - 2 * mirrored.to(x.dtype)
    turn = torch.stack([torch.stack([sign * cos, -sin], -1), torch.stack([sign * sin, cos], -1)], -2)  # (B, 2, 2)
    inverse = turn.transpose(1, 2) / zoom[:, None, None]
    theta = torch.cat([inverse, -inverse @ shift[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [len(x), maps.shape[1], *x.shape[-2:]], align_corners=False)
    moved = F.grid_sample(maps, grid, align_corners=False).view(len(x), -1, 3, x[0, 0, 0, 0].numel())
    vectors = F.pad(turn, (0, 1, 0, 1))  # (B, 3, 3): turns u and v
    vectors[:, 2, 2] = 1  # the magnitude has no direction
    return ((zoom * gain)[:, None, None, None] * vectors[:, None] @ moved).view_as(x)


def augment(x: Tensor, config: TrainConfig) -> Tensor:
    """Apply a random mirror, rotation, zoom, shift and gain to each clip of x (B, V, P, 3, H, W)."""
    if not any((config.mirror, config.rotate, config.zoom, config.shift, config.gain)):
        return x

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=x.device) * 2 - 1

    n = len(x)
    mirrored = torch.rand(n, device=x.device) < config.mirror
    angle = uniform(n) * math.radians(config.rotate)
    zoom = 1 + uniform(n) * config.zoom
    shift = uniform(n, 2) * 2 * config.shift
    gain = torch.exp(torch.randn(n, device=x.device) * config.gain)
    return warp(x, angle, zoom, shift, mirrored, gain)


def mix(x: Tensor, targets: Sequence[Tensor], strength: float) -> tuple[Tensor, list[Tensor]]:
    """Mixup within the batch (Zhang et al. 2018, "mixup"), with one Beta(strength, strength) share per clip."""
    share = torch.distributions.Beta(strength, strength).sample((len(x),)).to(x.device)
    partner = torch.randperm(len(x), device=x.device)

    def blend(values: Tensor) -> Tensor:
        return torch.lerp(values.index_select(0, partner), values, share.view(-1, *[1] * (values.ndim - 1)))

    return blend(x), [blend(target) for target in targets]
