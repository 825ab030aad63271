"""The record of a run: what was run, with what, when, on what kind of machine, and what came out."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from utils.artefacts import plain, write_artefact
from utils.config import Config
from utils.paths import ROOT

# What numbers depend on; the versions of these go into the record of a run.
PACKAGES = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "torch",
    "opencv-contrib-python-headless",
    "trimesh",
    "pyrender2",
    "pillow",
    "joblib",
)


def run_record(parameters: Any, seed: int, scores: Mapping[str, Any], warnings: Iterable[str] = ()) -> dict[str, Any]:
    """What run.json holds: what was run, with what, when, on what kind of machine, and what came out."""
    return plain(
        {
            "parameters": parameters,
            "seed": seed,
            "scores": scores,
            "warnings": list(warnings),
            "commit": commit(),
            "python": platform.python_version(),
            "packages": {name: found for name in PACKAGES if (found := _version(name))},
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        }
    )


def write_record(
    config: Config, stage: str, scores: Mapping[str, Any], warnings: Iterable[str] = (), path: Path | None = None
) -> Path:
    """Write the record of a stage to `records/<stage>.json` of the work folder, or to `path`; returns where it lies."""
    path = path or config.work_root / "records" / f"{stage}.json"
    warnings = [text.replace(str(config.data_root), "<DATA>") for text in warnings]
    write_artefact(path, run_record(config.record, config.seed, scores, warnings))
    return path


def commit() -> str:
    """The commit that this code is, "-dirty" where files were changed since, "unknown" outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
