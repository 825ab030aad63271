"""Training of FaceFlow (`utils.flow.faceflow_net`) on the rendered pairs of `flow_lessons`.

python -m utils.lab.teachers.train_flow [--people 480] [--epochs 8] [--seed 0] [--jobs 2] [--start FILE] [--out FILE]

There are two courses, since a network learns motion slowly from fully degraded lessons. The plain course shows faces
nearly as they are rendered; the wide course degrades them by `flow_degradation`. Rendered lessons and the state after
each epoch are kept under artefacts, so that an interrupted training continues where it stopped.
"""

import argparse
import copy
import hashlib
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from utils.artefacts import artefact_key, atomic_path, read_artefact, remove, write_artefact
from utils.flow.faceflow import FLOW_WEIGHTS, load_flow_net
from utils.flow.faceflow_net import OUT, SIZE, FlowNet, FlowNetConfig, backward_warp, upsample
from utils.lab.teachers.flow_degradation import Degradation, Lesson, choose, degrade, selected
from utils.lab.teachers.flow_lessons import LESSONS, Lessons, make_lessons
from utils.progress import progress, say

CHECKPOINTS = LESSONS.parent / "flow_training"
STANDARD = 256  # pairs from which the network's input is standardised
AHEAD = 2  # batches that are made ahead
PREFETCHING = "prefetching of lessons"  # name of the thread that makes them
FAR_PX = 4.0  # pairs that move farther on average are left out: `faceflow` removes large shifts before the network


@dataclass(frozen=True)
class FlowTraining:
    """Settings of a course; the defaults are those of the wide course."""

    people: int = 480
    epochs: int = 8
    batch: int = 12
    lr: float = 1e-3
    weight_decay: float = 1e-4
    average: float = 0.999  # decay of the running mean of the weights; this mean is the result
    moving_px: float = 0.1  # where the truth moves farther than this,
    moving_weight: float = 2.5  # an error has this weight in the loss
    nonrigid_weight: float = 1.0  # of the flow without the head's motion, relative to the whole flow
    coarse_weight: float = 0.3  # of the coarse flow
    foreign: float = 0.1  # share of the pairs that are replaced by `foreign_pairs`
    masked: float = 0.5  # share of the batches in which the network gets the mask of the face
    degradation: Degradation = Degradation()
    seed: int = 0


NEARLY_PLAIN = Degradation(moved=0.1, softened=0.1, contrast=(0.4, 1.5), noise=(0.5, 4.0))
NEARLY_PLAIN = replace(NEARLY_PLAIN, detailed=0.0, grounded=0.0, cropped=0.0, small=0.0, coded=0.0)
PLAIN = FlowTraining(epochs=16, lr=2e-3, masked=0.0, degradation=NEARLY_PLAIN)


