"""Teaches FaceFlow (`utils.flow.faceflow_net`) on the rendered pairs of `flow_lessons`, and writes its weights.

python -m utils.pretrain.train_flow [--people 320] [--epochs 16] [--seed 0] [--jobs 2] [--out FILE]
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.artefacts import write_artefact
from utils.flow.faceflow import FLOW_WEIGHTS
from utils.flow.faceflow_net import OUT, FlowNet, FlowNetConfig, backward_warp, upsample
from utils.pretrain.flow_lessons import Lessons, make_lessons

STANDARD = 256  # pairs from which the networks' input is standardised
FAR_PX = 4.0  # mean motion beyond which a pair teaches nothing: a shift of the whole picture is taken out before


@dataclass(frozen=True)
class FlowTraining:
    """How FaceFlow is trained."""

    people: int = 320
    epochs: int = 16
    batch: int = 8
    lr: float = 2e-3
    weight_decay: float = 1e-4
    average: float = 0.999  # decay of the running mean of the weights, which is what is kept
    moving_px: float = 0.3  # where the truth moves farther,
    moving_weight: float = 2.5  # an error counts so many times
    nonrigid_weight: float = 1.0  # of the flow without the head's rigid motion, against the whole flow
    coarse_weight: float = 0.3  # of the first stage's flow
    foreign: float = 0.1  # share of the pairs that are replaced by pictures moved as no face moves
    seed: int = 0


# Training ---------------------------------------------------------------------------------------------------------


def degrade(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (B, 1, H, W) degraded as worse cameras take them: some with less contrast, more noise, a blur, another
    light."""
    n = len(first)

    def some(share: float, low: float, high: float, neutral: float) -> Tensor:
        value = torch.rand(n, 1, 1, 1, device=first.device) * (high - low) + low
        return torch.where(torch.rand(n, 1, 1, 1, device=first.device) < share, value, neutral)

    both = torch.cat([first, second], 1)
    contrast, noise = some(0.3, 0.25, 1.2, 1.0), some(0.3, math.log(0.3), math.log(6), -20.0).exp()
    softer = F.avg_pool2d(F.pad(both, (1, 1, 1, 1), "replicate"), 3, 1)
    both = torch.lerp(both, softer, some(0.2, 0.2, 1.0, 0.0))
    both = 90 + (both - 90) * contrast + torch.randn_like(both) * noise
    first, second = both.round().clamp(0, 255).chunk(2, 1)
    return first, (second * some(0.3, 0.9, 1.1, 1.0)).clamp(0, 255)


