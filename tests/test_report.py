"""Facts about the tables of README.md: they come from records, and only what stands between the marks changes."""

import pytest

from utils import report
from utils.artefacts import write_artefact
from utils.bench_setting import row
from utils.report import FLOW_PLACES, benchmark, fill, flow_methods


def test_only_what_stands_between_the_marks_is_replaced():
    text = "before\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b -->\nkept\n<!-- /b -->\n"
    assert fill(text, "a", "| new |") == text.replace("old", "| new |")


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="<!-- flow -->.*Remedy"):
        fill("no marks", "flow", "table")


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A benchmark's record of two flow methods in three places, and of one stage."""
    places = [*FLOW_PLACES, "128 px, head still, noise x1"]
    rows = [
        row(f"{place}: {method}", value + i, "px", still_epe=0.25, direction_deg=3.21, ms=12.3) | {"section": "flow"}
        for i, place in enumerate(places)
        for method, value in (("ours", 0.0512), ("theirs", 0.1234))
    ]
    rows.append(row("ours", 61.4, "views/s", 5.5) | {"section": "rendering"})
    write_artefact(tmp_path / "artefacts" / "bench" / "bench.json", {"rows": rows})
    monkeypatch.setattr(report, "ROOT", tmp_path)


def test_the_table_of_flow_methods_has_a_row_per_method_and_both_places(recorded):
    header, _, ours, theirs = flow_methods().splitlines()
    assert header.count("|") == 7
    assert ours == "| ours | 0.051 | 1.051 | 0.250 | 3.2 | 12 |"
    assert theirs == "| theirs | 0.123 | 1.123 | 0.250 | 3.2 | 12 |"


def test_the_table_of_the_benchmark_has_all_but_the_flow_methods(recorded):
    _, _, *rows = benchmark().splitlines()
    assert rows == ["| rendering | ours | 61.4 views/s | 5.5 |"]
