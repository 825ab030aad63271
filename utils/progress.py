"""How far long work is and how long it still takes: a bar for a person who watches, plain lines for a log.

In an interactive notebook and in a terminal it is tqdm's bar. Where nobody watches, as in a kernel whose output
`make` passes on, it is a line of words now and then, the rarer the longer it takes: an executed notebook keeps them.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm.auto import tqdm  # in a kernel the notebook's bar

HEADLESS = "HEADLESS"  # in the environment of a kernel that no person watches: `utils.run` sets it
LINE_SECONDS = 10.0  # between two lines at least,
LINE_SHARE = 0.2  # and this share of the time so far: an hour has about 30 lines


def progress(items: Iterable[Any], description: str, total: int | None = None) -> Iterator[Any]:
    """Pass items on, and tell on stderr how many are done with and how long the others will take.

    description: what is counted, a word or two; silent without one. total: how many items there are, where they do
    not know it themselves.
    """
    total = len(items) if total is None else total
    if not description or not total:
        return iter(items)
    return _with_bar(items, description, total) if _watched() else _with_lines(items, description, total)


def in_notebook() -> bool:
    """Whether a person sees what this process shows in a notebook's front end."""
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
    """Print to stdout above the bars that are shown, at once."""
    tqdm.write(text)
    sys.stdout.flush()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time as one reads it: "40 s", "3 min", "1 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
