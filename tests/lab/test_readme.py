"""Facts about the tables of README.md and RESULTS.md: they come from records that name their commit, and only the text
between the marks changes."""

import re

import pandas as pd
import pytest

from utils.artefacts import read_artefact, write_artefact
from utils.config import load_config
from utils.dataset.folders import walk
from utils.evaluate.ablation import teacher_variants, variants
from utils.evaluate.held_out import Plan, learner_variants
from utils.evaluate.rows import HEADLINE, OURS, PAPER_METHOD
from utils.evaluate.scores import Interval
from utils.lab import readme
from utils.lab.bench.flow import QUIET_EYES, SETTINGS
from utils.lab.bench.setting import row
from utils.lab.flow_images import GAIN, LATER_GAIN
from utils.lab.readme import FACE_MODEL, FLOW_COLUMNS, LAYOUTS, RECORDS, bench_tables, fill, main, run_tables
from utils.lab.tables import load, store, tidy
from utils.paths import ROOT
from utils.provenance import data_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPAN = {"value": 0.78, "low": 0.7, "high": 0.86}
RUN_MARKS = ["results", "ablation"]  # of a run on either face model
MARKS = ["times", "headline", *RUN_MARKS, *(FACE_MODEL + mark for mark in RUN_MARKS), *LAYOUTS, *RECORDS]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A repository of its own, with every mark in one of the two documents."""
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    for name, marks in (("README.md", MARKS[:8]), ("RESULTS.md", MARKS[8:])):
        (tmp_path / name).write_text("".join(f"about {m}\n<!-- {m} -->\nold {m}\n<!-- /{m} -->\n" for m in marks))
    return tmp_path


# Marks --------------------------------------------------------------------------------------------------------------


def test_only_the_text_between_the_marks_is_replaced_and_marks_stand_exactly_once():
    first, second = "before\n<!-- a -->\nold\n<!-- /a -->\nafter\n", "<!-- b -->\nkept\n<!-- /b -->\n"
    filled = fill({"README.md": first, "RESULTS.md": second}, "a", "| new |")
    assert filled == {"README.md": first.replace("old", "| new |"), "RESULTS.md": second}
    for texts in ({"README.md": "none", "RESULTS.md": second}, {"README.md": first, "RESULTS.md": first}):
        with pytest.raises(ValueError, match="<!-- a --> stand [02] times.*Remedy"):
            fill(texts, "a", "table")


def test_every_table_of_this_repository_stands_once_and_names_the_commit_of_its_numbers():
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in readme.DOCUMENTS)
    for mark in MARKS:
        (table,) = re.findall(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", text, flags=re.S)
        # each row of the times has its own commit
        assert mark == "times" or re.search(r"\n\nMade by `.+` at commit [0-9a-f]{7}", table), mark


def test_a_document_in_which_a_mark_is_missing_is_left_as_it_was(run):
    (run / "RESULTS.md").write_text("nothing here")
    write_bench(run, [row("ours", 61.4, "views/s")], "rendering")
    old = (run / "README.md").read_text()
    with pytest.raises(ValueError, match="<!-- bench --> stand 0 times"):
        main(["smoke", "--bench"])
    assert (run / "README.md").read_text() == old


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
    records = run / "artefacts" / "smoke" / "records"
    submitted = run / "submissions" / "smoke" / "run.json"
    for path in (records / "01_render.json", records / "02_flow_apex.json", submitted):
        write_artefact(path, {**read_artefact(path), "scores": {}})
    assert run_tables("smoke")["results"].count("\n| ") == 1


def test_the_headline_has_the_chosen_rows_and_the_whole_ablation_has_all(run):
    tables = run_tables("smoke")
    names = [line.split(" | ")[0].strip("| ") for line in tables["headline"].splitlines()[2:-2]]
    assert names[:-1] == list(HEADLINE) and "0.536" in tables["headline"].splitlines()[-3]
    assert len(tables["ablation"].splitlines()) == len(HEADLINE) + 5
    assert "| RBF-SVM | 0.500 [0.400, 0.600] | +0.100 [-0.100, +0.200] |" in tables["headline"]
    assert "| from scratch | 0.500 [0.400, 0.600] |  |" in tables["headline"]
    path = run / "artefacts" / "smoke" / "ablation.csv"
    table = read_artefact(path)
    write_artefact(path, table[table["variant"] != PAPER_METHOD])
    assert run_tables("smoke")["headline"].count("\n| ") == len(HEADLINE)


def test_every_headline_row_is_a_row_of_the_ablation():
    plan = Plan.of(load_config())
    rows = learner_variants(plan).keys() | teacher_variants(plan).keys() | variants(plan).keys()
    assert set(HEADLINE) <= rows | {OURS, PAPER_METHOD}


def test_a_run_on_another_face_model_has_tables_of_its_own_that_name_it(run):
    path = run / "submissions" / "smoke" / "run.json"
    write_artefact(path, {**read_artefact(path), "data": {"face_model": "head"}})
    tables = run_tables("smoke")
    assert list(tables) == ["face-model-results", "face-model-ablation"]
    for mark, target in (("face-model-results", "all"), ("face-model-ablation", "ablation")):
        assert f'Made by `make {target} PROFILE=smoke SET="seed=3" FACE_MODEL=.../head RUN=smoke`' in tables[mark]


def test_a_run_that_ended_before_the_ablation_leaves_its_tables_alone(run):
    (run / "artefacts" / "smoke" / "ablation.csv").unlink()
    main(["smoke"])
    text = (run / "README.md").read_text() + (run / "RESULTS.md").read_text()
    assert "0.780 [0.700, 0.860]" in text and "old ablation" in text and "old headline" in text


def test_times_are_ranges_in_one_table_with_cores_and_commit(place):
    record = [{"what": "make all", "minutes": [12.74, 7.9], "cores": 2, "commit": COMMIT}]
    write_artefact(place / "artefacts" / "times.json", record)
    main([])
    table = "| command | minutes | cores | commit |\n|---|---|---|---|\n| `make all` | 8 to 13 | 2 | 0123456 |\n"
    assert f"<!-- times -->\n{table}<!-- /times -->" in (place / "README.md").read_text()


# The benchmark ------------------------------------------------------------------------------------------------------


def write_bench(place, rows, section):
    """The record of a benchmark that ran one section; returns the lines of the table that is made of it."""
    record = {"commit": COMMIT, "parameters": {"quick": False, "faces": True}}
    table = tidy({"section": section, **line} for line in rows)
    store(table, record, place / "artefacts" / "bench" / "bench.json")
    ((_, markdown),) = bench_tables().items()
    return markdown.splitlines()


def test_the_table_of_flow_methods_has_a_row_per_method_and_the_frames_that_were_measured(place):
    shown = list(dict.fromkeys(frames for _, frames, *_ in FLOW_COLUMNS))
    measures = {"nonrigid_epe": 0.25, "direction_deg": 3.21, "ms": 12.3}
    rows = [
        row(method, value + shown.index(frames) if frames in shown else 9.0, "px", frames=frames, **measures)
        for frames in (*SETTINGS, QUIET_EYES)
        for method, value in (("ours", 0.0512), ("theirs", 0.1234))
    ]
    header, _, ours, theirs, _, source = write_bench(place, rows, "flow")
    assert header.count("|") == 9 and "| error at 128 px |" in header
    assert ours == "| ours | 0.051 | 1.051 | 2.051 | 0.250 | 3.051 | 3.2 | 12 |"
    assert theirs == "| theirs | 0.123 | 1.123 | 2.123 | 0.250 | 3.123 | 3.2 | 12 |"
    assert source == 'Made by `make bench ONLY="flow"` at commit 0123456.'
    header, *_ = write_bench(place, [line for line in rows if line["frames"] == shown[0]], "flow")
    assert header == "| method | error, head still | direction, degrees | ms |"


def test_damaged_frames_have_a_row_each_and_a_column_for_each_method(place):
    rows = [row(method, value, "px", frames="shifted") for method, value in (("ours", 0.2), ("deepflow", 0.3))]
    header, _, line, *_ = write_bench(place, rows, "damaged_flow")
    assert header == "| frames | error, ours | error, deepflow |" and line == "| shifted | 0.200 | 0.300 |"


def test_the_table_of_real_skin_tells_leads_and_the_best_of_the_others(place):
    measured = {"ours": (0.1, 0.2, None, 0.71), "dis": (0.12, 0.19, Interval(0.02, 0.01, 0.03), 0.6)}
    measured["deepflow"] = (0.09, 0.3, Interval(-0.01, -0.02, 0.0), 0.5)
    rows = [
        row(name, epe, "px", frames=frames, moving_epe=moving, nonrigid_epe=2 * moving, kept_peak=kept, lead=lead)
        for frames in ("noise", "JPEG")
        for name, (epe, moving, lead, kept) in measured.items()
    ]
    header, _, first, second, _, source = write_bench(place, rows, "real_skin")
    assert header.startswith(
        "| photographs | error, ours | dis minus ours | deepflow minus ours | where skin moves, ours"
    )
    values = "0.100 | +0.020 [+0.010, +0.030] | -0.010 [-0.020, +0.000] | 0.200 / 0.190 | 0.400 / 0.380 | 71% |"
    assert first == f"| noise | {values}" and second == f"| JPEG | {values}"
    assert 'make bench ONLY="real_skin" FACES=DIR' in source


def test_apex_errors_have_a_row_for_what_disturbs_and_a_column_for_each_rule(place):
    rules = (("ours", 0.278), ("peak", 3.69))
    rows = [row(rule, value, "frames", frames=kind) for kind in ("all clips", "with gaze") for rule, value in rules]
    rows += [row(rule, 2, "clips", frames="more than 3 frames off") for rule, _ in rules]
    header, _, *lines, _, _ = write_bench(place, rows, "apex")
    assert header == "| frames | ours | peak |"
    assert lines == ["| all clips | 0.28 | 3.69 |", "| with gaze | 0.28 | 3.69 |", "| more than 3 frames off | 2 | 2 |"]


def test_the_table_of_the_benchmark_has_the_other_sections(place):
    rows = [row("ours", 61.4, "views/s", 5.5), row("largest", 2, "grey levels")]
    _, _, *lines, _, source = write_bench(place, rows, "rendering")
    assert lines == ["| rendering | ours | 61.4 views/s | 5.5 |", "| rendering | largest | 2 grey levels |  |"]
    assert 'ONLY="rendering"' in source


# Other records ------------------------------------------------------------------------------------------------------


def test_the_table_of_flow_images_has_intervals_gains_and_databases():
    values = {"UF1": Interval(**SPAN), "UAR": Interval(**SPAN), GAIN: Interval(0.01, -0.02, 0.04)}
    values[LATER_GAIN] = values[GAIN]
    rows = [
        {"row": "zero-shot", "database": database, "measure": measure, "value": value}
        | {"unit": "difference" if measure in (GAIN, LATER_GAIN) else "score"}
        for database in ("pooled", "a", "b")
        for measure, value in values.items()
    ]
    table = readme.flow_images(tidy(rows))
    assert list(table) == ["row", "UF1", "UAR", "UF1 minus the network's", "UF1 a", "UF1 b"]
    spans = ["0.780 [0.700, 0.860]", "0.780 [0.700, 0.860]", "+0.010 [-0.020, +0.040]"]
    assert table.to_numpy().tolist() == [["zero-shot", *spans, "0.780", "0.780"]]


def test_the_table_of_altered_clips_has_a_column_for_each_network_and_names_its_commit(place):
    uf1 = {"measure": "UF1", "value": Interval(**SPAN), "unit": "score"}
    loss = {"measure": "UF1 less as learnt", "value": Interval(-0.1, -0.2, -0.05), "unit": "difference"}
    rows = [
        {"network": network, "clips": clips, **scores}
        for network in ("network", "SVM")
        for clips, scores in (("as learnt", uf1), ("half looser", uf1), ("half looser", loss))
    ]
    rows.append({"network": "network", "clips": "smic, learnt from the others", **uf1})
    store(tidy(rows), {"commit": COMMIT}, place / "record.json")
    assert load(place / "record.json")[1] == {"commit": COMMIT}
    main(["--robust-run", str(place / "record.json")])
    text = (place / "RESULTS.md").read_text().split("<!-- robust-run -->\n")[1]
    header, _, first, looser, across, _, source, *_ = text.splitlines()
    assert header == "| clips | network | SVM |"
    assert source == "Made by `python -m utils.lab.robustness` at commit 0123456."
    assert first == "| as learnt | 0.780 [0.700, 0.860] | 0.780 [0.700, 0.860] |"
    assert looser == "| half looser | -0.100 [-0.200, -0.050] | -0.100 [-0.200, -0.050] |"
    assert across == "| smic, learnt from the others | 0.780 [0.700, 0.860] |  |"


def test_the_digest_of_data_depends_on_their_content_and_not_on_their_place(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name / "train" / "a").mkdir(parents=True)
        (tmp_path / name / "train" / "a" / "0.png").write_bytes(b"12345")
        (tmp_path / name / "train.csv").write_text("Id\na\n")
        (tmp_path / name / ".hidden").write_text(name)
    digest = data_digest(tmp_path / "first")
    assert digest == data_digest(tmp_path / "second")
    (tmp_path / "second" / "train.csv").write_text("Id\nb\n")
    (tmp_path / "first" / "train" / "a" / "0.png").write_bytes(b"123456")
    assert len({digest, data_digest(tmp_path / "first"), data_digest(tmp_path / "second")}) == 3


def test_links_that_lead_nowhere_or_in_a_circle_do_not_hold_the_digest_up(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "again").symlink_to(tmp_path)
    (tmp_path / "train" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "train.csv").symlink_to(tmp_path / "nowhere")
    assert len(data_digest(tmp_path)) == 64
    assert [path.name for _, files in walk(tmp_path) for path in files] == ["train.csv", "gone.png"]
