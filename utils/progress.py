"""Progress of long work: tqdm's bar in a terminal and in an interactive notebook, plain lines in a log.

The kernel of a notebook that `make` executes prints plain lines, since the executed notebook keeps them. The longer the
work takes, the rarer they are.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm.auto import tqdm  # the notebook's bar in a kernel

HEADLESS = "HEADLESS"  # environment variable of a kernel without a front end; `utils.run` sets it
LINE_SECONDS = 10.0  # least time between two lines
LINE_SHARE = 0.2  # least time between two lines as a share of the time so far: an hour has about 30 lines


def progress(items: Iterable[Any], description: str, total: int | None = None) -> Iterator[Any]:
    """Yield the items, and report on stderr how many are done and how long the others will take.

    description: the label of the report; without it there is none. total: the number of items if they have no length.
    """
    total = len(items) if total is None else total
    if not description or not total:
        return iter(items)
    return _with_bar(items, description, total) if _watched() else _with_lines(items, description, total)


def in_notebook() -> bool:
    """Whether a person sees the output of this process in the front end of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel") and not os.environ.get(HEADLESS)


def _watched() -> bool:
    return in_notebook() or sys.stderr.isatty()


def _with_bar(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
    return iter(tqdm(items, description, total))


def _with_lines(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
    start = told = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == total:
            _tell(f"{description}: {total} of {total} in {duration(now - start)}")
        elif now - told >= max(LINE_SECONDS, LINE_SHARE * (now - start)):
            _tell(f"{description}: {done} of {total}, about {duration((now - start) / done * (total - done))} left")
            told = now


def say(text: str) -> None:
    """Print to stdout at once, above any progress bar."""
    tqdm.write(text)
    sys.stdout.flush()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time as a text: "40 s", "3 min", "1 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
