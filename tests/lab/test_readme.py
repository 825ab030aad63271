"""Facts about the tables of README.md and RESULTS.md: they come from records that name their commit, and only what
stands between the marks changes."""

import re

import pandas as pd
import pytest

from utils.artefacts import write_artefact
from utils.config import load_config
from utils.dataset.folders import walk
from utils.evaluate.ablation import teacher_variants, variants
from utils.evaluate.held_out import Plan, learner_variants
from utils.evaluate.rows import HEADLINE, OURS
from utils.lab import readme as report
from utils.lab.bench.flow import SHOWN
from utils.lab.bench.setting import row
from utils.lab.readme import MARKS, bench_tables, fill, flow_images, main, robustness, run_tables, times
from utils.paths import ROOT
from utils.provenance import data_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPAN = {"value": 0.78, "low": 0.7, "high": 0.86}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A repository of its own, with every mark in one of the two documents."""
    monkeypatch.setattr(report, "ROOT", tmp_path)
    half = len(MARKS) // 2
    for name, marks in (("README.md", MARKS[:half]), ("RESULTS.md", MARKS[half:])):
        (tmp_path / name).write_text("".join(f"about {m}\n<!-- {m} -->\nold {m}\n<!-- /{m} -->\n" for m in marks))
    return tmp_path


# Marks --------------------------------------------------------------------------------------------------------------


def test_only_what_stands_between_the_marks_is_replaced_in_whichever_document_has_them():
    first = "before\n<!-- a -->\nold\n<!-- /a -->\nafter\n"
    second = "<!-- b -->\nkept\n<!-- /b -->\n"
    filled = fill({"README.md": first, "RESULTS.md": second}, "a", "| new |")
    assert filled == {"README.md": first.replace("old", "| new |"), "RESULTS.md": second}


@pytest.mark.parametrize(
    "texts", [{"README.md": "none", "RESULTS.md": ""}, dict.fromkeys("AB", "<!-- a -->\n<!-- /a -->")]
)
def test_marks_that_are_missing_or_stand_twice_are_refused_by_name(texts):
    with pytest.raises(ValueError, match="<!-- a --> stand [02] times.*Remedy"):
        fill(texts, "a", "table")


def test_every_mark_stands_once_over_the_two_documents_of_this_repository():
    assert report.read_documents().keys() == {"README.md", "RESULTS.md"}


def test_every_table_of_this_repository_names_the_commit_of_its_numbers():
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in report.DOCUMENTS)
    for mark in set(MARKS) - {"times"}:  # whose rows have a commit each
        table = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", text, flags=re.S)[1]
        assert re.search(r"\n\nMade by `.+` at commit [0-9a-f]{7}", table), mark


def test_a_document_in_which_a_mark_is_missing_is_left_as_it_was(place):
    (place / "RESULTS.md").write_text("nothing here")
    write_artefact(place / "artefacts" / "times.json", [])
    old = (place / "README.md").read_text()
    with pytest.raises(ValueError):
        main([])
    assert (place / "README.md").read_text() == old


# A run --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(place):
    """The records of a run that was made with another seed, as the notebooks leave them."""
    parameters = load_config("smoke", seed=3).record
    record = {"parameters": parameters, "commit": COMMIT}
    for stage, scores in (
        ("01_render", {"true_units": 0.8381}),
        ("02_flow_apex", {"apex_mean_abs_frames": 0.333, "flow_epe_px": 0.0514}),
        ("03_train", {"interval": SPAN}),
        ("04_ablation", {}),
    ):
        write_artefact(place / "artefacts" / "smoke" / "records" / f"{stage}.json", {**record, "scores": scores})
    score = {"macro_uf1": 0.5, "low": 0.4, "high": 0.6}
    board = [{"prediction": name, **score} for name in ("ours", "all ones")]
    submitted = {"parameters": parameters, "commit": f"f{COMMIT[1:]}-dirty", "scores": {"leaderboard": board}}
    write_artefact(place / "submissions" / "smoke" / "run.json", submitted)
    more = {"difference": 0.1, "difference_low": -0.1, "difference_high": 0.2, "uar": 0.5, "map": 0.6}
    more |= {"seeds": 1, "folds": 2, "parameters": 1234, "seconds": 7.6}
    rows = [{"variant": name, **score, **more} for name in ("another", *HEADLINE)]
    write_artefact(place / "artefacts" / "smoke" / "ablation.csv", pd.DataFrame(rows))
    return place


def test_the_table_of_results_has_the_command_and_the_commits_of_the_records(run):
    _, _, *rows, empty, source = run_tables("smoke")["results"].splitlines()
    assert rows[0] == "| held-out subjects of the training split, macro-UF1 | 0.780 [0.700, 0.860] |"
    assert [line.split(" | ")[-1] for line in rows[3:]] == ["0.838 |", "0.33 |", "0.051 |"]
    assert source == (
        'Made by `make all PROFILE=smoke SET="seed=3"` at commit 0123456 and f123456 with changes that it lacks.'
    )


def test_data_without_truth_give_the_score_on_held_out_subjects_alone(run):
    for stage in ("01_render", "02_flow_apex"):
        path = run / "artefacts" / "smoke" / "records" / f"{stage}.json"
        write_artefact(path, {**report.read_artefact(path), "scores": {}})
    path = run / "submissions" / "smoke" / "run.json"
    write_artefact(path, {**report.read_artefact(path), "scores": {}})
    assert run_tables("smoke")["results"].count("\n| ") == 1


def test_the_headline_has_the_chosen_rows_and_the_whole_ablation_has_all(run):
    tables = run_tables("smoke")
    names = [line.split(" | ")[0].strip("| ") for line in tables["headline"].splitlines()[2:-2]]
    assert names == list(HEADLINE)
    assert len(tables["ablation"].splitlines()) == len(HEADLINE) + 5
    assert "| RBF-SVM | 0.500 [0.400, 0.600] | +0.100 [-0.100, +0.200] |" in tables["headline"]
    assert "| ours, from scratch | 0.500 [0.400, 0.600] |  |" in tables["headline"]


def test_every_headline_row_is_a_row_of_the_ablation():
    plan = Plan.of(load_config())
    rows = (
        learner_variants(plan).keys()
        | teacher_variants(plan).keys()
        | variants(plan).keys()
        | {OURS, "without 3D stabilisation"}
    )
    assert set(HEADLINE) <= rows


def test_a_headline_row_that_the_ablation_lacks_is_left_out(run):
    path = run / "artefacts" / "smoke" / "ablation.csv"
    table = report.read_artefact(path)
    write_artefact(path, table[table["variant"] != "without 3D stabilisation"])
    assert run_tables("smoke")["headline"].count("\n| ") == len(HEADLINE) - 1


def test_a_run_on_another_face_model_has_tables_of_its_own_that_name_it(run):
    path = run / "submissions" / "smoke" / "run.json"
    write_artefact(path, {**report.read_artefact(path), "data": {"face_model": "head"}})
    tables = run_tables("smoke")
    assert tables.keys() == {"face-model-results", "face-model-headline", "face-model-ablation"} <= set(MARKS)
    for mark, target in (("face-model-results", "all"), ("face-model-ablation", "ablation")):
        assert f'Made by `make {target} PROFILE=smoke SET="seed=3" FACE_MODEL=.../head RUN=smoke`' in tables[mark]


def test_a_run_that_ended_before_the_ablation_leaves_its_tables_alone(run):
    (run / "artefacts" / "smoke" / "ablation.csv").unlink()
    main(["smoke"])
    text = (run / "README.md").read_text() + (run / "RESULTS.md").read_text()
    assert "0.780 [0.700, 0.860]" in text and "old ablation" in text and "old headline" in text


# Times --------------------------------------------------------------------------------------------------------------


def test_times_stand_in_one_table_with_cores_and_commit(place):
    path = place / "artefacts" / "times.json"
    write_artefact(path, [{"what": "make all", "minutes": 12.74, "cores": 2, "commit": COMMIT}])
    assert times().splitlines()[2:] == ["| `make all` | 12.7 | 2 | 0123456 |"]
    main([])
    assert "| `make all` | 12.7 | 2 | 0123456 |" in (place / "README.md").read_text()


# Benchmark and flow images ------------------------------------------------------------------------------------------


RULES = (("ours", 0.278), ("peak", 3.69))


@pytest.fixture
def bench(place):
    """Write a benchmark's record of two flow methods in the given places, damaged frames, and one stage."""

    def write(places):
        rows = [
            row(name, value + i, "px", nonrigid_epe=0.25, direction_deg=3.21, ms=12.3, shown=SHOWN.get(where))
            | {"section": "flow"}
            for i, where in enumerate(places)
            for method, value in (("ours", 0.0512), ("theirs", 0.1234))
            for name in [f"{where}: {method}"]
        ]
        damaged = (row(f"shifted: {method}", value, "px") for method, value in (("ours", 0.2), ("deepflow", 0.3)))
        rows += [one | {"section": "damaged_flow"} for one in damaged]
        rows.append(row("ours", 61.4, "views/s", 5.5) | {"section": "rendering"})
        record = {"rows": rows, "commit": COMMIT, "parameters": {"quick": False}}
        write_artefact(place / "artefacts" / "bench" / "bench.json", record)
        return bench_tables()

    return write


