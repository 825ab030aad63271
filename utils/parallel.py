"""One parallel map for sequences and folds: threads, processes or a cluster are a parameter.

`n_jobs=1` is a plain loop. More workers go through joblib, with the threads of torch, OpenMP and OpenCV
limited to one per worker, because two workers with two threads each on two cores are slower than two with
one. To use a Dask cluster, name its scheduler: `DASK_SCHEDULER=tcp://host:8786` in the environment, or the
parameter `scheduler`. A Dask worker that dies is replaced by the others: its items are computed again.
"""

import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib

from utils.artefacts import alive, remove
from utils.code_hash import PACKAGE, code_hash
from utils.progress import progress

BACKENDS = ("loky", "threading", "dask")
SHARED_MEMORY = Path("/dev/shm")  # of Linux, where joblib's workers share arrays and semaphores
OF_WORKERS = re.compile(r"(?:joblib_memmapping_folder_|sem\.loky-)(\d+)[-_]")  # with the process that made it


def parallel_map(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    n_jobs: int = 1,
    backend: str = "loky",
    description: str = "",
    scheduler: str | None = None,
) -> list[Any]:
    """`[function(item) for item in items]` over several workers; for the parameters see `parallel_iter`."""
    return list(parallel_iter(function, items, n_jobs, backend, description, scheduler))


def parallel_iter(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    n_jobs: int = 1,
    backend: str = "loky",
    description: str = "",
    scheduler: str | None = None,
) -> Iterator[Any]:
    """Yield `function(item)` for every item, in the items' order, as the results come.

    n_jobs: workers; 1 for a plain loop, -1 for one per core. A cluster uses all that it has.
    backend: "loky" for processes (function and results must pickle), "threading", or "dask".
    description: what `progress` counts; silent without one.
    scheduler: address of a Dask scheduler; by default, for more than one worker, the environment's
        DASK_SCHEDULER. It replaces "loky", since both run processes, and leaves "threading" alone, which is
        chosen where memory is shared.

    Raises what `function` raises, with a note that names the item; ValueError for an unknown backend or
    n_jobs=0.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown. Remedy: use one of {', '.join(BACKENDS)}.")
    if n_jobs == 0:
        raise ValueError("n_jobs=0 leaves nobody to work. Remedy: pass 1 or more, or -1 for one per core.")
    items = list(items)
    if not scheduler and (n_jobs != 1 or backend == "dask"):  # a plain loop inside a worker stays one
        scheduler = os.environ.get("DASK_SCHEDULER")
    if backend == "dask" and not scheduler:
        raise ValueError("backend 'dask' needs a scheduler. Remedy: set DASK_SCHEDULER=tcp://host:port.")
    if scheduler and backend != "threading":
        results = _over_dask(function, items, scheduler)
    elif n_jobs == 1 or len(items) < 2:
        results = map(_Named(function), items)
    else:
        results = _over_joblib(function, items, n_jobs, backend)
    return progress(results, description, len(items))


def left_by_workers() -> list[Path]:
    """The shared memory that killed processes of this user could not give back."""
    user = getattr(os, "getuid", int)()  # a system without users has none but 0
    folders, found = [folder for folder in (SHARED_MEMORY, Path(tempfile.gettempdir())) if folder.is_dir()], []
    for path in (path for folder in folders for path in folder.iterdir()):
        if made_by := OF_WORKERS.match(path.name):
            with suppress(FileNotFoundError):  # given back in this moment
                status = path.stat()
                if status.st_uid == user and not alive(int(made_by[1]), status.st_mtime):
                    found.append(path)
    return found


def remove_leftovers_of_workers() -> None:
    """Remove `left_by_workers`."""
    for path in left_by_workers():
        with suppress(FileNotFoundError):  # removed by another run in this moment
            remove(path)


def _over_joblib(function: Callable, items: list, n_jobs: int, backend: str) -> Iterator[Any]:
    processes = backend == "loky"
    inner = {"inner_max_num_threads": 1} if processes else {}
    task = joblib.delayed(_Named(function, limit=processes, parent=os.getpid() if processes else None))
    # Processes limit their own threads; threads share this process, which gets its numbers back at the end.
    with nullcontext() if processes else _one_thread_each():
        with joblib.parallel_config(backend=backend, n_jobs=n_jobs, **inner):
            yield from joblib.Parallel(return_as="generator")(task(item) for item in items)


def _over_dask(function: Callable, items: list, scheduler: str) -> Iterator[Any]:
    from distributed import Client

    task = joblib.delayed(_Named(function, limit=True))
    # One item per task: items are clips and folds, seconds of work each, and only lost ones are done again.
    with Client(scheduler, set_as_default=False) as client:
        _name_dashboard(client.dashboard_link)
        with joblib.parallel_config(backend=_dask_backend(client), n_jobs=-1):
            yield from joblib.Parallel(return_as="generator", batch_size=1)(task(item) for item in items)


@lru_cache
def _name_dashboard(link: str | None) -> None:
    """Say once where a person can watch a cluster, which may have no such page."""
    if link:
        print(f"Dask: {link}", file=sys.stderr, flush=True)


def _dask_backend(client: Any) -> Any:
    """joblib's Dask backend, without two of its habits.

    With a single worker it does the work in this process, and it waits for ever for an item that Dask has given up,
    as it does after four workers have died over it.
    """
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs):
            return max(2, super().effective_n_jobs(n_jobs))

        def submit(self, func, callback=None):
            [(_, (item,), _)] = func.items

            def raise_what_dask_says(done) -> None:
                if error := done.exception():
                    error.add_note(f"This happened for item {_label(item)}.")
                    callback(error)

            future = super().submit(func, callback)
            future.add_done_callback(raise_what_dask_says)
            return future

    return Backend(client=client)


class _Named:
    """Calls a function, and adds to its exception which item failed. A class, so that it pickles.

    limit: the call happens in another process, which limits its threads and must run the same code as this one.
    parent: the process with which that one ends.
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
        try:
            return self.function(item)
        except Exception as error:
            error.add_note(f"This happened for item {_label(item)}.")
            raise


@lru_cache
def _end_with(parent: int) -> None:
    """End this process soon after its parent, as a worker of joblib does not: it would wait for work for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _code_of(function: Callable) -> str:
    """The hash of what a function's module reaches; empty for one that is not of this package."""
    module = getattr(getattr(function, "func", function), "__module__", None) or ""  # of a partial, what it calls
    return _code_of_module(module) if module.partition(".")[0] == PACKAGE else ""


@lru_cache
def _code_of_module(module: str) -> str:
    return code_hash(module)


def _label(item: Any) -> str:
    """The item's Id if it has one, else the start of its text."""
    text = str(getattr(item, "id", item)).replace("\n", " ")
    return text if len(text) <= 80 else text[:77] + "..."


def limit_threads(threads: int = 1) -> None:
    """Limit the threads of OpenCV, torch, OpenMP and BLAS in this process, as far as they are loaded."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


@contextmanager
def _one_thread_each():
    """Limit this process to one thread per library, and restore the numbers at the end."""
    from threadpoolctl import threadpool_limits

    cv2, torch = sys.modules.get("cv2"), sys.modules.get("torch")
    before = cv2 and cv2.getNumThreads(), torch and torch.get_num_threads()
    with threadpool_limits(1):
        limit_threads(1)
        try:
            yield
        finally:
            if cv2:
                cv2.setNumThreads(before[0])
            if torch:
                torch.set_num_threads(before[1])
