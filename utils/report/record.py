"""The records of a run: code, parameters, machine, data, time and scores, as JSON."""

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
    """The record of this process: its arguments, and the code, packages, time and machine of the run."""
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
            "seconds": round(time.time() - psutil.Process().create_time(), 1),  # since this process started
            "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        }
    )


def write_record(config: Config, stage: str, scores: Mapping[str, Any], warnings: Iterable[str] = ()) -> None:
    """Write the record of a stage to `records/<stage>.json` of the work folder."""
    write_artefact(config.work_root / "records" / f"{stage}.json", _stage_record(config, scores, warnings))


def write_run(
    config: Config, data: DataRoot, scores: Mapping[str, Any], warnings: Iterable[str], path: Path
) -> dict[str, Any]:
    """Write the record of a whole run at the end of its last stage, and return it.

    It is the record of that stage with three more entries: the renderer, the data, and every stage that ran with the
    same parameters. scores: the scores on held-out people as "held_out", and any others.
    """
    record = _stage_record(config, scores, warnings)
    parameters = record["parameters"] | {"jobs": 0}  # the number of workers does not count
    records = {file.stem: read_artefact(file) for file in sorted((config.work_root / "records").glob("*.json"))}
    stages = {name: stage for name, stage in records.items() if stage["parameters"] | {"jobs": 0} == parameters}
    if "01_render" in stages:
        record["renderer"] = stages["01_render"]["scores"]["renderer"]
    else:
        record["renderer"] = get_renderer(config.renderer).name if config.views == "render" else "none"
    record["data"] = {
        "training": len(data.train),
        "test": len(data.test_ids),
        "synthetic": (data.root / "truth").is_dir(),
        "face_model": data.root.name if (data.root / USER_FACE_MODEL).exists() else "",  # "": the project's own
        "digest": data_digest(data.root),
    }
    record["stages"] = {
        name: {key: stage.get(key) for key in ("commit", "seconds", "time")}
        for name, stage in (stages | {"05_submit": record}).items()
    }
    write_artefact(path, record)
    return record


def _stage_record(config: Config, scores: Mapping[str, Any], warnings: Iterable[str]) -> dict[str, Any]:
    """The record of a stage; its warnings do not tell where the data lie."""
    texts = [text.replace(str(config.data_root), "<DATA>") for text in warnings]
    return run_record(config.record, config.seed, scores, texts)
