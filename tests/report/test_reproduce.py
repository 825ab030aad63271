"""Facts about repeating a run from its record: what is repeated, what is compared, and what cannot be repeated."""

import json
import subprocess

import pytest

from utils.provenance import data_digest, versions
from utils.report import reproduce as again
from utils.report.reproduce import ReproduceError, departures, folder_of, reproduce

SUBMISSION = "Id,Negative,Positive\na,0,1\nb,1,0\n"
# A stand-in for `utils.run`: it leaves what its settings say, beside a record.
RUN = """
import json, sys
from pathlib import Path
option = dict(zip(sys.argv[2::2], sys.argv[3::2]))
settings = dict(part.split("=") for part in option["--set"].split())
assert "profile" not in settings and "jobs" not in settings and option["--profile"] == "smoke"
out = Path("submissions", option["--name"])
out.mkdir(parents=True)
(out / "submission.csv").write_text("Id,Negative,Positive\\na,0,1\\nb," + settings["last"].replace("+", ",") + "\\n")
record = json.loads(Path("record.json").read_text())
record["data"]["digest"] = settings.get("digest", record["data"]["digest"])
(out / "run.json").write_text(json.dumps(record))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A repository whose run "x" lies in its submissions: a function that writes the run's record, with changes."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # as hooks set them
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(again, "ROOT", tmp_path)
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    found = versions()
    record = {
        "python": found.pop("python"),
        "packages": found,
        "machine": {"cores": 1},
        "renderer": "embree",
        "parameters": {"profile": "smoke", "jobs": 2, "last": "1+0"},
        "data": {"training": 2, "test": 2, "synthetic": True, "digest": "0" * 64},
    }
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").touch()
    (tmp_path / "utils" / "run.py").write_text(RUN)
    (tmp_path / "record.json").write_text(json.dumps(record))
    for words in (["init", "-q"], ["add", "utils", "record.json"], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, timeout=60)
    head = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(head, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def write(**changes):
        folder = tmp_path / "submissions" / "x"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "submission.csv").write_text(SUBMISSION)
        (folder / "run.json").write_text(json.dumps(record | {"commit": commit} | changes))
        return record

    return write


def test_a_run_that_gives_the_same_file_is_the_same(place, capfd):
    place()
    assert reproduce("x", "", 1)
    assert "submission.csv: the same, byte for byte" in capfd.readouterr().out


def test_a_run_that_gives_another_file_is_told_with_cells_and_facts(place, capfd):
    parameters = {"profile": "smoke", "jobs": 2, "last": "0+0", "digest": "1" * 64}
    place(parameters=parameters, packages={"numpy": "0.1"}, renderer="EGL")
    assert not reproduce("x", "", 1)
    said = capfd.readouterr().out
    assert "1 cells differ, by at most 1; b, Negative: 1 recorded, 0 now" in said
    assert "differs: numpy: 0.1 recorded" in said and "renderer: EGL recorded, embree now" in said
    assert f"data digest: {'0' * 64} recorded, {'1' * 64} now" in said


def test_uncommitted_code_changed_since_is_not_what_is_repeated(place, tmp_path):
    place()
    (tmp_path / "utils" / "run.py").write_text("raise SystemExit(3)\n")
    assert reproduce("x", "", 1)


@pytest.mark.parametrize(
    ("commit", "fault"),
    [("0" * 40 + "-dirty", "no commit holds"), ("unknown", "not in git"), ("1" * 40, "no commit 1")],
)
def test_a_commit_that_cannot_be_cloned_is_said_with_its_remedy(place, commit, fault):
    place(commit=commit)
    with pytest.raises(ReproduceError, match=f"{fault}.*Remedy: "):
        reproduce("x", "", 1)


def test_data_that_have_changed_or_are_not_known_are_said_with_their_remedy(place, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("Id\n")
    data = {"training": 2, "test": 2, "synthetic": False, "digest": data_digest(tmp_path / "data")}
    place(data=data)
    with pytest.raises(ReproduceError, match="not known. Remedy: "):
        reproduce("x", "", 1)
    assert reproduce("x", str(tmp_path / "data"), 1)
    (tmp_path / "data" / "train.csv").write_text("Id\na\n")
    with pytest.raises(ReproduceError, match=r"not those of the run, which had 2 \+ 2 clips.*Remedy: "):
        reproduce("x", str(tmp_path / "data"), 1)


def test_a_repetition_that_fails_is_no_answer(place):
    place(parameters={"profile": "smoke", "jobs": 2})
    with pytest.raises(ReproduceError, match="failed. Remedy: "):
        reproduce("x", "", 1)


@pytest.mark.parametrize("run", ["", "y"])
def test_a_run_without_record_is_refused(place, run):
    with pytest.raises(ReproduceError, match="no run.json. Remedy: "):
        folder_of(run)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("Id,Negative\na,0\n", "its columns differ from number 3 on: Positive and none"),
        ("Id,Negative,Positive\na,0,1\n", "its rows differ from number 2 on: b and none"),
        (SUBMISSION.replace("\n", "\r\n"), "0 cells differ, by at most 0"),
    ],
)
def test_a_table_of_another_form_is_told_apart(tmp_path, other, said):
    (tmp_path / "a.csv").write_text(SUBMISSION)
    (tmp_path / "b.csv").write_text(other, newline="")
    assert departures(tmp_path / "a.csv", tmp_path / "b.csv") == [said]
