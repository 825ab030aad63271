"""A small hierarchical transformer over four facial areas, after HTNet (Wang et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.train.network import ModelConfig

AREAS = 2  # areas per side: around the left and the right eye, the left and the right half of the mouth
GRID = 4  # patches per side
WIDTHS = (48, 96, 192)  # per level of the hierarchy


class HTNet(nn.Module):
    """Attention within each of four areas, then between the areas, then a linear layer. There are 4 x 4 patches and
    areas of 2 x 2 patches; a 3 x 3 convolution and pooling by two follow each level. The original is much wider."""

    def __init__(self, config: HTNetConfig) -> None:
        super().__init__()
        maps, patch = 3 * config.views * config.phases, config.size // GRID
        self.patches = nn.Conv2d(maps, WIDTHS[0], patch, stride=patch)
        self.place = nn.Parameter(torch.zeros(1, WIDTHS[0], GRID, GRID))
        self.levels = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, batch_first=True, norm_first=True) for width in WIDTHS
        )
        self.merges = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.GroupNorm(1, b), nn.MaxPool2d(2))
            for a, b in zip(WIDTHS[:-1], WIDTHS[1:], strict=True)
        )
        self.head = nn.Sequential(nn.LayerNorm(WIDTHS[-1]), nn.Linear(WIDTHS[-1], config.classes))

    def forward_all(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, V, P, 3, H, W) -> logits (B, K); the two other outputs of MicroAttNet are empty."""
        maps = self.patches(x.flatten(1, 3)) + self.place
        for level, merge in zip(self.levels[:-1], self.merges, strict=True):
            maps = merge(_within_areas(level, maps))
        answer = self.levels[-1](maps.flatten(2).transpose(1, 2)).mean(1)
        return self.head(answer), x.new_zeros(len(x), 0), x.new_zeros(len(x), 0)


def _within_areas(level: nn.Module, maps: Tensor) -> Tensor:
    """A transformer layer within each square of AREAS x AREAS tokens of maps (B, C, H, W)."""
    areas = maps.unflatten(3, (-1, AREAS)).unflatten(2, (-1, AREAS)).permute(0, 2, 4, 3, 5, 1)  # (B, h, w, 2, 2, C)
    tokens = level(areas.reshape(-1, AREAS * AREAS, maps.shape[1])).view(areas.shape)
    return tokens.permute(0, 5, 1, 3, 2, 4).reshape(maps.shape)


@dataclass(frozen=True)
class HTNetConfig(ModelConfig):
    """Only classes, views, phases and size are used."""

    def build(self) -> nn.Module:
        return HTNet(self)
