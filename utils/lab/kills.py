"""Kill a run at random moments, start it again each time, and check its results and what it leaves behind.

    python -m utils.lab.kills [--kills 20] [--profile smoke] [--set "..."] [--jobs 2] [--seed 0]

Two copies of the code in a temporary folder run from the data to a submission. One is undisturbed. The other is killed
(SIGKILL) while it writes the data and in each of its stages: every other time with all its processes, as when a machine
fails, else alone, so that its kernel is orphaned. The exit status is 0 if no process outlives its run, both submissions
are the same byte for byte, and no temporary file is left.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import psutil

from utils.artefacts import TEMPORARY
from utils.lab.bench.cluster import children_of, end, kill, wait_for
from utils.parallel import left_by_workers
from utils.paths import ROOT
from utils.progress import say
from utils.provenance import data_digest
from utils.report.tables import markdown_table

PARTS = ("data", "01_render", "02_flow_apex", "03_train", "05_submit")  # of `utils.run submit`
COMPARED = ("submission.csv", "units.csv", "conformal.csv", "model.json")
LINES = "lines.log"  # file of a run's output
TEMPORARIES = "tmp"  # the temporary folder that a run gets, within its copy of the code
STARTUP = 4.0  # seconds that a restarted stage needs before it works
PATIENCE = 900.0 * len(PARTS)  # seconds for a run on a loaded machine
LINGERING = 60.0  # seconds within which an orphan must end


class Kill(NamedTuple):
    """A kill: the part of the run, the seconds since the part began, what was killed, how long the rest lived on."""

    part: str
    after_s: float
    what: str
    outlived_s: float


@contextmanager
def running(place: Path, options: list[str]) -> Iterator[subprocess.Popen]:
    """The process of a run of a copy of the code. The run ends with the context."""
    command = [sys.executable, "-m", "utils.run", "submit", "--name", "run", *options]
    environment = os.environ | {"PYTHONPATH": str(place), "TMPDIR": str(place / TEMPORARIES)}
    with (place / LINES).open("w") as out:
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        end([process])


def begun(place: Path) -> list[str]:
    """The parts of a run that have begun; the last one is the current part."""
    lines = (place / LINES).read_text(errors="replace").splitlines()
    return ["data", *(part for part in PARTS[1:] if any(line.startswith(f"{part}: ") for line in lines))]


def wait_for_part(process: subprocess.Popen, place: Path, part: str) -> None:
    """Wait until a part has begun or the run has ended."""
    wait_for(lambda: part in begun(place) or process.poll() is not None, PATIENCE)


def finish(process: subprocess.Popen, place: Path) -> None:
    """Wait for the end of a run. Raises RuntimeError with the last lines of a run that failed."""
    if process.wait(PATIENCE):
        raise RuntimeError("the run failed:\n" + "\n".join((place / LINES).read_text().splitlines()[-20:]))


def undisturbed(place: Path, options: list[str]) -> dict[str, float]:
    """Run a copy to its end; returns the seconds of each part."""
    starts: list[float] = []
    with running(place, options) as process:
        for part in PARTS:
            wait_for_part(process, place, part)
            starts.append(time.monotonic())
        finish(process, place)
    ends = [*starts[1:], time.monotonic()]
    return {part: end - start for part, start, end in zip(PARTS, starts, ends, strict=True)}


def kill_once(place: Path, options: list[str], part: str, after: float, everything: bool) -> Kill | None:
    """Start a copy and kill it `after` seconds after a part has begun; None if the run ends before."""
    with running(place, options) as process:
        wait_for_part(process, place, part)
        start = time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            process.wait(after)
            return None
        children, current, waited = children_of(process.pid), begun(place)[-1], time.monotonic() - start
        process.kill()
        kill(children if everything else [])
        process.wait()
        killed = time.monotonic()
        _, alive = psutil.wait_procs(children, LINGERING)
        outlived = float("inf") if alive else time.monotonic() - killed
        kill(alive)
    return Kill(current, waited, "all processes" if everything else "the run alone", outlived)


def leftovers(place: Path, calm: Path, shared: set[str]) -> list[str]:
    """Temporary files in the killed copy that the undisturbed one does not have, and new ones in shared memory."""
    files = [str(path.relative_to(place)) for path in place.rglob(".*") if TEMPORARY.fullmatch(path.name)]
    caches = {path.name for path in (calm / TEMPORARIES).iterdir()}  # of libraries, without any kill
    files += [f"{TEMPORARIES}/{path.name}" for path in (place / TEMPORARIES).iterdir() if path.name not in caches]
    return sorted(files) + sorted({path.name for path in left_by_workers()} - shared)


def try_kills(folder: Path, kills: int, seed: int, options: list[str]) -> tuple[list[Kill], list[str]]:
    """The kills, and a message for each fault afterwards."""
    rng, calm, killed = random.Random(seed), folder / "calm", folder / "killed"
    for place in (calm, killed):
        (place / TEMPORARIES).mkdir(parents=True)
        for name in ("utils", "notebooks"):
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shared = {path.name for path in left_by_workers()}
    seconds = undisturbed(calm, options)
    say("undisturbed: " + ", ".join(f"{part} {value:.0f} s" for part, value in seconds.items()))
    parts = [PARTS[number * len(PARTS) // kills] for number in range(kills)]
    done = []
    for number, part in enumerate(parts):
        turns = parts.count(part)  # each kill of a part leaves work for the next one, which starts anew
        after = rng.random() * (seconds[part] + (turns - 1) * STARTUP) / turns
        if result := kill_once(killed, options, part, after, everything=number % 2 == 1):
            done.append(result)
            say(f"kill {number + 1} of {kills}: {result.part} after {result.after_s:.1f} s")
    with running(killed, options) as process:
        finish(process, killed)
    outlived = [result.part for result in done if result.outlived_s > LINGERING]
    faults = [f"outlived its run by more than {LINGERING:.0f} s: {part}" for part in outlived]
    faults += [f"left behind: {name}" for name in leftovers(killed, calm, shared)]
    for name in COMPARED:
        files = {(place / "submissions" / "run" / name).read_bytes() for place in (calm, killed)}
        faults += [f"{name} differs from that of the undisturbed run"] if len(files) > 1 else []
    if len({data_digest(next((place / "data").iterdir())) for place in (calm, killed)}) > 1:
        faults.append("the data differ from those of the undisturbed run")
    if len(done) < kills:
        faults.append(f"{kills - len(done)} runs ended before they could be killed")
    return done, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--set", default="", help="single parameters: name=value name=value")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    words = ["--profile", options.profile, "--set", options.set, "--jobs", str(options.jobs)]
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        done, faults = try_kills(Path(folder), options.kills, options.seed, words)
    columns = ("killed in", "seconds after its begin", "what was killed", "seconds that the rest outlived it")
    print(markdown_table(pd.DataFrame(done, columns=columns).map(lambda x: f"{x:.1f}" if isinstance(x, float) else x)))
    print("\n".join(faults) or f"{len(done)} kills: the same files, byte for byte, and nothing left behind")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
