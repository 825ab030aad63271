"""One parallel map over clips and folds: a plain loop, worker processes, or a Dask cluster.

joblib runs the worker processes, each with one thread of torch, OpenMP and OpenCV: two workers with two threads each
are slower on two cores. The environment variable `DASK_SCHEDULER=tcp://host:8786` names the scheduler of a Dask
cluster. If a Dask worker dies, other workers compute its items again.
"""

import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib

from utils.artefacts import alive, remove
from utils.code_hash import PACKAGE, code_hash
from utils.progress import progress

SHARED_MEMORY = Path("/dev/shm")  # where joblib's workers share arrays and semaphores on Linux
OF_WORKERS = re.compile(r"(?:joblib_memmapping_folder_|sem\.loky-)(\d+)[-_]")  # the group is the process that made it


def parallel_map(
    function: Callable[[Any], Any], items: Iterable[Any], n_jobs: int = 1, description: str = ""
) -> list[Any]:
    """`[function(item) for item in items]` over several workers.

    n_jobs: number of worker processes (function and results must pickle); 1 for a plain loop, -1 for one per core. A
        cluster uses all of its workers.
    description: the label of the progress report; without it there is none.

    Raises the exception of `function`, with a note that names the item; ValueError for n_jobs=0.
    """
    if n_jobs == 0:
        raise ValueError("n_jobs=0 means no worker. Remedy: pass 1 or more, or -1 for one per core.")
    items = list(items)
    scheduler = os.environ.get("DASK_SCHEDULER")
    if n_jobs == 1:  # also inside a worker of a cluster
        results = map(_Task(function), items)
    elif scheduler:
        results = _over_dask(function, items, scheduler)
    elif len(items) < 2:
        results = map(_Task(function), items)
    else:
        results = _over_joblib(function, items, n_jobs)
    return list(progress(results, description, len(items)))


def left_by_workers() -> list[Path]:
    """The shared memory that killed processes of this user did not release."""
    user = getattr(os, "getuid", int)()  # a system without user ids has only user 0
    folders, left = [folder for folder in (SHARED_MEMORY, Path(tempfile.gettempdir())) if folder.is_dir()], []
    for path in (path for folder in folders for path in folder.iterdir()):
        if made_by := OF_WORKERS.match(path.name):
            with suppress(FileNotFoundError):  # its owner removed it meanwhile
                status = path.stat()
                if status.st_uid == user and not alive(int(made_by[1]), status.st_mtime):
                    left.append(path)
    return left


def remove_leftovers_of_workers() -> None:
    """Remove `left_by_workers`."""
    for path in left_by_workers():
        with suppress(FileNotFoundError):  # another run removed it meanwhile
            remove(path)


def _over_joblib(function: Callable, items: list, n_jobs: int) -> Iterator[Any]:
    task = joblib.delayed(_Task(function, limit=True, parent=os.getpid()))
    with joblib.parallel_config(backend="loky", n_jobs=n_jobs, inner_max_num_threads=1):
        yield from joblib.Parallel(return_as="generator")(task(item) for item in items)


def _over_dask(function: Callable, items: list, scheduler: str) -> Iterator[Any]:
    from distributed import Client

    with Client(scheduler, set_as_default=False) as client:
        _name_dashboard(client.dashboard_link)
        futures = client.map(_Task(function, limit=True), items, pure=False)
        for item, future in zip(items, futures, strict=True):
            with _named(item):  # Dask gives an item up after four workers died of it
                result = future.result()
            future.release()  # the workers need not keep it
            yield result


@lru_cache
def _name_dashboard(link: str | None) -> None:
    """Print once where the progress of the cluster can be watched, if it has such a page."""
    if link:
        print(f"Dask: {link}", file=sys.stderr, flush=True)


class _Task:
    """Calls a function and adds to its exception the item that failed. It is a class so that it pickles.

    limit: the call happens in another process, which must limit its threads and run the same code as this one.
    parent: the process after whose end the worker ends, too.
    """

    def __init__(self, function: Callable[[Any], Any], limit: bool = False, parent: int | None = None):
        self.function, self.limit, self.parent = function, limit, parent
        self.code = _code_of(function) if limit else ""

    def __call__(self, item: Any) -> Any:
        if self.parent:
            _end_with(self.parent)
        if self.limit:
            limit_threads()
            if self.code != _code_of(self.function):
                raise RuntimeError(
                    f"the worker on {platform.node()} runs another state of the code than this process. "
                    "Remedy: bring its folder to the same commit and start it again."
                )
        with _named(item):
            return self.function(item)


@contextmanager
def _named(item: Any) -> Iterator[None]:
    """Add a note to an exception that names the item, unless it has one."""
    try:
        yield
    except Exception as error:
        note = f"This happened for item {_label(item)}."
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise


@lru_cache
def _end_with(parent: int) -> None:
    """End this process soon after its parent. joblib's workers would wait for more work for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _code_of(function: Callable) -> str:
    """The hash of the code that a function reaches; empty for a function of another package."""
    module = getattr(getattr(function, "func", function), "__module__", None) or ""  # a partial has `func`
    return _code_of_module(module) if module.partition(".")[0] == PACKAGE else ""


@lru_cache
def _code_of_module(module: str) -> str:
    return code_hash(module)


def _label(item: Any) -> str:
    """The Id of an item, or the first characters of its text."""
    text = str(getattr(item, "id", item)).replace("\n", " ")
    return text if len(text) <= 80 else text[:77] + "..."


def limit_threads() -> None:
    """Limit OpenCV, torch, OpenMP and BLAS to one thread in this process, if these libraries are loaded."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
