"""Teaches FaceFlow (`utils.flow.faceflow_net`) on the rendered pairs of `flow_lessons`, and writes its weights.

python -m utils.lab.teachers.train_flow [--people 480] [--epochs 8] [--seed 0] [--jobs 2] [--start FILE] [--out FILE]

There are two courses: the first on the faces as they are rendered, or nearly, since a network that sees all at once
learns motion slowly; the second on lessons as wide as life. What was rendered and learnt is kept in artefacts, so that
a training that was cut off goes on where it was.
"""

import argparse
import copy
import hashlib
import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.artefacts import artefact_key, atomic_path, read_artefact, remove, write_artefact
from utils.flow.faceflow import FLOW_WEIGHTS, load_flow_net
from utils.flow.faceflow_net import OUT, SIZE, FlowNet, FlowNetConfig, backward_warp, upsample
from utils.lab.teachers.flow_degradation import Degradation, Lesson, degrade
from utils.lab.teachers.flow_lessons import LESSONS, Lessons, make_lessons
from utils.progress import progress, say

CHECKPOINTS = LESSONS.parent / "flow_training"
STANDARD = 256  # pairs from which the networks' input is standardised
PREFETCHING = "prefetching of lessons"  # name of the thread
FAR_PX = 4.0  # mean motion beyond which a pair teaches nothing: a shift of the whole picture is taken out before


@dataclass(frozen=True)
class FlowTraining:
    """How FaceFlow is trained in a course, the second one as it stands."""

    people: int = 480
    epochs: int = 8
    batch: int = 12
    lr: float = 1e-3
    weight_decay: float = 1e-4
    average: float = 0.999  # decay of the running mean of the weights, which is what is kept
    moving_px: float = 0.1  # where the truth moves farther,
    moving_weight: float = 2.5  # an error counts so many times
    nonrigid_weight: float = 1.0  # of the flow without the head's rigid motion, against the whole flow
    coarse_weight: float = 0.3  # of the first stage's flow
    foreign: float = 0.1  # share of the pairs that are replaced by pictures moved as no face moves
    masked: float = 0.5  # share of the batches whose head's motion is fitted where it is known, as with a face's mask
    degradation: Degradation = Degradation()
    seed: int = 0


PLAIN = FlowTraining(
    epochs=16,
    lr=2e-3,
    masked=0.0,
    degradation=Degradation(
        moved=0.1,
        detailed=0.0,
        softened=0.1,
        grounded=0.0,
        cropped=0.0,
        small=0.0,
        contrast=(0.4, 1.5),
        noise=(0.5, 4.0),
        coded=0.0,
    ),
)


# Training ---------------------------------------------------------------------------------------------------------


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