def test_the_table_of_flow_methods_has_a_row_per_method_and_the_places_shown(bench):
    header, _, ours, theirs, _, source = bench([*SHOWN, "128 px, head moves, noise x1"])["flow"].splitlines()
    assert header.count("|") == 9 and "| error at 128 px |" in header
    assert ours == "| ours | 0.051 | 1.051 | 2.051 | 0.250 | 3.051 | 3.2 | 12 |"
    assert theirs == "| theirs | 0.123 | 1.123 | 2.123 | 0.250 | 3.123 | 3.2 | 12 |"
    assert source == 'Made by `make bench ONLY="flow"` at commit 0123456.'


def test_a_place_that_was_not_measured_has_no_column(bench):
    header, *_ = bench([place for place in SHOWN if not place.startswith("128")])["flow"].splitlines()
    assert header.count("|") == 8 and "128" not in header


def test_damaged_frames_have_a_row_each_and_a_column_for_each_method(bench):
    header, _, line, _, source = bench(SHOWN)["damaged"].splitlines()
    assert header == "| frames | error, ours | error, deepflow |" and line == "| shifted | 0.200 | 0.300 |"
    assert 'ONLY="damaged_flow"' in source


def test_the_table_of_real_skin_tells_leads_and_the_best_of_the_others(place):
    measured = {"ours": (0.1, 0.2, "", 0.71), "dis": (0.12, 0.19, "+0.020 [+0.010, +0.030]", 0.6)}
    measured["deepflow"] = (0.09, 0.3, "-0.010 [-0.020, +0.000]", 0.5)
    rows = [
        row(f"{where}: {name}", epe, "px", moving_epe=moving, nonrigid_epe=2 * moving, kept_peak=kept, lead=lead)
        for where in ("noise", "JPEG")
        for name, (epe, moving, lead, kept) in measured.items()
    ]
    rows.append(row("forward-backward: ours", 0.02, "px"))
    rows = [one | {"section": "real_skin"} for one in rows]
    record = {"rows": rows, "commit": COMMIT, "parameters": {"quick": False, "faces": True}}
    write_artefact(place / "artefacts" / "bench" / "bench.json", record)
    header, _, first, second, _, source = bench_tables()["real-skin"].splitlines()
    assert header.startswith(
        "| photographs | error, ours | dis less that | deepflow less that | where skin moves, ours"
    )
    values = "0.100 | +0.020 [+0.010, +0.030] | -0.010 [-0.020, +0.000] | 0.200 / 0.190 | 0.400 / 0.380 | 71% |"
    assert first == f"| noise | {values}" and second == f"| JPEG | {values}"
    assert 'make bench ONLY="real_skin" FACES=DIR' in source


