"""What the sections of the benchmark share: the clips that they run on, rows of their tables, time and memory."""

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

# Of the measured people, six for each. No rule, network or parameter was ever chosen on them: the synthetic challenge
# is drawn from seed 7, the teachers of the pretrained networks from seeds of their own. (Those of 101 to 103, measured
# before, showed what the apex rule did not see, so they count no longer.)
SEEDS = (104, 105, 106)
TEST_SHARE = 3  # every third clip of a data root is a test clip
MEGABYTE = 1e6


@dataclass(frozen=True)
class Setting:
    """How the benchmark runs: where its data and results lie, with how many workers, and whether only to try it."""

    folder: Path
    jobs: int = 2
    quick: bool = False
    faces: Path | None = None  # folders of photographs and of clips, for the section that needs real skin
    clips: Path | None = None

    @property
    def profile(self) -> str:
        return "smoke" if self.quick else "demo"

    def count(self, full: int, quick: int) -> int:
        """A number of repetitions or clips, reduced where the benchmark is only tried."""
        return quick if self.quick else full


def row(name: str, value: float, unit: str, ratio: float | None = None, n: int = 1, **more: Any) -> dict[str, Any]:
    """One line of a section's table.

    ratio: see the section's caption; n: clips or repetitions behind the value; more: further columns.
    """
    return {"name": name, "value": value, "unit": unit, "ratio": ratio, "n": n, **more}


def seconds_of(work: Callable[..., Any], *arguments: Any) -> float:
    """Seconds by the clock that a call takes."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def resident_mb(processes: Sequence[psutil.Process]) -> float:
    """Resident memory of processes added up, MB; those that have ended count nothing."""
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / MEGABYTE


def measured_clips(setting: Setting) -> pd.DataFrame:
    """The clips of the measured people, made if they are missing: rows of the truth, `source` (seed/Id), `folder`."""
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
        named = {"source": f"{seed}/" + truth["Id"], "subject": f"{seed}" + truth["subject"]}
        tables.append(truth.assign(folder=folders, **named))
    return pd.concat(tables, ignore_index=True)


def clip_root(setting: Setting, name: str, count: int | None = None, **changes: Any) -> Config:
    """A data root of `count` measured clips (all without it), repeated in turn where that is more than there are.

    Every clip stands under an Id of its own, linked to one folder, so that each is worked on anew. Returns the
    configuration of a run over it, whose artefacts of earlier runs are removed; `changes` go into it.
    """
    clips = measured_clips(setting)
    count = count or len(clips)
    table = clips.iloc[[i % len(clips) for i in range(count)]].reset_index(drop=True)
    table["Id"] = [f"B{i:05d}" for i in range(count)]
    table["split"] = ["test" if i % TEST_SHARE == TEST_SHARE - 1 else "train" for i in range(count)]
    place = setting.folder / "runs" / name
    remove(place)
    for split, part in table.groupby("split"):
        (place / "data" / split).mkdir(parents=True)
        for id, folder in zip(part["Id"], part["folder"], strict=True):
            (place / "data" / split / id).symlink_to(folder, target_is_directory=True)
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    write_artefact(place / "data" / "train.csv", train[["Id", "subject", *CLASSES]])
    write_artefact(place / "data" / "sample_submission.csv", test[["Id", *CLASSES]].assign(**dict.fromkeys(CLASSES, 0)))
    write_artefact(place / "data" / "truth" / "clips.csv", table.drop(columns="folder"))
    values = {"data": str(place / "data"), "work": str(place / "work"), "jobs": setting.jobs} | changes
    return load_config(setting.profile, **values)
