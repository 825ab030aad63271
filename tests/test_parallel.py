"""Facts about the parallel map with worker processes and with a Dask cluster: order, errors, threads, and clean-up."""

import os
import signal
import subprocess
import sys

import cv2
import psutil
import pytest
import torch
from helpers.processes import ended_process

from utils import parallel
from utils.config import parse_settings
from utils.lab.bench.cluster import wait_for
from utils.parallel import parallel_map, remove_leftovers_of_workers
from utils.paths import ROOT


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture
def over_dask(cluster, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER", cluster.scheduler_address)


@pytest.fixture(params=["processes", "Dask cluster"])
def workers(request):
    """Two workers of either kind, for n_jobs=2."""
    if request.param == "Dask cluster":
        request.getfixturevalue("over_dask")


def last_first(job):
    """Return the number of the item. Item 0 waits for item 1, which another worker must compute meanwhile."""
    number, folder = job
    if number == 0:
        wait_for((folder / "1").exists, 60)
    (folder / str(number)).touch()
    return number


def process(_):
    return os.getpid()


def fail_at_three(x):
    if x == 3:
        raise LookupError("no such clip")
    return x


def threads(_):
    return torch.get_num_threads(), cv2.getNumThreads(), os.environ.get("OMP_NUM_THREADS")


def die_once(job):
    """Kill the worker at the first call for item 2, as if its machine was switched off."""
    number, marker = job
    if number == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_have_the_order_of_the_items_whichever_ends_first(workers, tmp_path):
    assert parallel_map(last_first, [(number, tmp_path) for number in range(6)], 2) == list(range(6))


def test_one_job_runs_in_this_process_and_two_jobs_in_others(workers):
    assert set(parallel_map(process, range(3), n_jobs=1)) == {os.getpid()}
    assert os.getpid() not in parallel_map(process, range(3), n_jobs=2)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_error_keeps_its_type_and_names_the_item(workers, n_jobs):
    with pytest.raises(LookupError, match="no such clip") as caught:
        parallel_map(fail_at_three, range(5), n_jobs)
    assert caught.value.__notes__ == ["This happened for item 3."]


def test_a_worker_process_has_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert set(parallel_map(threads, range(4), n_jobs=2)) == {(1, 1, "1")}


def test_no_items_are_allowed_but_no_workers_are_refused():
    assert parallel_map(len, [], n_jobs=2, description="lengths") == []
    with pytest.raises(ValueError, match="Remedy"):
        parallel_map(len, ["a"], n_jobs=0)


def test_another_worker_computes_the_items_of_a_dask_worker_that_dies(over_dask, tmp_path):
    jobs = [(number, tmp_path / "died") for number in range(6)]
    assert parallel_map(die_once, jobs, n_jobs=2) == [0, 1, 4, 9, 16, 25]
    assert (tmp_path / "died").exists()


def test_an_item_that_dask_gives_up_raises_an_error(cluster, over_dask, monkeypatch, at_most):
    from distributed import KilledWorker

    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    with at_most(120), pytest.raises(KilledWorker) as caught:
        parallel_map(die, [2], n_jobs=2)
    assert "This happened for item 2." in caught.value.__notes__


def test_a_worker_that_runs_other_code_is_refused(monkeypatch):
    task = parallel._Task(parse_settings, limit=True)
    assert parallel._Task(len, limit=True)("four") == 4  # only the code of this package is compared
    monkeypatch.setattr(parallel, "code_hash", lambda module: "edited")
    parallel._code_of_module.cache_clear()
    with pytest.raises(RuntimeError, match="another state of the code.*Remedy"):
        task("seed=1")
    parallel._code_of_module.cache_clear()


# After a process was killed -------------------------------------------------------------------------------------------

SLEEPING_WORKERS = """
import os, sys, time
from pathlib import Path
from utils.parallel import parallel_map

def work(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)

parallel_map(work, [sys.argv[1]] * 2, 2)
"""


def test_workers_end_soon_after_their_parent_was_killed(tmp_path):
    script, started = tmp_path / "script.py", tmp_path / "started"  # each worker leaves a file named by its number
    script.write_text(SLEEPING_WORKERS)
    started.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script), str(started)], env=environment)
    try:
        wait_for(lambda: len(list(started.iterdir())) == 2, 300)
    finally:
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(family, 300)
        for child in alive:
            child.kill()
    assert not alive and {str(child.pid) for child in family} >= {file.name for file in started.iterdir()}


def test_only_the_shared_memory_of_processes_that_have_ended_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "SHARED_MEMORY", tmp_path)
    for pid in (ended_process(), os.getpid()):
        (tmp_path / f"joblib_memmapping_folder_{pid}_0a_0b").mkdir()
        (tmp_path / f"sem.loky-{pid}-abc").touch()
    (tmp_path / "sem.of-somebody").touch()
    remove_leftovers_of_workers()
    names = {f"joblib_memmapping_folder_{os.getpid()}_0a_0b", f"sem.loky-{os.getpid()}-abc", "sem.of-somebody"}
    assert {path.name for path in tmp_path.iterdir()} == names
