"""Facts about the submission file, the record of a run, and the local leaderboard."""

import json
import subprocess

import numpy as np
import pandas as pd
import pytest

from utils import run as runs
from utils.dataset.tables import load_sample_submission
from utils.errors import DataError
from utils.report import record
from utils.report.record import run_record
from utils.report.submission import leaderboard, prior_labels, validate_submission, write_submission

CLASSES = ("Negative", "Positive", "Repression", "Surprise", "Others")
IDS = ["b", "007", "a"]
PRIOR = np.array([1, 0, 0, 0, 0])
LABELS = np.eye(5, dtype=int)[:3]


@pytest.fixture
def sample(tmp_path):
    """A sample submission whose rows are not sorted and whose columns are not in the classes' order."""
    table = pd.DataFrame({"Id": IDS, **dict.fromkeys(CLASSES[::-1], "0")})
    table.to_csv(tmp_path / "sample_submission.csv", index=False)
    return load_sample_submission(tmp_path, CLASSES)


def test_rows_and_columns_are_the_samples_whatever_order_predictions_come_in(tmp_path, sample):
    path = tmp_path / "run" / "submission.csv"
    assert write_submission(path, ["a", "b", "007"], LABELS, CLASSES, sample, PRIOR) == []
    assert path.read_text() == (
        "Id,Others,Surprise,Repression,Positive,Negative\nb,0,0,0,1,0\n007,0,0,1,0,0\na,0,0,0,0,1\n"
    )


def test_a_clip_without_prediction_gets_the_training_prior_and_a_warning(tmp_path, sample):
    path = tmp_path / "submission.csv"
    warnings = write_submission(path, ["a", "b"], LABELS[1:3], CLASSES, sample, PRIOR, {"007": "Torn."})
    assert warnings == ["Id 007 has no prediction, so its row is the training prior (Negative). Torn."]
    row = validate_submission(path, sample).set_index("Id").loc["007", list(CLASSES)]
    assert row.tolist() == ["1", "0", "0", "0", "0"]


def test_the_same_predictions_give_the_same_bytes(tmp_path, sample):
    for name in "xy":
        write_submission(tmp_path / name, IDS, LABELS, CLASSES, sample, PRIOR)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


@pytest.mark.parametrize(
    ("ids", "labels", "fault"),
    [
        (["a", "a"], LABELS[:2], "Id a"),
        (["a", "stranger"], LABELS[:2], "Id stranger"),
        (["a", "b"], LABELS[:2] * 0.7, "not 0/1"),
        (["a", "b"], LABELS, "(3, 5)"),
        (["a", "b"], LABELS[:2, :4], "(2, 4)"),
    ],
)
def test_predictions_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, sample, ids, labels, fault):
    with pytest.raises(DataError) as caught:
        write_submission(tmp_path / "out" / "submission.csv", ids, labels, CLASSES, sample, PRIOR)
    assert fault in str(caught.value) and "Remedy: " in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t[::-1], "another order"),
        (lambda t: t[t.columns[::-1]], "its columns are"),
        (lambda t: t.assign(extra=1), "its columns are"),
        (lambda t: t[:2], "Id a is missing"),
        (lambda t: t.assign(Id=["b", "007", "c"]), "Id a is missing"),
        (lambda t: pd.concat([t, t[:1].assign(Id="c")]), "Id c is not a test Id"),
        (lambda t: pd.concat([t, t[:1]]), "twice"),
        (lambda t: t.assign(Surprise=["0", "1", "0.5"]), "Id a has Surprise = '0.5'"),
        (lambda t: t.assign(Surprise=["0", "", "1"]), "Id 007 has Surprise = ''"),
    ],
)
def test_a_submission_that_is_not_like_the_sample_is_refused(tmp_path, sample, change, fault):
    path = tmp_path / "submission.csv"
    change(sample).to_csv(path, index=False)
    with pytest.raises(DataError) as caught:
        validate_submission(path, sample)
    for word in (str(path), fault, "Remedy: "):
        assert word in str(caught.value)


def test_all_faults_of_a_submission_are_told(tmp_path, sample):
    path, faults = tmp_path / "submission.csv", []
    wrong = pd.concat([sample[:2].assign(Surprise=["yes", "1"]), sample[:1].assign(Id="stranger", Negative="2")])
    wrong.to_csv(path, index=False)
    validate_submission(path, sample, faults.append)
    found = [str(fault) for fault in faults]
    missing, first = sample["Id"].iloc[2], sample["Id"].iloc[0]
    for words in (
        f"Id {missing} is missing",
        "Id stranger is not",
        f"Id {first} has Surprise = 'yes'",
        "stranger has Neg",
    ):
        assert sum(words in text for text in found) == 1, (words, found)
    assert len(found) == 4 and all("Remedy: " in text for text in found)


