"""Small data for tests: a tiny synthetic data root, a dome in place of a face, samples without pictures."""

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.mesh_files import grid_faces

from utils.dataset.images import write_image
from utils.synthetic import data_root as synthetic
from utils.synthetic import performance
from utils.synthetic.expressions import Course
from utils.train.samples import Samples

# Three clips of each set, so that three subjects can have one each.
TINY_LABEL_SETS = {("Positive", "Surprise"): 3, ("Negative", "Repression"): 3, ("Others",): 3}


def make_root(config):
    """Generate the synthetic data root of a configuration."""
    return synthetic.make_dataset(config.data_root, **config.synthetic, jobs=config.jobs)


def plan_of(config):
    """The plan of the clips of a configuration's synthetic data root."""
    return synthetic.plan_clips(config.clip_table, config.n_subjects, config.n_test_subjects, config.data_seed)


def refusing(function):
    """A stand-in for a function. It has the same code hash, and so the same keys, but it fails when it is called."""

    def refuse(*_, **__):
        raise AssertionError(f"{function.__name__} was called")

    refuse.__module__ = function.__module__
    return refuse


@contextmanager
def tiny_clips():
    """A context in which the smoke table has nine clips of six frames, which are quickly rendered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SMOKE_LABEL_SETS", TINY_LABEL_SETS)
        patch.setattr(performance, "sample_course", lambda rng: Course(0, 2, 5, 6))
        yield


def make_dome():
    """A dome of a face's size: vertices (V, 3) mm, faces (F, 3), and uv (V, 2) as seen from the front."""
    side = 41  # vertices
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side)), -1).reshape(-1, 2)
    vertices = np.column_stack([grid * 70, 40 * (1 - (grid**2).sum(1) / 2)]).astype(np.float32)
    return SimpleNamespace(vertices=vertices, faces=grid_faces(side), uv=(grid / 2 + 0.5).astype(np.float32))


def make_samples(n: int = 120, subjects: int = 12) -> Samples:
    """Samples of three classes. Each class raises the mean of one channel; the last class is rare."""
    rng = np.random.default_rng(0)
    y = rng.random((n, 3)) < (0.5, 0.3, 0.12)
    x = rng.normal(size=(n, 1, 1, 3, 8, 8)) + (y * 0.3)[:, None, None, :, None, None]
    ids = [f"c{i:03d}" for i in range(n)]
    return Samples(x, y, ids, [f"s{i:02d}" for i in rng.integers(0, subjects, n)], ("a", "b", "c"))


def write_shared_images(folder: Path, clips: int = 24, size: int = 28) -> tuple[Path, Path]:
    """Write flow images as the field shares them, of two databases of three subjects; returns folder and label table.

    Class 0 moves in the upper half of the image, class 1 in the lower half.
    """
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(clips):
        label, dataset, subject = i // 2 % 2, ("first", "second")[i % 2], f"s{i // 4 % 3}"
        image = rng.integers(100, 140, (size, size, 3)).astype(np.uint8)
        moving = slice(None, size // 2) if label == 0 else slice(size // 2, None)
        image[moving, :, 1] += np.uint8(80)
        name = f"clip{i:02d}_{dataset}"
        write_image(folder / "images" / f"{name} .png", image)
        rows.append((dataset, subject, label, f"{name}.jpg " if i % 3 else name))
    pd.DataFrame(rows, columns=["dataset", "sub", "label", "imagename"]).to_csv(folder / "labels.csv", index=False)
    return folder / "images", folder / "labels.csv"
