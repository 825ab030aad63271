"""Facts about the check of a data root before a run: it describes the root, and reports every fault."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from utils import run as runs
from utils.check import SHOWN, Check, check_root, grouped, words_of, write_check
from utils.dataset.images import write_image


@pytest.fixture
def config(tiny, tmp_path):
    """A copy of the tiny root whose training clips show five subjects."""
    root = tmp_path / "data"
    shutil.copytree(tiny.data_root, root)
    rewrite(root / "train.csv", lambda table: table.assign(subject=[f"P{row % 5}" for row in range(len(table))]))
    return replace(tiny, data=str(root), work=str(tmp_path / "work"))


def rewrite(path, change):
    table = pd.read_csv(path, dtype=str)
    change(table).to_csv(path, index=False)


def test_a_root_without_faults_is_ready_and_described(config, tmp_path):
    check = check_root(config)
    facts = dict(check.facts)
    assert words_of(check).endswith("\nready") and check.problems == []
    assert facts["training"] == "6 clips of 5 subjects, 1 to 2 clips each" and facts["test"] == "3 clips"
    assert facts["frames"].startswith("6 to 6") and facts["files"] == "clip.npz (9)"
    assert facts["axes"] == "y-up (9)" and facts["crops"] == "mesh (9)" and facts["split"].startswith("2 folds")
    write_check(check, tmp_path / "check")
    assert (tmp_path / "check" / "problems.txt").read_text() == ""
    table = pd.read_csv(tmp_path / "check" / "clips.csv")
    assert len(table) == 9 and (table["vertices"] > 1000).all() and (table["topology"] != "").all()
    sheet = cv2.imread(str(tmp_path / "check" / "contact_sheet.png"))
    assert sheet.std() > 20 and min(sheet.shape[:2]) > 300


def test_every_fault_is_reported_with_its_remedy(config):
    root = config.data_root
    train = pd.read_csv(root / "train.csv", dtype=str)["Id"].tolist()
    test = pd.read_csv(root / "sample_submission.csv", dtype=str)["Id"].tolist()
    for id in train[:2]:
        shutil.rmtree(root / "train" / id)
    for name in ("stranger", "other"):
        (root / "train" / name).mkdir()
    shutil.copytree(root / "train" / train[3], root / "test" / train[3])
    rewrite(root / "sample_submission.csv", lambda table: pd.concat([table, table.iloc[:1].assign(Id=train[3])]))
    rewrite(root / "train.csv", lambda table: table.assign(offset=["5", "5", "5", "5", "77", "5"]))
    (root / "test" / test[0] / "clip.npz").write_bytes(b"no archive")
    check = check_root(config)
    for fault in (
        f"Id {train[0]} has no folder",
        f"Id {train[1]} has no folder",
        "stranger: train.csv has no row",
        "other: train.csv has no row",
        f"Id {train[3]} stands in train.csv too",
        f"Id {train[4]} names frame 77 of 6",
        f"{test[0]}/clip.npz: ",
    ):
        assert sum(fault in problem for problem in check.problems) == 1, (fault, check.problems)
    assert len(check.problems) == 7 and all("Remedy: " in problem for problem in check.problems)
    assert words_of(check).endswith("not ready: 7 problems")
    assert any("cannot be read" in title for title, _ in check.pictures)


def test_a_table_that_cannot_be_read_is_reported(config):
    (config.data_root / "train.csv").write_text("Id\n")
    check = check_root(config)
    assert "train.csv" in check.problems[0] and words_of(check).endswith("not ready: 1 problem")


def test_folds_that_cannot_be_made_are_reported(tiny, config):
    assert "a fold has 1 subject to train on" in check_root(tiny, 0).problems[0]
    assert "6 folds of 5 subjects" in check_root(replace(config, folds="6"), 0).problems[0]


def test_pictures_with_the_wrong_views_setting_are_reported_together(config):
    for folder in (config.data_root / "train").iterdir():
        shutil.rmtree(folder)
        folder.mkdir()
        for t in range(6):
            write_image(folder / f"{t}.png", np.random.default_rng(t).integers(0, 255, (60, 120, 3), np.uint8))
    words = words_of(check_root(config))
    assert words.count("no mesh to render") == SHOWN and "... and 1 more like these" in words
    assert "set views to 'split'" in words and "'single'" in words


def test_a_box_whose_id_is_in_no_other_table_is_reported(config):
    head = "Id,left_x,left_y,left_side,right_x,right_y,right_side"
    (config.data_root / "boxes.csv").write_text(f"{head}\nnobody,1,1,90,1,1,90\n")
    assert any("the first is nobody" in problem for problem in check_root(config, 0).problems)


def test_the_opened_sample_reaches_from_the_first_clip_to_the_last(config):
    check = check_root(config, 3)
    ids = [title.split("\n")[0] for title, _ in check.pictures]
    assert len(ids) == 3 and {ids[0], ids[-1]} == {check.clips["Id"].iloc[0], check.clips["Id"].iloc[-1]}


def test_faults_with_the_same_remedy_are_grouped():
    texts = [f"{i}: bad. Remedy: mend." for i in range(9)] + ["x: odd. Remedy: even."]
    assert grouped(texts) == [*texts[:SHOWN], "... and 4 more like these", texts[-1]]


@pytest.mark.parametrize(("problems", "code"), [([], 0), (["a: b. Remedy: c."], 1)])
def test_the_command_writes_its_files_and_its_exit_code_tells_of_problems(
    config, tmp_path, monkeypatch, capsys, problems, code
):
    monkeypatch.setattr(runs, "ARTEFACTS", tmp_path)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr("utils.check.check_root", lambda config, sample: Check(config.data_root, problems=problems))
    monkeypatch.setattr("sys.argv", ["run", "check", "--data", config.data, "--name", "x"])
    with pytest.raises(SystemExit) as ended:
        runs.main()
    assert ended.value.code == code and ("not ready: 1 problem" if code else "ready") in capsys.readouterr().out
    assert (tmp_path / "x" / "check" / "problems.txt").read_text().count("\n") == code
