"""Training of one network, of an ensemble, and the estimators made of them.

No function here receives test clips. All maps stay in memory, and whole batches are augmented at once, on the CPU or a
CUDA device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.progress import progress
from utils.train.augment import augment, mix
from utils.train.decision import Thresholds, choose_thresholds, fit_calibration
from utils.train.ensemble import Ensemble, TrainedNetwork, device_of, forward, predict, resize_maps, scale_maps
from utils.train.estimator import Classifier, Estimator, Fold
from utils.train.network import ModelConfig, count_parameters
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

# Loss ------------------------------------------------------------------------------------------------


def focal_loss(logits: Tensor, target: Tensor, alpha: Tensor, gamma: float, mode: str) -> Tensor:
    """Focal loss -alpha (1 - p)^gamma log p, averaged over the batch (Lin et al. 2017, "Focal loss", eq. 5).

    logits (B, K), target (B, K) in 0..1 after mixup, alpha (K,) from `class_weights`. gamma 0 gives cross-entropy.
    Multi-label: summed over classes; alpha weights the positives and 1 - alpha the negatives, times two, so alpha 0.5
    changes nothing. Single-label: alpha weights the classes.
    """
    if mode == "single-label":
        log_p = logits.log_softmax(dim=1)
        return -(target * alpha * (1 - log_p.exp()) ** gamma * log_p).sum(dim=1).mean()
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive = target * alpha * log_q.exp() ** gamma * log_p
    negative = (1 - target) * (1 - alpha) * log_p.exp() ** gamma * log_q
    return -2 * (positive + negative).sum(dim=1).mean()


def class_weights(y: Tensor, mode: str) -> Tensor:
    """alpha (K,) from labels y (N, K): 1 - prevalence; for single labels 1 / prevalence, with mean 1 over the clips."""
    prevalence = y.mean(dim=0)
    if mode == "multi-label":
        return (1 - prevalence).clamp(0.05, 0.95)
    weight = 1 / prevalence.clamp(min=1 / len(y))
    return weight / (weight * prevalence).sum()


# Fitting ---------------------------------------------------------------------------------------------


def fit(
    train: Samples,
    val: Samples | None,
    model_config: ModelConfig,
    train_config: TrainConfig,
    seed: int = 0,
    init: Mapping[str, Tensor] | None = None,
    description: str = "",
) -> Ensemble:
    """Train one network. The clips of `val` decide when training stops, and determine calibration and thresholds.

    Without `val`, training takes all epochs, and the thresholds are 0.5. `init` holds initial weights, which are
    matched by name and shape; its "scale" (2,), if present, is the scale of the input. `description` labels the
    progress bar. The same seed gives the same network on the same machine.
    Raises ValueError if a subject is in both parts, or if the samples do not fit the configuration.
    """
    member = _train_network(train, val, model_config, train_config, seed, init, description)
    ensemble = Ensemble(model_config, train_config, train.classes, (member,), None, seed)
    if train_config.mode == "single-label":
        return ensemble
    if val is None:
        count = len(train.classes)
        return replace(ensemble, thresholds=Thresholds(np.full(count, 0.5), ("0.5: no validation clips",) * count))
    return with_thresholds(ensemble, train, predict(ensemble, val.x)[0], val.y, "inner validation")


def with_thresholds(
    ensemble: Ensemble, train: Samples, probability: np.ndarray, truth: np.ndarray, source: str
) -> Ensemble:
    """Add calibration and thresholds, from probabilities (n, K) and truth (n, K) of clips that were not trained on."""
    calibration = fit_calibration(truth, probability)
    thresholds = choose_thresholds(truth, calibration(probability), train.y.mean(axis=0), source=source)
    return replace(ensemble, calibration=calibration, thresholds=thresholds)


def fit_ensemble(
    train: Samples,
    inner: Sequence[Fold],
    model_config: ModelConfig,
    train_config: TrainConfig,
    seed: int = 0,
    init: Mapping[str, Tensor] | None = None,
) -> Ensemble:
    """Train one network per inner fold, in the same way as `fit`.

    Each network predicts the clips that its fold holds out. Calibration and thresholds come from these predictions of
    all folds together. Raises ValueError for the same reasons as `fit`.
    """
    members, held_out = [], np.full(train.y.shape, np.nan)
    for fold, (fit_on, stop_on) in enumerate(inner):
        parts = train.subset(fit_on), train.subset(stop_on)
        members.append(_train_network(*parts, model_config, train_config, seed * 1000 + fold, init))
        single = Ensemble(model_config, train_config, train.classes, (members[-1],), None, seed)
        held_out[stop_on] = predict(single, train.x[stop_on])[0]
    ensemble = Ensemble(model_config, train_config, train.classes, tuple(members), None, seed)
    covered = np.isfinite(held_out[:, 0])
    if train_config.mode == "multi-label":
        source = f"inner out-of-fold of {len(inner)} networks"
        ensemble = with_thresholds(ensemble, train, held_out[covered], train.y[covered], source)
        held_out = ensemble.calibration(held_out)
    return replace(ensemble, held_out=held_out) if covered.all() else ensemble


def _check(train: Samples, val: Samples | None, model_config: ModelConfig, train_config: TrainConfig) -> None:
    if val is not None and (shared := np.intersect1d(train.subjects, val.subjects)).size:
        raise ValueError(f"subject {shared[0]} stands in training and validation. Remedy: split by subject.")
    shape = (*train.x.shape[1:3], train.y.shape[1])
    expected = (model_config.views, model_config.phases, model_config.classes)
    if shape != expected:
        raise ValueError(f"views, phases, classes are {shape}, not {expected}. Remedy: correct ModelConfig.")
    wrong = train.y.sum(axis=1) != 1
    if train_config.mode == "single-label" and wrong.any():
        raise ValueError(f"Id {train.ids[wrong][0]}: not exactly one label. Remedy: mode='multi-label'.")
    if model_config.units and (train.units is None or train.units.shape[1] != model_config.units):
        raise ValueError(f"the samples lack the {model_config.units} action units of the model. Remedy: units=0.")


def _train_network(
    train: Samples,
    val: Samples | None,
    model_config: ModelConfig,
    config: TrainConfig,
    seed: int,
    init: Mapping[str, Tensor] | None,
    description: str = "",
) -> TrainedNetwork:
    _check(train, val, model_config, config)
    device = device_of(config)

    def maps_of(samples: Samples) -> Tensor:
        return resize_maps(torch.from_numpy(samples.x).to(device), model_config.size)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = model_config.build().to(device)
        missing = _load_matching(model, init) if init is not None else ()
        x, y = maps_of(train), torch.from_numpy(train.y).to(device)
        scale = tuple(init["scale"].tolist()) if init and "scale" in init else _scale_of(x)
        x = scale_maps(x, scale)
        units = torch.from_numpy(train.units).to(device) if model_config.units else y[:, :0]
        check = None if val is None else (scale_maps(maps_of(val), scale), torch.from_numpy(val.y).to(device))
        state, history, epoch = _optimise(model, x, y, units, check, config, description)
        if init is not None:
            state = _interpolate(init, state, config.interpolation)
    return TrainedNetwork(state, scale, tuple(history), epoch, missing)


def _scale_of(x: Tensor) -> tuple[float, float]:
    """The `TrainedNetwork.scale` of training maps x (N, V, P, 3, H, W)."""
    flow, magnitude = (part.square().mean().sqrt().item() for part in (x[:, :, :, :2], x[:, :, :, 2]))
    return max(flow, 1e-6), max(magnitude, 1e-6)


def _load_matching(model: nn.Module, init: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load the initial weights that match by name and shape. Returns the names of the model's other weights."""
    state = model.state_dict()
    usable = {name: value for name, value in init.items() if name in state and state[name].shape == value.shape}
    model.load_state_dict(usable, strict=False)
    return tuple(name for name in state if name not in usable)


