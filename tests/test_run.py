"""Facts about runs: which changes they notice, what they skip, and that a run touches only its own files."""

import os
import shutil
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from helpers.processes import ended_process

from utils import run as runs
from utils.paths import ROOT
from utils.run import RunError, check_name, clean, free_name, locked, open_run, run_stages

STAGES = ("01_render", "05_submit")
EXECUTE = runs.execute


def write_notebook(stage: str, *cells: str) -> None:
    metadata = {"language_info": {"name": "python"}}
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=metadata)
    nbformat.write(book, runs.NOTEBOOKS / f"{stage}.ipynb")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with two stages that only write files, and a data root."""
    for name in ("NOTEBOOKS", "ARTEFACTS", "SUBMISSIONS"):
        monkeypatch.setattr(runs, name, tmp_path / name.lower())
    runs.NOTEBOOKS.mkdir()
    for stage in STAGES:
        write_notebook(stage, "from utils.train.samples import Samples")
    data = tmp_path / "data"
    for file in ("train.csv", "sample_submission.csv", "train/a/0.png", "train/b/0.png", "test/t/0.png"):
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).write_text(file)
    executed = []

    def execute(run, stage):
        executed.append(stage)
        files = [run.books / f"{stage}.ipynb", run.config.work_root / "figures" / f"{stage[:2]}_a.png"]
        if stage == "05_submit":
            files.append(run.config.out_root / "submission.csv")
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(stage)

    monkeypatch.setattr(runs, "execute", execute)
    return SimpleNamespace(data=data, executed=executed)


def make(project, profile="smoke", settings="", jobs=1, name="", data=None) -> list[str]:
    """Bring both stages up to date; returns those that were executed."""
    project.executed.clear()
    run_stages(open_run(profile, str(data or project.data), settings, jobs, name), STAGES)
    return list(project.executed)


# What is executed again -----------------------------------------------------------------------------------------------


def test_an_unchanged_run_executes_nothing_whatever_the_number_of_workers(project):
    assert make(project) == list(STAGES)
    assert make(project) == [] and make(project, jobs=2) == []


def change_in_place(data):
    """Change the content of a file but not its size, and set its time back."""
    file = data / "train" / "a" / "0.png"
    file.write_text(file.read_text()[::-1])
    os.utime(file, ns=(1, 1))


CHANGES = {
    "a replaced clip": lambda data: (data / "test" / "t" / "0.png").write_text("another"),
    "a clip changed in place": change_in_place,
    "a removed clip": lambda data: shutil.rmtree(data / "train" / "b"),
    "new boxes": lambda data: (data / "boxes.csv").write_text("Id"),
    "a changed sample submission": lambda data: (data / "sample_submission.csv").write_text("Id,"),
    "changed notebooks": lambda _: [write_notebook(stage, "import utils.train.samples") for stage in STAGES],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_data_or_notebooks_is_noticed(project, change):
    make(project)
    CHANGES[change](project.data)
    assert make(project) == list(STAGES) and make(project) == []


def test_another_setting_profile_or_data_root_is_noticed_and_so_is_the_return_to_the_first(project, tmp_path):
    make(project, name="x")
    assert make(project, settings="seed=9", name="x") == list(STAGES)
    assert make(project, name="x") == list(STAGES)
    assert make(project, profile="demo", name="x") == list(STAGES)
    shutil.copytree(project.data, tmp_path / "other")
    CHANGES["a replaced clip"](tmp_path / "other")
    assert make(project, profile="demo", name="x", data=tmp_path / "other") == list(STAGES)


def test_changed_code_is_noticed(project, monkeypatch):
    make(project)
    key = runs.artefact_key
    monkeypatch.setattr(runs, "artefact_key", lambda inputs, params, code: key(inputs, params, (*code, "utils.run")))
    assert make(project) == list(STAGES)


@pytest.mark.parametrize(("root", "file"), [("artefacts", "figures/05_a.png"), ("submissions", "submission.csv")])
def test_only_the_stage_of_a_lost_or_altered_result_is_executed_again(project, root, file, tmp_path):
    make(project)
    result = tmp_path / root / "smoke-data" / file
    result.write_text("altered")
    assert make(project) == ["05_submit"]
    result.unlink()
    assert make(project) == ["05_submit"] and result.exists()


def test_the_page_the_card_and_hidden_files_do_not_count(project):
    page, card = runs.SUBMISSIONS / "smoke-data" / "report.html", project.data / "card" / "labels.png"
    page.parent.mkdir(parents=True)
    page.write_text("written during the run")
    make(project)
    page.write_text("written again")
    card.parent.mkdir()
    card.write_text("")
    (project.data / ".lock").write_text("")
    assert make(project) == []


def test_broken_and_circular_links_do_not_stop_a_run(project):
    (project.data / "test" / "t" / "1.png").symlink_to(project.data / "nowhere.png")
    (project.data / "train" / "a" / "up").symlink_to(project.data / "train", target_is_directory=True)
    assert make(project) == list(STAGES) and make(project) == []


def test_a_change_of_a_linked_clip_is_noticed(project, tmp_path):
    shutil.move(project.data / "train" / "a", tmp_path / "elsewhere")
    (project.data / "train" / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    make(project)
    (tmp_path / "elsewhere" / "0.png").write_text("another")
    assert make(project) == list(STAGES)


def test_a_run_removes_the_unfinished_files_of_killed_processes(project):
    make(project)
    killed, living = (
        runs.ARTEFACTS / "smoke-data" / f".a.{pid}-0123abcd.npz" for pid in (ended_process(), os.getpid())
    )
    killed.write_text("half")
    living.write_text("half")
    make(project)
    assert not killed.exists() and living.exists()


def test_clean_removes_the_artefacts_of_the_named_run_only(project):
    make(project)
    make(project, name="other")
    clean("other")
    assert not (runs.ARTEFACTS / "other").exists()
    assert (runs.ARTEFACTS / "smoke-data").exists() and (runs.SUBMISSIONS / "other").exists() and project.data.exists()
    with pytest.raises(RunError):
        clean("..")


def test_a_run_without_results_has_no_page(project):
    with pytest.raises(ValueError, match="RUN=x: no stage.*Remedy"):
        runs.report("x")
    assert not runs.SUBMISSIONS.exists()


def test_a_second_process_with_the_same_run_says_that_it_waits(project, monkeypatch):
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


def test_two_data_roots_with_one_base_name_have_two_runs(project, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "data"
    shutil.copytree(project.data, elsewhere)
    make(project)
    names = [free_name("smoke", str(data)) for data in (project.data, elsewhere)]
    assert names[0] == "smoke-data" and names[1].startswith("smoke-data-")
    make(project, data=elsewhere)
    assert [free_name("smoke", str(data)) for data in (project.data, elsewhere)] == names


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden"])
def test_a_name_that_cannot_name_a_folder_is_refused(name):
    with pytest.raises(RunError, match="RUN=.*Remedy"):
        check_name(name)


@pytest.fixture
def face_models(tmp_path, monkeypatch):
    """Two face models with the same name. Their synthetic data are a file with the model's content."""
    monkeypatch.setattr(runs, "ROOT", tmp_path)

    def make_data(config, face_model):
        config.data_root.mkdir(parents=True, exist_ok=True)
        (config.data_root / "train.csv").write_text(face_model.read_text())

    monkeypatch.setattr(runs, "make_data", make_data)
    models = [tmp_path / folder / "head.glb" for folder in ("a", "b")]
    for model in models:
        model.parent.mkdir()
        model.write_text(model.parent.name)
    return models


