"""Facts about the tables of README.md: they come from records, and only what stands between the marks changes."""

import pytest

from utils.artefacts import write_artefact
from utils.bench.flow import SHOWN
from utils.bench.setting import row
from utils.report import readme as report
from utils.report.readme import benchmark, damaged_flow, fill, flow_images, flow_methods


def test_only_what_stands_between_the_marks_is_replaced():
    text = "before\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b -->\nkept\n<!-- /b -->\n"
    assert fill(text, "a", "| new |") == text.replace("old", "| new |")


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="<!-- flow -->.*Remedy"):
        fill("no marks", "flow", "table")


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A benchmark's record of two flow methods in four places, and of one stage."""
    places = [*SHOWN, "128 px, head still, noise x1"]
    rows = [
        row(f"{place}: {method}", value + i, "px", still_epe=0.25, direction_deg=3.21, ms=12.3, shown=SHOWN.get(place))
        | {"section": "flow"}
        for i, place in enumerate(places)
        for method, value in (("ours", 0.0512), ("theirs", 0.1234))
    ]
    damaged = (row(f"shifted: {method}", value, "px") for method, value in (("ours", 0.2), ("deepflow", 0.3)))
    rows += [one | {"section": "damaged_flow"} for one in damaged]
    rows.append(row("ours", 61.4, "views/s", 5.5) | {"section": "rendering"})
    write_artefact(tmp_path / "artefacts" / "bench" / "bench.json", {"rows": rows})
    monkeypatch.setattr(report, "ROOT", tmp_path)


def test_the_table_of_flow_methods_has_a_row_per_method_and_the_places_shown(recorded):
    header, _, ours, theirs = flow_methods().splitlines()
    assert header.count("|") == 8
    assert ours == "| ours | 0.051 | 1.051 | 2.051 | 0.250 | 3.2 | 12 |"
    assert theirs == "| theirs | 0.123 | 1.123 | 2.123 | 0.250 | 3.2 | 12 |"


def test_damaged_frames_have_a_row_each_and_a_column_for_each_method(recorded):
    header, _, line = damaged_flow().splitlines()
    assert header == "| frames | EPE, ours | EPE, deepflow |" and line == "| shifted | 0.200 | 0.300 |"


def test_the_table_of_the_benchmark_has_all_but_the_flow_methods(recorded):
    _, _, *rows = benchmark().splitlines()
    assert rows == ["| rendering | ours | 61.4 views/s | 5.5 |"]


def test_the_table_of_flow_images_has_intervals_gains_and_databases(tmp_path):
    span = {"value": 0.78, "low": 0.7, "high": 0.86}
    scores = {"uf1": span, "uar": span, "gain": {"value": 0.01, "low": -0.02, "high": 0.04}}
    rows = {"zero-shot": {"pooled": scores, "a": scores, "b": scores}}
    write_artefact(tmp_path / "found.json", {"clips": {"pooled": 3, "a": 2, "b": 1}, "rows": rows})
    header, _, line = flow_images(tmp_path / "found.json").splitlines()
    assert header == "| row | UF1 | UAR | UF1 less the network's | UF1 a | UF1 b |"
    spans = "0.780 [0.700, 0.860] | 0.780 [0.700, 0.860] | +0.010 [-0.020, +0.040]"
    assert line == f"| zero-shot | {spans} | 0.780 | 0.780 |"
