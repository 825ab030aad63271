"""Facts about a Dask cluster started by the README's two commands: scheduler and workers, each a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils import pipeline
from utils.dataset.samples import Samples
from utils.dataset.tables import CLASSES
from utils.parallel import parallel_map
from utils.train.fit import network_predictor
from utils.train.network import ModelConfig
from utils.train.protocol import cross_validate, grouped_folds
from utils.train.settings import TrainConfig


class Cluster:
    """A scheduler and two workers of one thread on the loopback. No nannies: a worker that is killed stays dead."""

    def __init__(self, place: Path) -> None:
        where = place / "scheduler.json"
        self.place, self.file = place, ["--scheduler-file", str(where)]
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        wait_for(where.exists)
        self.address = json.loads(where.read_text())["address"]
        self.workers = []
        self.refill()

    def refill(self) -> None:
        """Two live workers, in the place of those that were killed."""
        alive = [worker for worker in self.workers if worker.poll() is None]
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.place))
        self.workers = alive + [self._start("worker", *options) for _ in range(2 - len(alive))]
        self.wait_for_workers(2)

    def wait_for_workers(self, count: int) -> None:
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            wait_for(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == count)

    def _start(self, *words: str) -> subprocess.Popen:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([sys.executable, "-m", "dask", *words, *self.file], **quiet)

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.terminate()
            process.wait()


def wait_for(fact, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


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


def kill_when(fact, worker: subprocess.Popen) -> threading.Thread:
    """SIGKILL for the worker as soon as the fact holds, as a machine that is switched off."""

    def watch() -> None:
        wait_for(fact)
        worker.send_signal(signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_worker_killed_while_features_are_made_leaves_the_features_of_a_serial_run(
    cluster, over_cluster, tiny_run, capsys
):
    config, data = over_cluster, tiny_run.data
    pipeline.render_all(config, data)
    assert contents(config.work_root) == {
        name: value for name, value in contents(tiny_run.config.work_root).items() if name.startswith("views")
    }
    clips, made = len(pipeline.jobs_of(config, data)), config.work_root / "features"
    begun = []

    def halfway() -> bool:
        begun[:] = made.glob("t*/*.npz")
        return len(begun) >= clips // 3

    killer = kill_when(halfway, victim := cluster.workers[0])
    moments = pipeline.extract_all(config, data)
    killer.join()
    assert victim.wait() == -signal.SIGKILL and len(begun) < clips
    assert moments.equals(tiny_run.moments)
    assert contents(config.work_root) == contents(tiny_run.config.work_root)
    assert f"apex and features {clips}/{clips}" in capsys.readouterr().err


def test_the_last_worker_does_the_work_and_not_the_process_that_asked(cluster):
    cluster.refill()
    cluster.workers[0].kill()
    cluster.wait_for_workers(1)
    assert parallel_map(os.readlink, ["/proc/self"] * 3, scheduler=cluster.address) == [str(cluster.workers[1].pid)] * 3


def test_folds_trained_on_the_cluster_predict_what_a_plain_loop_predicts(over_cluster):
    rng = np.random.default_rng(0)
    ids, subjects = [f"c{i}" for i in range(48)], [f"s{i % 6}" for i in range(48)]
    samples = Samples(rng.normal(size=(48, 2, 2, 3, 28, 28)), rng.random((48, 5)) < 0.4, ids, subjects, CLASSES)
    predictor = network_predictor(ModelConfig(), TrainConfig(epochs=1, device="cpu"))
    folds = grouped_folds(samples.y, samples.subjects, 2)
    here, there = (cross_validate(samples, predictor, folds, (0,), jobs, inner_folds=2) for jobs in (1, 2))
    np.testing.assert_allclose(there.probability, here.probability, atol=1e-4)
