"""A small hierarchical transformer over four facial areas, after HTNet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.train.network import ModelConfig

AREAS = 2  # to a side: about the left and the right eye, the left and the right half of the mouth
GRID = 4  # patches to a side
WIDTHS = (48, 96, 192)  # per level of the hierarchy


class HTNet(nn.Module):
    """Attention within each of four areas, then between them, then a linear answer (Wang et al. 2024, "HTNet for
    micro-expression recognition"): 4 x 4 patches, areas of 2 x 2 patches, after each level a 3 x 3 convolution and
    pooling by two. Narrower than the original, which has tens of millions of weights for a few hundred clips."""

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
        """x (B, V, P, 3, H, W) -> logits (B, K), and none of what else our networks give."""
        maps = self.patches(x.flatten(1, 3)) + self.place
        for level, merge in zip(self.levels[:-1], self.merges, strict=True):
            maps = merge(_within_areas(level, maps))
        answer = self.levels[-1](maps.flatten(2).transpose(1, 2)).mean(1)
        return self.head(answer), x.new_zeros(len(x), 0), x.new_zeros(len(x), 0)


def _within_areas(level: nn.Module, maps: Tensor) -> Tensor:
    """A transformer layer within each square of AREAS x AREAS tokens of maps (B, C, H, W)."""
    b, c, h, w = maps.shape
    rows, columns = h // AREAS, w // AREAS
    areas = maps.view(b, c, rows, AREAS, columns, AREAS).permute(0, 2, 4, 3, 5, 1)  # (B, rows, columns, 2, 2, C)
    seen = level(areas.reshape(-1, AREAS * AREAS, c)).view(b, rows, columns, AREAS, AREAS, c)
    return seen.permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)


@dataclass(frozen=True)
class HTNetConfig(ModelConfig):
    """Only classes, views, phases and size are used."""

    def build(self) -> nn.Module:
        return HTNet(self)
