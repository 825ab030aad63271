"""Benchmark of training: one fold of our `fit_ensemble` against the plain loop over a DataLoader."""

import math
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from utils.artefacts import remove, write_artefact
from utils.evaluate.protocol import FoldResult, OutOfFold, run_fold
from utils.evaluate.scores import compare, interval
from utils.lab.bench.setting import SEEDS, Setting, row, seconds_of
from utils.lab.teachers.classifier import PER_PERSON, sample_dual
from utils.parallel import parallel_map
from utils.train.augment import mix
from utils.train.decision import choose_thresholds, fit_calibration
from utils.train.ensemble import Ensemble, TrainedNetwork, predict, scale_maps
from utils.train.estimator import Classifier, Estimator, Fold
from utils.train.fit import class_weights, focal_loss, network_estimator, warm_up_and_cosine
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

NETWORKS = 2  # of the four inner folds, to spare time: training is linear in them
CLIPS_OF_A_SUBJECT = 12  # in training, about as many as in 4DME


def training(setting: Setting) -> list[dict]:
    """One fold with two of its four inner networks, from features to thresholds: our `fit_ensemble` against the plain
    loop over a DataLoader that reads, augments and collates clip by clip; same network, augmentation, loss, batch,
    epochs and patience. One thread each, but "all cores": torch with as many threads as there are. "at once": so many
    of our folds side by side, a process each, as `03_train` runs them; the time of all over their number. Motion
    fields of synthetic people, as many in training as in 4DME; macro-UF1 on many clips of others. Ratio: the row's
    time divided by ours, so 3 takes three times as long as ours."""
    samples, fold = people_to_train_and_test(setting.count(18, 4))
    model, config = ModelConfig(), TrainConfig(epochs=setting.count(40, 2))
    files = write_clips(samples, setting.folder / "runs" / "clips")
    whole = network_estimator(model, config)
    short = network_estimator(model, replace(config, epochs=1))  # what is imported at first use does not count

    def ours(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        return whole(train, inner[:NETWORKS], seed)

    runs = {"ours": (ours, 1)}
    for processes in (0,) if setting.quick else (0, 2):
        runs[f"plain loop, num_workers={processes}"] = plain_estimator(model, config, files, processes), 1
    runs["plain loop, num_workers=0, all cores"] = plain_estimator(model, config, files, 0), os.cpu_count()
    run_fold(samples, short, fold, 0, 2)
    results, threads_before = {}, torch.get_num_threads()
    for name, (estimator, threads) in runs.items():
        torch.set_num_threads(threads)
        results[name] = run_fold(samples, estimator, fold, 0)
        print(f"{name}: {results[name].seconds:.1f} s", flush=True)
    torch.set_num_threads(threads_before)
    remove(files)
    rows = rows_of(samples, results)
    if setting.jobs > 1:
        seconds_at_once(samples, short, fold, setting.jobs)
        each = seconds_at_once(samples, ours, fold, setting.jobs) / setting.jobs
        ratio = each / results["ours"].seconds
        rows.append(row(f"ours, {setting.jobs} folds at once", each, "s a fold", ratio, networks=NETWORKS))
    return rows


def rows_of(samples: Samples, results: dict[str, FoldResult]) -> list[dict]:
    """A row per run of the fold, "ours" among them: its time and its macro-UF1, with intervals."""
    scores = {name: out_of_fold(samples, result) for name, result in results.items()}
    return [
        row(
            name,
            result.seconds,
            "s",
            result.seconds / results["ours"].seconds,
            networks=NETWORKS,
            macro_uf1=str(interval(scores[name])),
            ours_minus_this="" if name == "ours" else str(compare(scores["ours"], scores[name])),
        )
        for name, result in results.items()
    ]


def seconds_at_once(samples: Samples, estimator: Estimator, fold: Fold, jobs: int) -> float:
    """Seconds by the clock until as many processes as there are jobs have each done the fold."""
    return seconds_of(parallel_map, lambda one: run_fold(samples, estimator, one, 0), [fold] * jobs, jobs)


def people_to_train_and_test(subjects: int) -> tuple[Samples, Fold]:
    """Samples of twice as many people: few clips each of the first half to train on, many each of the others."""
    samples = sample_dual(2 * subjects * PER_PERSON, SEEDS[0])
    person, turn = np.divmod(np.arange(len(samples)), PER_PERSON)
    kept = np.flatnonzero((person >= subjects) | (turn < CLIPS_OF_A_SUBJECT))
    return samples.subset(kept), (np.flatnonzero(person[kept] < subjects), np.flatnonzero(person[kept] >= subjects))


def out_of_fold(samples: Samples, result: FoldResult) -> OutOfFold:
    """One fold's predictions in the form that intervals are computed from."""
    row_of = {id: i for i, id in enumerate(samples.ids)}
    held = samples.subset(np.array([row_of[id] for id in result.ids]))
    return OutOfFold(
        samples.classes,
        held.ids,
        held.subjects,
        np.zeros(len(held), int),
        (0,),
        held.y > 0,
        result.probability[None],
        result.decision[None],
        result.thresholds[None, None],
        [[result.notes]],
        result.seconds,
    )


# The loop that is usually written -----------------------------------------------------------------------------------


def write_clips(samples: Samples, folder: Path) -> Path:
    """One file per clip, as a feature extractor leaves them."""
    for id, x, y in zip(samples.ids, samples.x, samples.y, strict=True):
        write_artefact(folder / f"{id}.npz", {"x": x, "y": y})
    return folder


class ClipFiles(Dataset):
    """One clip per item: read from its file, scaled, and augmented alone."""

    def __init__(self, folder: Path, ids: np.ndarray, scale: tuple[float, float], config: TrainConfig | None = None):
        self.folder, self.ids, self.scale, self.config = folder, ids, scale, config

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with np.load(self.folder / f"{self.ids[index]}.npz") as clip:
            x, y = scale_maps(torch.from_numpy(clip["x"]), self.scale), torch.from_numpy(clip["y"])
        return (augment_clip(x, self.config) if self.config else x), y


def augment_clip(x: Tensor, config: TrainConfig) -> Tensor:
    """The augmentation of `utils.train.fit` on one clip (V, P, 3, H, W): mirror, rotation, zoom, shift, gain."""
    if torch.rand(()) < config.mirror:
        x = x.flip(-1).flip(0) * torch.tensor([-1.0, 1, 1])[:, None, None]
    angle = (torch.rand(()) * 2 - 1) * math.radians(config.rotate)
    zoom = 1 + (torch.rand(()) * 2 - 1) * config.zoom
    shift = (torch.rand(2) * 2 - 1) * 2 * config.shift
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    theta = torch.cat([turn.T / zoom, -(turn.T / zoom) @ shift[:, None]], dim=1)
    maps = x.flatten(0, 2)[None]
    moved = F.grid_sample(maps, F.affine_grid(theta[None], list(maps.shape), False), align_corners=False).view_as(x)
    flow = torch.einsum("ij,vpjhw->vpihw", turn, moved[:, :, :2])
    return torch.cat([flow, moved[:, :, 2:]], dim=2) * zoom * torch.exp(torch.randn(()) * config.gain)


def plain_estimator(model: ModelConfig, config: TrainConfig, folder: Path, num_workers: int) -> Estimator:
    """An estimator for `protocol.run_fold`: one network per inner fold by the plain loop, then as `fit_ensemble`."""

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        members, held_out = [], np.full(train.y.shape, np.nan)
        for number, (fit_on, stop_on) in enumerate(inner[:NETWORKS]):
            torch.manual_seed(seed * 1000 + number)
            parts = train.subset(fit_on), train.subset(stop_on)
            members.append(plain_loop(*parts, model, config, folder, num_workers))
            one = Ensemble(model, config, train.classes, (members[-1],), None, seed)
            held_out[stop_on] = predict(one, train.x[stop_on])[0]
        judged = np.isfinite(held_out[:, 0])
        truth, probability = train.y[judged], held_out[judged]
        calibration = fit_calibration(truth, probability)
        thresholds = choose_thresholds(truth, calibration(probability), train.y.mean(axis=0))
        ensemble = Ensemble(model, config, train.classes, tuple(members), thresholds, seed, calibration)
        return Classifier(lambda x: predict(ensemble, x)[0], thresholds)

    return estimator


def plain_loop(
    train: Samples, val: Samples, model_config: ModelConfig, config: TrainConfig, folder: Path, num_workers: int
) -> TrainedNetwork:
    """Train one network until the validation loss has not fallen for `patience` epochs; keep the best epoch."""
    scale = tuple(float(np.sqrt((part**2).mean())) for part in (train.x[:, :, :, :2], train.x[:, :, :, 2]))
    loading = {"batch_size": config.batch, "num_workers": num_workers, "persistent_workers": num_workers > 0}
    batches = DataLoader(ClipFiles(folder, train.ids, scale, config), shuffle=True, **loading)
    checks = DataLoader(ClipFiles(folder, val.ids, scale), **loading)
    alpha = class_weights(torch.from_numpy(train.y), config.mode)
    model = model_config.build()
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, warm_up_and_cosine(len(batches) * config.epochs))
    best, kept, history = (math.inf, 0), None, []
    for epoch in range(1, config.epochs + 1):
        model.train()
        for x, y in batches:
            x, (y,) = mix(x, [y], config.mixup)
            loss = focal_loss(model(x)[0], y, alpha, config.gamma, config.mode)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
        history.append({"epoch": epoch, "val_loss": validation_loss(model, checks, alpha, config)})
        if history[-1]["val_loss"] < best[0]:
            best = history[-1]["val_loss"], epoch
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        elif epoch - best[1] >= config.patience:
            break
    return TrainedNetwork(kept, scale, tuple(history), best[1])


def validation_loss(
    model: torch.nn.Module, batches: Iterable[tuple[Tensor, Tensor]], alpha: Tensor, config: TrainConfig
) -> float:
    """Mean loss over the clips of a loader."""
    model.eval()
    total, clips = 0.0, 0
    with torch.no_grad():
        for x, y in batches:
            total += focal_loss(model(x)[0], y, alpha, config.gamma, config.mode).item() * len(x)
            clips += len(x)
    return total / clips
