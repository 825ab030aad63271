"""Facts about runs: what is noticed, what is not run again, and that a run touches nothing but its own."""

import os
import shutil
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from utils import run as runs
from utils.paths import ROOT
from utils.run import RunError, check_name, clean, free_name, locked, open_run, run_stages

STAGES = ("01_render", "05_submit")
EXECUTE = runs.execute


def notebook(*cells: str) -> nbformat.NotebookNode:
    metadata = {"language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=metadata)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A repository with two stages that only leave files, and a data root."""
    for name in ("NOTEBOOKS", "ARTEFACTS", "SUBMISSIONS"):
        monkeypatch.setattr(runs, name, tmp_path / name.lower())
    runs.NOTEBOOKS.mkdir()
    for stage in STAGES:
        nbformat.write(notebook("from utils.train.samples import Samples"), runs.NOTEBOOKS / f"{stage}.ipynb")
    data = tmp_path / "data"
    for file in ("train.csv", "sample_submission.csv", "train/a/0.png", "train/b/0.png", "test/t/0.png"):
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).write_text(file)
    executed = []

    def execute(run, stage):
        executed.append(stage)
        for file in (run.books / f"{stage}.ipynb", run.config.work_root / "figures" / f"{stage[:2]}_a.png"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(stage)
        if stage == "05_submit":
            run.config.out_root.mkdir(parents=True, exist_ok=True)
            (run.config.out_root / "submission.csv").write_text("Id")

    monkeypatch.setattr(runs, "execute", execute)
    return SimpleNamespace(data=data, executed=executed)


def make(place, profile="smoke", settings="", jobs=1, name="") -> list[str]:
    """Bring both stages up to date; returns those that were executed."""
    place.executed.clear()
    run_stages(open_run(profile, str(place.data), settings, jobs, name), STAGES)
    return list(place.executed)


def test_what_has_not_changed_is_not_run_again_whatever_the_workers(place):
    assert make(place) == list(STAGES)
    assert make(place) == [] and make(place, jobs=2) == []


def replace_clip(place):
    (place.data / "test" / "t" / "0.png").write_text("another")


def change_a_clip_in_place(place):
    file = place.data / "train" / "a" / "0.png"
    file.write_text(file.read_text()[::-1])
    os.utime(file, ns=(1, 1))


def remove_clip(place):
    shutil.rmtree(place.data / "train" / "b")


def add_boxes(place):
    (place.data / "boxes.csv").write_text("Id")


def change_sample(place):
    (place.data / "sample_submission.csv").write_text("Id,")


def change_notebooks(place):
    for stage in STAGES:
        nbformat.write(notebook("from utils.train.samples import CHANNELS"), runs.NOTEBOOKS / f"{stage}.ipynb")


CHANGES = [replace_clip, change_a_clip_in_place, remove_clip, add_boxes, change_sample, change_notebooks]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_data_or_notebook_is_noticed(place, change):
    make(place)
    change(place)
    assert make(place) == list(STAGES) and make(place) == []


def test_another_setting_or_profile_is_noticed_and_so_is_the_way_back(place):
    make(place, name="x")
    assert make(place, settings="seed=9", name="x") == list(STAGES)
    assert make(place, name="x") == list(STAGES)
    assert make(place, profile="demo", name="x") == list(STAGES)


def test_another_data_root_under_one_name_is_noticed(place, tmp_path):
    make(place, name="x")
    other = SimpleNamespace(data=tmp_path / "other", executed=place.executed)
    shutil.copytree(place.data, other.data)
    replace_clip(other)
    assert make(other, name="x") == list(STAGES)


def test_changed_code_is_noticed(place, monkeypatch):
    make(place)
    key = runs.artefact_key
    monkeypatch.setattr(runs, "artefact_key", lambda inputs, params, code: key(inputs, params, (*code, "utils.run")))
    assert make(place) == list(STAGES)


@pytest.mark.parametrize(("root", "file"), [("artefacts", "figures/05_a.png"), ("submissions", "submission.csv")])
def test_a_result_that_is_lost_or_altered_is_made_again_by_its_stage_alone(place, root, file, tmp_path):
    make(place)
    result = tmp_path / root / "smoke-data" / file
    result.write_text("altered")
    assert make(place) == ["05_submit"]
    result.unlink()
    assert make(place) == ["05_submit"] and result.exists()


def test_the_page_of_a_run_is_no_result_of_a_stage(place):
    page = runs.SUBMISSIONS / "smoke-data" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("written at this moment")
    make(place)
    page.write_text("written anew")
    assert make(place) == []


def test_a_run_that_has_left_nothing_has_no_page(place):
    with pytest.raises(ValueError, match="RUN=x: no stage.*Remedy"):
        runs.report("x")
    assert not runs.SUBMISSIONS.exists()


def test_the_card_and_hidden_files_beside_the_data_do_not_count(place):
    make(place)
    (place.data / "card").mkdir()
    (place.data / "card" / "labels.png").write_text("")
    (place.data / ".lock").write_text("")
    assert make(place) == []


def test_links_that_lead_nowhere_or_in_a_circle_do_not_stop_a_run(place):
    (place.data / "test" / "t" / "1.png").symlink_to(place.data / "nowhere.png")
    (place.data / "train" / "a" / "up").symlink_to(place.data / "train", target_is_directory=True)
    assert make(place) == list(STAGES) and make(place) == []


def test_a_clip_behind_a_link_is_noticed_when_it_changes(place, tmp_path):
    shutil.move(place.data / "train" / "a", tmp_path / "elsewhere")
    (place.data / "train" / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    make(place)
    (tmp_path / "elsewhere" / "0.png").write_text("another")
    assert make(place) == list(STAGES)


def test_what_a_killed_process_left_half_written_is_removed(place):
    make(place)
    dead = subprocess.Popen(["true"])
    dead.wait()
    half, living = (runs.ARTEFACTS / "smoke-data" / f".a.{pid}-0123abcd.npz" for pid in (dead.pid, os.getpid()))
    half.write_text("half"), living.write_text("half")
    make(place)
    assert not half.exists() and living.exists()


# Names ------------------------------------------------------------------------------------------------------------


def test_roots_of_one_base_name_do_not_share_a_run(place, tmp_path):
    other = tmp_path / "elsewhere" / "data"
    shutil.copytree(place.data, other)
    make(place)
    first, second = (free_name("smoke", str(data)) for data in (place.data, other))
    assert first == "smoke-data" and second.startswith("smoke-data-") and second != first
    make(SimpleNamespace(data=other, executed=place.executed))
    assert [free_name("smoke", str(data)) for data in (place.data, other)] == [first, second]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(name):
    with pytest.raises(RunError, match="RUN=.*Remedy"):
        check_name(name)


def test_a_data_root_that_is_not_there_is_refused(place):
    with pytest.raises(RunError, match="no such folder.*Remedy"):
        open_run("smoke", str(place.data) + "x", "", 1)


@pytest.fixture
def face_models(tmp_path, monkeypatch):
    """Two face models of one name, and what their data would be made by: a file."""
    monkeypatch.setattr(runs, "ROOT", tmp_path)

    def make_data(config, face_model):
        config.data_root.mkdir(parents=True, exist_ok=True)
        (config.data_root / "train.csv").write_text(face_model.read_text())

    monkeypatch.setattr(runs, "make_data", make_data)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "head.glb").write_text(folder)
    return [tmp_path / folder / "head.glb" for folder in ("a", "b")]


def test_each_face_model_has_data_and_a_run_of_its_own(place, face_models):
    made = []
    for model in (*face_models, *face_models):
        run = open_run("smoke", "", "", 1, face_model=str(model))
        assert run.synthetic and run.config.axes == "y-up" and "axes=y-up" in run.parameters("01_render")["SET"]
        run_stages(run, STAGES)
        assert (run.config.data_root / "train.csv").read_text() == model.parent.name
        made.append((run.name, run.config.data))
    assert made[0] == made[2] and made[1] == made[3] and made[0] != made[1]
    assert made[0][0] == "smoke-head" and made[1][0].startswith("smoke-head-")
    runs.clean_data(open_run("smoke", "", "", 1, face_model=str(face_models[0])))
    assert not Path(made[0][1]).exists() and Path(made[1][1]).exists()


def test_a_face_model_that_is_not_there_or_beside_data_is_refused(place, face_models):
    with pytest.raises(RunError, match="is not there.*Remedy"):
        run_stages(open_run("smoke", "", "", 1, face_model=str(face_models[0]) + "x"), STAGES)
    assert open_run("smoke", "", "axes=auto seed=3", 1, face_model=str(face_models[0])).settings == "axes=auto seed=3"
    with pytest.raises(RunError, match="DATA and FACE_MODEL.*Remedy"):
        open_run("smoke", str(place.data), "", 1, face_model=str(face_models[0]))


def test_clean_removes_the_named_run_alone(place):
    make(place)
    make(place, name="other")
    clean("other")
    assert not (runs.ARTEFACTS / "other").exists()
    assert (runs.ARTEFACTS / "smoke-data").exists() and (runs.SUBMISSIONS / "other").exists() and place.data.exists()
    with pytest.raises(RunError):
        clean("..")


def test_a_second_process_of_one_name_waits_and_says_so(place, monkeypatch):
    said, entered = threading.Event(), threading.Event()
    monkeypatch.setattr(runs, "say", lambda text: said.set() if "waiting" in text else None)

    def second():
        with locked("x"):
            entered.set()

    thread = threading.Thread(target=second, daemon=True)
    with locked("x"):
        thread.start()
        assert said.wait(60) and not entered.is_set()
    assert entered.wait(60)
    with locked("x"), locked("y"):
        pass


# Notebooks --------------------------------------------------------------------------------------------------------


def test_a_cell_that_fails_is_named_and_what_was_there_before_stays(place):
    nbformat.write(notebook("print('started')", "raise ValueError('a.png: torn')"), runs.NOTEBOOKS / "01_render.ipynb")
    run = open_run("smoke", str(place.data), "", 1, "x")
    run.books.mkdir(parents=True)
    (run.books / "01_render.ipynb").write_text("before")
    with pytest.raises(RunError, match=r"01_render, cell \d+: ValueError: a.png: torn"):
        EXECUTE(run, "01_render")
    assert (run.books / "01_render.ipynb").read_text() == "before"
    assert sorted(path.name for path in run.books.iterdir()) == ["01_render.failed.ipynb", "01_render.ipynb"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("data", ["/my data/4D ME", "/it's", "/a#b", "/a$b", "/a$(b)c", '/a"b'])
def test_make_hands_a_path_over_as_it_was_typed(tmp_path, data):
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    python.chmod(0o755)
    (tmp_path / ".ready").touch()
    command = ["make", "-s", "submit", f"VENV={tmp_path}", f"DATA={data}", "SET=seed=1 size=64"]
    clean = {name: value for name, value in os.environ.items() if name not in ("DATA", "SET", "RUN", "PROFILE", "JOBS")}
    answer = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=True, timeout=300)
    words = answer.stdout.splitlines()
    assert words[words.index("--data") + 1] == data and words[words.index("--set") + 1] == "seed=1 size=64"
    assert words[:3] == ["-m", "utils.run", "submit"]


def test_every_stage_is_a_notebook_and_the_submission_does_not_wait_for_the_ablation():
    books = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {stage for stages in runs.STAGES.values() for stage in stages} == books
    assert "04_ablation" not in runs.STAGES["submit"] and runs.STAGES["all"][-1] == "04_ablation"
    assert Path(runs.NOTEBOOKS).is_dir()
