"""A Dask cluster on this machine, started by the two commands of the README. Every process ends in any case."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

START_SECONDS = 300.0  # in which a loaded machine starts Python and imports Dask
END_SECONDS = 20.0  # for a process to end by itself before it is killed


def wait_for(fact: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
    """Return `fact()` as soon as it is true. Raises TimeoutError if it is not true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := fact()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain. Remedy: look at the processes that did not answer.")
        time.sleep(0.02)
    return value


def end(processes: Iterable[subprocess.Popen]) -> None:
    """Ask processes to end; kill those that do not, and their descendants."""
    processes = list(processes)
    children = [child for process in processes for child in children_of(process.pid)]
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    kill(children)  # for instance the worker of a killed nanny
    for process in processes:
        process.wait(END_SECONDS)


def kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def children_of(pid: int) -> list[psutil.Process]:
    """The descendants of a process; none if the process has ended."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


class Cluster:
    """A context with a scheduler, at `address`, and the processes of `count` workers with one thread each.

    nanny: each worker runs under another process, which restarts it if it is killed.
    """

    def __init__(self, folder: Path, count: int, nanny: bool = True) -> None:
        self.file, self.count, self.address = folder / "scheduler.json", count, ""
        self.options = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
        self.options += [] if nanny else ["--no-nanny"]
        self.started, self.workers = [], []

    def __enter__(self) -> "Cluster":
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.unlink(missing_ok=True)
        try:
            self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
            self._hire()
            self.address = wait_for(self._announced)
            self.wait_for_workers(self.count)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers, then the scheduler: a worker may wait for ever for a scheduler that has gone."""
        try:
            end(self.started[1:])
        finally:
            end(self.started[:1])

    def refill(self) -> None:
        """Replace the workers that have ended."""
        self._hire()
        self.wait_for_workers(self.count)

    def wait_for_workers(self, count: int) -> None:
        from distributed import Client  # slow to import

        with Client(self.address, set_as_default=False, timeout=START_SECONDS) as client:
            wait_for(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == count)

    def _hire(self) -> None:
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < self.count:
            self.workers.append(self._start("worker", *self.options))

    def _start(self, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *words, "--scheduler-file", str(self.file)]
        self.started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return self.started[-1]

    def _announced(self) -> str | None:
        """The address in the scheduler's file; None while the file is missing or incomplete."""
        if (code := self.started[0].poll()) is not None:
            raise RuntimeError(f"the Dask scheduler ended with {code}. Remedy: run `dask scheduler` and see why.")
        try:
            return json.loads(self.file.read_text())["address"]
        except (FileNotFoundError, json.JSONDecodeError):
            return None
