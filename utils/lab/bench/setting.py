"""What the sections of the benchmark share: their clips, the rows of their tables, time and memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from utils.artefacts import read_artefact, remove, write_artefact
from utils.config import Config, load_config
from utils.synthetic.data_root import make_dataset
from utils.train.samples import CLASSES

# Each of these seeds makes six measured people. No rule, network or parameter was chosen on them: the synthetic
# challenge is drawn from seed 7, and the teachers of the pretrained networks have their own seeds.
SEEDS = (104, 105, 106)
TEST_SHARE = 3  # every third clip of a data root is a test clip
MEGABYTE = 1e6


@dataclass(frozen=True)
class Setting:
    """How the benchmark runs. folder: of its data and results; quick: only try whether it works; faces: folder of
    photographs for the section `real_skin`."""

    folder: Path
    jobs: int = 2
    quick: bool = False
    faces: Path | None = None

    @property
    def profile(self) -> str:
        return "smoke" if self.quick else "demo"

    def count(self, full: int, quick: int) -> int:
        """A number of repetitions or clips, which is smaller in a quick run."""
        return quick if self.quick else full


def row(
    name: str, value: float, unit: str, ratio: float | None = None, n: int = 1, frames: str | None = None, **more: Any
) -> dict[str, Any]:
    """One row of a section's table, see `utils.lab.tables`.

    name: the method; ratio: see the section's caption; n: clips or repetitions behind the value; frames: the kind of
    frames or clips on which it was measured, if there are several; more: further columns.
    """
    return {"frames": frames, "name": name, "value": value, "unit": unit, "ratio": ratio, "n": n, **more}


def seconds_of(work: Callable[..., Any], *arguments: Any) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def resident_mb(processes: Sequence[psutil.Process]) -> float:
    """Resident memory of all processes together, MB. A process that has ended counts as zero."""
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / MEGABYTE


def measured_clips(setting: Setting) -> pd.DataFrame:
    """The clips of the measured people, made if they are missing: the rows of the truth with `source` (seed/Id) and
    `folder`."""
    tables = []
    for seed in SEEDS[: setting.count(len(SEEDS), 1)]:
        root = make_dataset(
            setting.folder / "people" / str(seed),
            clip_table="smoke",
            expressions="literature",
            n_subjects=setting.count(6, 3),
            n_test_subjects=setting.count(2, 1),
            data_seed=seed,
            obj_frames=False,
            jobs=setting.jobs,
        )
        truth = read_artefact(root / "truth" / "clips.csv")
        folders = [(root / split / id).resolve() for split, id in zip(truth["split"], truth["Id"], strict=True)]
        names = {"source": f"{seed}/" + truth["Id"], "subject": f"{seed}" + truth["subject"]}
        tables.append(truth.assign(folder=folders, **names))
    return pd.concat(tables, ignore_index=True)


def clip_root(setting: Setting, name: str, count: int | None = None, **changes: Any) -> Config:
    """A new data root of `count` measured clips; without a count it holds all of them once.

    If `count` exceeds their number, they are repeated in turn. Every clip has its own Id and is a link to the measured
    folder, so that no result is shared. Returns the configuration of a run over it, with `changes`; the artefacts of
    earlier runs are removed.
    """
    clips = measured_clips(setting)
    count = count or len(clips)
    table = clips.iloc[[i % len(clips) for i in range(count)]].reset_index(drop=True)
    table["Id"] = [f"B{i:05d}" for i in range(count)]
    table["split"] = ["test" if i % TEST_SHARE == TEST_SHARE - 1 else "train" for i in range(count)]
    place = setting.folder / "runs" / name
    remove(place)
    for split, id, folder in zip(table["split"], table["Id"], table["folder"], strict=True):
        (place / "data" / split).mkdir(parents=True, exist_ok=True)
        (place / "data" / split / id).symlink_to(folder, target_is_directory=True)
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    write_artefact(place / "data" / "train.csv", train[["Id", "subject", *CLASSES]])
    write_artefact(place / "data" / "sample_submission.csv", test[["Id", *CLASSES]].assign(**dict.fromkeys(CLASSES, 0)))
    write_artefact(place / "data" / "truth" / "clips.csv", table.drop(columns="folder"))
    values = {"data": str(place / "data"), "work": str(place / "work"), "jobs": setting.jobs} | changes
    return load_config(setting.profile, **values)
