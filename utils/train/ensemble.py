"""Ensembles of trained networks: prediction, and their files."""

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

PREDICT_BATCH = 128  # clips; larger batches do not fit into the cache


@dataclass(frozen=True)
class TrainedNetwork:
    """The result of one training.

    state    weights and buffers by name
    scale    root mean square of the flow (u and v together) and of the magnitude over the training clips
    history  the learning curve, a record per epoch
    epoch    the epoch of the weights in `state`, from 1
    missing  names of the weights that were not in `init`, or had another shape there
    """

    state: dict[str, Tensor]
    scale: tuple[float, float]
    history: tuple[dict, ...]
    epoch: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ensemble:
    """Trained networks of one architecture. Their probabilities are averaged, calibrated, and cut at the thresholds."""

    model_config: ModelConfig
    train_config: TrainConfig
    classes: tuple[str, ...]
    members: tuple[TrainedNetwork, ...]
    thresholds: Thresholds | None
    seed: int
    calibration: Calibration | None = None
    held_out: np.ndarray | None = None  # (N, K) inner out-of-fold probabilities of the training clips, not saved


# Input and forward pass ------------------------------------------------------------------------------


def device_of(config: TrainConfig) -> torch.device:
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def resize_maps(x: Tensor, size: int) -> Tensor:
    """Average the maps over areas to size x size. The flow stays in pixels of the original crop."""
    if x.shape[-2:] == (size, size):
        return x
    return F.adaptive_avg_pool2d(x.flatten(1, 3), size).view(*x.shape[:4], size, size)


def scale_maps(x: Tensor, scale: tuple[float, float]) -> Tensor:
    """Input of a network: maps (..., 3, H, W) with u and v divided by scale[0] and the magnitude by scale[1]."""
    return x / x.new_tensor([scale[0], scale[0], scale[1]])[:, None, None]


def forward(model: nn.Module, x: Tensor, config: TrainConfig) -> tuple[Tensor, ...]:
    """`model.forward_all(x)` in the configured precision. The outputs are float32."""
    precision = config.precision
    if precision == "auto":
        able = x.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if able else "float32"
    if precision == "float32":
        return model.forward_all(x)
    with torch.autocast(x.device.type, torch.bfloat16):
        return tuple(output.float() for output in model.forward_all(x))


# Prediction ------------------------------------------------------------------------------------------


def predict(ensemble: Ensemble, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and stream weights (N, S) of clips x (N, V, P, 3, H, W), averaged over the networks."""
    logits, weights, _ = forward_all(ensemble, x)
    probability = logits.softmax(-1) if ensemble.train_config.mode == "single-label" else logits.sigmoid()
    probability = probability.mean(0).numpy()
    if ensemble.calibration is not None:
        probability = ensemble.calibration(probability)
    return probability, weights.mean(0).numpy()


@torch.inference_mode()
def forward_all(ensemble: Ensemble, x: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (M, N, K), stream weights (M, N, S) and action unit logits (M, N, A) of clips x (N, V, P, 3, H, W).

    M is the number of networks, times two with `mirror_average`: each network sees the clips and their mirror images.
    """
    config = ensemble.train_config
    maps = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device_of(config))
    maps = resize_maps(maps, ensemble.model_config.size)
    outputs = []
    for member in ensemble.members:
        model = build_network(ensemble, member).to(maps.device)
        scaled = scale_maps(maps, member.scale)
        for clips in (scaled, mirror(scaled)) if config.mirror_average else (scaled,):
            batches = [forward(model, batch, config) for batch in clips.split(PREDICT_BATCH)]
            outputs.append([torch.cat(parts) for parts in zip(*batches, strict=True)])
    return tuple(torch.stack(parts).cpu() for parts in zip(*outputs, strict=True))


def build_network(ensemble: Ensemble, member: TrainedNetwork) -> nn.Module:
    """The network of a member, in evaluation mode. Its input is the result of `scale_maps`."""
    with torch.device("meta"):  # random weights would be drawn from the global generator
        model = ensemble.model_config.build()
    state = {name: value.clone() for name, value in member.state.items()}
    model.load_state_dict(state, assign=True)
    return model.eval()


# Files -----------------------------------------------------------------------------------------------


def save_ensemble(ensemble: Ensemble, folder: str | Path, name: str = "model") -> None:
    """Write <folder>/<name>.safetensors (weights) and <name>.json (everything else)."""
    members, thresholds, calibration = ensemble.members, ensemble.thresholds, ensemble.calibration
    tensors = {
        f"{i}.{key}": value.contiguous() for i, member in enumerate(members) for key, value in member.state.items()
    }
    record = {
        "model": asdict(ensemble.model_config),
        "train": asdict(ensemble.train_config),
        "classes": ensemble.classes,
        "seed": ensemble.seed,
        "thresholds": thresholds and {"values": thresholds.values.tolist(), "sources": thresholds.sources},
        "calibration": calibration and {"slope": calibration.slope, "intercepts": calibration.intercepts.tolist()},
        "members": [{key: value for key, value in vars(member).items() if key != "state"} for member in members],
    }
    write_artefact(Path(folder) / f"{name}.safetensors", tensors)
    write_artefact(Path(folder) / f"{name}.json", record)


def load_ensemble(folder: str | Path, name: str = "model") -> Ensemble:
    """Read what `save_ensemble` wrote."""
    record, tensors = (read_artefact(Path(folder) / f"{name}{suffix}") for suffix in (".json", ".safetensors"))
    members = []
    for i, saved in enumerate(record["members"]):
        state = {key.split(".", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{i}.")}
        scale, history, missing = (tuple(saved[key]) for key in ("scale", "history", "missing"))
        members.append(TrainedNetwork(state, scale, history, saved["epoch"], missing))
    thresholds, calibration = record["thresholds"], record["calibration"]
    return Ensemble(
        ModelConfig(**record["model"]),
        TrainConfig(**record["train"]),
        tuple(record["classes"]),
        tuple(members),
        thresholds and Thresholds(np.array(thresholds["values"]), tuple(thresholds["sources"])),
        record["seed"],
        calibration and Calibration(calibration["slope"], np.array(calibration["intercepts"])),
    )
