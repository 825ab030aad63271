"""Small data for tests: a tiny synthetic data root, a dome in place of a face, clips without pictures."""

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from utils.synthetic import data_root as synthetic
from utils.synthetic import performance
from utils.synthetic.expressions import Course
from utils.train.samples import Samples

# Three of every class, so that three subjects can share them fairly.
TINY_LABEL_SETS = {("Positive", "Surprise"): 3, ("Negative", "Repression"): 3, ("Others",): 3}


def make_root(config):
    """The synthetic data root of a configuration."""
    return synthetic.make_dataset(config.data_root, **config.synthetic, jobs=config.jobs)


def plan_of(config):
    """The plan of its clips."""
    return synthetic.plan_clips(config.clip_table, config.n_subjects, config.n_test_subjects, config.data_seed)


def refusing(function):
    """A function of the same code, and so of the same key, that must not be called."""

    def refuse(*_, **__):
        raise AssertionError(f"{function.__name__} was called")

    refuse.__module__ = function.__module__
    return refuse


@contextmanager
def tiny_clips():
    """Within it the smoke table has nine clips of six frames: rendering is what costs time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SMOKE_LABEL_SETS", TINY_LABEL_SETS)
        patch.setattr(performance, "sample_course", lambda rng: Course(0, 2, 5, 6))
        yield


def make_dome(side: int = 41):
    """A face-sized dome: vertices (V, 3) mm, faces (F, 3) and uv (V, 2) as seen from the front."""
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side)), -1).reshape(-1, 2)
    vertices = np.column_stack([grid * 70, 40 * (1 - (grid**2).sum(1) / 2)]).astype(np.float32)
    index = np.arange(side * side).reshape(side, side)
    corners = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    a, b, c, d = (corner.ravel() for corner in corners)
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32)
    return SimpleNamespace(vertices=vertices, faces=faces, uv=(grid / 2 + 0.5).astype(np.float32))


def make_samples(n: int = 120, subjects: int = 12, seed: int = 0) -> Samples:
    """Clips whose mean u, v, magnitude show the labels, with noise; label c is rare."""
    rng = np.random.default_rng(seed)
    y = rng.random((n, 3)) < (0.5, 0.3, 0.12)
    x = rng.normal(size=(n, 1, 1, 3, 8, 8)) + (y * 0.3)[:, None, None, :, None, None]
    return Samples(
        x,
        y,
        [f"c{i:03d}" for i in range(n)],
        [f"s{i:02d}" for i in rng.integers(0, subjects, n)],
        ("a", "b", "c"),
    )


def write_shared_images(folder: Path, clips: int = 24, size: int = 28) -> tuple[Path, Path]:
    """Flow images in the field's layout: class 0 moves down, class 1 up; two databases of three subjects."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(clips):
        label, dataset, subject = i // 2 % 2, ("first", "second")[i % 2], f"s{i // 4 % 3}"
        image = rng.integers(100, 140, (size, size, 3)).astype(np.uint8)
        image[: size // 2, :, 1] += np.uint8(80 if label == 0 else 0)
        image[size // 2 :, :, 1] += np.uint8(0 if label == 0 else 80)
        name = f"clip{i:02d}_{dataset}"
        cv2.imwrite(str(folder / "images" / f"{name} .png"), image[:, :, ::-1])
        rows.append((dataset, subject, label, f"{name}.jpg " if i % 3 else name))
    pd.DataFrame(rows, columns=["dataset", "sub", "label", "imagename"]).to_csv(folder / "labels.csv", index=False)
    return folder / "images", folder / "labels.csv"