@pytest.mark.parametrize("fault", [False, True])
def test_the_command_says_whether_a_submission_is_valid(tmp_path, sample, monkeypatch, capsys, fault):
    monkeypatch.setattr(runs, "SUBMISSIONS", tmp_path / "submissions")
    (tmp_path / "data").mkdir()
    sample.to_csv(tmp_path / "data" / "sample_submission.csv", index=False)
    (tmp_path / "submissions" / "x").mkdir(parents=True)
    sample.assign(Surprise="1").to_csv(tmp_path / "submissions" / "x" / "submission.csv", index=False)
    other = ["--file", str(tmp_path / "other.csv")]
    sample.assign(Surprise="maybe").to_csv(tmp_path / "other.csv", index=False)
    arguments = ["run", "validate", "--data", str(tmp_path / "data"), "--name", "x", *(other if fault else [])]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        runs.main()
    said = capsys.readouterr().out
    assert ended.value.code == int(fault)
    assert (f"{len(sample)} faults" if fault else f"valid, {len(sample)} rows") in said


def test_the_prior_is_what_most_clips_carry_or_else_the_most_frequent_class():
    assert prior_labels(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]])).tolist() == [1, 1, 0]
    rare = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert prior_labels(rare).tolist() == [0, 1, 0]


# Record ---------------------------------------------------------------------------------------------


def test_the_record_is_json_and_names_code_and_packages_but_no_place():
    found = run_record({"yaw_deg": 25.0}, 7, {"macro_uf1": np.float64(0.5), "map": np.nan}, ["careful"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["scores"] == {"macro_uf1": 0.5, "map": None} and found["warnings"] == ["careful"]
    assert found["packages"]["numpy"] == np.__version__ and found["machine"]["cores"] >= 1
    assert "/" not in json.dumps({**found, "packages": None}).replace("+00:00", "")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository of one file and one commit in the place of ours."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # as hooks set them
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "code.py").write_text("one = 1\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "code.py"], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, timeout=60)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    return tmp_path


def test_the_commit_is_that_of_the_code_and_tells_of_changes(repository):
    head = ["git", "rev-parse", "HEAD"]
    expected = subprocess.run(head, cwd=repository, capture_output=True, text=True, check=True, timeout=60).stdout
    assert record.commit() == expected.strip() and len(record.commit()) == 40
    (repository / "code.py").write_text("one = 2\n")
    assert record.commit() == expected.strip() + "-dirty"
    assert run_record({}, 7, {})["commit"] == expected.strip() + "-dirty"


def test_outside_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.commit() == "unknown"


# Leaderboard ----------------------------------------------------------------------------------------


@pytest.fixture
def challenge(tmp_path):
    """48 clips of 6 subjects with 30% prevalence, and a submission that has 10% of the labels wrong."""
    rng = np.random.default_rng(0)
    truth = (rng.random((48, 5)) < 0.3).astype(int)
    flipped = np.where(rng.random(truth.shape) < 0.1, 1 - truth, truth)
    ids = pd.Series([f"c{i}" for i in range(48)], name="Id")
    subjects = pd.Series([f"s{i % 6}" for i in range(48)], name="subject")
    columns = list(CLASSES)
    pd.concat([ids, subjects, pd.DataFrame(truth, columns=columns)], axis=1).to_csv(
        tmp_path / "solution.csv", index=False
    )
    pd.concat([ids, pd.DataFrame(flipped, columns=columns)], axis=1)[::-1].to_csv(
        tmp_path / "submission.csv", index=False
    )
    return tmp_path, truth, flipped


def macro_uf1(truth, decision):
    hits = 2 * (truth * decision).sum(0)
    return (hits / (truth.sum(0) + decision.sum(0))).mean()


def test_the_leaderboard_joins_by_id_and_scores_as_the_formula_says(challenge):
    root, truth, flipped = challenge
    board = leaderboard(root / "submission.csv", root / "solution.csv", CLASSES, truth)
    board = board.set_index("prediction")
    assert board.loc["ours", "macro_uf1"] == pytest.approx(macro_uf1(truth, flipped))
    assert board.loc["all ones", "macro_uf1"] == pytest.approx(macro_uf1(truth, np.ones_like(truth)))
    assert board.loc["prior random", "macro_uf1"] == pytest.approx(0.3, abs=0.04)
    assert board.loc["ours", ["gain", "gain_low", "gain_high"]].tolist() == [0, 0, 0]
    gains = board.loc["ours", "macro_uf1"] - board["macro_uf1"]
    np.testing.assert_allclose(board["gain"], gains)
    assert (board["low"] <= board["macro_uf1"]).all() and (board["macro_uf1"] <= board["high"]).all()
    assert (board.loc["all ones":, "gain_low"] > 0).all()


def test_a_submission_of_other_ids_has_no_leaderboard(challenge):
    root, truth, _ = challenge
    table = pd.read_csv(root / "submission.csv")
    table[1:].to_csv(root / "submission.csv", index=False)
    with pytest.raises(DataError, match="not those of solution.csv"):
        leaderboard(root / "submission.csv", root / "solution.csv", CLASSES, truth)
