"""The flow network's lessons beside photographs of real faces: pictures, texture spectra, and how noise hangs together.

    python -m utils.lab.teachers.lesson_figure [--faces DIR] [--clips DIR] [--out artefacts/bench/lessons.png]

Lessons are pairs of people whom no network saw, before and after `utils.lab.teachers.flow_degradation`. Without
`--faces` there is the one photograph that scikit-image ships. Noise of real cameras is that of neighbouring frames of
`--clips`.
"""

import argparse
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from utils.dataset.folders import entries
from utils.dataset.readers import open_sequence
from utils.flow.faceflow_net import SIZE
from utils.lab.bench.photographs import Portrait, portraits, sampled
from utils.lab.teachers.flow_degradation import Degradation, Lesson, degrade
from utils.lab.teachers.flow_lessons import pairs_of_person
from utils.paths import ROOT
from utils.render.crops import crop_image
from utils.render.pictures import detect_box
from utils.report.figures.common import save_figure

SEED, PEOPLE = 77, 4  # of lessons that no network was taught by
SHOWN = 6  # pictures in a row
PART = 128  # px of the middle of a face, of which spectra are taken
LAGS = 7


def lessons_before_and_after(seed: int = SEED, people: int = PEOPLE) -> dict[str, np.ndarray]:
    """Frames (N, S, S) of lessons as they are rendered and as they are taught, and the difference of two taught frames
    of a face that stands still."""
    parts = [pairs_of_person(seed, person) for person in range(people)]
    parts = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    first, second = (torch.from_numpy(parts[name])[:, None].float() for name in ("first", "second"))
    flow, nonrigid = (torch.from_numpy(parts[name]).float() for name in ("flow", "nonrigid"))
    known = torch.from_numpy(parts["visible"]).float()
    torch.manual_seed(seed)
    taught = degrade(Lesson(first, second, flow, nonrigid, known, known), Degradation())
    still = Lesson(second, second, 0 * flow, 0 * nonrigid, known, known)
    still = degrade(still, Degradation(moved=0.0, cropped=0.0, lit=0.0))
    return {
        "rendered": parts["first"].astype(np.float32),
        "taught": taught.first[:, 0].numpy(),
        "noise": (still.second - still.first)[:, 0].numpy(),
    }


def photographs(people: list[Portrait]) -> np.ndarray:
    """Frames (N, S, S) of photographs, as the benchmark samples them."""
    nothing = np.zeros((SIZE, SIZE, 2), np.float32)
    return np.stack([sampled(one, nothing, np.zeros(2), 1.0) for one in people])


def clip_noise(folder: Path) -> np.ndarray:
    """Differences (N, S, S) of the first two frames of each clip in a folder that shows a face."""
    found = []
    for path in entries(folder).values():
        sequence = open_sequence(path)
        if box := detect_box(sequence, 0, 1):
            pair = [crop_image(sequence.texture(t), box, SIZE) for t in (0, 1)]
            one, two = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in pair)
            found.append(two - one)
    return np.array(found).reshape(-1, SIZE, SIZE)


def spectrum(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cycles a px, and the mean amplitude there, in any direction, of the middle of frames (N, S, S)."""
    start = (SIZE - PART) // 2
    middle = frames[:, start : start + PART, start : start + PART]
    window = np.outer(*[np.hanning(PART)] * 2)
    waves = np.fft.fft2((middle - middle.mean((1, 2), keepdims=True)) * window)
    power = np.square(np.abs(waves)).mean(0)
    steps = np.fft.fftfreq(PART) * PART
    ring = np.rint(np.hypot(steps, steps[:, None])).astype(int)
    mean = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    rings = np.arange(1, PART // 2)
    return rings / PART, np.sqrt(mean[rings]) / np.sqrt(np.square(window).sum())


def correlation(noise: np.ndarray) -> np.ndarray:
    """Correlation of noise (N, S, S) with itself 0 to LAGS - 1 px beside, slow changes left out."""
    fine = np.stack([one - cv2.GaussianBlur(one, (0, 0), 6) for one in noise])
    whole = np.square(fine).mean()
    return np.array([(fine[..., : SIZE - lag] * fine[..., lag:]).mean() / whole for lag in range(LAGS)])


def draw(lessons: dict[str, np.ndarray], photos: np.ndarray, real_noise: np.ndarray) -> Figure:
    """Three rows of pictures, then both curves."""
    figure = plt.figure(figsize=(1.7 * SHOWN, 8.6), layout="constrained")
    pictures, curves = figure.subfigures(2, 1, height_ratios=(3, 2.1))
    rows = {"rendered": lessons["rendered"], "taught": lessons["taught"], "photographs": photos}
    for row, (name, frames) in zip(pictures.subplots(3, SHOWN), rows.items(), strict=True):
        for axis in row:
            axis.set(xticks=[], yticks=[])
        for axis, frame in zip(row, frames[:: max(1, len(frames) // SHOWN)], strict=False):
            axis.imshow(frame, cmap="gray", vmin=0, vmax=255)
        row[0].set_ylabel(name)
    left, right = curves.subplots(1, 2)
    for name, frames in rows.items():
        left.loglog(*spectrum(frames), label=f"{name} ({len(frames)})")
    left.set(xlabel="cycles a px", ylabel="grey levels", title="texture, middle of the face")
    noises = {"lessons": lessons["noise"]} | ({"clips": real_noise} if len(real_noise) else {})
    for name, noise in noises.items():
        right.plot(correlation(noise), marker="o", label=f"{name} ({len(noise)})")
    right.set(xlabel="px beside", ylabel="correlation", title="difference of two frames of a still face")
    for axis in (left, right):
        axis.legend(fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faces", type=Path, help="folder of face photographs: <person>/*.jpg")
    parser.add_argument("--clips", type=Path, help="folder of clips of one face each: frames, or videos")
    parser.add_argument("--out", type=Path, default=ROOT / "artefacts" / "bench" / "lessons.png")
    options = parser.parse_args()
    people = portraits(options.faces)
    noise = clip_noise(options.clips) if options.clips else np.zeros((0, SIZE, SIZE), np.float32)
    print(save_figure(draw(lessons_before_and_after(), photographs(people), noise), options.out))


if __name__ == "__main__":
    main()
