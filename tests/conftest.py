"""Shared by the tests: a tiny data root, a person, a smooth texture, and a limit for what must not wait for ever."""

import os
import signal
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers.data import make_dome, make_root, tiny_clips
from helpers.fuzzing import assert_survives

from utils import pipeline
from utils.config import load_config
from utils.dataset.writers import write_clip
from utils.parallel import limit_threads
from utils.progress import HEADLESS
from utils.synthetic import data_root as synthetic
from utils.synthetic.skin import paint_skin

# Tests run side by side, one on each core: more threads, here and in what tests start, would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ[HEADLESS] = "1"  # kernels that tests start have no front end, as those of a run
limit_threads()


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=1, help="how many times as many damaged files as usual")


@pytest.fixture
def survives(request, record_property, tmp_path):
    """`assert_survives` in this test's folder, its endings kept for the summary; `many(n)` scales a number of cases."""

    def run(read, file_name, cases):
        counts = assert_survives(read, file_name, cases, tmp_path)
        record_property("endings", (request.node.name, counts))
        return counts

    run.many = lambda count: count * request.config.getoption("--fuzz")
    return run


def pytest_terminal_summary(terminalreporter, config):
    """How the damaged files ended, where more of them than usual were asked for: in other runs it is one line more."""
    found = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in getattr(report, "user_properties", [])
        if name == "endings"
    ]
    if config.getoption("--fuzz") > 1 and found:
        terminalreporter.section("damaged files")
        for name, counts in sorted(found):
            terminalreporter.write_line(f"{name}: " + ", ".join(f"{n} {ending}" for ending, n in counts.items()))
        total = sum((Counter(counts) for _, counts in found), Counter())
        terminalreporter.write_line(f"all {total.total()}: " + ", ".join(f"{n} {word}" for word, n in total.items()))


@pytest.fixture
def at_most():
    """A context for what might wait for ever: TimeoutError after so many seconds."""

    def late(*_):
        raise TimeoutError("not done in time")

    @contextmanager
    def limit(seconds: int):
        before = signal.signal(signal.SIGALRM, late)
        signal.alarm(seconds)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    return limit


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Every test draws the same numbers in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A synthetic data root: 3 subjects (1 for the test), 9 clips of 6 frames."""
    place = tmp_path_factory.mktemp("tiny")
    config = load_config(
        "smoke", data=str(place / "data"), work=str(place / "work"), n_subjects=3, n_test_subjects=1, jobs=1
    )
    with tiny_clips():
        make_root(config)
    return config


@pytest.fixture(scope="session")
def tiny_run(tiny):
    """The tiny root after the two image stages: config, data, manifest and moments."""
    data = pipeline.load_data(tiny)
    manifest = pipeline.render_all(tiny, data)
    moments = pipeline.extract_all(tiny, data)
    return SimpleNamespace(config=tiny, data=data, manifest=manifest, moments=moments)


@pytest.fixture(scope="session")
def person():
    """One identity, its skin and the seed of its light."""
    identity, rng = synthetic.make_identity(7, "S01")
    return SimpleNamespace(identity=identity, albedo=paint_skin(identity, rng), light=5)


@pytest.fixture(scope="session")
def speckle():
    """Smooth random texture (256, 256, 3) uint8 with detail at several scales, for flow to hold on to."""
    rng = np.random.default_rng(0)
    layers = [cv2.GaussianBlur(rng.standard_normal((256, 256, 3)), (0, 0), sigma) * sigma for sigma in (1.5, 3, 6)]
    return np.clip(128 + 60 * sum(layers), 0, 255).astype(np.uint8)


@pytest.fixture
def dome():
    return make_dome()


@pytest.fixture
def dome_clip(tmp_path, dome, speckle):
    """Write a clip of the textured dome: give its vertices (T, V, 3), get its folder."""

    def write(vertices: np.ndarray, texture: np.ndarray = speckle, name: str = "S01_001"):
        return write_clip(tmp_path / name, vertices, dome.faces, dome.uv, 60.0, [texture] * len(vertices))

    return write
