"""Facts about all notebooks in the smoke profile: with papermill on compact clips, and as on Kaggle on OBJ frames."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from helpers.notebook_runs import BOOKS, run_as_on_kaggle, run_notebooks

from utils.config import load_config
from utils.dataset.tables import load_sample_submission
from utils.make_data import make_data
from utils.paths import ROOT
from utils.predict import predict, prepare
from utils.provenance import commit
from utils.report.submission import validate_submission
from utils.train.samples import CLASSES


@pytest.fixture(scope="module")
def compact_run(tmp_path_factory) -> Path:
    """Run the notebooks on compact clips; returns the submission's folder."""
    folder = tmp_path_factory.mktemp("compact")
    make_data(load_config("smoke", data=str(folder / "data"), jobs=1))
    return run_notebooks(folder)


def times(folder: Path) -> dict[Path, int]:
    """The time of the last change of a folder and of everything in it."""
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


@pytest.fixture(scope="module")
def kaggle_run(tmp_path_factory) -> Path:
    """Run the notebooks on OBJ frames without make, git and repository; returns the submission's folder."""
    folder = tmp_path_factory.mktemp("kaggle")
    data, working, programs = folder / "input" / "faces", folder / "working", folder / "bin"
    make_data(load_config("smoke", data=str(data), obj_frames=True, jobs=1))
    for part in ("utils", "notebooks"):
        shutil.copytree(ROOT / part, working / "code" / part, ignore=shutil.ignore_patterns("__pycache__"))
    programs.mkdir()  # it stays empty, so that no program is on the path
    before = times(data)
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        run_as_on_kaggle(working / "code", data, working, PATH=str(programs), PYTHONPATH="")
        assert times(data) == before  # the modes do not stop root from writing
    finally:
        for path in before:
            path.chmod(0o755)
    return working


def test_the_submission_is_valid(compact_run):
    sample = load_sample_submission(compact_run.parent / "data", CLASSES)
    table = validate_submission(compact_run / "submission.csv", sample)
    assert len(table) == len(sample)


def test_the_record_has_parameters_versions_and_scores_but_no_paths(compact_run):
    record = json.loads((compact_run / "run.json").read_text())
    assert record["parameters"]["profile"] == "smoke"
    assert record["packages"]["torch"] == version("torch")
    assert record["commit"].removesuffix("-dirty") == commit().removesuffix("-dirty")
    scores = record["scores"]
    assert scores["leaderboard"][0]["prediction"] == "ours" and 0 < scores["held_out"]["macro_uf1"] < 1
    assert set(scores["thresholds"]) == set(CLASSES)
    assert all("inner" in row["source"] and 0 <= row["value"] <= 1 for row in scores["thresholds"].values())
    assert record["data"]["training"] + record["data"]["test"] == 24 and len(record["data"]["digest"]) == 64
    assert all(record["stages"][name]["seconds"] > 0 for name in ("01_render", "02_flow_apex", "03_train"))
    rendered = json.loads((compact_run.parent / "work" / "records" / "01_render.json").read_text())
    assert rendered["scores"]["renderer"].split()[0] in ("pyrender", "embree")
    assert str(compact_run.parent) not in json.dumps(record)


def test_a_clip_is_predicted_from_the_folder_of_a_run_and_four_people_are_too_few_to_exclude_a_value(compact_run):
    path = next((compact_run.parent / "data" / "test").iterdir())
    config, model = prepare(path, str(compact_run))
    assert config.views == "render" and "synthetic" in model.origin and model.scores["person"].nunique() == 4
    assert set(predict(path, config, model).classes["answer"]) == {"cannot tell"}


def test_every_stage_writes_figures_and_a_record_and_the_data_have_a_card(compact_run):
    work, card = compact_run.parent / "work", compact_run.parent / "data" / "card"
    for stage in ("01", "02", "03", "04"):
        assert list((work / "figures").glob(f"{stage}_*.png")), stage
        assert list((work / "records").glob(f"{stage}_*.json")), stage
    bounds = json.loads((card / "card.json").read_text())["bounds"]
    assert 0 < bounds["true_units"] <= 1 and 0 < bounds["all_ones"] < 1
    assert {path.name for path in card.glob("*.png")} == {"labels.png", "statistics.png", "identities.png"}


def test_obj_frames_on_kaggle_give_the_submission_of_compact_clips_byte_for_byte(compact_run, kaggle_run):
    assert len(list((kaggle_run.parent / "input" / "faces" / "train").rglob("*.obj"))) > 0
    assert (kaggle_run / "submission.csv").read_bytes() == (compact_run / "submission.csv").read_bytes()


def test_the_record_on_kaggle_says_that_the_code_is_in_no_repository(kaggle_run):
    record = json.loads((kaggle_run / "run.json").read_text())
    assert record["commit"] == "unknown" and record["renderer"].split()[0] in ("pyrender", "embree")
    assert list(record["stages"]) == ["01_render", "02_flow_apex", "03_train", "04_ablation", "05_submit"]
    assert 0 < record["scores"]["held_out"]["macro_uf1"] < 1


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_notebooks_are_stored_without_outputs_and_have_one_cell_of_typed_parameters(book):
    code = [cell for cell in nbformat.read(book, as_version=4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert all(": " in line and " = " in line for line in parameters.source.splitlines())
