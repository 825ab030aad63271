"""Benchmark of training: one fold of our `fit_ensemble` compared with a plain loop over a DataLoader."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from utils.artefacts import remove, write_artefact
from utils.evaluate.protocol import FoldResult, OutOfFold, join_folds, run_fold
from utils.evaluate.scores import compare, interval
from utils.lab.bench.setting import SEEDS, Setting, row, seconds_of
from utils.lab.teachers.classifier import PER_PERSON, sample_dual
from utils.parallel import parallel_map
from utils.train.augment import mix
from utils.train.ensemble import Ensemble, TrainedNetwork, predict, scale_maps
from utils.train.estimator import Classifier, Estimator, Fold
from utils.train.fit import class_weights, focal_loss, network_estimator, warm_up_and_cosine, with_thresholds
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

NETWORKS = 2  # inner folds of four, to save time: training time is proportional to their number
CLIPS_OF_A_SUBJECT = 12  # in training, about as many as in 4DME


def training(setting: Setting) -> list[dict]:
    """One fold with two of its four inner networks, from features to thresholds. Our `fit_ensemble` is compared with a
    plain loop over a DataLoader that reads, augments and collates clip by clip; network, augmentation, loss, batch,
    epochs and patience are the same. Each row uses one thread, except "all cores". "at once": so many of our folds in
    parallel, one process each, as in `03_train`; the time is divided by their number. The clips are motion fields of
    synthetic people, as many training people as in 4DME; macro-UF1 on many clips of other people. Ratio: the row's time
    divided by ours; 3 means three times as long."""
    samples, fold = people_to_train_and_test(setting.count(18, 4))
    model, config = ModelConfig(), TrainConfig(epochs=setting.count(40, 2))
    files = setting.folder / "runs" / "clips"  # one file per clip, as a feature extractor writes them
    for id, x, y in zip(samples.ids, samples.x, samples.y, strict=True):
        write_artefact(files / f"{id}.npz", {"x": x, "y": y})
    whole = network_estimator(model, config)
    short = network_estimator(model, replace(config, epochs=1))  # a first run, so that imports are not timed

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
    """Time and macro-UF1 of each run of the fold, with intervals; one of the runs is "ours"."""
    scores = {name: out_of_fold(samples, result) for name, result in results.items()}
    return [
        row(
            name,
            result.seconds,
            "s",
            result.seconds / results["ours"].seconds,
            networks=NETWORKS,
            macro_uf1=interval(scores[name]),
            ours_minus_this=None if name == "ours" else compare(scores["ours"], scores[name]),
        )
        for name, result in results.items()
    ]


def seconds_at_once(samples: Samples, estimator: Estimator, fold: Fold, jobs: int) -> float:
    """Wall-clock seconds in which `jobs` processes each run the fold."""
    return seconds_of(parallel_map, lambda fold: run_fold(samples, estimator, fold, 0), [fold] * jobs, jobs)


def people_to_train_and_test(subjects: int) -> tuple[Samples, Fold]:
    """Clips of 2 * `subjects` people: a few clips of each person to train on, and many of each person to test."""
    samples = sample_dual(2 * subjects * PER_PERSON, SEEDS[0])
    person, turn = np.divmod(np.arange(len(samples)), PER_PERSON)
    kept = np.flatnonzero((person >= subjects) | (turn < CLIPS_OF_A_SUBJECT))
    return samples.subset(kept), (np.flatnonzero(person[kept] < subjects), np.flatnonzero(person[kept] >= subjects))


def out_of_fold(samples: Samples, result: FoldResult) -> OutOfFold:
    """The predictions of one fold as held-out predictions of its test clips alone."""
    held_out = samples.subset(np.flatnonzero(np.isin(samples.ids, result.ids)))
    fold = np.zeros(0, int), np.arange(len(held_out))
    return join_folds(held_out, [fold], (0,), [[replace(result, inner=None)]])


class ClipFiles(Dataset):
    """One clip per item: read from its file, scaled and augmented."""

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
    """An estimator with one network per inner fold, trained by the plain loop; the rest as in `fit_ensemble`."""

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        members, held_out = [], np.full(train.y.shape, np.nan)
        for number, (fit_on, stop_on) in enumerate(inner[:NETWORKS]):
            torch.manual_seed(seed * 1000 + number)
            parts = train.subset(fit_on), train.subset(stop_on)
            members.append(plain_loop(*parts, model, config, folder, num_workers))
            network = Ensemble(model, config, train.classes, (members[-1],), None, seed)
            held_out[stop_on] = predict(network, train.x[stop_on])[0]
        covered = np.isfinite(held_out[:, 0])
        ensemble = Ensemble(model, config, train.classes, tuple(members), None, seed)
        ensemble = with_thresholds(ensemble, train, held_out[covered], train.y[covered], "plain loop")
        return Classifier(lambda x: predict(ensemble, x)[0], ensemble.thresholds)

    return estimator


def plain_loop(
    train: Samples, val: Samples, model_config: ModelConfig, config: TrainConfig, folder: Path, num_workers: int
) -> TrainedNetwork:
    """Train one network until the validation loss does not fall for `patience` epochs; keep the best epoch."""
    scale = tuple(float(np.sqrt((part**2).mean())) for part in (train.x[:, :, :, :2], train.x[:, :, :, 2]))
    loading = {"batch_size": config.batch, "num_workers": num_workers, "persistent_workers": num_workers > 0}
    batches = DataLoader(ClipFiles(folder, train.ids, scale, config), shuffle=True, **loading)
    checks = DataLoader(ClipFiles(folder, val.ids, scale), **loading)
    alpha = class_weights(torch.from_numpy(train.y), config.mode)
    model = model_config.build()
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, warm_up_and_cosine(len(batches) * config.epochs))
    best = (math.inf, 0, {})
    for epoch in range(1, config.epochs + 1):
        model.train()
        for x, y in batches:
            x, (y,) = mix(x, [y], config.mixup)
            loss = focal_loss(model(x)[0], y, alpha, config.gamma, config.mode)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
        model.eval()
        with torch.no_grad():
            losses = [len(x) * focal_loss(model(x)[0], y, alpha, config.gamma, config.mode).item() for x, y in checks]
        val_loss = sum(losses) / len(val)
        if val_loss < best[0]:
            best = val_loss, epoch, {name: value.clone() for name, value in model.state_dict().items()}
        elif epoch - best[1] >= config.patience:
            break
    return TrainedNetwork(best[2], scale, (), best[1])
