"""Triple-Stream MicroAttNet: one stream per flow channel, fused by attention.

    x (B, V views, P phases, C = u v magnitude, H, W), views on the right side mirrored
     |-- u         (B, V, P, H, W) -> stream ------> (B, F) -|                    |-> fused -> head  -> (B, K)
     |-- v         (B, V, P, H, W) -> stream ------> (B, F) -|-> FusionAttention -|   (B, S*F)
     |-- magnitude (B, V, P, H, W) -> stream + SE -> (B, F) -|   weights (B, S)   |-> units -> (B, A)

    stream: the same convolutions for each view: 7x7 / 4, 3x3, 3x3 / 2, each with BN and ReLU - [SE]
            - average to 4 x 4 - concatenate the views - dropout - linear, ReLU

The network takes any number of views and phases, any subset of the streams, and maps of 8 x 8 pixels or more.
Source: Nguyen et al., "Dual-View Optical Flow for 4D Micro-Expression Recognition" (arXiv 2603.26849), for the streams,
the squeeze-and-excitation block on the magnitude and the fusion attention. The widths, the kernels, the convolutions
that mirrored views share, and the small head are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNEL = {"u": 0, "v": 1, "magnitude": 2}


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the channel means (Hu et al. 2018, "Squeeze-and-excitation
    networks")."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 4, 2)
        self.gate = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(dim=(2, 3)))[:, :, None, None]  # (B, W, h, w)


def turn_right_views(x: Tensor) -> Tensor:
    """Mirror the views of the right half, so that all views show the face from the left: x (B, V, P, 3, H, W).

    A face is nearly symmetric, so a mirrored view from the right resembles a view from the left.
    """
    first = x.shape[1] // 2 + x.shape[1] % 2
    turned = x[:, first:].flip(-1) * x.new_tensor([-1, 1, 1])[:, None, None]  # u changes its sign
    return torch.cat([x[:, :first], turned], dim=1)


def _convolve(groups: int, before: int, after: int, kernel: int, stride: int) -> list[nn.Module]:
    maps = groups * after
    convolution = nn.Conv2d(groups * before, maps, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(maps), nn.ReLU()]


class LinearGroups(nn.Module):
    """One linear layer per group: (G, B, before) -> (G, B, after)."""

    def __init__(self, groups: int, before: int, after: int) -> None:
        super().__init__()
        bound = before**-0.5  # as in nn.Linear
        self.weight = nn.Parameter(torch.empty(groups * after, before).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups * after).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.view(len(x), -1, x.shape[2])  # (G, after, before)
        return torch.baddbmm(self.bias.view(len(x), 1, -1), x, weight.transpose(1, 2))


class Streams(nn.Module):
    """All streams: (B, V, P, 3, H, W) -> (B, S, features).

    The streams are the groups of each layer, because one grouped convolution is faster than three small ones. The state
    dict has separate entries for each stream: "u.layers.0.weight", "v.layers.0.weight" and so on. All views share the
    convolutions; the linear layer has its own weights for each view.
    """

    def __init__(self, views: int, phases: int, config: ModelConfig) -> None:
        super().__init__()
        first, second, third = config.widths
        self.names, self.pool = config.streams, config.pool
        count = len(self.names)
        self.layers = nn.Sequential(
            *_convolve(count, phases, first, 7, stride=4),
            *_convolve(count, first, second, 3, stride=1),
            *_convolve(count, second, third, 3, stride=2),
        )
        squeezed = config.se and "magnitude" in self.names
        # The attribute's name puts its entries among the other entries of the magnitude stream.
        self.magnitude = nn.ModuleDict({"recalibrate": SqueezeExcite(third)} if squeezed else {})
        self.dropout = nn.Dropout(config.dropout)
        self.project = LinearGroups(count, views * third * config.pool**2, config.features)
        self.register_state_dict_post_hook(_split_streams)
        self.register_load_state_dict_pre_hook(_join_streams)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.cat([x[:, :, :, CHANNEL[name]] for name in self.names], dim=2)  # (B, V, S*P, H, W)
        maps = maps.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # faster for grouped convolutions
        maps = self.layers(maps)  # (B*V, S*W3, H/8, W/8)
        streams = dict(zip(self.names, maps.chunk(len(self.names), dim=1), strict=True))  # S of (B*V, W3, H/8, W/8)
        if self.magnitude:
            streams["magnitude"] = self.magnitude["recalibrate"](streams["magnitude"])
        maps = torch.cat(list(streams.values()))  # (S*B*V, W3, H/8, W/8)
        if maps.shape[-2:] != (self.pool, self.pool):
            maps = F.adaptive_avg_pool2d(maps, self.pool)  # (S*B*V, W3, pool, pool)
        flat = self.dropout(maps.reshape(len(self.names), len(x), -1))  # (S, B, V*W3*pool*pool)
        return self.project(flat).relu().transpose(0, 1)  # (B, S, F)


def _grouped_entries(streams: Streams) -> list[str]:
    """Names of the weights and buffers that hold all streams, one after the other on the first axis."""
    names = [*dict(streams.named_parameters()), *dict(streams.named_buffers())]
    return [name for name in names if not name.startswith("magnitude.")]


def _split_streams(streams: Streams, state: dict[str, Tensor], prefix: str, *_) -> None:
    """Replace the grouped entries of a state dict by separate entries for each stream."""
    for name in _grouped_entries(streams):
        value = state.pop(prefix + name)
        parts = value.chunk(len(streams.names)) if value.ndim else [value] * len(streams.names)
        state |= {f"{prefix}{stream}.{name}": part for stream, part in zip(streams.names, parts, strict=True)}


def _join_streams(streams: Streams, state: dict[str, Tensor], prefix: str, *_) -> None:
    """The inverse of `_split_streams`."""
    for name in _grouped_entries(streams):
        keys = [f"{prefix}{stream}.{name}" for stream in streams.names]
        if all(key in state for key in keys):  # otherwise load_state_dict reports the missing entry
            parts = [state.pop(key) for key in keys]
            state[prefix + name] = torch.cat(parts) if parts[0].ndim else parts[0]


class FusionAttention(nn.Module):
    """One weight per stream and clip, computed from all streams: (B, S, F) -> (B, S). The weights sum to one."""

    def __init__(self, streams: int, features: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Flatten(), nn.Linear(streams * features, 32), nn.Tanh(), nn.Linear(32, streams))

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x).softmax(dim=1)  # (B, S)


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of the network."""

    classes: int = 5
    views: int = 2
    phases: int = 2
    streams: tuple[str, ...] = ("u", "v", "magnitude")
    size: int = 28  # side, in pixels, to which maps are averaged before the first layer
    widths: tuple[int, int, int] = (8, 16, 32)
    features: int = 32
    pool: int = 4  # side of the grid to which each stream averages its last maps
    dropout: float = 0.3
    se: bool = True  # squeeze-and-excitation on the magnitude stream
    attention: bool = True  # False: all streams have the same weight
    share_views: bool = True  # views on the right are mirrored, and all views share the convolutions
    units: int = 0  # outputs of the auxiliary action unit head; 0: no such head

    def __post_init__(self) -> None:
        object.__setattr__(self, "streams", tuple(self.streams))
        object.__setattr__(self, "widths", tuple(self.widths))
        if not self.streams or not set(self.streams) <= set(CHANNEL):
            raise ValueError(f"streams {self.streams}: unknown or none. Remedy: choose from {tuple(CHANNEL)}.")
        if min(self.classes, self.views, self.phases) < 1 or self.size < 8:
            raise ValueError(f"{self}: classes, views, phases start at 1, size at 8. Remedy: raise them.")

    def build(self) -> nn.Module:
        """The network of this configuration. Its weights are drawn from torch's generator."""
        return MicroAttNet(self)


