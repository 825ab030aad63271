"""The stages over all sequences of a data root: views, then apexes and features. Artefacts lie under keys.

A training clip that cannot be read stops the run, with the file and the remedy; a test clip is left out with a warning,
and the submission fills its row with the training prior.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.artefacts import artefact_key, cached, is_current, read_artefact, remove, write_artefact
from utils.config import CLASSES, Config
from utils.dataset.files import DataError
from utils.dataset.samples import Samples
from utils.dataset.sequences import open_sequence
from utils.dataset.tables import DataRoot, open_data
from utils.flow.apex import spot_apex
from utils.flow.features import clip_features
from utils.parallel import parallel_map
from utils.render.views import Views, make_views, read_boxes


@dataclass(frozen=True)
class Job:
    """One sequence to work on."""

    config: Config
    split: str
    id: str

    @property
    def folder(self) -> Path:
        return self.config.data_root / self.split / self.id

    @property
    def views_path(self) -> Path:
        return self.config.work_root / "views" / self.split / f"{self.id}.npz"

    @property
    def features_path(self) -> Path:
        return self.config.work_root / "features" / self.split / f"{self.id}.npz"


def load_data(config: Config) -> DataRoot:
    """The checked data root of a run."""
    return open_data(config.data_root, CLASSES, config.subject_pattern or None)


def jobs_of(config: Config, data: DataRoot) -> list[Job]:
    """All sequences of the root, training first."""
    return [Job(config, "train", id) for id in data.train["Id"]] + [Job(config, "test", id) for id in data.test_ids]


# 01_render ----------------------------------------------------------------------------------------------------------


def render_all(config: Config, data: DataRoot) -> pd.DataFrame:
    """Write the views of every sequence; returns the manifest, which also lies in `views/manifest.csv`.

    Columns: Id, split, n_frames, crop (how its box was found), stabilised, warning (empty where all is well).
    """
    rows = parallel_map(_render, jobs_of(config, data), config.jobs, description="views")
    manifest = pd.DataFrame(rows)
    write_artefact(config.work_root / "views" / "manifest.csv", manifest)
    return manifest


def _render(job: Job) -> dict:
    config = job.config
    row = {"Id": job.id, "split": job.split, "n_frames": 0, "crop": "", "stabilised": False, "warning": ""}
    parameters = {name: getattr(config, name) for name in ("views", "size", "yaw_deg", "stabilise", "renderer")}
    boxes = read_boxes(config.data_root)
    if job.id in boxes:
        parameters["boxes"] = boxes[job.id]
    try:
        sequence = open_sequence(job.folder)
        key = artefact_key([job.folder], parameters, make_views)
        if is_current(job.views_path, key):
            views = load_views(job.views_path)
        else:
            views = make_views(sequence, **parameters)
            write_artefact(
                job.views_path,
                {
                    "frames": views.frames,
                    "masks": views.masks,
                    "boxes": views.boxes,
                    "source": np.array(views.source),
                    "stabilised": np.array(views.stabilised),
                    "warnings": np.array(views.warnings, dtype=str),
                },
                key,
            )
    except DataError as error:
        if job.split == "train":
            raise
        remove(job.views_path)  # what an earlier run made of it must not pass for this clip's views
        return row | {"warning": f"{error} This test clip gets the training prior."}
    return row | {
        "n_frames": len(views.frames),
        "crop": views.source,
        "stabilised": views.stabilised,
        "warning": " ".join(views.warnings),
    }


def unread_clips(config: Config) -> dict[str, str]:
    """Why a test clip has no views, by Id, from the manifest."""
    manifest = read_artefact(config.work_root / "views" / "manifest.csv")
    return manifest[manifest["n_frames"] == 0].set_index("Id")["warning"].to_dict()


def load_views(path: Path) -> Views:
    """The views that `render_all` wrote."""
    stored = read_artefact(path)
    return Views(
        stored["frames"],
        stored["masks"],
        stored["boxes"],
        str(stored["source"]),
        bool(stored["stabilised"]),
        tuple(stored["warnings"].tolist()),
    )


# 02_flow_apex -------------------------------------------------------------------------------------------------------


def extract_all(config: Config, data: DataRoot) -> pd.DataFrame:
    """Spot the apex and write the features of every sequence that has views; returns and writes `features/moments.csv`.

    Columns: Id, split, onset, apex, offset. Also `features/train.npz` and `test.npz`, the network's samples.
    """
    jobs = [job for job in jobs_of(config, data) if job.views_path.exists()]
    done = parallel_map(_extract, jobs, config.jobs, description="apex and features")
    table = pd.DataFrame([item["moments"] for item in done], columns=["onset", "apex", "offset"])
    table.insert(0, "split", [job.split for job in jobs])
    table.insert(0, "Id", [job.id for job in jobs])
    write_artefact(config.work_root / "features" / "moments.csv", table)
    for split in ("train", "test"):
        chosen = [(job.id, item["x"]) for job, item in zip(jobs, done, strict=True) if job.split == split]
        samples_of(data, split, chosen).save(config.work_root / "features" / f"{split}.npz")
    return table


def _extract(job: Job) -> dict[str, np.ndarray]:
    config = job.config
    parameters = {name: getattr(config, name) for name in ("flow_method", "apex_method", "apex_size", "feature_size")}

    def make() -> dict[str, np.ndarray]:
        views = load_views(job.views_path)
        spotting = spot_apex(views.frames, views.masks, config.apex_size, config.apex_method)
        x = clip_features(
            views.frames,
            views.masks,
            spotting.moments,
            config.feature_size,
            config.flow_method,
            subtract_head=not views.stabilised,
        )
        return {"x": x, "moments": np.array(spotting.moments), "curve": spotting.curve}

    return cached(job.features_path, artefact_key([job.views_path], parameters, _extract), make)


def samples_of(data: DataRoot, split: str, items: list[tuple[str, np.ndarray]]) -> Samples:
    """Samples of a split from (Id, features) pairs; the test split has no labels (zeros) and no subjects (its Id)."""
    if not items:
        raise DataError.at(data.root / split, "no clip of it could be read", "see the warnings in views/manifest.csv")
    ids = np.array([id for id, _ in items])
    x = np.stack([features for _, features in items])
    if split == "test":
        return Samples(x, np.zeros((len(ids), len(CLASSES)), np.float32), ids, ids, CLASSES)
    table = data.train.set_index("Id").loc[ids]
    return Samples(x, table[list(CLASSES)].to_numpy(np.float32), ids, table["subject"].to_numpy(str), CLASSES)
