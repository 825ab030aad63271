"""Facts about a Dask cluster that the two commands of the README start: a scheduler, and workers as processes."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from utils import pipeline
from utils.artefacts import remove_leftovers
from utils.evaluate.protocol import cross_validate, grouped_folds
from utils.lab.bench import cluster as processes
from utils.lab.bench.cluster import Cluster, end, wait_for
from utils.parallel import parallel_map
from utils.train.fit import network_estimator
from utils.train.network import ModelConfig
from utils.train.samples import CLASSES, Samples
from utils.train.settings import TrainConfig


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster"), 2, nanny=False) as cluster:
        yield cluster


@pytest.fixture
def cluster(running, monkeypatch):
    """A cluster of two workers, whose scheduler is in the environment."""
    running.refill()
    monkeypatch.setenv("DASK_SCHEDULER", running.address)
    return running


def contents(folder: Path, first: str = "") -> dict[str, bytes]:
    """The bytes of all artefacts below a folder by relative path, if the path begins with `first`."""
    files = [path for path in folder.rglob("*") if path.suffix in (".npz", ".csv")]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if name.startswith(first)}


@contextmanager
def killed_when(fact, victim: subprocess.Popen, survivor: subprocess.Popen):
    """A context that kills the victim as soon as the fact is true, as if its machine was switched off.

    Until then the survivor is frozen, so that it cannot finish its items before.
    """
    survivor.send_signal(signal.SIGSTOP)
    left = threading.Event()

    def watch() -> None:
        try:
            wait_for(lambda: fact() or left.is_set())
        finally:
            victim.kill()
            survivor.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def test_features_are_those_of_a_serial_run_although_a_worker_was_killed(cluster, tiny_run, tmp_path, capsys):
    config, data = replace(tiny_run.config, work=str(tmp_path), jobs=2), tiny_run.data
    pipeline.render_all(config, data)
    assert contents(tmp_path) == contents(tiny_run.config.work_root, "views")
    clips, made = len(pipeline.jobs_of(config, data)), []

    def begun() -> bool:
        made[:] = (tmp_path / "features").glob("t*/*.npz")
        return len(made) >= clips // 3

    victim, survivor = cluster.workers
    with killed_when(begun, victim, survivor):
        moments = pipeline.extract_all(config, data)
    assert victim.wait(60) == -signal.SIGKILL and clips // 3 <= len(made) < clips
    assert moments.equals(tiny_run.moments)
    remove_leftovers(tmp_path)  # as a run does, since the victim may have been writing a file
    assert contents(tmp_path) == contents(tiny_run.config.work_root)
    assert f"apex and features: {clips} of {clips}" in capsys.readouterr().err


def test_the_last_worker_computes_all_items(cluster):
    cluster.workers[0].kill()
    cluster.wait_for_workers(1)
    assert parallel_map(os.readlink, ["/proc/self"] * 3, n_jobs=2) == [str(cluster.workers[1].pid)] * 3


def test_networks_trained_on_the_cluster_predict_as_those_trained_in_a_loop(cluster):
    rng = np.random.default_rng(0)
    ids, subjects = [f"c{i}" for i in range(48)], [f"s{i % 6}" for i in range(48)]
    samples = Samples(rng.normal(size=(48, 2, 2, 3, 28, 28)), rng.random((48, 5)) < 0.4, ids, subjects, CLASSES)
    estimator = network_estimator(ModelConfig(), TrainConfig(epochs=1, device="cpu"))
    folds = grouped_folds(samples.y, samples.subjects, 2)
    here, there = (cross_validate(samples, estimator, folds, (0,), jobs, inner_folds=2) for jobs in (1, 2))
    np.testing.assert_allclose(there.probability, here.probability, atol=1e-4)


# Start and end


def test_a_scheduler_that_ends_at_once_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Cluster, "_hire", lambda self: None)
    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="scheduler ended with 1. Remedy"):
        Cluster(tmp_path, 1).__enter__()


def test_a_cluster_that_fails_to_start_leaves_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(Cluster, "_announced", lambda self: pytest.fail("no address"))
    with pytest.raises(pytest.fail.Exception), (cluster := Cluster(tmp_path, 1)):
        pass
    assert len(cluster.started) == 2 and all(process.poll() is not None for process in cluster.started)


def test_a_process_that_does_not_end_is_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "END_SECONDS", 0.5)
    script = (
        "import pathlib, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path('{}').touch(); input()"
    )
    child, parent = script.format(tmp_path / "child"), script.format(tmp_path / "parent")
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); " + parent
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE)
    try:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        (child,) = psutil.Process(process.pid).children()
    finally:
        end([process])
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not child.is_running(), 60)
