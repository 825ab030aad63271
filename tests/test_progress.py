"""Facts about progress reports in a log, in a terminal and in a notebook."""

import io
import sys
from types import SimpleNamespace

import pytest

from utils import parallel, progress
from utils.progress import HEADLESS, duration


@pytest.fixture
def lines_of(monkeypatch, capsys):
    """A function that returns the lines about `count` items, each of which takes `seconds` on a clock of its own."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)

    def lines(count: int, seconds: float) -> list[str]:
        for _ in progress.progress(range(count), "rendering"):
            clock.now += seconds
        return capsys.readouterr().err.splitlines()

    return lines


def test_a_log_gets_a_line_at_most_every_ten_seconds_and_fewer_lines_in_long_work(lines_of):
    assert lines_of(5, 6) == [
        "rendering: 2 of 5, about 18 s left",
        "rendering: 4 of 5, about 6 s left",
        "rendering: 5 of 5 in 30 s",
    ]
    assert lines_of(100, 0.01) == ["rendering: 100 of 100 in 1 s"]
    lines = lines_of(20_000, 1)
    assert 20 < len(lines) < 40 and lines[-1] == "rendering: 20000 of 20000 in 5 h 33 min"


def test_the_items_are_unchanged_and_without_a_description_nothing_is_printed(capsys):
    assert list(progress.progress(iter("abc"), "letters", total=3)) == list("abc")
    assert capsys.readouterr().err.startswith("letters: 3 of 3")
    assert list(progress.progress("abc", "")) == list("abc") and list(progress.progress([], "nothing")) == []
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.progress(range(3), "rendering")) == [0, 1, 2]
    assert "rendering: 100%|" in terminal.getvalue() and "3/3" in terminal.getvalue()


def test_a_kernel_has_a_front_end_unless_its_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv(HEADLESS)
    assert not progress.in_notebook()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert progress.in_notebook()
    monkeypatch.setenv(HEADLESS, "1")
    assert not progress.in_notebook()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (95, "2 min"), (5300, "88 min"), (7260, "2 h 1 min")]
)
def test_a_duration_has_the_unit_that_suits_its_length(seconds, words):
    assert duration(seconds) == words


def test_the_dashboard_of_a_cluster_is_named_once(capsys):
    parallel._name_dashboard.cache_clear()
    for link in ("http://host:8787/status", None, "http://host:8787/status"):
        parallel._name_dashboard(link)
    assert capsys.readouterr().err == "Dask: http://host:8787/status\n"
