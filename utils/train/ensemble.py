"""Trained networks: prediction, and their files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.artefacts import read_artefact, write_artefact
from utils.train.augment import mirror
from utils.train.decision import Calibration, Thresholds
from utils.train.network import ModelConfig
from utils.train.settings import TrainConfig

PREDICT_BATCH = 128  # clips: all at once would leave the cache


@dataclass(frozen=True)
class TrainedNetwork:
    """One trained network: its weights, the scale of its input, its learning curve and the epoch kept.

    scale (2,): root mean square of the flow (u and v together) and of the third channel over the training
    clips. missing: names of `init` weights that the network has but `init` lacks, or that differ in shape.
    """

    state: dict[str, Tensor]
    scale: tuple[float, float]
    history: tuple[dict, ...]
    epoch: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ensemble:
    """Networks whose probabilities are averaged, then calibrated; thresholds with their sources."""

    model_config: ModelConfig
    train_config: TrainConfig
    classes: tuple[str, ...]
    members: tuple[TrainedNetwork, ...]
    thresholds: Thresholds | None
    seed: int
    calibration: Calibration | None = None
    held_out: np.ndarray | None = None  # (N, K) inner out-of-fold probabilities of an ensemble, not saved


# Fitting ---------------------------------------------------------------------------------------------


def device_of(config: TrainConfig) -> torch.device:
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def forward(model: nn.Module, x: Tensor, config: TrainConfig) -> tuple[Tensor, ...]:
    """`model.forward_all(x)` in the configured precision; what comes out is float32."""
    precision = config.precision
    if precision == "auto":
        able = x.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if able else "float32"
    if precision == "float32":
        return model.forward_all(x)
    with torch.autocast(x.device.type, torch.bfloat16):
        return tuple(part.float() for part in model.forward_all(x))


def resize_maps(x: Tensor, size: int) -> Tensor:
    """Area average of the maps to size x size; the flow stays in pixels of the original crop."""
    if x.shape[-2:] == (size, size):
        return x
    return F.adaptive_avg_pool2d(x.flatten(1, 3), size).view(*x.shape[:4], size, size)


def scale_maps(x: Tensor, scale: tuple[float, float]) -> Tensor:
    """Maps (..., 3, H, W) as a network sees them: u and v over the flow's scale, the third channel over its own."""
    return x / x.new_tensor([scale[0], scale[0], scale[1]])[:, None, None]


# Prediction ------------------------------------------------------------------------------------------


def predict(ensemble: Ensemble, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and stream weights (N, S) of clips x (N, V, P, 3, H, W), over all members."""
    logits, weights, _ = forward_all(ensemble, x)
    probability = logits.softmax(-1) if ensemble.train_config.mode == "single-label" else logits.sigmoid()
    probability = probability.mean(0).numpy()
    if ensemble.calibration is not None:
        probability = ensemble.calibration(probability)
    return probability, weights.mean(0).numpy()


def predict_units(ensemble: Ensemble, x: np.ndarray) -> np.ndarray:
    """Action unit probabilities (N, A), A = 0 for a network without a unit head."""
    return forward_all(ensemble, x)[2].sigmoid().mean(0).numpy()


@torch.inference_mode()
def forward_all(ensemble: Ensemble, x: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (M, N, K), stream weights (M, N, S) and unit logits (M, N, A) of clips x (N, V, P, 3, H, W): M are the
    members, and of each the clip and its mirror image where those are averaged."""
    device = device_of(ensemble.train_config)
    maps = resize_maps(
        torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device), ensemble.model_config.size
    )
    outputs = []
    for member in ensemble.members:
        model = build_network(ensemble, member).to(device)
        scaled = scale_maps(maps, member.scale)
        for variant in (scaled, mirror(scaled)) if ensemble.train_config.mirror_average else (scaled,):
            parts = [forward(model, part, ensemble.train_config) for part in variant.split(PREDICT_BATCH)]
            outputs.append([torch.cat(part) for part in zip(*parts, strict=True)])
    return tuple(torch.stack(part).cpu() for part in zip(*outputs, strict=True))


def build_network(ensemble: Ensemble, member: TrainedNetwork | None = None) -> nn.Module:
    """The network of a member (the first by default) in evaluation mode. Its input is flow divided by
    `member.scale`.
    """
    with torch.device("meta"):  # no random start, which would draw from the global generator
        model = ensemble.model_config.build()
    state = {name: value.clone() for name, value in (member or ensemble.members[0]).state.items()}
    model.load_state_dict(state, assign=True)
    return model.eval()


# Files -----------------------------------------------------------------------------------------------


def save_ensemble(ensemble: Ensemble, folder: str | Path, name: str = "model") -> None:
    """Write <folder>/<name>.safetensors (weights) and <name>.json (all else)."""
    folder = Path(folder)
    tensors = {
        f"{i}.{key}": value.contiguous()
        for i, member in enumerate(ensemble.members)
        for key, value in member.state.items()
    }
    record = {
        "model": asdict(ensemble.model_config),
        "train": asdict(ensemble.train_config),
        "classes": ensemble.classes,
        "seed": ensemble.seed,
        "thresholds": None
        if ensemble.thresholds is None
        else {"values": ensemble.thresholds.values.tolist(), "sources": ensemble.thresholds.sources},
        "calibration": None
        if ensemble.calibration is None
        else {"slope": ensemble.calibration.slope, "intercepts": ensemble.calibration.intercepts.tolist()},
        "members": [
            {"scale": m.scale, "history": m.history, "epoch": m.epoch, "missing": m.missing} for m in ensemble.members
        ],
    }
    write_artefact(folder / f"{name}.safetensors", tensors)
    write_artefact(folder / f"{name}.json", record)


def load_ensemble(folder: str | Path, name: str = "model") -> Ensemble:
    """Read what `save_ensemble` wrote."""
    folder = Path(folder)
    record, tensors = (read_artefact(folder / f"{name}{suffix}") for suffix in (".json", ".safetensors"))
    members = tuple(
        TrainedNetwork(
            {key.split(".", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{i}.")},
            tuple(m["scale"]),
            tuple(m["history"]),
            m["epoch"],
            tuple(m["missing"]),
        )
        for i, m in enumerate(record["members"])
    )
    thresholds = record["thresholds"]
    calibration = record["calibration"]
    if calibration is not None:
        calibration = Calibration(calibration["slope"], np.array(calibration["intercepts"]))
    if thresholds is not None:
        thresholds = Thresholds(np.array(thresholds["values"]), tuple(thresholds["sources"]))
    return Ensemble(
        ModelConfig(**record["model"]),
        TrainConfig(**record["train"]),
        tuple(record["classes"]),
        members,
        thresholds,
        record["seed"],
        calibration,
    )