def batches(lessons: Lessons, config: FlowTraining, device: torch.device) -> Iterator[tuple[Lesson, Tensor | None]]:
    """The degraded batches of one epoch in random order, each with the mask of the face (B, 1, SIZE, SIZE) or None.

    All random numbers of the epoch are drawn here. Half of the pairs are mirrored.
    """
    steps = max(1, len(lessons.first) // config.batch)
    for index in torch.randperm(len(lessons.first)).tensor_split(steps):
        chosen = (torch.from_numpy(array[index.numpy()]).to(device).float() for array in lessons)
        first, second, flow, nonrigid, visible = chosen
        which = torch.rand(len(index), device=device) < 0.5
        first, second, visible = (mirrored(maps[:, None], which) for maps in (first, second, visible))
        flow, nonrigid = (mirrored(maps, which, vectors=True) for maps in (flow, nonrigid))
        lesson = degrade(Lesson(first, second, flow, nonrigid, visible[:, 0], visible[:, 0]), config.degradation)
        lesson = with_foreign_pairs(lesson, config.foreign)
        masked = torch.rand(()) < config.masked
        yield lesson, upsample(lesson.known_nonrigid[:, None], SIZE) if masked else None


def mirrored(maps: Tensor, which: Tensor, vectors: bool = False) -> Tensor:
    """Maps (B, C, H, W), mirrored left to right where `which` (B,) bool is true; the u of vectors changes its sign."""
    flipped = maps.flip(-1) * maps.new_tensor([-1, 1] if vectors else [1])[:, None, None]
    return torch.where(which[:, None, None, None], flipped, maps)


def with_foreign_pairs(lesson: Lesson, share: float) -> Lesson:
    """The lesson with a share of its pairs replaced by `foreign_pairs`, whose nonrigid flow counts as unknown."""
    which, known = selected(lesson.first, share), torch.ones_like(lesson.known)
    new = Lesson(*foreign_pairs(lesson.first), lesson.nonrigid, known, 0 * known)
    return choose(which, new, lesson)


def foreign_pairs(first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs that move as no face does, so that the network does not take every picture for a face.

    Pictures (B, 1, S, S), half of them replaced by noise, are warped by smooth random fields. Returns the first and the
    second frame and the flow (B, 2, OUT, OUT).
    """
    n, device = len(first), first.device
    grain = sum(upsample(torch.randn(n, 1, SIZE >> k, SIZE >> k, device=device), SIZE) for k in range(6))
    second = torch.where(selected(first, 0.5), 120 + 20 * grain, first)
    cells = int(torch.randint(1, 6, ()))
    strength = 0.6 * torch.randn(n, 1, 1, 1, device=device).exp().clamp(max=3)
    flow = F.interpolate(strength * torch.randn(n, 2, cells, cells, device=device), OUT, mode="bicubic")
    frames = backward_warp(second, flow), second
    return *((frame + torch.randn_like(frame)).round().clamp(0, 255) for frame in frames), flow


def prefetched(items: Iterator[Any]) -> Iterator[Any]:
    """The items in their order. A thread makes up to AHEAD of them while the caller uses those before."""
    thread, end = ThreadPoolExecutor(1, PREFETCHING), object()
    try:
        waiting = deque(thread.submit(next, items, end) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)


def drop_large_motion(lessons: Lessons) -> Lessons:
    """The pairs whose mean motion over the face is FAR_PX or less."""
    size = np.hypot(lessons.flow[:, 0], lessons.flow[:, 1]) * lessons.visible
    kept = size.sum((1, 2), dtype=np.float32) <= FAR_PX * lessons.visible.sum((1, 2))
    return Lessons(*(array[kept] for array in lessons))


def charbonnier(estimate: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of sqrt(|error|^2 + 0.01^2) of flows (B, 2, H, W), weight (B, H, W)."""
    error = ((estimate - truth).square().sum(1) + 1e-4).sqrt()
    return (error * weight).sum() / weight.sum().clamp(min=1)


def losses(net: FlowNet, lesson: Lesson, face: Tensor | None, config: FlowTraining) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and the part of it that belongs to the whole flow."""
    flow, nonrigid, coarse = net(lesson.first, lesson.second, face)
    weight = torch.where(lesson.flow.norm(dim=1) > config.moving_px, config.moving_weight, 1.0)
    known, known_nonrigid = lesson.known * weight, lesson.known_nonrigid * weight
    whole = charbonnier(flow, lesson.flow, known)
    loss = whole + config.nonrigid_weight * charbonnier(nonrigid, lesson.nonrigid, known_nonrigid)
    return loss + config.coarse_weight * charbonnier(upsample(coarse, OUT), lesson.flow, known), whole


def train(
    lessons: Lessons, config: FlowTraining, start: FlowNetConfig | FlowNet, checkpoint: Path | None = None
) -> FlowNet:
    """Train FaceFlow on `lessons`; returns the running mean of the weights.

    start: the widths of a new network, or a trained network to continue from, which stays unchanged. checkpoint: a file
    that is written after each epoch. An interrupted training continues from it, and ends with the same weights as an
    uninterrupted one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    lessons = drop_large_motion(lessons)
    if isinstance(start, FlowNet):
        net = copy.deepcopy(start).to(device).train()
    else:
        net = FlowNet(start).to(device)
        standard, _ = next(batches(lessons, replace(config, batch=STANDARD), device))
        net.standardise(standard.first, standard.second)
    mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(config.average), use_buffers=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps = config.epochs * max(1, len(lessons.first) // config.batch)
    warm = min(200, max(1, steps // 10))
    rate = LambdaLR(optimiser, lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps))))
    parts = {"net": net, "mean": mean, "optimiser": optimiser, "rate": rate}
    weights = save({name: value.cpu().contiguous() for name, value in net.state_dict().items()})
    digest = hashlib.sha256(weights).hexdigest()
    made_from = {"training": asdict(config), "start": digest, "pairs": len(lessons.first)}
    key = artefact_key((), made_from, "utils.lab.teachers.train_flow")
    done = load_checkpoint(checkpoint, key, parts) if checkpoint else 0
    began = time.perf_counter()
    for epoch in progress(range(done + 1, config.epochs + 1), "epochs"):
        errors = []
        for lesson, face in prefetched(batches(lessons, config, device)):
            loss, whole = losses(net, lesson, face, config)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            rate.step()
            mean.update_parameters(net)
            errors.append(whole.detach())
        seconds = time.perf_counter() - began
        say(f"epoch {epoch}/{config.epochs}: error {torch.stack(errors).mean():.4f} px, {seconds:.0f} s")
        if checkpoint:
            save_checkpoint(checkpoint, key, epoch, parts)
    return mean.module.eval().cpu()


def save_checkpoint(path: Path, key: str, epoch: int, parts: dict[str, Any]) -> None:
    """Write the state of `parts` and of the random number generators after an epoch of the training with this key."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"key": key, "epoch": epoch, "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, key: str, parts: dict[str, Any]) -> int:
    """Restore what `save_checkpoint` wrote and return its epoch; 0 without a checkpoint of this key."""
    state = path.exists() and torch.load(path, weights_only=True, map_location="cpu")
    if not state or state["key"] != key:
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"][0])
    torch.cuda.set_rng_state_all(state["random"][1:])
    return state["epoch"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=FlowTraining.people)
    parser.add_argument("--epochs", type=int, default=FlowTraining.epochs, help="of the wide course")
    parser.add_argument("--seed", type=int, default=FlowTraining.seed)
    parser.add_argument("--jobs", type=int, default=2, help="workers that render")
    parser.add_argument("--start", type=Path, help="weights to continue from, in place of the plain course")
    parser.add_argument("--out", type=Path, default=FLOW_WEIGHTS, help="file of the weights")
    options = parser.parse_args()
    wide = FlowTraining(people=options.people, epochs=options.epochs, seed=options.seed)
    lessons = make_lessons(wide.people, wide.seed, options.jobs)
    print(f"{len(lessons.first)} pairs of {wide.people} people", flush=True)
    torch.set_num_threads(1)  # the other core makes the lessons; with one thread the sums do not depend on the machine
    if options.start:
        net = load_flow_net(options.start)
        courses = read_artefact(options.start.with_suffix(".json"))["training"]
    else:
        plain = replace(PLAIN, people=options.people, seed=options.seed)
        net, courses = train(lessons, plain, FlowNetConfig(), CHECKPOINTS / "plain.pt"), [asdict(plain)]
    net = train(lessons, wide, net, CHECKPOINTS / "wide.pt")
    write_artefact(options.out, {name: value.contiguous() for name, value in net.state_dict().items()})
    record = {"model": asdict(net.config), "training": [*courses, asdict(wide)]}
    write_artefact(options.out.with_suffix(".json"), record)
    remove(CHECKPOINTS)


if __name__ == "__main__":
    main()
