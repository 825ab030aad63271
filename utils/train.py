"""Training of MicroAttNet: focal loss, augmentation that knows geometry, early stopping, thresholds from
validation.

`fit(train, val, ...)` has no test argument. Whole tensors stay in memory and whole batches are augmented at
once; the same code runs on CUDA where present.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from utils.dataset.samples import Samples
from utils.decision import Calibration, Classifier, Thresholds, choose_thresholds, fit_calibration
from utils.model import ModelConfig, count_parameters

PREDICT_BATCH = 128  # clips: all at once would leave the cache


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Defaults were chosen by subject-held-out validation and are ours, not the paper's."""

    mode: str = "multi-label"  # or "single-label": softmax and arg max instead of sigmoids and thresholds
    epochs: int = 40
    patience: int = 15  # epochs without a better validation loss before stopping; 0: all epochs, keep the last
    batch: int = 32  # clips
    lr: float = 2e-3
    weight_decay: float = 1e-2  # of AdamW; 0 makes it Adam
    schedule: str = "cosine"  # after a warm-up over a tenth of the steps; or "constant"
    loss: str = "focal"  # or "bce": cross-entropy, the same with gamma 0 and no class weights
    gamma: float = 2.0
    mirror: float = 0.5  # probability of a mirrored clip
    rotate: float = 8.0  # degrees, uniform within +-
    zoom: float = 0.08  # relative, uniform within +-
    shift: float = 0.04  # of the map's side, uniform within +-
    gain: float = 0.2  # sigma of the log of a factor on the whole clip
    mixup: float = 0.4  # Beta(a, a); 0 for none
    mirror_average: bool = True  # predict the clip and its mirror, average
    way: float = 1.0  # how far from the weights it started from, where given, towards the trained ones the network ends
    unit_weight: float = 1.0  # of the auxiliary action unit loss, where units are known
    device: str = "auto"  # "cuda" where there is one, else "cpu"
    precision: str = "auto"  # of the network: "bfloat16" on a CUDA device that computes in it, else "float32"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("mode", ("multi-label", "single-label")),
            ("schedule", ("cosine", "constant")),
            ("loss", ("focal", "bce")),
            ("precision", ("auto", "float32", "bfloat16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}. Remedy: one of {allowed}.")
        if not 0 <= self.way <= 1:
            raise ValueError(f"way is {self.way}. Remedy: a share from 0 (the first weights) to 1 (the trained ones).")


@dataclass(frozen=True)
class Member:
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
class Fitted:
    """Networks whose probabilities are averaged, then calibrated; thresholds with their sources."""

    model_config: ModelConfig
    train_config: TrainConfig
    classes: tuple[str, ...]
    members: tuple[Member, ...]
    thresholds: Thresholds | None
    seed: int
    calibration: Calibration | None = None
    held_out: np.ndarray | None = None  # (N, K) inner out-of-fold probabilities of an ensemble, not saved


# Loss ------------------------------------------------------------------------------------------------


def focal_loss(logits: Tensor, target: Tensor, alpha: Tensor, gamma: float, mode: str) -> Tensor:
    """Mean over the batch of -alpha (1 - p)^gamma log p of the true value (Lin et al. 2017, "Focal loss",
    eq. 5).

    logits, target (B, K), target in 0..1 (mixed targets weigh the two losses). Multi-label: alpha (K,)
    weighs the positives, 1 - alpha the negatives, times two, so that alpha 0.5 is neutral; the loss is
    summed over classes. Single-label: alpha (K,) weighs the classes, its mean over the clips is one. gamma 0
    is cross-entropy.
    """
    if mode == "single-label":
        log_p = logits.log_softmax(dim=1)
        return -(target * alpha * (1 - log_p.exp()) ** gamma * log_p).sum(dim=1).mean()
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive = target * alpha * log_q.exp() ** gamma * log_p
    negative = (1 - target) * (1 - alpha) * log_p.exp() ** gamma * log_q
    return -2 * (positive + negative).sum(dim=1).mean()


def class_weights(y: Tensor, mode: str) -> Tensor:
    """alpha (K,) from the prevalence in y (N, K): 1 - prevalence, or for single labels inverse frequency,
    mean one.
    """
    prevalence = y.mean(dim=0)
    if mode == "multi-label":
        return (1 - prevalence).clamp(0.05, 0.95)
    weight = 1 / prevalence.clamp(min=1 / len(y))
    return weight / (weight * prevalence).sum()


# Augmentation ----------------------------------------------------------------------------------------


def mirror(x: Tensor) -> Tensor:
    """The clip seen in a mirror: x flipped, u negated, views in reverse order. x (B, V, P, 3, H, W)."""
    x = x.flip(-1).flip(1)
    return x * x.new_tensor([-1, 1, 1])[:, None, None]


def warp(x: Tensor, angle: Tensor, zoom: Tensor, shift: Tensor, mirrored: Tensor, gain: Tensor) -> Tensor:
    """Mirror, then rotate, zoom and shift clips in the image plane; the flow vectors turn and grow with it.

    x (B, V, P, 3, H, W); angle (B,) radians, clockwise as seen, since y points down; zoom (B,) factor; shift
    (B, 2) right and down, in half sides; mirrored (B,) bool; gain (B,) factor on the flow, beside the zoom's.
    What comes from outside is zero motion.
    """
    views = torch.arange(len(x) * x.shape[1], device=x.device).view(len(x), -1)
    order = torch.where(mirrored[:, None], views.flip(1), views)  # (B, V)
    # Here and below index_select, since x[index] takes four times as long.
    maps = x.flatten(0, 1).index_select(0, order.flatten()).view(len(x), -1, *x.shape[-2:])  # (B, V*P*3, H, W)
    cos, sin, sign = torch.cos(angle), torch.sin(angle), 1 - 2 * mirrored.to(x.dtype)
    turn = torch.stack([torch.stack([sign * cos, -sin], -1), torch.stack([sign * sin, cos], -1)], -2)  # (B, 2, 2)
    inverse = turn.transpose(1, 2) / zoom[:, None, None]
    theta = torch.cat([inverse, -inverse @ shift[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [len(x), maps.shape[1], *x.shape[-2:]], align_corners=False)
    moved = F.grid_sample(maps, grid, align_corners=False).view(len(x), -1, 3, x[0, 0, 0, 0].numel())
    vectors = F.pad(turn, (0, 1, 0, 1))  # (B, 3, 3): u and v turn,
    vectors[:, 2, 2] = 1  # the third channel has no direction
    return ((zoom * gain)[:, None, None, None] * vectors[:, None] @ moved).view_as(x)


def augment(x: Tensor, config: TrainConfig) -> Tensor:
    """A random mirror, rotation, zoom, shift and gain per clip, from torch's generator. x (B, V, P, 3, H, W)."""
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
    """Mixup within the batch (Zhang et al. 2018, "mixup"): one Beta(strength, strength) share per clip."""
    share = torch.distributions.Beta(strength, strength).sample((len(x),)).to(x.device)
    other = torch.randperm(len(x), device=x.device)

    def blend(part: Tensor) -> Tensor:
        return torch.lerp(part.index_select(0, other), part, share.view(-1, *[1] * (part.ndim - 1)))

    return blend(x), [blend(target) for target in targets]


# Fitting ---------------------------------------------------------------------------------------------


def fit(
    train: Samples,
    val: Samples | None,
    model_config: ModelConfig,
    train_config: TrainConfig,
    seed: int = 0,
    init: Mapping[str, Tensor] | None = None,
) -> Fitted:
    """Train one network; `val`, subject-disjoint from `train`, decides when to stop and sets the thresholds.

    `init` holds weights to start from, matched by name and shape; what it lacks is listed in the member's
    `missing`. Its "scale" (2,), where given, stays the scale of the input.
    Without `val` all epochs are trained and thresholds are 0.5. The same seed gives the same
    network on one machine. Raises ValueError when a subject stands in both parts, or when shapes and
    configuration disagree.
    """
    _check(train, val, model_config, train_config)
    member = _fit_member(train, val, model_config, train_config, seed, init)
    fitted = Fitted(model_config, train_config, train.classes, (member,), None, seed)
    if train_config.mode == "single-label":
        return fitted
    if val is None:
        count = len(train.classes)
        return replace(fitted, thresholds=Thresholds(np.full(count, 0.5), ("0.5: no validation clips",) * count))
    return _with_thresholds(fitted, train, predict(fitted, val.x)[0], val.y, "inner validation")


def _with_thresholds(fitted: Fitted, train: Samples, probability: np.ndarray, truth: np.ndarray, source: str) -> Fitted:
    """`fitted` with calibration and thresholds from clips that the network in question was not trained on."""
    calibration = fit_calibration(truth, probability)
    thresholds = choose_thresholds(truth, calibration(probability), train.y.mean(axis=0), source=source)
    return replace(fitted, calibration=calibration, thresholds=thresholds)


def fit_ensemble(
    train: Samples,
    inner: Sequence[tuple[np.ndarray, np.ndarray]],
    model_config: ModelConfig,
    train_config: TrainConfig,
    seed: int = 0,
    init: Mapping[str, Tensor] | None = None,
) -> Fitted:
    """Train one network per inner fold, stopped on its own validation part; their probabilities are averaged.

    Calibration and thresholds come from the inner out-of-fold predictions of all of them together, so that
    every training clip counts. `inner` holds (train, validation) positions within `train`, subject-disjoint.
    """
    members, held_out = [], np.full(train.y.shape, np.nan)
    for fit_on, stop_on in inner:
        _check(train.subset(fit_on), train.subset(stop_on), model_config, train_config)
    for fold, (fit_on, stop_on) in enumerate(inner):
        member = _fit_member(
            train.subset(fit_on), train.subset(stop_on), model_config, train_config, seed * 1000 + fold, init
        )
        members.append(member)
        one = Fitted(model_config, train_config, train.classes, (member,), None, seed)
        held_out[stop_on] = predict(one, train.x[stop_on])[0]
    fitted = Fitted(model_config, train_config, train.classes, tuple(members), None, seed)
    covered = np.isfinite(held_out[:, 0])
    if train_config.mode == "multi-label":
        source = f"inner out-of-fold of {len(inner)} networks"
        fitted = _with_thresholds(fitted, train, held_out[covered], train.y[covered], source)
        held_out = fitted.calibration(held_out)
    return replace(fitted, held_out=held_out) if covered.all() else fitted


def _check(train: Samples, val: Samples | None, model_config: ModelConfig, train_config: TrainConfig) -> None:
    if val is not None and (shared := np.intersect1d(train.subjects, val.subjects)).size:
        raise ValueError(f"subject {shared[0]} stands in training and validation. Remedy: split by subject.")
    expected = (model_config.views, model_config.phases, model_config.classes)
    if (found := (*train.x.shape[1:3], train.y.shape[1])) != expected:
        raise ValueError(
            f"views, phases, classes are {found}, the model expects {expected}. Remedy: correct ModelConfig."
        )
    if train_config.mode == "single-label" and not (train.y.sum(axis=1) == 1).all():
        raise ValueError(
            f"Id {train.ids[train.y.sum(axis=1) != 1][0]}: not exactly one label. Remedy: mode='multi-label'."
        )
    if model_config.units and (train.units is None or train.units.shape[1] != model_config.units):
        raise ValueError(f"{model_config.units} action units are asked for but the samples lack them. Remedy: units=0.")


def _fit_member(
    train: Samples,
    val: Samples | None,
    model_config: ModelConfig,
    config: TrainConfig,
    seed: int,
    init: Mapping[str, Tensor] | None,
) -> Member:
    device = _device(config)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = model_config.build().to(device)
        missing = _load_matching(model, init) if init is not None else ()
        x = _resize(torch.from_numpy(train.x).to(device), model_config.size)
        # Weights that were pretrained are used to their own scale of the input.
        scale = tuple(init["scale"].tolist()) if init and "scale" in init else _scale_of(x)
        x, y = _scaled(x, scale), torch.from_numpy(train.y).to(device)
        units = torch.from_numpy(train.units).to(device) if model_config.units else y[:, :0]
        check = None
        if val is not None:
            check = (
                _scaled(_resize(torch.from_numpy(val.x).to(device), model_config.size), scale),
                torch.from_numpy(val.y).to(device),
            )
        state, history, epoch = _optimise(model, x, y, units, check, config)
        if init is not None:
            state = _part_way(init, state, config.way)
    return Member(state, scale, tuple(history), epoch, missing)


def _optimise(
    model: nn.Module, x: Tensor, y: Tensor, units: Tensor, check: tuple[Tensor, Tensor] | None, config: TrainConfig
) -> tuple[dict[str, Tensor], list[dict], int]:
    """Train; returns the weights of the best epoch, the learning curve, and that epoch (from 1)."""
    alpha, gamma = class_weights(y, config.mode), config.gamma
    if config.loss == "bce":
        alpha, gamma = torch.full_like(alpha, 0.5 if config.mode == "multi-label" else 1.0), 0.0
    steps = max(1, round(len(x) / config.batch))
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, _schedule(config, steps * config.epochs))
    best, history = (math.inf, 0, None), []
    for epoch in range(1, config.epochs + 1):
        model.train()
        total = torch.zeros((), device=x.device)
        for index in torch.randperm(len(x), device=x.device).tensor_split(steps):
            batch, targets = augment(x.index_select(0, index), config), [y[index], units[index]]
            if config.mixup:
                batch, targets = mix(batch, targets, config.mixup)
            logits, _, unit_logits = _forward(model, batch, config)
            loss = focal_loss(logits, targets[0], alpha, gamma, config.mode)
            if unit_logits.shape[1]:
                loss = loss + config.unit_weight * F.binary_cross_entropy_with_logits(unit_logits, targets[1])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            rate.step()
            total += loss.detach() * (len(index) / len(x))
        record = {"epoch": epoch, "train_loss": total.item()}
        if check is not None:
            model.eval()
            with torch.inference_mode():
                logits = _forward(model, check[0], config)[0]
                record["val_loss"] = focal_loss(logits, check[1], alpha, gamma, config.mode).item()
        history.append(record)
        if check is not None and config.patience:
            if record["val_loss"] < best[0]:
                best = (record["val_loss"], epoch, _copy_state(model))
            elif epoch - best[1] >= config.patience:
                break
    return (best[2], history, best[1]) if best[2] is not None else (_copy_state(model), history, epoch)


def _schedule(config: TrainConfig, steps: int):
    if config.schedule == "constant":
        return lambda step: 1.0
    warm = max(1, steps // 10)
    return lambda step: min(
        (step + 1) / warm, 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, steps - warm)))
    )


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _load_matching(model: nn.Module, init: Mapping[str, Tensor]) -> tuple[str, ...]:
    own = model.state_dict()
    usable = {name: value for name, value in init.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(usable, strict=False)
    return tuple(name for name in own if name not in usable)


def _part_way(init: Mapping[str, Tensor], state: dict[str, Tensor], way: float) -> dict[str, Tensor]:
    """Trained weights drawn back towards those that training started from, where these fit: what both know is kept,
    and what the few clips at hand taught beyond counts less (Wortsman et al. 2022, "Robust fine-tuning of zero-shot
    models", eq. 1). The statistics of the batch normalisations go the same way. What chose the epoch was the network
    before."""

    def between(name: str, trained: Tensor) -> Tensor:
        first = init.get(name)
        if way == 1 or first is None or first.shape != trained.shape or not trained.is_floating_point():
            return trained
        return torch.lerp(first.to(trained), trained, way)

    return {name: between(name, trained) for name, trained in state.items()}


def _device(config: TrainConfig) -> torch.device:
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def _forward(model: nn.Module, x: Tensor, config: TrainConfig) -> tuple[Tensor, ...]:
    """`model.forward_all(x)` in the configured precision; what comes out is float32."""
    precision = config.precision
    if precision == "auto":
        able = x.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if able else "float32"
    if precision == "float32":
        return model.forward_all(x)
    with torch.autocast(x.device.type, torch.bfloat16):
        return tuple(part.float() for part in model.forward_all(x))


def _resize(x: Tensor, size: int) -> Tensor:
    """Area average of the maps to size x size; the flow stays in pixels of the original crop."""
    if x.shape[-2:] == (size, size):
        return x
    return F.adaptive_avg_pool2d(x.flatten(1, 3), size).view(*x.shape[:4], size, size)


def _scale_of(x: Tensor) -> tuple[float, float]:
    flow, third = x[:, :, :, :2].square().mean().sqrt().item(), x[:, :, :, 2].square().mean().sqrt().item()
    return max(flow, 1e-6), max(third, 1e-6)


def _scaled(x: Tensor, scale: tuple[float, float]) -> Tensor:
    return x / x.new_tensor([scale[0], scale[0], scale[1]])[:, None, None]


# Prediction ------------------------------------------------------------------------------------------


def predict(fitted: Fitted, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and stream weights (N, S) of clips x (N, V, P, 3, H, W), over all members."""
    logits, weights, _ = _forward_all(fitted, x)
    probability = logits.softmax(-1) if fitted.train_config.mode == "single-label" else logits.sigmoid()
    probability = probability.mean(0).numpy()
    if fitted.calibration is not None:
        probability = fitted.calibration(probability)
    return probability, weights.mean(0).numpy()


def predict_units(fitted: Fitted, x: np.ndarray) -> np.ndarray:
    """Action unit probabilities (N, A), A = 0 for a network without a unit head."""
    return _forward_all(fitted, x)[2].sigmoid().mean(0).numpy()


@torch.inference_mode()
def _forward_all(fitted: Fitted, x: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, stream weights and unit logits of every member and mirror image, stacked on a new first
    axis.
    """
    device = _device(fitted.train_config)
    maps = _resize(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device), fitted.model_config.size)
    outputs = []
    for member in fitted.members:
        model = load_network(fitted, member).to(device)
        scaled = _scaled(maps, member.scale)
        for variant in (scaled, mirror(scaled)) if fitted.train_config.mirror_average else (scaled,):
            parts = [_forward(model, part, fitted.train_config) for part in variant.split(PREDICT_BATCH)]
            outputs.append([torch.cat(part) for part in zip(*parts, strict=True)])
    return tuple(torch.stack(part).cpu() for part in zip(*outputs, strict=True))


def load_network(fitted: Fitted, member: Member | None = None) -> nn.Module:
    """The network of a member (the first by default) in evaluation mode. Its input is flow divided by
    `member.scale`.
    """
    with torch.device("meta"):  # no random start, which would draw from the global generator
        model = fitted.model_config.build()
    state = {name: value.clone() for name, value in (member or fitted.members[0]).state.items()}
    model.load_state_dict(state, assign=True)
    return model.eval()


def network_predictor(
    model_config: ModelConfig,
    train_config: TrainConfig,
    how: str = "inner",
    members: int = 1,
    init: Mapping[str, Tensor] | None = None,
) -> Callable[[Samples, list, int], Classifier]:
    """A predictor for `evaluate.cross_validate`.

    how "inner": an ensemble of one network per inner fold, thresholds from all their out-of-fold predictions;
    "first": one network, stopped and cut on the first inner fold; "all": `members` networks on every training
    clip for all epochs, nothing chosen, for single labels, which need no thresholds.
    """
    if how not in ("inner", "first", "all"):
        raise ValueError(f"how is {how!r}. Remedy: one of inner, first, all.")

    def predictor(train: Samples, inner: list, seed: int) -> Classifier:
        if how == "inner":
            fitted = fit_ensemble(train, inner, model_config, train_config, seed, init)
        elif how == "first":
            fit_on, stop_on = inner[0]
            fitted = fit(train.subset(fit_on), train.subset(stop_on), model_config, train_config, seed, init)
        else:
            each = [fit(train, None, model_config, train_config, seed * 1000 + i, init) for i in range(members)]
            fitted = replace(each[0], members=tuple(one.members[0] for one in each))
        notes = {"parameters": count_parameters(model_config), "epochs": [m.epoch for m in fitted.members]}
        return Classifier(lambda x: predict(fitted, x)[0], fitted.thresholds, notes, fitted.held_out)

    return predictor


# Files -----------------------------------------------------------------------------------------------


def save(fitted: Fitted, folder: str | Path, name: str = "model") -> None:
    """Write <folder>/<name>.safetensors (weights) and <name>.json (all else), each to a temporary name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{i}.{key}": value.contiguous()
        for i, member in enumerate(fitted.members)
        for key, value in member.state.items()
    }
    record = {
        "model": asdict(fitted.model_config),
        "train": asdict(fitted.train_config),
        "classes": fitted.classes,
        "seed": fitted.seed,
        "thresholds": None
        if fitted.thresholds is None
        else {"values": fitted.thresholds.values.tolist(), "sources": fitted.thresholds.sources},
        "calibration": None
        if fitted.calibration is None
        else {"slope": fitted.calibration.slope, "intercepts": fitted.calibration.intercepts.tolist()},
        "members": [
            {"scale": m.scale, "history": m.history, "epoch": m.epoch, "missing": m.missing} for m in fitted.members
        ],
    }
    weights, notes = folder / f"{name}.safetensors", folder / f"{name}.json"
    save_file(tensors, f"{weights}.partial")
    Path(f"{notes}.partial").write_text(json.dumps(record, indent=1))
    Path(f"{weights}.partial").replace(weights)
    Path(f"{notes}.partial").replace(notes)


def load(folder: str | Path, name: str = "model") -> Fitted:
    """Read what `save` wrote."""
    folder = Path(folder)
    record = json.loads((folder / f"{name}.json").read_text())
    tensors = load_file(folder / f"{name}.safetensors")
    members = tuple(
        Member(
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
    return Fitted(
        ModelConfig(**record["model"]),
        TrainConfig(**record["train"]),
        tuple(record["classes"]),
        members,
        thresholds,
        record["seed"],
        calibration,
    )