def foreign_pairs(first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs that keep the network from believing that all it sees is a face: pictures (B, 1, S, S), half of them of
    noise instead, moved by smooth random fields. Returns first, second and the flow (B, 2, OUT, OUT)."""
    n, size = len(first), first.shape[-1]
    grain = sum(upsample(torch.randn(n, 1, size >> k, size >> k, device=first.device), size) for k in range(6))
    second = torch.where(torch.rand(n, 1, 1, 1, device=first.device) < 0.5, 120 + 20 * grain, first)
    cells = int(torch.randint(1, 6, ()))
    far = 0.6 * torch.randn(n, 1, 1, 1, device=first.device).exp().clamp(max=3)
    flow = F.interpolate(far * torch.randn(n, 2, cells, cells, device=first.device), OUT, mode="bicubic")
    first = backward_warp(second, flow)  # whose pixels are found in `second` where the flow takes them: exact
    return *((image + torch.randn_like(image)).round().clamp(0, 255) for image in (first, second)), flow


def mirrored(maps: Tensor, which: Tensor, vectors: bool) -> Tensor:
    """Maps (B, C, H, W) with those of `which` (B,) bool flipped left to right; of vectors u changes its sign."""
    flipped = maps.flip(-1)
    if vectors:
        flipped = flipped * maps.new_tensor([-1, 1])[:, None, None]
    return torch.where(which[:, None, None, None], flipped, maps)


def charbonnier(estimate: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of sqrt(|error|^2 + 0.01^2), flows (B, 2, H, W), weight (B, H, W)."""
    error = ((estimate - truth).square().sum(1) + 1e-4).sqrt()
    return (error * weight).sum() / weight.sum().clamp(min=1)


def batches(lessons: Lessons, config: FlowTraining, device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """One epoch, in random order, mirrored, degraded and replaced by foreign pairs at random: first, second
    (B, 1, SIZE, SIZE), flow, nonrigid (B, 2, OUT, OUT), and where each of the two is known
    (B, OUT, OUT) float."""
    steps = max(1, len(lessons.first) // config.batch)
    for index in torch.randperm(len(lessons.first)).tensor_split(steps):
        parts = (lessons.first, lessons.second, lessons.flow, lessons.nonrigid, lessons.visible)
        chosen = [torch.from_numpy(part[index.numpy()]).to(device) for part in parts]
        first, second, visible = (part[:, None].float() for part in (chosen[0], chosen[1], chosen[4]))
        which = torch.rand(len(index), device=device) < 0.5
        first, second, visible = (mirrored(part, which, False) for part in (first, second, visible))
        flow, nonrigid = (mirrored(part.float(), which, True) for part in chosen[2:4])
        known = visible[:, 0].clone()  # where `nonrigid` is known: not in foreign pairs
        replaced = torch.rand(len(index), device=device) < config.foreign
        if replaced.any():
            first[replaced], second[replaced], flow[replaced] = foreign_pairs(first[replaced])
            visible[replaced], known[replaced] = 1.0, 0.0
        yield (*degrade(first, second), flow, nonrigid, visible[:, 0], known)


def drop_large_motion(lessons: Lessons) -> Lessons:
    """The pairs that move by FAR_PX or less on average."""
    size = np.hypot(lessons.flow[:, 0], lessons.flow[:, 1]) * lessons.visible
    kept = size.sum((1, 2), dtype=np.float32) <= FAR_PX * lessons.visible.sum((1, 2))
    return Lessons(**{field.name: getattr(lessons, field.name)[kept] for field in fields(lessons)})


def train(lessons: Lessons, config: FlowTraining, model: FlowNetConfig) -> FlowNet:
    """FaceFlow taught by `lessons`; the running mean of its weights over the last steps is returned."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    lessons = drop_large_motion(lessons)
    net = FlowNet(model).to(device)
    net.standardise(*next(batches(lessons, replace(config, batch=STANDARD), device))[:2])
    mean = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.average), use_buffers=True
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps = config.epochs * max(1, len(lessons.first) // config.batch)
    warm = min(200, max(1, steps // 10))
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    start = time.perf_counter()
    for epoch in range(1, config.epochs + 1):
        errors = []
        for first, second, flow, nonrigid, visible, known in batches(lessons, config, device):
            found, found_nonrigid, coarse = net(first, second)
            weight = torch.where(flow.norm(dim=1) > config.moving_px, config.moving_weight, 1.0)
            whole = charbonnier(found, flow, visible * weight)
            loss = whole + config.nonrigid_weight * charbonnier(found_nonrigid, nonrigid, known * weight)
            loss = loss + config.coarse_weight * charbonnier(upsample(coarse, OUT), flow, visible * weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            rate.step()
            mean.update_parameters(net)
            errors.append(whole.item())
        seconds = time.perf_counter() - start
        print(f"epoch {epoch}/{config.epochs}: error {np.mean(errors):.4f} px, {seconds:.0f} s", flush=True)
    return mean.module.eval().cpu()


# Files ------------------------------------------------------------------------------------------------------------


def save_flow_net(net: FlowNet, config: FlowTraining, weights: Path) -> None:
    """Write the weights, and beside them, as JSON, how they were made."""
    write_artefact(weights, {name: value.contiguous() for name, value in net.state_dict().items()})
    write_artefact(weights.with_suffix(".json"), {"model": asdict(net.config), "training": asdict(config)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=FlowTraining.people)
    parser.add_argument("--epochs", type=int, default=FlowTraining.epochs)
    parser.add_argument("--seed", type=int, default=FlowTraining.seed)
    parser.add_argument("--jobs", type=int, default=2, help="workers that render")
    parser.add_argument("--out", type=Path, default=FLOW_WEIGHTS, help="file of the weights")
    options = parser.parse_args()
    config = FlowTraining(people=options.people, epochs=options.epochs, seed=options.seed)
    lessons = make_lessons(config.people, config.seed, options.jobs)
    print(f"{len(lessons.first)} pairs of {config.people} people")
    torch.set_num_threads(2)  # fixed, so that the sums, and the weights, do not depend on the cores
    save_flow_net(train(lessons, config, FlowNetConfig()), config, options.out)


if __name__ == "__main__":
    main()