def test_apex_errors_have_a_row_for_what_disturbs_and_a_column_for_each_rule(place):
    rows = [row(f"{what}: {rule}", value, "frames") for what in ("all clips", "with gaze") for rule, value in RULES]
    rows += [row(f"more than 3 frames off: {rule}", 2, "clips") for rule, _ in RULES]
    record = {"rows": [one | {"section": "apex"} for one in rows], "commit": COMMIT, "parameters": {"quick": False}}
    write_artefact(place / "artefacts" / "bench" / "bench.json", record)
    header, _, *lines, _, source = bench_tables()["apex"].splitlines()
    assert header == "| frames | ours | peak |"
    assert lines == ["| all clips | 0.28 | 3.69 |", "| with gaze | 0.28 | 3.69 |", "| more than 3 frames off | 2 | 2 |"]
    assert 'make bench ONLY="apex"' in source


def test_the_table_of_the_benchmark_has_all_but_the_flow_methods(bench):
    _, _, *rows, _, source = bench(SHOWN)["bench"].splitlines()
    assert rows == ["| rendering | ours | 61.4 views/s | 5.5 |"]
    assert 'ONLY="rendering"' in source


def test_the_table_of_flow_images_has_intervals_gains_and_databases(tmp_path):
    scores = {"uf1": SPAN, "uar": SPAN, "gain": {"value": 0.01, "low": -0.02, "high": 0.04}}
    rows = {"zero-shot": {"pooled": scores, "a": scores, "b": scores}}
    found = {"clips": {"pooled": 3, "a": 2, "b": 1}, "rows": rows, "commit": COMMIT}
    write_artefact(tmp_path / "found.json", found)
    header, _, line, _, source = flow_images(tmp_path / "found.json").splitlines()
    assert header == "| row | UF1 | UAR | UF1 less the network's | UF1 a | UF1 b |"
    spans = "0.780 [0.700, 0.860] | 0.780 [0.700, 0.860] | +0.010 [-0.020, +0.040]"
    assert line == f"| zero-shot | {spans} | 0.780 | 0.780 |"
    assert source.endswith("at commit 0123456.")


