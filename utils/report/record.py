"""The record of a run: what was run, with what, when, on what kind of machine, and what came out."""

import os
import platform
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from utils.artefacts import plain, read_artefact, write_artefact
from utils.config import Config
from utils.dataset.tables import DataRoot
from utils.paths import USER_FACE_MODEL
from utils.provenance import commit, data_digest, packages
from utils.render.renderer import get_renderer


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
            "packages": packages(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - psutil.Process().create_time(), 1),  # of this process, so far
            "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        }
    )


def write_record(config: Config, stage: str, scores: Mapping[str, Any], warnings: Iterable[str] = ()) -> Path:
    """Write the record of a stage to `records/<stage>.json` of the work folder; returns where it lies."""
    path = config.work_root / "records" / f"{stage}.json"
    write_artefact(path, run_record(config.record, config.seed, scores, _without_root(config, warnings)))
    return path


def write_run(
    config: Config, data: DataRoot, scores: Mapping[str, Any], warnings: Iterable[str], path: Path
) -> dict[str, Any]:
    """Write the record of a whole run, as its last stage has it: beside `run_record` the data that it was made from,
    what drew the views, and commit and seconds of every stage that ran with these parameters. Returns it.

    scores: those on held-out people, as "held_out", and what else there is.
    """
    record = run_record(config.record, config.seed, scores, _without_root(config, warnings))
    files = sorted((config.work_root / "records").glob("*.json"))
    stages = {file.stem: stage for file in files if _same_run(stage := read_artefact(file), record)}
    record["renderer"] = stages["01_render"]["scores"]["renderer"] if "01_render" in stages else drawn_by(config)
    record["data"] = {
        "training": len(data.train),
        "test": len(data.test_ids),
        "synthetic": (data.root / "truth").is_dir(),
        "face_model": data.root.name if (data.root / USER_FACE_MODEL).exists() else "",  # whose people these are
        "digest": data_digest(data.root),
    }
    record["stages"] = {
        name: {key: stage.get(key) for key in ("commit", "seconds", "time")}
        for name, stage in (stages | {"05_submit": record}).items()
    }
    write_artefact(path, record)
    return record


def drawn_by(config: Config) -> str:
    """What draws the views here: "none" where they are not drawn."""
    return get_renderer(config.renderer).name if config.views == "render" else "none"


def _same_run(stage: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether a stage ran with the parameters of a record; a number of workers is none that counts."""
    return stage["parameters"] | {"jobs": 0} == record["parameters"] | {"jobs": 0}


def _without_root(config: Config, warnings: Iterable[str]) -> list[str]:
    return [text.replace(str(config.data_root), "<DATA>") for text in warnings]