def batches(lessons: Lessons, config: FlowTraining, device: torch.device) -> Iterator[tuple[Lesson, Tensor | None]]:
    """One epoch in random order, mirrored, degraded and replaced by foreign pairs at random; with each batch the face
    (B, 1, SIZE, SIZE) over which the head's motion is fitted, or None. All that is random is drawn here."""
    steps = max(1, len(lessons.first) // config.batch)
    for index in torch.randperm(len(lessons.first)).tensor_split(steps):
        parts = (lessons.first, lessons.second, lessons.flow, lessons.nonrigid, lessons.visible)
        chosen = [torch.from_numpy(part[index.numpy()]).to(device) for part in parts]
        first, second, visible = (part[:, None].float() for part in (chosen[0], chosen[1], chosen[4]))
        which = torch.rand(len(index), device=device) < 0.5
        first, second, visible = (mirrored(part, which, False) for part in (first, second, visible))
        flow, nonrigid = (mirrored(part.float(), which, True) for part in chosen[2:4])
        lesson = degrade(Lesson(first, second, flow, nonrigid, visible[:, 0], visible[:, 0]), config.degradation)
        lesson = with_foreign_pairs(lesson, config.foreign)
        masked = torch.rand(()) < config.masked
        yield lesson, upsample(lesson.known_nonrigid[:, None], SIZE) if masked else None


def prefetched(items: Iterator[Any], ahead: int = 2) -> Iterator[Any]:
    """The same, each made by another thread while those before it are used: two cores have a use for it, and a GPU."""
    ready: queue.Queue = queue.Queue(ahead)
    unwanted = threading.Event()
    threading.Thread(target=_fill, args=(items, ready, unwanted), name=PREFETCHING, daemon=True).start()
    try:
        while not isinstance(item := ready.get(), Exception):
            yield item
        if not isinstance(item, StopIteration):
            raise item
    finally:
        unwanted.set()


def _fill(items: Iterator[Any], ready: queue.Queue, unwanted: threading.Event) -> None:
    """Put all items into a queue, and then the error by which they ended, StopIteration where there was none."""

    def put(item: Any) -> None:
        while not unwanted.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                pass

    try:
        for item in items:
            put(item)
            if unwanted.is_set():
                return
        put(StopIteration())
    except Exception as error:  # it is raised again where the items are taken
        put(error)


def with_foreign_pairs(lesson: Lesson, share: float) -> Lesson:
    """The lesson with a share of its pairs replaced, all of whose flow is known, and nothing of a head."""
    which = torch.rand(len(lesson.first), device=lesson.first.device) < share
    first, second, flow = foreign_pairs(lesson.first)
    frames, maps = which[:, None, None, None], which[:, None, None]
    return Lesson(
        torch.where(frames, first, lesson.first),
        torch.where(frames, second, lesson.second),
        torch.where(frames, flow, lesson.flow),
        lesson.nonrigid,
        torch.where(maps, torch.ones_like(lesson.known), lesson.known),
        torch.where(maps, torch.zeros_like(lesson.known), lesson.known_nonrigid),
    )


def drop_large_motion(lessons: Lessons) -> Lessons:
    """The pairs that move by FAR_PX or less on average."""
    size = np.hypot(lessons.flow[:, 0], lessons.flow[:, 1]) * lessons.visible
    kept = size.sum((1, 2), dtype=np.float32) <= FAR_PX * lessons.visible.sum((1, 2))
    return Lessons(**{field.name: getattr(lessons, field.name)[kept] for field in fields(lessons)})


def train(
    lessons: Lessons, config: FlowTraining, start: FlowNetConfig | FlowNet, checkpoint: Path | None = None
) -> FlowNet:
    """FaceFlow taught by `lessons`; the running mean of its weights over the last steps is returned.

    start: the widths of a new network, or a network that has learnt something and is left as it is. checkpoint: a file
    that is written after each epoch, from which a training that was cut off goes on; what comes of it is what comes of
    one that was not.
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
    mean = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.average), use_buffers=True
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps = config.epochs * max(1, len(lessons.first) // config.batch)
    warm = min(200, max(1, steps // 10))
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    parts = {"net": net, "mean": mean, "optimiser": optimiser, "rate": rate}
    made_from = {"training": asdict(config), "start": state_digest(net), "pairs": len(lessons.first)}
    key = artefact_key((), made_from, "utils.lab.teachers.train_flow")
    done = load_checkpoint(checkpoint, key, parts) if checkpoint else 0
    began = time.perf_counter()
    for epoch in progress(range(done + 1, config.epochs + 1), "epochs"):
        errors = []
        for lesson, face in prefetched(batches(lessons, config, device)):
            found, found_nonrigid, coarse = net(lesson.first, lesson.second, face)
            weight = torch.where(lesson.flow.norm(dim=1) > config.moving_px, config.moving_weight, 1.0)
            known, known_nonrigid = lesson.known * weight, lesson.known_nonrigid * weight
            whole = charbonnier(found, lesson.flow, known)
            loss = whole + config.nonrigid_weight * charbonnier(found_nonrigid, lesson.nonrigid, known_nonrigid)
            loss = loss + config.coarse_weight * charbonnier(upsample(coarse, OUT), lesson.flow, known)
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


# Files ------------------------------------------------------------------------------------------------------------


def save_checkpoint(path: Path, key: str, epoch: int, parts: dict[str, Any]) -> None:
    """Write the state of all that has one, and of the random numbers, after an epoch of the training with this key."""
    state = {name: part.state_dict() for name, part in parts.items()}
    random = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
    with atomic_path(path) as temporary:
        torch.save(state | {"key": key, "epoch": epoch, "random": random}, temporary)


def load_checkpoint(path: Path, key: str, parts: dict[str, Any]) -> int:
    """Bring all to the state of `save_checkpoint`; returns its epoch, 0 where none of this key is kept."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    if state["key"] != key:
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"][0])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["random"][1:])
    return state["epoch"]


def state_digest(net: FlowNet) -> str:
    """SHA-256 of all of a network's weights."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_flow_net(net: FlowNet, courses: list[dict[str, Any]], weights: Path) -> None:
    """Write the weights, and beside them, as JSON, the courses by which they were made, in their order."""
    write_artefact(weights, {name: value.contiguous() for name, value in net.state_dict().items()})
    write_artefact(weights.with_suffix(".json"), {"model": asdict(net.config), "training": courses})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=FlowTraining.people)
    parser.add_argument("--epochs", type=int, default=FlowTraining.epochs, help="of the wide course")
    parser.add_argument("--seed", type=int, default=FlowTraining.seed)
    parser.add_argument("--jobs", type=int, default=2, help="workers that render")
    parser.add_argument("--start", type=Path, help="weights to go on from by a wide course, in place of the first")
    parser.add_argument("--out", type=Path, default=FLOW_WEIGHTS, help="file of the weights")
    options = parser.parse_args()
    second = FlowTraining(people=options.people, epochs=options.epochs, seed=options.seed)
    lessons = make_lessons(second.people, second.seed, options.jobs)
    print(f"{len(lessons.first)} pairs of {second.people} people", flush=True)
    torch.set_num_threads(1)  # the lessons take the other core; sums, and weights, do not depend on how many there are
    if options.start:
        net = load_flow_net(options.start)
        before = read_artefact(options.start.with_suffix(".json"))["training"]
    else:
        plain = replace(PLAIN, people=options.people, seed=options.seed)
        net, before = train(lessons, plain, FlowNetConfig(), CHECKPOINTS / "plain.pt"), [asdict(plain)]
    net = train(lessons, second, net, CHECKPOINTS / "wide.pt")
    save_flow_net(net, [*before, asdict(second)], options.out)
    remove(CHECKPOINTS)


if __name__ == "__main__":
    main()
