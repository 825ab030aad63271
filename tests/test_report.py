"""Facts about the tables of README.md: they come from records, and only what stands between the marks changes."""

import pandas as pd
import pytest

from utils.artefacts import write_artefact
from utils.bench.flow import SHOWN
from utils.bench.setting import row
from utils.report import readme as report
from utils.report.readme import ablation, benchmark, damaged_flow, fill, flow_images, flow_methods, results


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


# A run ------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """What a finished run named "demo" left: its records, its leaderboard and its ablation."""
    artefacts = tmp_path / "artefacts" / "demo"
    scores = {
        "01_render": {"true_units": 0.8761, "all_ones": 0.4},
        "02_flow_apex": {"apex_mean_abs_frames": 1.234, "flow_epe_px": 0.0456},
        "03_train": {"interval": {"value": 0.61, "low": 0.5501, "high": 0.6609}},
    }
    for stage, found in scores.items():
        write_artefact(artefacts / "records" / f"{stage}.json", {"scores": found})
    board = [
        {"prediction": name, "macro_uf1": value, "low": value - 0.1, "high": value + 0.1}
        for name, value in (("ours", 0.6), ("all zeros", 0.0), ("all ones", 0.45), ("prior random", 0.3))
    ]
    write_artefact(tmp_path / "submissions" / "demo" / "run.json", {"scores": {"leaderboard": board}})
    columns = (
        "variant,macro_uf1,low,high,difference,difference_low,difference_high,uar,map,seeds,folds,parameters,seconds"
    )
    lines = [
        "ours,0.6,0.5,0.7,0,0,0,0.65,0.7,2,18,123456,61.6",
        "u alone,0.5,0.4,0.6,-0.1,-0.2,0.05,0.55,0.6,2,18,789,3.2",
    ]
    frame = pd.DataFrame([line.split(",") for line in lines], columns=columns.split(","))
    write_artefact(artefacts / "ablation.csv", frame)
    monkeypatch.setattr(report, "ROOT", tmp_path)


def test_the_results_of_a_run_come_from_its_records(finished):
    _, _, *rows = results("demo").splitlines()
    assert [row.split(" | ")[1].rstrip(" |") for row in rows] == [
        "0.610 [0.550, 0.661]",
        "0.600 [0.500, 0.700]",
        "0.450 [0.350, 0.550]",  # the best of the trivial answers, never ours
        "0.876",
        "1.23",
        "0.046",
    ]
    assert rows[2].startswith("| best trivial answer") and rows[3].startswith("| bound:")


def test_the_ablation_of_a_run_has_scores_differences_and_costs(finished):
    header, _, ours, alone = ablation("demo").splitlines()
    assert header.count("|") == 10 and "difference to ours, from scratch" in header
    assert ours == ("| ours | 0.600 [0.500, 0.700] | +0.000 [+0.000, +0.000] | 0.650 | 0.700 | 2 | 18 | 123,456 | 62 |")
    assert alone == "| u alone | 0.500 [0.400, 0.600] | -0.100 [-0.200, +0.050] | 0.550 | 0.600 | 2 | 18 | 789 | 3 |"
