"""Figure of lessons beside photographs of real faces: pictures, texture spectra and noise correlation.

    python -m utils.lab.teachers.lesson_figure [--faces DIR] [--clips DIR] [--out artefacts/bench/lessons.png]

The lessons show people that no network was trained on, before and after `flow_degradation`. Without `--faces` the only
photograph is the portrait of scikit-image. The noise of real cameras comes from neighbouring frames of `--clips`.
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
from utils.lab.bench.photographs import portraits, sampled
from utils.lab.bench.real_clips import grey_frames
from utils.lab.teachers.flow_degradation import Degradation, Lesson, degrade
from utils.lab.teachers.flow_lessons import Lessons, pairs_of_person
from utils.paths import ROOT
from utils.report.figures.common import save_figure

SEED, PEOPLE = 77, 4  # a seed that no training uses
SHOWN = 6  # pictures in a row
PART = 128  # px of the middle of a face, for spectra
LAGS = 7


def lessons_before_and_after(people: int = PEOPLE) -> dict[str, np.ndarray]:
    """First frames (N, S, S) of lessons, rendered and degraded, and differences of degraded frames of still faces."""
    pairs = [pairs_of_person(SEED, person) for person in range(people)]
    rendered = (np.concatenate([pair[name] for pair in pairs]) for name in Lessons._fields)
    first, second, flow, nonrigid, known = (torch.from_numpy(array).float() for array in rendered)
    lesson = Lesson(first[:, None], second[:, None], flow, nonrigid, known, known)
    torch.manual_seed(SEED)
    degraded = degrade(lesson, Degradation())
    still = lesson._replace(first=lesson.second, flow=0 * flow, nonrigid=0 * nonrigid)
    still = degrade(still, Degradation(moved=0.0, cropped=0.0, lit=0.0))
    noise = (still.second - still.first)[:, 0]
    return {"rendered": first.numpy(), "degraded": degraded.first[:, 0].numpy(), "noise": noise.numpy()}


def clip_noise(folder: Path) -> np.ndarray:
    """Differences (N, S, S) of the first two frames of each clip in a folder that shows a face."""
    differences = []
    for path in entries(folder).values():
        if frames := grey_frames(open_sequence(path), (0, 1)):
            differences.append(np.float32(frames[1]) - np.float32(frames[0]))
    return np.array(differences).reshape(-1, SIZE, SIZE)


def spectrum(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in cycles per px, and the mean amplitude over all directions, in the middle of frames (N, S, S)."""
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
    """Correlation of noise (N, S, S) with itself at a distance of 0 to LAGS - 1 px, without slow changes."""
    fine = np.stack([frame - cv2.GaussianBlur(frame, (0, 0), 6) for frame in noise])
    power = np.square(fine).mean()
    return np.array([(fine[..., : SIZE - lag] * fine[..., lag:]).mean() / power for lag in range(LAGS)])


def draw(lessons: dict[str, np.ndarray], photos: np.ndarray, real_noise: np.ndarray) -> Figure:
    """Three rows of pictures, then the spectra and the noise correlations."""
    figure = plt.figure(figsize=(1.7 * SHOWN, 8.6), layout="constrained")
    pictures, curves = figure.subfigures(2, 1, height_ratios=(3, 2.1))
    rows = {"rendered": lessons["rendered"], "degraded": lessons["degraded"], "photographs": photos}
    left, right = curves.subplots(1, 2)
    for axes, (name, frames) in zip(pictures.subplots(3, SHOWN), rows.items(), strict=True):
        for axis in axes:
            axis.set(xticks=[], yticks=[])
        for axis, frame in zip(axes, frames[:: max(1, len(frames) // SHOWN)], strict=False):
            axis.imshow(frame, cmap="gray", vmin=0, vmax=255)
        axes[0].set_ylabel(name)
        left.loglog(*spectrum(frames), label=f"{name} ({len(frames)})")
    left.set(xlabel="cycles per px", ylabel="grey levels", title="texture, middle of the face")
    for name, noise in {"lessons": lessons["noise"], "clips": real_noise}.items():
        if len(noise):
            right.plot(correlation(noise), marker="o", label=f"{name} ({len(noise)})")
    right.set(xlabel="distance, px", ylabel="correlation", title="difference of two frames of a still face")
    for axis in (left, right):
        axis.legend(fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faces", type=Path, help="folder of face photographs: <person>/*.jpg")
    parser.add_argument("--clips", type=Path, help="folder of clips of one face each: frames, or videos")
    parser.add_argument("--out", type=Path, default=ROOT / "artefacts" / "bench" / "lessons.png")
    options = parser.parse_args()
    noise = clip_noise(options.clips) if options.clips else np.zeros((0, SIZE, SIZE), np.float32)
    still = np.zeros((SIZE, SIZE, 2), np.float32)
    photos = np.stack([sampled(portrait, still, np.zeros(2), 1.0) for portrait in portraits(options.faces)])
    print(save_figure(draw(lessons_before_and_after(), photos, noise), options.out))


if __name__ == "__main__":
    main()
