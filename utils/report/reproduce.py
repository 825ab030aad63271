"""Repeats a run from its run.json in a clean clone, and says whether the submission is the same, byte for byte.

    python -m utils.report.reproduce RUN [--data DIR] [--jobs 2]

It clones this repository into a temporary folder, at the commit of the record. There it runs this Python with the
parameters of the record, on the same data root; a run that made its own synthetic faces makes them again.
The exit status is 0 only if submission.csv is the same.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from utils.artefacts import read_artefact
from utils.paths import ROOT
from utils.provenance import data_digest, versions

OPTIONS = ("profile", "jobs")  # parameters with a command line option; all others are settings
COMPARED = ("submission.csv", "units.csv")  # units.csv holds probabilities, which show how far the numbers differ
SHOWN = 5  # differing cells


class ReproduceError(RuntimeError):
    """A run cannot be repeated; the message says why and what to do."""


def folder_of(run: str) -> Path:
    """The folder of the submission of a run, from the run's name or the folder itself."""
    folders = [ROOT / "submissions" / run, Path(run)] if run else []
    folder = next((folder for folder in folders if (folder / "run.json").is_file()), None)
    if folder is None:
        raise ReproduceError(
            f"RUN={run}: it has no run.json. Remedy: name a run that make submit or make all finished."
        )
    if not (folder / "submission.csv").is_file():
        raise ReproduceError(f"{folder}: it has no submission.csv. Remedy: name a run on data with a test split.")
    return folder.absolute()


def check_commit(commit: str) -> None:
    """Raise ReproduceError for a commit that cannot be cloned."""
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
    """The data root of a run; "" if the run made its own synthetic faces.

    data: the data root that the user names, or ""; recorded: what run.json says of the data. Raises ReproduceError if
    the data root cannot be found or has changed since.
    """
    owner = ROOT / "artefacts" / run / "data_root.json"
    if not data and owner.exists():
        data = read_artefact(owner)["data"]
    if not data:
        if recorded["synthetic"] and not recorded.get("face_model"):
            return ""
        raise ReproduceError(f"it is not known where the data of run {run} lie. Remedy: name their folder by DATA=.")
    if not Path(data).is_dir():
        raise ReproduceError(f"DATA={data}: there is no such folder. Remedy: name the data root of the run.")
    if data_digest(Path(data)) != recorded["digest"]:
        fault = f"the data are not those of the run, which had {recorded['training']} + {recorded['test']} clips"
        raise ReproduceError(f"DATA={data}: {fault}. Remedy: name the unchanged data root, or make the run again.")
    return os.path.abspath(data)


def repeat(record: Mapping[str, Any], data: str, jobs: int, clone: Path) -> Path:
    """Run the parameters of a record at its commit in the folder `clone`; returns the folder of the submission."""
    fault = git("clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(clone))
    fault = fault or git("checkout", "--quiet", record["commit"], cwd=clone)
    if fault:
        raise ReproduceError(f"the repository cannot be cloned: {fault}. Remedy: see that git works in {ROOT}.")
    parameters = record["parameters"]
    settings = " ".join(f"{name}={value}" for name, value in parameters.items() if name not in OPTIONS)
    command = [sys.executable, "-m", "utils.run", "submit", "--name", "again", "--profile", parameters["profile"]]
    command += ["--set", settings, "--data", data, "--jobs", str(jobs)]
    if subprocess.run(command, cwd=clone, env=os.environ | {"PYTHONPATH": str(clone)}).returncode:
        raise ReproduceError("the repeated run failed. Remedy: see its last lines above.")
    return clone / "submissions" / "again"


def git(*words: str, cwd: Path | None = None) -> str:
    """Run git in a folder, by default this repository; returns its error message, or "" on success."""
    try:
        answer = subprocess.run(["git", *words], cwd=cwd or ROOT, capture_output=True, text=True)
    except OSError as error:
        raise ReproduceError(f"git cannot be started ({error.strerror}). Remedy: install git.") from error
    return answer.stderr.strip() or f"git {words[0]} failed" if answer.returncode else ""


# Comparison ---------------------------------------------------------------------------------------------------------


def facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a record that can change the numbers, by name."""
    general = {name: record[name] for name in ("commit", "python", "renderer") if name in record}
    data = {f"data {key}": value for key, value in record["data"].items()}
    return general | record["packages"] | record["machine"] | data


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for each fact that both have and that differs."""
    differing = [name for name in before if name in after and before[name] != after[name]]
    return [f"{name}: {before[name]} recorded, {after[name]} now" for name in differing]


def departures(before: Path, after: Path) -> list[str]:
    """How a table differs from the recorded one; [] if the files are the same, byte for byte."""
    if before.read_bytes() == after.read_bytes():
        return []
    old, new = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (before, after))
    for what, left, right in (("columns", old.columns, new.columns), ("rows", old.iloc[:, 0], new.iloc[:, 0])):
        for number, pair in enumerate(zip_longest(left, right, fillvalue="none"), start=1):
            if pair[0] != pair[1]:
                return [f"its {what} differ from number {number} on: {' and '.join(pair)}"]
    rows, columns = old.ne(new).to_numpy().nonzero()
    cells = [
        f"{old.iat[i, 0]}, {old.columns[j]}: {old.iat[i, j]} recorded, {new.iat[i, j]} now"
        for i, j in zip(rows[:SHOWN], columns[:SHOWN], strict=True)
    ]
    numbers = (pd.to_numeric(table.to_numpy()[rows, columns], errors="coerce") for table in (old, new))
    largest = max(abs(a - b) for a, b in zip(*numbers, strict=True)) if cells else 0
    return [f"{len(rows)} cells differ, by at most {largest:g}", *cells]


def reproduce(run: str, data: str, jobs: int) -> bool:
    """Repeat a run and print how it compares; returns whether the submission is the same."""
    folder = folder_of(run)
    record = read_artefact(folder / "run.json")
    check_commit(record["commit"])
    data = find_data(folder.name, data, record["data"])
    for line in changed(facts(record), versions()):
        print(f"differs: {line}", flush=True)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as place:
        again = repeat(record, data, jobs, Path(place) / "clone")
        differences = changed(facts(record), facts(read_artefact(again / "run.json")))
        tables = {name: departures(folder / name, again / name) for name in COMPARED if (folder / name).exists()}
    for name, lines in tables.items():
        print(f"{name}: {'; '.join(lines) if lines else 'the same, byte for byte'}")
    print("recorded facts that differ: " + ("; ".join(differences) or "none"))
    return not tables["submission.csv"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="name of a finished run, or the folder of its submission")
    parser.add_argument("--data", default="", help="data root (default: the data root of the run)")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    try:
        same = reproduce(options.run, options.data, options.jobs)
    except (ReproduceError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