def test_the_table_of_clips_seen_otherwise_has_a_column_for_each_network(tmp_path):
    lost = {"uf1": SPAN, "difference": {"value": -0.1, "low": -0.2, "high": -0.05}}
    rows = {"network": {"as learnt": lost, "half looser": lost}, "SVM": {"as learnt": lost, "half looser": lost}}
    across = {"network": {"smic": {"uf1": SPAN}}}
    write_artefact(tmp_path / "found.json", {"rows": rows, "across": across, "commit": COMMIT})
    header, _, first, looser, other, _, source = robustness(tmp_path / "found.json").splitlines()
    assert header == "| clips | network | SVM |" and source.endswith("at commit 0123456.")
    assert first == "| as learnt | 0.780 [0.700, 0.860] | 0.780 [0.700, 0.860] |"
    assert looser == "| half looser | -0.100 [-0.200, -0.050] | -0.100 [-0.200, -0.050] |"
    assert other == "| smic, learnt from the others | 0.780 [0.700, 0.860] |  |"


def test_the_digest_of_data_is_of_what_lies_there_and_not_of_where(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "train" / "a").mkdir(parents=True)
        (tmp_path / name / "train" / "a" / "0.png").write_bytes(b"12345")
        (tmp_path / name / "train.csv").write_text("Id\na\n")
        (tmp_path / name / ".hidden").write_text(name)
    one = data_digest(tmp_path / "one")
    assert one == data_digest(tmp_path / "two")
    (tmp_path / "two" / "train.csv").write_text("Id\nb\n")
    assert one != data_digest(tmp_path / "two")
    (tmp_path / "one" / "train" / "a" / "0.png").write_bytes(b"123456")
    assert one != data_digest(tmp_path / "one")


def test_links_that_lead_nowhere_or_in_a_circle_do_not_hold_the_digest_up(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "again").symlink_to(tmp_path)
    (tmp_path / "train" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "train.csv").symlink_to(tmp_path / "nowhere")
    assert len(data_digest(tmp_path)) == 64
    assert [path.name for _, files in walk(tmp_path) for path in files] == ["train.csv", "gone.png"]
