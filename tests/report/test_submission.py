"""Facts about the submission file, the record of a run, and the local leaderboard."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.git import commit_all

from utils import provenance
from utils import run as runs
from utils.dataset.tables import load_sample_submission
from utils.errors import DataError
from utils.report.record import run_record
from utils.report.submission import leaderboard, prior_labels, validate_submission, write_submission

CLASSES = ("Negative", "Positive", "Repression", "Surprise", "Others")
IDS = ["b", "007", "a"]
PRIOR = np.array([1, 0, 0, 0, 0])
LABELS = np.eye(5, dtype=int)[:3]


@pytest.fixture
def sample(tmp_path):
    """A sample submission whose rows are not sorted and whose columns are not in the order of the classes."""
    table = pd.DataFrame({"Id": IDS, **dict.fromkeys(CLASSES[::-1], "0")})
    table.to_csv(tmp_path / "sample_submission.csv", index=False)
    return load_sample_submission(tmp_path, CLASSES)


def test_rows_and_columns_have_the_order_of_the_sample(tmp_path, sample):
    path = tmp_path / "run" / "submission.csv"
    assert write_submission(path, ["a", "b", "007"], LABELS, CLASSES, sample, PRIOR, {}) == []
    header = "Id,Others,Surprise,Repression,Positive,Negative"
    assert path.read_bytes() == f"{header}\nb,0,0,0,1,0\n007,0,0,1,0,0\na,0,0,0,0,1\n".encode()


def test_a_clip_without_prediction_gets_the_training_prior_and_a_warning(tmp_path, sample):
    path = tmp_path / "submission.csv"
    warnings = write_submission(path, ["a", "b"], LABELS[1:3], CLASSES, sample, PRIOR, {"007": "Torn."})
    assert warnings == ["Id 007 has no prediction, so its row is the training prior (Negative). Torn."]
    row = validate_submission(path, sample).set_index("Id").loc["007", list(CLASSES)]
    assert row.tolist() == ["1", "0", "0", "0", "0"]


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
        write_submission(tmp_path / "out" / "submission.csv", ids, labels, CLASSES, sample, PRIOR, {})
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
    for words in (str(path), fault, "Remedy: "):
        assert words in str(caught.value)


def test_every_fault_of_a_submission_is_reported_once(tmp_path, sample):
    path, faults = tmp_path / "submission.csv", []
    table = pd.concat([sample[:2].assign(Surprise=["yes", "1"]), sample[:1].assign(Id="stranger", Negative="2")])
    table.to_csv(path, index=False)
    validate_submission(path, sample, faults.append)
    texts = [str(fault) for fault in faults]
    for words in ("Id a is missing", "Id stranger is not", "Id b has Surprise = 'yes'", "stranger has Neg"):
        assert sum(words in text for text in texts) == 1, (words, texts)
    assert len(texts) == 4 and all("Remedy: " in text for text in texts)


@pytest.mark.parametrize("valid", [True, False])
def test_the_command_says_whether_a_submission_is_valid(tmp_path, sample, monkeypatch, capsys, valid):
    monkeypatch.setattr(runs, "SUBMISSIONS", tmp_path / "submissions")
    (tmp_path / "submissions" / "x").mkdir(parents=True)
    sample.assign(Surprise="1").to_csv(tmp_path / "submissions" / "x" / "submission.csv", index=False)
    sample.assign(Surprise="maybe").to_csv(tmp_path / "damaged.csv", index=False)
    file = [] if valid else ["--file", str(tmp_path / "damaged.csv")]
    monkeypatch.setattr("sys.argv", ["run", "validate", "--data", str(tmp_path), "--name", "x", *file])
    with pytest.raises(SystemExit) as ended:
        runs.main()
    assert ended.value.code == int(not valid)
    assert (f"valid, {len(sample)} rows" if valid else f"{len(sample)} faults") in capsys.readouterr().out


def test_the_prior_has_the_classes_of_most_clips_or_else_the_most_frequent_class():
    assert prior_labels(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]])).tolist() == [1, 1, 0]
    rare = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert prior_labels(rare).tolist() == [0, 1, 0]


def test_the_record_is_json_with_code_and_packages_and_without_paths():
    record = run_record({"yaw_deg": 25.0}, 7, {"macro_uf1": np.float64(0.5), "map": np.nan}, ["careful"])
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["scores"] == {"macro_uf1": 0.5, "map": None} and record["warnings"] == ["careful"]
    assert record["packages"]["numpy"] == np.__version__ and record["machine"]["cores"] >= 1
    assert "/" not in json.dumps({**record, "packages": None}).replace("+00:00", "")


def test_the_record_names_the_commit_and_whether_the_code_has_changed_since(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() == "unknown"
    (tmp_path / "code.py").write_text("number = 1\n")
    commit = commit_all(tmp_path, monkeypatch)
    assert provenance.commit() == commit and len(commit) == 40
    (tmp_path / "code.py").write_text("number = 2\n")
    assert run_record({}, 7, {})["commit"] == f"{commit}-dirty"


@pytest.fixture
def challenge(tmp_path):
    """48 clips of 6 subjects whose labels have a prevalence of 30%, and a submission with 10% wrong labels."""
    rng = np.random.default_rng(0)
    truth = (rng.random((48, 5)) < 0.3).astype(int)
    submitted = np.where(rng.random(truth.shape) < 0.1, 1 - truth, truth)
    table = pd.DataFrame(truth, columns=CLASSES).assign(Id=[f"c{i}" for i in range(48)])
    table.assign(subject=[f"s{i % 6}" for i in range(48)]).to_csv(tmp_path / "solution.csv", index=False)
    table[list(CLASSES)] = submitted
    table[::-1].to_csv(tmp_path / "submission.csv", index=False)
    return tmp_path, truth, submitted


def macro_uf1(truth, decision):
    hits = 2 * (truth * decision).sum(0)
    return (hits / (truth.sum(0) + decision.sum(0))).mean()


def test_the_leaderboard_joins_by_id_and_scores_by_the_formula(challenge):
    root, truth, submitted = challenge
    board = leaderboard(root / "submission.csv", root / "solution.csv", CLASSES, truth).set_index("prediction")
    assert board.loc["ours", "macro_uf1"] == pytest.approx(macro_uf1(truth, submitted))
    assert board.loc["all ones", "macro_uf1"] == pytest.approx(macro_uf1(truth, np.ones_like(truth)))
    assert board.loc["prior random", "macro_uf1"] == pytest.approx(0.3, abs=0.04)
    assert board.loc["ours", ["gain", "gain_low", "gain_high"]].tolist() == [0, 0, 0]
    np.testing.assert_allclose(board["gain"], board.loc["ours", "macro_uf1"] - board["macro_uf1"])
    assert (board["low"] <= board["macro_uf1"]).all() and (board["macro_uf1"] <= board["high"]).all()
    assert (board.loc["all ones":, "gain_low"] > 0).all()


def test_a_submission_of_other_ids_has_no_leaderboard(challenge):
    root, truth, _ = challenge
    table = pd.read_csv(root / "submission.csv")
    table[1:].to_csv(root / "submission.csv", index=False)
    with pytest.raises(DataError, match="not those of solution.csv"):
        leaderboard(root / "submission.csv", root / "solution.csv", CLASSES, truth)
