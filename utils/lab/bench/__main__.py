"""Runs the benchmark: what the parts cost and how accurate they are, compared with the code that a user would
otherwise write.

python -m utils.lab.bench                            # every section: artefacts/bench/bench.md, bench.json, memory.png
python -m utils.lab.bench --only apex rendering      # these sections
python -m utils.lab.bench --quick                    # tiny, to see that it works; its numbers mean nothing

A section is a function that takes a Setting and returns rows (`utils.lab.bench.setting.row`). Its docstring is the
caption of its table.
"""

import argparse
import inspect
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import psutil

from utils.artefacts import atomic_path
from utils.lab.bench.flow import damaged_flow, flow
from utils.lab.bench.real_skin import real_skin
from utils.lab.bench.render import leaks, rendering
from utils.lab.bench.setting import SEEDS, Setting
from utils.lab.bench.stages import apex, features, memory, workers
from utils.lab.bench.training import training
from utils.lab.tables import as_markdown, store, tidy
from utils.paths import ROOT
from utils.progress import progress, say
from utils.report.record import run_record

SECTIONS = {
    section.__name__: section
    for section in (flow, damaged_flow, real_skin, apex, rendering, leaks, features, training, memory, workers)
}


def machine() -> dict[str, str | float | None]:
    """The processor, its cores, the memory in GB, the system, and the threads that one process may use."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    processors = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": processors[0] if processors else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def run(setting: Setting, names: Sequence[str]) -> None:
    """Run sections and write the results after each one, so that they are kept if a later section fails."""
    tables, seconds = {}, {}
    for name in progress(names, "sections"):
        say(f"== {name}")
        start = time.perf_counter()
        tables[name] = tidy({"section": name, **row} for row in SECTIONS[name](setting))
        seconds[name] = time.perf_counter() - start
        say(f"{as_markdown(tables[name])}\n{seconds[name]:.0f} s\n")
        write_results(setting, tables, seconds)


def write_results(setting: Setting, tables: Mapping[str, pd.DataFrame], seconds: Mapping[str, float]) -> None:
    """Write `bench.json` and `bench.md` of the sections that have run."""
    parameters = {"quick": setting.quick, "jobs": setting.jobs, "sections": list(tables)}
    parameters["faces"] = bool(setting.faces)
    record = run_record(parameters, SEEDS[0], {}) | {"seconds": seconds}
    record["machine"] |= machine()
    store(pd.concat(tables.values()), record, setting.folder / "bench.json")
    about = {**record["machine"], "python": record["python"], **record["packages"], "commit": record["commit"]}
    lines = ["# Benchmark", "", "; ".join(f"{name} {value}" for name, value in about.items()) + "."]
    if setting.quick:
        lines += ["", "A quick run, to see that it works: its numbers mean nothing."]
    for name, table in tables.items():
        lines += ["", f"## {name}", "", caption(name), "", as_markdown(table)]
        lines += ["", f"`python -m utils.lab.bench --only {name}`, {seconds[name]:.0f} s."]
    with atomic_path(setting.folder / "bench.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def caption(name: str) -> str:
    """What a section compares, and on which data, in one line."""
    return " ".join(inspect.getdoc(SECTIONS[name]).split())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare this code with what a user would otherwise write.")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    parser.add_argument("--jobs", type=int, default=2, help="workers over clips")
    parser.add_argument("--out", type=Path, default=ROOT / "artefacts" / "bench", help="folder of results and data")
    parser.add_argument("--faces", type=Path, help="folder of face photographs for real_skin: <person>/*.jpg")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    run(Setting(options.out.resolve(), options.jobs, options.quick, options.faces), options.only)
    print(f"{options.out / 'bench.md'}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
