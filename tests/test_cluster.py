"""Facts about a Dask cluster started by the README's two commands: scheduler and workers, each a process of its own."""

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
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster"), 2, nanny=False) as cluster:
        yield cluster


@pytest.fixture
def over_cluster(cluster, tiny, tmp_path, monkeypatch):
    """The tiny root with two jobs, an empty work folder and the cluster's scheduler in the environment."""
    cluster.refill()
    monkeypatch.setenv("DASK_SCHEDULER", cluster.address)
    return replace(tiny, work=str(tmp_path), jobs=2)


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every artefact below a folder, by relative name."""
    files = [path for path in folder.rglob("*") if path.suffix in (".npz", ".csv")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@contextmanager
def killed_when(fact, victim: subprocess.Popen, other: subprocess.Popen):
    """SIGKILL for the victim as soon as the fact holds, as a machine that is switched off. The other worker is frozen
    until then: what was given to it cannot be done before."""
    other.send_signal(signal.SIGSTOP)
    left = threading.Event()

    def watch() -> None:
        try:
            wait_for(lambda: fact() or left.is_set())
        finally:
            victim.kill()
            other.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def test_a_worker_killed_while_features_are_made_leaves_the_features_of_a_serial_run(
    cluster, over_cluster, tiny_run, capsys
):
    config, data = over_cluster, tiny_run.data
    pipeline.render_all(config, data)
    assert contents(config.work_root) == {
        name: value for name, value in contents(tiny_run.config.work_root).items() if name.startswith("views")
    }
    clips, made = len(pipeline.jobs_of(config, data)), []

    def begun() -> bool:
        made[:] = (config.work_root / "features").glob("t*/*.npz")
        return len(made) >= clips // 3

    victim, other = cluster.workers
    with killed_when(begun, victim, other):
        moments = pipeline.extract_all(config, data)
    assert victim.wait(60) == -signal.SIGKILL and clips // 3 <= len(made) < clips
    assert moments.equals(tiny_run.moments)
    remove_leftovers(config.work_root)  # as a run does: the victim may have been writing
    assert contents(config.work_root) == contents(tiny_run.config.work_root)
    assert f"apex and features: {clips} of {clips}" in capsys.readouterr().err


def test_the_last_worker_does_the_work_and_not_the_process_that_asked(cluster):
    cluster.refill()
    cluster.workers[0].kill()
    cluster.wait_for_workers(1)
    assert parallel_map(os.readlink, ["/proc/self"] * 3, scheduler=cluster.address) == [str(cluster.workers[1].pid)] * 3


def test_folds_trained_on_the_cluster_predict_what_a_plain_loop_predicts(over_cluster):
    rng = np.random.default_rng(0)
    ids, subjects = [f"c{i}" for i in range(48)], [f"s{i % 6}" for i in range(48)]
    samples = Samples(rng.normal(size=(48, 2, 2, 3, 28, 28)), rng.random((48, 5)) < 0.4, ids, subjects, CLASSES)
    estimator = network_estimator(ModelConfig(), TrainConfig(epochs=1, device="cpu"))
    folds = grouped_folds(samples.y, samples.subjects, 2)
    here, there = (cross_validate(samples, estimator, folds, (0,), jobs, inner_folds=2) for jobs in (1, 2))
    np.testing.assert_allclose(there.probability, here.probability, atol=1e-4)


# Starting and ending


def test_the_schedulers_file_is_read_only_when_it_is_whole(tmp_path):
    cluster = Cluster(tmp_path, 1)
    cluster.started = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)]
    try:
        for text in ("", '{"address": "tcp://127.'):
            cluster.file.write_text(text)
            assert cluster._announced() is None
        cluster.file.write_text('{"address": "tcp://127.0.0.1:1"}')
        assert cluster._announced() == "tcp://127.0.0.1:1"
    finally:
        end(cluster.started)


def test_a_scheduler_that_ends_at_once_is_told_and_leaves_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(Cluster, "_hire", lambda self: None)
    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="scheduler ended with 1. Remedy"):
        Cluster(tmp_path, 1).__enter__()


def test_what_fails_while_a_cluster_starts_ends_its_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(Cluster, "_announced", lambda self: pytest.fail("no address"))
    with pytest.raises(pytest.fail.Exception), (cluster := Cluster(tmp_path, 1)):
        pass
    assert len(cluster.started) == 2 and all(process.poll() is not None for process in cluster.started)


def test_a_process_that_does_not_end_is_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "END_SECONDS", 0.5)
    child = "import pathlib, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path('{}').touch(); input()"
    deaf = child.format(tmp_path / "child"), child.format(tmp_path / "parent")
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf[0]!r}]); " + deaf[1]
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE)
    try:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        (child,) = psutil.Process(process.pid).children()
    finally:
        end([process])
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not child.is_running(), 60)


def test_workers_are_ended_before_their_scheduler(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(processes, "end", told.extend)
    cluster = Cluster(tmp_path, 2)
    cluster.started = ["scheduler", "worker", "another worker"]
    cluster.__exit__()
    assert told == ["worker", "another worker", "scheduler"]


def test_waiting_for_what_never_comes_ends():
    with pytest.raises(TimeoutError, match="in vain"):
        wait_for(lambda: None, 0.05)
