"""Facts about repeating a run from its record: what is repeated, what is compared, and what cannot be repeated."""

import json

import pytest
from helpers.git import commit_all

from utils.provenance import data_digest, versions
from utils.report import reproduce as module
from utils.report.reproduce import ReproduceError, departures, folder_of, reproduce

SUBMISSION = "Id,Negative,Positive\na,0,1\nb,1,0\n"
# A stand-in for `utils.run`: its setting "last" is the last row of the submission, "digest" the digest of the data.
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
def write_run(tmp_path, monkeypatch):
    """In a repository of its own, a function that writes the submission and the record of run "x", with changes."""
    monkeypatch.setattr(module, "ROOT", tmp_path)
    packages = versions()
    record = {
        "python": packages.pop("python"),
        "packages": packages,
        "machine": {"cores": 1},
        "renderer": "embree",
        "parameters": {"profile": "smoke", "jobs": 2, "last": "1+0"},
        "data": {"training": 2, "test": 2, "synthetic": True, "digest": "0" * 64},
    }
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").touch()
    (tmp_path / "utils" / "run.py").write_text(RUN)
    (tmp_path / "record.json").write_text(json.dumps(record))
    commit = commit_all(tmp_path, monkeypatch)

    def write(**changes):
        folder = tmp_path / "submissions" / "x"
        folder.mkdir(parents=True)
        (folder / "submission.csv").write_text(SUBMISSION)
        (folder / "run.json").write_text(json.dumps(record | {"commit": commit} | changes))

    return write


def test_a_run_that_gives_the_same_file_is_the_same(write_run, capfd):
    write_run()
    assert reproduce("x", "", 1)
    assert "submission.csv: the same, byte for byte" in capfd.readouterr().out


def test_a_run_that_gives_another_file_is_reported_with_cells_and_facts(write_run, capfd):
    parameters = {"profile": "smoke", "jobs": 2, "last": "0+0", "digest": "1" * 64}
    write_run(parameters=parameters, packages={"numpy": "0.1"}, renderer="EGL")
    assert not reproduce("x", "", 1)
    output = capfd.readouterr().out
    assert "1 cells differ, by at most 1; b, Negative: 1 recorded, 0 now" in output
    assert "differs: numpy: 0.1 recorded" in output and "renderer: EGL recorded, embree now" in output
    assert f"data digest: {'0' * 64} recorded, {'1' * 64} now" in output


def test_code_that_was_changed_after_the_commit_is_not_run(write_run, tmp_path):
    write_run()
    (tmp_path / "utils" / "run.py").write_text("raise SystemExit(3)\n")
    assert reproduce("x", "", 1)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"commit": "0" * 40 + "-dirty"}, "no commit holds"),
        ({"commit": "unknown"}, "not in git"),
        ({"commit": "1" * 40}, "no commit 1"),
        ({"parameters": {"profile": "smoke", "jobs": 2}}, "the repeated run failed"),
    ],
)
def test_a_run_that_cannot_be_repeated_is_refused_with_a_remedy(write_run, changes, fault):
    write_run(**changes)
    with pytest.raises(ReproduceError, match=f"{fault}.*Remedy: "):
        reproduce("x", "", 1)


def test_data_that_have_changed_or_are_not_known_are_refused_with_a_remedy(write_run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("Id\n")
    write_run(data={"training": 2, "test": 2, "synthetic": False, "digest": data_digest(tmp_path / "data")})
    with pytest.raises(ReproduceError, match="not known where.*Remedy: "):
        reproduce("x", "", 1)
    assert reproduce("x", str(tmp_path / "data"), 1)
    (tmp_path / "data" / "train.csv").write_text("Id\na\n")
    with pytest.raises(ReproduceError, match=r"not those of the run, which had 2 \+ 2 clips.*Remedy: "):
        reproduce("x", str(tmp_path / "data"), 1)


@pytest.mark.parametrize("run", ["", "y"])
def test_a_run_without_record_is_refused_with_a_remedy(write_run, run):
    with pytest.raises(ReproduceError, match="no run.json. Remedy: "):
        folder_of(run)


@pytest.mark.parametrize(
    ("table", "departure"),
    [
        ("Id,Negative\na,0\n", "its columns differ from number 3 on: Positive and none"),
        ("Id,Negative,Positive\na,0,1\n", "its rows differ from number 2 on: b and none"),
        (SUBMISSION.replace("\n", "\r\n"), "0 cells differ, by at most 0"),
    ],
)
def test_a_table_of_another_form_is_told_apart(tmp_path, table, departure):
    (tmp_path / "a.csv").write_text(SUBMISSION)
    (tmp_path / "b.csv").write_text(table, newline="")
    assert departures(tmp_path / "a.csv", tmp_path / "b.csv") == [departure]
