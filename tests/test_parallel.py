"""Facts about the parallel map: order, errors, threads, progress, and a real Dask cluster."""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import psutil
import pytest
import torch

from utils import parallel
from utils.config import parse_settings
from utils.lab.bench.cluster import wait_for
from utils.parallel import parallel_iter, parallel_map, remove_leftovers_of_workers
from utils.paths import ROOT


def square(x):
    return x * x


def last_first(job):
    """The first item is done only after the second, which another worker must do meanwhile."""
    number, folder = job
    if number == 0:
        wait_for((folder / "1").exists, 60)
    (folder / str(number)).touch()
    return number


def fail_at_three(x):
    if x == 3:
        raise LookupError("no such clip")
    return x


def threads(_):
    return torch.get_num_threads(), cv2.getNumThreads(), os.environ.get("OMP_NUM_THREADS")


def threads_of(counts):
    return {count[:2] for count in counts}


def process(_):
    return os.getpid()


def process_that_met_another(folder):
    """The own process, once another one has begun to work, too."""
    (folder / str(os.getpid())).touch()
    wait_for(lambda: len(list(folder.iterdir())) > 1, 60)
    return os.getpid()


def die_once(job):
    """Ends its worker the first time it is called, as a machine that is switched off would."""
    number, marker = job
    if number == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die_at_two(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_results_come_in_the_order_of_the_items_and_not_in_that_of_their_ends(backend, tmp_path):
    assert parallel_map(last_first, [(number, tmp_path) for number in range(6)], 2, backend) == list(range(6))


def test_results_come_as_they_are_ready():
    results = parallel_iter(fail_at_three, range(5), n_jobs=1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(("n_jobs", "backend"), [(1, "loky"), (2, "loky"), (2, "threading")])
def test_an_error_keeps_its_type_and_names_the_item(n_jobs, backend):
    with pytest.raises(LookupError, match="no such clip") as caught:
        parallel_map(fail_at_three, range(5), n_jobs, backend)
    assert caught.value.__notes__ == ["This happened for item 3."]


def test_processes_have_one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert set(parallel_map(threads, range(4), n_jobs=2)) == {(1, 1, "1")}


def test_threads_share_one_thread_per_library_and_give_the_rest_back():
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    try:
        assert threads_of(parallel_map(threads, range(4), n_jobs=2, backend="threading")) == {(1, 1)}
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 2
        assert threads_of(parallel_map(threads, range(3), n_jobs=1)) == {(2, 2)}
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_one_worker_is_this_process():
    assert set(parallel_map(process, range(3), n_jobs=1)) == {os.getpid()}


def test_progress_is_told_only_with_a_description(capsys):
    parallel_map(square, range(3), description="squares")
    assert re.fullmatch(r"squares: 3 of 3 in \d+ s\n", capsys.readouterr().err)
    parallel_map(square, range(3))
    assert capsys.readouterr().err == ""


def test_nothing_to_do_is_no_error():
    assert parallel_map(square, [], n_jobs=2, description="squares") == []


def test_wrong_parameters_are_refused_at_once(monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER", raising=False)
    for wrong in ({"n_jobs": 0}, {"backend": "multiprocess"}, {"backend": "dask"}):
        with pytest.raises(ValueError, match="Remedy"):
            parallel_iter(square, [1], **wrong)


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster


def test_dask_workers_give_the_same_results_in_order(cluster, monkeypatch, tmp_path):
    monkeypatch.setenv("DASK_SCHEDULER", cluster.scheduler_address)
    found = set(parallel_map(process_that_met_another, [tmp_path] * 8, n_jobs=2))
    assert len(found) == 2 and os.getpid() not in found
    assert parallel_map(square, range(8), n_jobs=2) == [x * x for x in range(8)]
    assert set(parallel_map(process, range(3), n_jobs=1)) == {os.getpid()}


def test_a_dask_error_names_the_item(cluster):
    with pytest.raises(LookupError, match="no such clip") as caught:
        parallel_map(fail_at_three, range(5), scheduler=cluster.scheduler_address)
    assert "This happened for item 3." in caught.value.__notes__


def test_the_work_of_a_dask_worker_that_dies_is_done_again(cluster, tmp_path):
    jobs = [(number, tmp_path / "died") for number in range(6)]
    assert parallel_map(die_once, jobs, scheduler=cluster.scheduler_address) == [0, 1, 4, 9, 16, 25]
    assert (tmp_path / "died").exists()


def test_an_item_that_dask_gives_up_is_an_error_and_no_endless_wait(cluster, monkeypatch, at_most):
    from distributed import KilledWorker

    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    with at_most(120), pytest.raises(KilledWorker) as caught:
        parallel_map(die_at_two, [2], scheduler=cluster.scheduler_address)
    assert "This happened for item 2." in caught.value.__notes__


def test_a_worker_that_runs_other_code_is_refused(monkeypatch):
    task = parallel._Named(parse_settings, limit=True)
    assert parallel._Named(len, limit=True)("four") == 4  # no code of ours
    monkeypatch.setattr(parallel, "code_hash", lambda module: "edited")
    parallel._code_of_module.cache_clear()
    with pytest.raises(RuntimeError, match="another state of the code.*Remedy"):
        task("seed=1")
    parallel._code_of_module.cache_clear()


# What killed processes leave ------------------------------------------------------------------------------------------

ORPHANS = """
import os, sys, time
from pathlib import Path
from utils.parallel import parallel_map

def work(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)

parallel_map(work, [sys.argv[1]] * 2, 2)
"""


def test_workers_end_soon_after_their_parent_was_killed(tmp_path):
    (tmp_path / "orphans.py").write_text(ORPHANS)
    met = tmp_path / "met"
    met.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "orphans.py"), str(met)], env=environment)
    try:
        wait_for(lambda: len(list(met.iterdir())) == 2, 300)
        started = [int(file.name) for file in met.iterdir()]
    finally:
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(family, 300)
        for process in alive:
            process.kill()
    assert not alive and {process.pid for process in family} >= set(started)


def test_the_shared_memory_of_the_dead_goes_and_that_of_the_living_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "SHARED_MEMORY", tmp_path)
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getpid()):
        (tmp_path / f"joblib_memmapping_folder_{pid}_0a_0b").mkdir()
        (tmp_path / f"sem.loky-{pid}-abc").touch()
    (tmp_path / "sem.of-somebody").touch()
    remove_leftovers_of_workers()
    assert {path.name for path in tmp_path.iterdir()} == {
        f"joblib_memmapping_folder_{os.getpid()}_0a_0b",
        f"sem.loky-{os.getpid()}-abc",
        "sem.of-somebody",
    }
