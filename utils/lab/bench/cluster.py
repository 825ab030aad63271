"""A Dask cluster on the loopback as the README's two commands start it, scheduler and workers each a process of its
own, and the end of every process that was started, whatever happens."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

START_SECONDS = 300.0  # a loaded machine takes long to start Python and to import Dask
END_SECONDS = 20.0  # for a process to end by itself before it is killed


def wait_for(fact: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
    """What `fact()` returns as soon as it is true. Raises TimeoutError when it is not within `seconds`."""
    end = time.monotonic() + seconds
    while not (found := fact()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s in vain. Remedy: see what the processes waited for do.")
        time.sleep(0.02)
    return found


def end(processes: Iterable[subprocess.Popen]) -> None:
    """Ask processes to end, and kill those that do not, and what they started."""
    processes = list(processes)
    children = [child for process in processes for child in children_of(process.pid)]
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    for child in children:  # a nanny that was killed leaves its worker
        if child.is_running():
            child.kill()
    for process in processes:
        process.wait(END_SECONDS)


def children_of(pid: int) -> list[psutil.Process]:
    """The processes that a process started, and theirs; none where it has ended."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


class Cluster:
    """A scheduler and `count` workers of one thread, from entering the context to leaving it.

    address: of the scheduler; workers: their processes, or their nannies' where `nanny`. Without nannies a worker that
    is killed stays dead.
    """

    def __init__(self, folder: Path, count: int, nanny: bool = True) -> None:
        self.file, self.count, self.address = folder / "scheduler.json", count, ""
        self.options = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
        self.options += [] if nanny else ["--no-nanny"]
        self.started: list[subprocess.Popen] = []
        self.workers: list[subprocess.Popen] = []

    def __enter__(self) -> "Cluster":
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.unlink(missing_ok=True)
        try:
            self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
            self._hire()
            self.address = wait_for(self._announced)
            self.wait_for_workers(self.count)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        """Workers first: one that is told to end after its scheduler has gone may wait for it for ever."""
        try:
            end(self.started[1:])
        finally:
            end(self.started[:1])

    def refill(self) -> None:
        """As many live workers as at first, in the place of those that were killed."""
        self._hire()
        self.wait_for_workers(self.count)

    def wait_for_workers(self, count: int) -> None:
        from distributed import Client

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
        """The scheduler's address; None while its file is missing, empty or half written."""
        if (code := self.started[0].poll()) is not None:
            raise RuntimeError(f"the Dask scheduler ended with {code}. Remedy: see what `dask scheduler` says.")
        try:
            return json.loads(self.file.read_text())["address"]
        except (FileNotFoundError, json.JSONDecodeError):
            return None
