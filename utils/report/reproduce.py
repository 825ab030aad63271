"""Repeats a run from its run.json in a clean clone, and says whether its submission is the same, byte for byte.

    python -m utils.report.reproduce RUN [--data DIR] [--jobs 2]

The clone is of this repository at the commit of the record, in a temporary folder. It runs with this Python and the
parameters of the record, on the same data root, or on synthetic faces that it makes itself where the run made its own.
Exit status 0 only where submission.csv is the same.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from utils.artefacts import read_artefact
from utils.paths import ROOT
from utils.provenance import data_digest, versions

OPTIONS = ("profile", "jobs")  # parameters that have an option of their own
COMPARED = ("submission.csv", "units.csv")  # the second holds probabilities, which say how far numbers have moved
SHOWN = 5  # cells that differ


class ReproduceError(RuntimeError):
    """A run cannot be repeated; the message says why and what to do."""


def folder_of(run: str) -> Path:
    """The folder of a run's submission, by the run's name or by itself."""
    found = [folder for folder in (ROOT / "submissions" / run, Path(run)) if run and (folder / "run.json").is_file()]
    if not found:
        raise ReproduceError(f"RUN={run}: it has no run.json. Remedy: name a run that make submit or make all ended.")
    if not (found[0] / "submission.csv").is_file():
        raise ReproduceError(f"{found[0]}: it has no submission.csv. Remedy: name a run whose data have a test split.")
    return found[0].absolute()


def check_commit(commit: str) -> None:
    """Raise ReproduceError for a commit that no clone can have."""
    if commit.endswith("-dirty"):
        fault, remedy = "the code had changes that no commit holds", "commit them, and make the run again"
    elif commit == "unknown":
        fault, remedy = "the code was not in git", "clone the repository, and make the run again"
    elif git("cat-file", "-e", f"{commit}^{{commit}}"):
        fault, remedy = f"this repository has no commit {commit}", "git fetch the branch on which the run was made"
    else:
        return
    raise ReproduceError(f"the run cannot be repeated, {fault}. Remedy: {remedy}.")


def find_data(run: str, data: str, recorded: Mapping[str, Any]) -> str:
    """The data root of a run, "" for synthetic faces that it made itself. ReproduceError for other data."""
    owner = ROOT / "artefacts" / run / "data_root.json"
    if not data and owner.exists():
        data = read_artefact(owner)["data"]
    if not data:
        if recorded["synthetic"] and not recorded.get("face_model"):
            return ""
        raise ReproduceError(f"where the data of run {run} lie is not known. Remedy: say DATA=folder.")
    if not Path(data).is_dir():
        raise ReproduceError(f"DATA={data}: there is no such folder. Remedy: name the data root of the run.")
    if data_digest(Path(data)) != recorded["digest"]:
        fault = f"the data are not those of the run, which had {recorded['training']} + {recorded['test']} clips"
        raise ReproduceError(f"DATA={data}: {fault}. Remedy: name the root as it was, or make the run again.")
    return os.path.abspath(data)


def repeat(record: Mapping[str, Any], data: str, jobs: int, clone: Path) -> Path:
    """Run a record's parameters at its commit in `clone`; returns the folder of the submission."""
    cloned = git("clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(clone))
    if fault := cloned or git("checkout", "--quiet", record["commit"], cwd=clone):
        raise ReproduceError(f"the repository cannot be cloned: {fault}. Remedy: see that git works in {ROOT}.")
    parameters = record["parameters"]
    settings = " ".join(f"{name}={value}" for name, value in parameters.items() if name not in OPTIONS)
    command = [sys.executable, "-m", "utils.run", "submit", "--name", "again", "--profile", parameters["profile"]]
    command += ["--set", settings, "--data", data, "--jobs", str(jobs)]
    if subprocess.run(command, cwd=clone, env=os.environ | {"PYTHONPATH": str(clone)}).returncode:
        raise ReproduceError("the repeated run failed. Remedy: see its last lines above.")
    return clone / "submissions" / "again"


def git(*words: str, cwd: Path | None = None) -> str:
    """Run git, in this repository unless told where; returns what it complains of, "" where it succeeds."""
    try:
        answer = subprocess.run(["git", *words], cwd=cwd or ROOT, capture_output=True, text=True)
    except OSError as error:
        raise ReproduceError(f"git cannot be started ({error.strerror}). Remedy: install git.") from error
    return answer.stderr.strip() or f"git {words[0]} failed" if answer.returncode else ""


# Comparison ---------------------------------------------------------------------------------------------------------


def facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of the things on which numbers depend, by name."""
    named = {name: record[name] for name in ("commit", "python", "renderer") if name in record}
    return (
        named | record["packages"] | record["machine"] | {f"data {key}": value for key, value in record["data"].items()}
    )


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for each fact that differs, of those that both have."""
    return [
        f"{name}: {before[name]} recorded, {after[name]} now"
        for name in before
        if name in after and before[name] != after[name]
    ]


def departures(before: Path, after: Path) -> list[str]:
    """Where a table departs from a recorded one: none where the files are the same, byte for byte."""
    if before.read_bytes() == after.read_bytes():
        return []
    old, new = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (before, after))
    for what, left, right in (("columns", old.columns, new.columns), ("rows", old.iloc[:, 0], new.iloc[:, 0])):
        if list(left) != list(right):
            first = next(i for i in range(len(left) + 1) if list(left[i : i + 1]) != list(right[i : i + 1]))
            pair = " and ".join(str(next(iter(side[first : first + 1]), "none")) for side in (left, right))
            return [f"its {what} differ from number {first + 1} on: {pair}"]
    differs = old.ne(new).to_numpy().nonzero()
    cells = [
        f"{old.iat[i, 0]}, {old.columns[j]}: {old.iat[i, j]} recorded, {new.iat[i, j]} now"
        for i, j in list(zip(*differs, strict=True))[:SHOWN]
    ]
    numbers = (pd.to_numeric(table.to_numpy()[differs], errors="coerce") for table in (old, new))
    largest = max(abs(a - b) for a, b in zip(*numbers, strict=True)) if cells else 0
    return [f"{len(differs[0])} cells differ, by at most {largest:g}", *cells]


def reproduce(run: str, data: str, jobs: int) -> bool:
    """Repeat a run, and say how it compares; returns whether the submission is the same."""
    folder = folder_of(run)
    record = read_artefact(folder / "run.json")
    check_commit(record["commit"])
    data = find_data(folder.name, data, record["data"])
    for line in changed(facts(record), versions()):
        print(f"differs: {line}", flush=True)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as place:
        again = repeat(record, data, jobs, Path(place) / "clone")
        found = changed(facts(record), facts(read_artefact(again / "run.json")))
        tables = {name: departures(folder / name, again / name) for name in COMPARED if (folder / name).exists()}
    for name, lines in tables.items():
        print(f"{name}: {'; '.join(lines) if lines else 'the same, byte for byte'}")
    print("recorded facts that differ: " + ("; ".join(found) or "none"))
    return not tables["submission.csv"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="name of a finished run, or the folder of its submission")
    parser.add_argument("--data", default="", help="data root (default: that of the run)")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    try:
        same = reproduce(options.run, options.data, options.jobs)
    except (ReproduceError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
