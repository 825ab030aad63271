"""Training of MicroAttNet: focal loss, early stopping, thresholds from validation.

`fit(train, val, ...)` has no test argument. Whole tensors stay in memory and whole batches are augmented at
once; the same code runs on CUDA where present.
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
from utils.train.estimator import Classifier
from utils.train.network import ModelConfig, count_parameters
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

# Loss ------------------------------------------------------------------------------------------------


def focal_loss(logits: Tensor, target: Tensor, alpha: Tensor, gamma: float, mode: str) -> Tensor:
    """Mean over the batch of -alpha (1 - p)^gamma log p of the true value (Lin et al. 2017, "Focal loss",
    eq. 5).

    logits, target (B, K), target in 0..1 (mixed targets weight the two losses). Multi-label: alpha (K,)
    weights the positives, 1 - alpha the negatives, times two, so that alpha 0.5 is neutral; the loss is
    summed over classes. Single-label: alpha (K,) weights the classes, its mean over the clips is one. gamma 0
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
    """Train one network; `val`, subject-disjoint from `train`, decides when to stop and sets the thresholds.

    `init` holds weights to start from, matched by name and shape; what it lacks is listed in the member's
    `missing`. Its "scale" (2,), where given, stays the scale of the input.
    Without `val` all epochs are trained and thresholds are 0.5. The same seed gives the same
    network on one machine. `description` is what `progress` calls the epochs. Raises ValueError when a subject
    stands in both parts, or when shapes and configuration disagree.
    """
    _check(train, val, model_config, train_config)
    member = _fit_member(train, val, model_config, train_config, seed, init, description)
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
    """`ensemble` with calibration and thresholds from clips that the network in question was not trained on."""
    calibration = fit_calibration(truth, probability)
    thresholds = choose_thresholds(truth, calibration(probability), train.y.mean(axis=0), source=source)
    return replace(ensemble, calibration=calibration, thresholds=thresholds)


def fit_ensemble(
    train: Samples,
    inner: Sequence[tuple[np.ndarray, np.ndarray]],
    model_config: ModelConfig,
    train_config: TrainConfig,
    seed: int = 0,
    init: Mapping[str, Tensor] | None = None,
) -> Ensemble:
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
        one = Ensemble(model_config, train_config, train.classes, (member,), None, seed)
        held_out[stop_on] = predict(one, train.x[stop_on])[0]
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
    description: str = "",
) -> TrainedNetwork:
    device = device_of(config)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = model_config.build().to(device)
        missing = _load_matching(model, init) if init is not None else ()
        x = resize_maps(torch.from_numpy(train.x).to(device), model_config.size)
        # Weights that were pretrained are used to their own scale of the input.
        scale = tuple(init["scale"].tolist()) if init and "scale" in init else _scale_of(x)
        x, y = scale_maps(x, scale), torch.from_numpy(train.y).to(device)
        units = torch.from_numpy(train.units).to(device) if model_config.units else y[:, :0]
        check = None
        if val is not None:
            check = (
                scale_maps(resize_maps(torch.from_numpy(val.x).to(device), model_config.size), scale),
                torch.from_numpy(val.y).to(device),
            )
        state, history, epoch = _optimise(model, x, y, units, check, config, description)
        if init is not None:
            state = interpolate_weights(init, state, config.interpolation)
    return TrainedNetwork(state, scale, tuple(history), epoch, missing)


def _optimise(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    units: Tensor,
    check: tuple[Tensor, Tensor] | None,
    config: TrainConfig,
    description: str,
) -> tuple[dict[str, Tensor], list[dict], int]:
    """Train; returns the weights of the best epoch, the learning curve, and that epoch (from 1)."""
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
        record = {"epoch": epoch, "train_loss": total.item()}
        if check is not None:
            model.eval()
            with torch.inference_mode():
                logits = forward(model, check[0], config)[0]
                record["val_loss"] = focal_loss(logits, check[1], alpha, gamma, config.mode).item()
                rank = (record["val_loss"],)
                if config.stop_by == "accuracy":
                    right = logits.argmax(dim=1) == check[1].argmax(dim=1)
                    rank = (-right.float().mean().item(), *rank)
        history.append(record)
        if check is not None and config.patience:
            if rank < best[0]:
                best = (rank, epoch, _copy_state(model))
            elif epoch - best[1] >= config.patience:
                break
    return (best[2], history, best[1]) if best[2] is not None else (_copy_state(model), history, epoch)


def _loss_weights(y: Tensor, config: TrainConfig) -> tuple[Tensor, float]:
    """alpha (K,) and gamma of `focal_loss`; for cross-entropy those that change nothing."""
    alpha = class_weights(y, config.mode)
    if config.loss == "bce":
        return torch.full_like(alpha, 0.5 if config.mode == "multi-label" else 1.0), 0.0
    return alpha, config.gamma


def warm_up_and_cosine(steps: int) -> Callable[[int], float]:
    """Factor of the learning rate by step: up over a tenth of the steps, then down along half a cosine."""
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


def interpolate_weights(init: Mapping[str, Tensor], state: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Initial and trained weights interpolated, `share` of the trained ones, where both fit (WiSE-FT: Wortsman et al.
    2022, "Robust fine-tuning of zero-shot models", eq. 1): what both know is kept, and what the few clips at hand
    taught beyond counts less. So are the statistics of the batch normalisations. The epoch was chosen by the network
    before interpolation."""

    def between(name: str, trained: Tensor) -> Tensor:
        first = init.get(name)
        if share == 1 or first is None or first.shape != trained.shape or not trained.is_floating_point():
            return trained
        return torch.lerp(first.to(trained), trained, share)

    return {name: between(name, trained) for name, trained in state.items()}


def _scale_of(x: Tensor) -> tuple[float, float]:
    flow, third = x[:, :, :, :2].square().mean().sqrt().item(), x[:, :, :, 2].square().mean().sqrt().item()
    return max(flow, 1e-6), max(third, 1e-6)


# Prediction ------------------------------------------------------------------------------------------


def network_estimator(
    model_config: ModelConfig,
    train_config: TrainConfig,
    how: str = "inner",
    members: int = 1,
    init: Mapping[str, Tensor] | None = None,
) -> Callable[[Samples, list, int], Classifier]:
    """An estimator for `protocol.cross_validate`.

    how "inner": an ensemble of one network per inner fold, thresholds from all their out-of-fold predictions;
    "first": one network, stopped and cut on the first inner fold; "all": `members` networks on every training
    clip for all epochs, nothing chosen, for single labels, which need no thresholds.
    """
    if how not in ("inner", "first", "all"):
        raise ValueError(f"how is {how!r}. Remedy: one of inner, first, all.")

    def estimator(train: Samples, inner: list, seed: int) -> Classifier:
        if how == "inner":
            ensemble = fit_ensemble(train, inner, model_config, train_config, seed, init)
        elif how == "first":
            fit_on, stop_on = inner[0]
            ensemble = fit(train.subset(fit_on), train.subset(stop_on), model_config, train_config, seed, init)
        else:
            each = [fit(train, None, model_config, train_config, seed * 1000 + i, init) for i in range(members)]
            ensemble = replace(each[0], members=tuple(one.members[0] for one in each))
        notes = {"parameters": count_parameters(model_config), "epochs": [m.epoch for m in ensemble.members]}
        return Classifier(lambda x: predict(ensemble, x)[0], ensemble.thresholds, notes, ensemble.held_out)

    return estimator
