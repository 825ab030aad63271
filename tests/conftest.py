"""Fixtures for all tests: a tiny data root, a person, a smooth texture, and a time limit."""

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

# One test process runs on each core. More threads, here or in a process that a test starts, would only slow it down.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ[HEADLESS] = "1"  # the kernels that tests start have no front end, as in a run
limit_threads()


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=1, help="read this many times the default number of damaged files")


@pytest.fixture
def survives(request, record_property, tmp_path):
    """`assert_survives` in the folder of the test. `survives.many(n)` multiplies n by the option --fuzz."""

    def run(read, file_name, cases):
        counts = assert_survives(read, file_name, cases, tmp_path)
        record_property("endings", (request.node.name, counts))
        return counts

    run.many = lambda count: count * request.config.getoption("--fuzz")
    return run


def pytest_terminal_summary(terminalreporter, config):
    """With --fuzz, print how many damaged files each test read and refused."""
    reports = terminalreporter.getreports("passed") if config.getoption("--fuzz") > 1 else []
    counts = {
        test: Counter(endings)
        for report in reports
        for name, (test, endings) in getattr(report, "user_properties", [])
        if name == "endings"
    }
    if counts:
        terminalreporter.section("damaged files")
        for test, endings in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
            terminalreporter.write_line(f"{test}: {endings['read']} read, {endings['refused']} refused")


@pytest.fixture
def at_most():
    """A context for a call that might never return: it raises TimeoutError after the given number of seconds."""

    def stop(*_):
        raise TimeoutError("not done in time")

    @contextmanager
    def limit(seconds: int):
        before = signal.signal(signal.SIGALRM, stop)
        signal.alarm(seconds)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    return limit


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Every run of a test draws the same random numbers from torch."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The configuration of a synthetic data root: 3 subjects (1 for the test), 9 clips of 6 frames."""
    folder = tmp_path_factory.mktemp("tiny")
    places = {"data": str(folder / "data"), "work": str(folder / "work")}
    config = load_config("smoke", **places, n_subjects=3, n_test_subjects=1, jobs=1)
    with tiny_clips():
        make_root(config)
    return config


@pytest.fixture(scope="session")
def tiny_run(tiny):
    """The tiny root after stages 01 and 02: config, data, manifest and moments."""
    data = pipeline.load_data(tiny)
    manifest = pipeline.render_all(tiny, data)
    moments = pipeline.extract_all(tiny, data)
    return SimpleNamespace(config=tiny, data=data, manifest=manifest, moments=moments)


@pytest.fixture(scope="session")
def person():
    """One identity, its skin, and the seed of its light."""
    identity, rng = synthetic.make_identity(7, "S01")
    return SimpleNamespace(identity=identity, albedo=paint_skin(identity, rng), light=5)


@pytest.fixture(scope="session")
def speckle():
    """A smooth random texture (256, 256, 3) uint8 with detail at several scales, which optical flow can follow."""
    rng = np.random.default_rng(0)
    layers = [cv2.GaussianBlur(rng.standard_normal((256, 256, 3)), (0, 0), sigma) * sigma for sigma in (1.5, 3, 6)]
    return np.clip(128 + 60 * sum(layers), 0, 255).astype(np.uint8)


@pytest.fixture
def dome():
    return make_dome()


@pytest.fixture
def dome_clip(tmp_path, dome, speckle):
    """A function that writes a clip of the textured dome from its vertices (T, V, 3), and returns its folder."""

    def write(vertices: np.ndarray, texture: np.ndarray = speckle, name: str = "S01_001"):
        return write_clip(tmp_path / name, vertices, dome.faces, dome.uv, 60.0, [texture] * len(vertices))

    return write
