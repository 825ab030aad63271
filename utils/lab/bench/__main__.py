"""What the parts cost and how right they are, against what a user would otherwise write, in one run.

python -m utils.lab.bench                            # every section, artefacts/bench/bench.md, bench.json, memory.png
python -m utils.lab.bench --only apex rendering      # some of them
python -m utils.lab.bench --quick                    # tiny, to see that it works; its numbers say nothing

A section is a function from a Setting to rows (`utils.lab.bench.setting.row`); its docstring is the table's caption.
"""

import argparse
import inspect
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import psutil

from utils.artefacts import atomic_path, write_artefact
from utils.lab.bench.flow import damaged_flow, flow
from utils.lab.bench.real_skin import real_skin
from utils.lab.bench.render import leaks, rendering
from utils.lab.bench.setting import SEEDS, Setting
from utils.lab.bench.stages import apex, features, memory, workers
from utils.lab.bench.training import training
from utils.paths import ROOT
from utils.progress import progress, say
from utils.report.record import run_record
from utils.report.tables import cell, markdown_table

SECTIONS = {
    "flow": flow,
    "damaged_flow": damaged_flow,
    "real_skin": real_skin,
    "apex": apex,
    "rendering": rendering,
    "leaks": leaks,
    "features": features,
    "training": training,
    "memory": memory,
    "workers": workers,
}


def machine() -> dict[str, str | float | None]:
    """The processor, its cores, the memory in GB, the system, and the threads that one process may use."""
    names = [line for line in _cpu_lines() if line.startswith("model name")]
    return {
        "processor": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def run(setting: Setting, names: Sequence[str]) -> dict:
    """Run sections and write the results after each, so that what was measured stays when a later one fails."""
    results = {}
    for name in progress(names, "sections"):
        say(f"== {name}")
        start = time.perf_counter()
        rows = [{"section": name, **one} for one in SECTIONS[name](setting)]
        results[name] = {"seconds": time.perf_counter() - start, "rows": rows}
        say(f"{rows_table(rows)}\n{results[name]['seconds']:.0f} s\n")
        record = write_results(setting, results)
    return record


def write_results(setting: Setting, results: dict[str, dict]) -> dict:
    """Write `bench.json` and `bench.md` of the sections that have run; returns what the first holds."""
    given = {"faces": bool(setting.faces), "clips": bool(setting.clips)}
    parameters = {"quick": setting.quick, "jobs": setting.jobs, "sections": list(results), **given}
    record = run_record(parameters, SEEDS[0], {})
    record["machine"] |= machine()
    record["seconds"] = {name: result["seconds"] for name, result in results.items()}
    record["rows"] = [one for result in results.values() for one in result["rows"]]
    write_artefact(setting.folder / "bench.json", record)
    with atomic_path(setting.folder / "bench.md") as temporary:
        temporary.write_text(as_markdown(record, results), encoding="utf-8")
    return record


def as_markdown(record: dict, results: dict[str, dict]) -> str:
    """The whole run as Markdown: the machine, then a table and a caption per section."""
    about = {**record["machine"], "python": record["python"], **record["packages"], "commit": record["commit"]}
    lines = ["# Benchmark", "", "; ".join(f"{name} {value}" for name, value in about.items()) + "."]
    if record["parameters"]["quick"]:
        lines += ["", "A quick run, to see that it works: its numbers say nothing."]
    for name, result in results.items():
        lines += ["", f"## {name}", "", caption(name), "", rows_table(result["rows"])]
        lines += ["", f"`python -m utils.lab.bench --only {name}`, {result['seconds']:.0f} s."]
    return "\n".join(lines) + "\n"


def caption(name: str) -> str:
    """What a section compares, and on what data, in one line."""
    return " ".join(inspect.getdoc(SECTIONS[name]).split())


def rows_table(rows: Sequence[dict]) -> str:
    """Rows as a Markdown table, with the columns that any of them has."""
    if not rows:
        return "(nothing was measured here)"
    table = pd.DataFrame(rows).drop(columns=["section", "shown"], errors="ignore").dropna(axis=1, how="all")
    return markdown_table(table.map(cell).rename(columns=lambda name: name.replace("_", " ")))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure ours against what a user would otherwise write.")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    parser.add_argument("--jobs", type=int, default=2, help="workers over clips")
    parser.add_argument("--out", type=Path, default=ROOT / "artefacts" / "bench", help="folder of results and data")
    parser.add_argument("--faces", type=Path, help="folder of face photographs for real_skin: <person>/*.jpg")
    parser.add_argument("--clips", type=Path, help="folder of clips of one face each for real_skin: frames, or videos")
    chosen = parser.parse_args(arguments)
    start = time.perf_counter()
    run(Setting(chosen.out.resolve(), chosen.jobs, chosen.quick, chosen.faces, chosen.clips), chosen.only)
    print(f"{chosen.out / 'bench.md'}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