def _interpolate(init: Mapping[str, Tensor], state: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Mean of initial and trained weights, with `share` for the trained ones, where name and shape match.

    Such a mean keeps more of the pretrained network (WiSE-FT: Wortsman et al. 2022, "Robust fine-tuning of zero-shot
    models", eq. 1). It includes the batch normalisation statistics. The epoch is chosen before interpolation.
    """

    def between(name: str, trained: Tensor) -> Tensor:
        first = init.get(name)
        if share == 1 or first is None or first.shape != trained.shape or not trained.is_floating_point():
            return trained
        return torch.lerp(first.to(trained), trained, share)

    return {name: between(name, trained) for name, trained in state.items()}


# Optimisation ----------------------------------------------------------------------------------------


def _optimise(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    units: Tensor,
    check: tuple[Tensor, Tensor] | None,
    config: TrainConfig,
    description: str,
) -> tuple[dict[str, Tensor], list[dict], int]:
    """Train, and validate on `check` (maps, labels). Returns the kept weights, the learning curve, the kept epoch."""
    alpha, gamma = _loss_weights(y, config)
    steps = max(1, round(len(x) / config.batch))
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    schedule = warm_up_and_cosine(steps * config.epochs) if config.schedule == "cosine" else lambda step: 1.0
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, schedule)
    best, history = ((math.inf,), 0, None), []
    for epoch in progress(range(1, config.epochs + 1), description):
        model.train()
        total = torch.zeros((), device=x.device)
        for index in torch.randperm(len(x), device=x.device).tensor_split(steps):
            batch, targets = augment(x.index_select(0, index), config), [y[index], units[index]]
            if config.mixup:
                batch, targets = mix(batch, targets, config.mixup)
            logits, _, unit_logits = forward(model, batch, config)
            loss = focal_loss(logits, targets[0], alpha, gamma, config.mode)
            if unit_logits.shape[1]:
                loss = loss + config.unit_weight * F.binary_cross_entropy_with_logits(unit_logits, targets[1])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            rate.step()
            total += loss.detach() * (len(index) / len(x))
        history.append({"epoch": epoch, "train_loss": total.item()})
        if check is None:
            continue
        model.eval()
        with torch.inference_mode():
            logits = forward(model, check[0], config)[0]
            val_loss = focal_loss(logits, check[1], alpha, gamma, config.mode).item()
        history[-1]["val_loss"] = val_loss
        rank = (val_loss,)  # smaller is better
        if config.stop_by == "accuracy":
            rank = (-(logits.argmax(dim=1) == check[1].argmax(dim=1)).float().mean().item(), val_loss)
        if config.patience and rank < best[0]:
            best = (rank, epoch, _copy_state(model))
        elif config.patience and epoch - best[1] >= config.patience:
            break
    return (_copy_state(model), history, epoch) if best[2] is None else (best[2], history, best[1])


def _loss_weights(y: Tensor, config: TrainConfig) -> tuple[Tensor, float]:
    """alpha (K,) and gamma of `focal_loss`. For loss "bce" they reduce it to cross-entropy."""
    alpha = class_weights(y, config.mode)
    if config.loss == "bce":
        return torch.full_like(alpha, 0.5 if config.mode == "multi-label" else 1.0), 0.0
    return alpha, config.gamma


def warm_up_and_cosine(steps: int) -> Callable[[int], float]:
    """Factor of the learning rate by step: it rises linearly over a tenth of the steps, then falls as half a cosine."""
    warm = max(1, steps // 10)
    return lambda step: min(
        (step + 1) / warm, 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, steps - warm)))
    )


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


# Estimators ------------------------------------------------------------------------------------------


def network_estimator(
    model_config: ModelConfig,
    train_config: TrainConfig,
    how: str = "inner",
    members: int = 1,
    init: Mapping[str, Tensor] | None = None,
) -> Estimator:
    """An estimator for `protocol.cross_validate` that trains our network.

    how  "inner": an ensemble of one network per inner fold (`fit_ensemble`)
         "first": one network, with the first inner fold for early stopping and thresholds
         "all": an ensemble of `members` networks, each trained on all clips for all epochs; only for single labels
    """
    if how not in ("inner", "first", "all"):
        raise ValueError(f"how is {how!r}. Remedy: one of inner, first, all.")

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        if how == "inner":
            ensemble = fit_ensemble(train, inner, model_config, train_config, seed, init)
        elif how == "first":
            fit_on, stop_on = inner[0]
            ensemble = fit(train.subset(fit_on), train.subset(stop_on), model_config, train_config, seed, init)
        else:
            singles = [fit(train, None, model_config, train_config, seed * 1000 + i, init) for i in range(members)]
            ensemble = replace(singles[0], members=tuple(single.members[0] for single in singles))
        notes = {"parameters": count_parameters(model_config), "epochs": [m.epoch for m in ensemble.members]}
        return Classifier(lambda x: predict(ensemble, x)[0], ensemble.thresholds, notes, ensemble.held_out)

    return estimator