def test_each_face_model_has_its_own_data_and_its_own_run(project, face_models):
    places = []
    for model in (*face_models, *face_models):
        run = open_run("smoke", "", "", 1, face_model=str(model))
        assert run.synthetic and run.config.axes == "y-up" and "axes=y-up" in run.parameters("01_render")["SET"]
        run_stages(run, STAGES)
        assert (run.config.data_root / "train.csv").read_text() == model.parent.name
        places.append((run.name, run.config.data))
    assert places[0] == places[2] and places[1] == places[3] and places[0] != places[1]
    assert places[0][0] == "smoke-head" and places[1][0].startswith("smoke-head-")
    runs.clean_data(open_run("smoke", "", "", 1, face_model=str(face_models[0])))
    assert not Path(places[0][1]).exists() and Path(places[1][1]).exists()


def test_a_missing_data_root_or_face_model_and_both_together_are_refused(project, face_models):
    model = str(face_models[0])
    with pytest.raises(RunError, match="no such folder.*Remedy"):
        open_run("smoke", str(project.data) + "x", "", 1)
    with pytest.raises(RunError, match="is not there.*Remedy"):
        run_stages(open_run("smoke", "", "", 1, face_model=model + "x"), STAGES)
    with pytest.raises(RunError, match="DATA and FACE_MODEL.*Remedy"):
        open_run("smoke", str(project.data), "", 1, face_model=model)
    assert open_run("smoke", "", "axes=auto seed=3", 1, face_model=model).settings == "axes=auto seed=3"


# Notebooks and make ---------------------------------------------------------------------------------------------------


def test_the_error_of_a_cell_names_the_cell_and_the_old_notebook_stays(project):
    write_notebook("01_render", "print('started')", "raise ValueError('a.png: torn')")
    run = open_run("smoke", str(project.data), "", 1, "x")
    run.books.mkdir(parents=True)
    (run.books / "01_render.ipynb").write_text("before")
    with pytest.raises(RunError, match=r"01_render, cell \d+: ValueError: a.png: torn"):
        EXECUTE(run, "01_render")
    assert (run.books / "01_render.ipynb").read_text() == "before"
    assert sorted(path.name for path in run.books.iterdir()) == ["01_render.failed.ipynb", "01_render.ipynb"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("data", ["/my data/4D ME", "/it's", "/a#b", "/a$b", "/a$(b)c", '/a"b'])
def test_make_passes_a_path_as_it_was_typed(tmp_path, data):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    python.chmod(0o755)
    (tmp_path / ".ready").touch()
    command = ["make", "-s", "submit", f"VENV={tmp_path}", f"DATA={data}", "SET=seed=1 size=64"]
    values = ("DATA", "SET", "RUN", "PROFILE", "JOBS")  # of the `make` that may have started this test
    environment = {name: value for name, value in os.environ.items() if name not in values}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300)
    words = answer.stdout.splitlines()
    assert words[words.index("--data") + 1] == data and words[words.index("--set") + 1] == "seed=1 size=64"
    assert words[:3] == ["-m", "utils.run", "submit"]


def test_every_stage_is_a_notebook_and_the_submission_does_not_wait_for_the_ablation():
    books = {path.stem for path in runs.NOTEBOOKS.glob("*.ipynb")}
    assert {stage for stages in runs.STAGES.values() for stage in stages} == books
    assert "04_ablation" not in runs.STAGES["submit"] and runs.STAGES["all"][-1] == "04_ablation"
