"""Kills a run at random moments, lets it go on each time, and looks at what comes out and what is left lying about.

    python -m utils.lab.kills [--kills 20] [--profile smoke] [--set "..."] [--jobs 2] [--seed 0]

Two copies of the code in a temporary folder run from nothing to a submission: one undisturbed, one killed (SIGKILL) in
turn while it writes the data and in each of its stages, every other time with all its processes, as when a machine goes
down, and else alone, so that its kernel is orphaned. Exit status 0 where every kill left no process behind, both
submissions are the same, byte for byte, and no temporary file is left.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from utils.artefacts import TEMPORARY
from utils.parallel import left_by_workers
from utils.paths import ROOT
from utils.progress import say
from utils.provenance import data_digest
from utils.report.tables import markdown_table

PARTS = ("data", "01_render", "02_flow_apex", "03_train", "05_submit")  # of `utils.run submit`
COMPARED = ("submission.csv", "units.csv", "conformal.csv", "model.json")
TEMPORARIES = "tmp"  # the system's temporary folder, as a run sees it
STARTUP = 4.0  # seconds until a stage that is begun again comes to its own work
PATIENCE = 900.0  # seconds for one part at most, on a loaded machine
LINGERING = 60.0  # seconds in which an orphan must have noticed


@dataclass(frozen=True)
class Kill:
    """One kill: in which part of the run, how long after its begin, of what, and how long the rest outlived it."""

    part: str
    after_s: float
    what: str
    outlived_s: float


class Runner:
    """A run of a copy of the code, in a process group of its own, whose lines are read as they come."""

    def __init__(self, place: Path, options: list[str]) -> None:
        self.lines = place / "lines.log"
        command = [sys.executable, "-m", "utils.run", "submit", "--name", "run", *options]
        with self.lines.open("w") as out:
            environment = os.environ | {"PYTHONPATH": str(place), "TMPDIR": str(place / TEMPORARIES)}
            self.process = subprocess.Popen(command, cwd=place, env=environment, stdout=out, stderr=subprocess.STDOUT)
        self.start = time.monotonic()

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_) -> None:
        for process in self.family():
            process.kill()
        self.process.wait()

    def family(self) -> list[psutil.Process]:
        """The run's process and all that it started."""
        try:
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def begun(self) -> dict[str, bool]:
        """Of each part whether it has begun, or was current already."""
        told = self.lines.read_text(errors="replace").splitlines()
        stages = {part: any(line.startswith(f"{part}: ") for line in told) for part in PARTS[1:]}
        return {"data": True} | stages

    def part(self) -> str:
        """The part at which it works."""
        return [part for part, begun in self.begun().items() if begun][-1]

    def wait_for(self, part: str) -> None:
        """Until a part has begun, or the run has ended."""
        end = time.monotonic() + PATIENCE * len(PARTS)
        while not self.begun()[part] and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)

    def finish(self) -> None:
        """Until the end of the run. RuntimeError with its last lines where it fails."""
        if self.process.wait(PATIENCE * len(PARTS)):
            raise RuntimeError("the run failed:\n" + "\n".join(self.lines.read_text().splitlines()[-20:]))