class MicroAttNet(nn.Module):
    """The network in the diagram at the top of this module. `forward` returns logits (B, K), stream weights (B, S)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        count = len(config.streams)
        shape = (config.views, config.phases) if config.share_views else (1, config.views * config.phases)
        self.streams = Streams(*shape, config)
        self.attention = FusionAttention(count, config.features) if config.attention and count > 1 else None
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(count * config.features, config.classes)
        self.unit_head = nn.Linear(count * config.features, config.units) if config.units else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_all(x)[:2]

    def forward_all(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, K), stream weights (B, S), action unit logits (B, A), with A = 0 without a unit head."""
        features = self.encode(x)  # (B, S, F)
        weights = self.attend(features)  # (B, S)
        fused = self.fuse(features, weights)  # (B, S*F)
        units = fused.new_zeros(len(fused), 0) if self.unit_head is None else self.unit_head(fused)  # (B, A)
        return self.head(fused), weights, units

    def encode(self, x: Tensor) -> Tensor:
        expected = (self.config.views, self.config.phases, len(CHANNEL))
        if x.ndim != 6 or tuple(x.shape[1:4]) != expected:
            raise ValueError(f"x has shape {tuple(x.shape)}. Remedy: give (B, {expected[0]}, {expected[1]}, 3, H, W).")
        # Without shared convolutions, the views become further phases of a single view.
        return self.streams(turn_right_views(x) if self.config.share_views else x.flatten(1, 2)[:, None])

    def attend(self, features: Tensor) -> Tensor:
        if self.attention is not None:
            return self.attention(features)
        return features.new_full(features.shape[:2], 1 / features.shape[1])

    def fuse(self, features: Tensor, weights: Tensor) -> Tensor:
        scale = weights[:, :, None] * features.shape[1]  # 1 if all streams have the same weight
        return self.dropout((features * scale).flatten(1))


def count_parameters(config: ModelConfig) -> int:
    """Number of trainable parameters of a configuration."""
    return sum(p.numel() for p in config.build().parameters())