def copy_code(place: Path) -> Path:
    """What a run needs of the repository, in a new folder."""
    (place / TEMPORARIES).mkdir(parents=True)
    for name in ("utils", "notebooks"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return place


def undisturbed(place: Path, options: list[str]) -> dict[str, float]:
    """Run a copy to its end; returns the seconds of each part."""
    begins: dict[str, float] = {}
    with Runner(place, options) as runner:
        for part in PARTS:
            runner.wait_for(part)
            begins[part] = time.monotonic()
        runner.finish()
    ends = [*list(begins.values())[1:], time.monotonic()]
    return {part: end - begin for (part, begin), end in zip(begins.items(), ends, strict=True)}


def kill_once(place: Path, options: list[str], part: str, after: float, everything: bool) -> Kill | None:
    """Start a copy, and kill it so many seconds after a part's begin; None where it had ended before."""
    with Runner(place, options) as runner:
        runner.wait_for(part)
        began = time.monotonic()
        try:
            runner.process.wait(after)
            return None
        except subprocess.TimeoutExpired:
            pass
        family, where, waited = runner.family(), runner.part(), time.monotonic() - began
        for process in family if everything else family[:1]:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        runner.process.wait()
        killed = time.monotonic()
        _, alive = psutil.wait_procs(family[1:], LINGERING)
        outlived = time.monotonic() - killed if not alive else float("inf")
        for process in alive:
            process.kill()
    return Kill(where, waited, "all processes" if everything else "the run alone", outlived)


def leftovers(place: Path, calm: Path, shared: set[str]) -> list[str]:
    """Temporary files below a folder that a calm run does not leave, and new ones of workers in shared memory."""
    files = [str(path.relative_to(place)) for path in place.rglob(".*") if TEMPORARY.fullmatch(path.name)]
    own = {path.name for path in (calm / TEMPORARIES).iterdir()}  # caches of libraries, which no kill leaves
    files += [f"{TEMPORARIES}/{path.name}" for path in (place / TEMPORARIES).iterdir() if path.name not in own]
    return sorted(files) + sorted(in_shared_memory() - shared)


def in_shared_memory() -> set[str]:
    return {path.name for path in left_by_workers()}


def try_kills(folder: Path, kills: int, seed: int, options: list[str]) -> tuple[list[Kill], list[str]]:
    """The kills, and what is wrong afterwards: nothing, as it should be."""
    rng = random.Random(seed)
    calm, killed = (copy_code(folder / name) for name in ("calm", "killed"))
    shared = in_shared_memory()
    seconds = undisturbed(calm, options)
    say("undisturbed: " + ", ".join(f"{part} {value:.0f} s" for part, value in seconds.items()))
    parts = [PARTS[number * len(PARTS) // kills] for number in range(kills)]
    found = []
    for number, part in enumerate(parts):
        turns = parts.count(part)  # what one leaves the next one goes on with, after a new start
        after = rng.random() * (seconds[part] + (turns - 1) * STARTUP) / turns
        kill = kill_once(killed, options, part, after, everything=number % 2 == 1)
        if kill is not None:
            found.append(kill)
            say(f"kill {number + 1} of {kills}: {kill.part} after {kill.after_s:.1f} s")
    with Runner(killed, options) as runner:
        runner.finish()
    outlived = [one.part for one in found if one.outlived_s > LINGERING]
    faults = [f"outlived its run by more than {LINGERING:.0f} s: {part}" for part in outlived]
    faults += [f"left behind: {name}" for name in leftovers(killed, calm, shared)]
    results = [(place / "submissions" / "run") for place in (calm, killed)]
    for name in COMPARED:
        if (results[0] / name).read_bytes() != (results[1] / name).read_bytes():
            faults.append(f"{name} differs from that of the undisturbed run")
    if len({data_digest(next((place / "data").iterdir())) for place in (calm, killed)}) > 1:
        faults.append("the data differ from those of the undisturbed run")
    if len(found) < kills:
        faults.append(f"{kills - len(found)} runs ended before they could be killed")
    return found, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--set", default="", help="single parameters: name=value name=value")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    words = ["--profile", options.profile, "--set", options.set, "--jobs", str(options.jobs)]
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        found, faults = try_kills(Path(folder), options.kills, options.seed, words)
    table = pd.DataFrame(
        [[one.part, f"{one.after_s:.1f}", one.what, f"{one.outlived_s:.1f}"] for one in found],
        columns=["killed in", "seconds after its begin", "what was killed", "seconds that the rest outlived it"],
    )
    print(markdown_table(table))
    print("\n".join(faults) or f"{len(found)} kills: the same files, byte for byte, and nothing left behind")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
