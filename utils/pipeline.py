"""Stages 01 and 02 for all clips of a data root: views, then apexes and features, each an artefact with a key.

Every stage loads its inputs through this module, which makes an artefact again if it is missing, damaged or out of
date. A training clip that cannot be read stops the run; the error names the file and the remedy. A test clip that
cannot be read is left out with a warning, and the submission fills its row with the training prior.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.artefacts import artefact_key, cached, is_current, read_artefact, write_artefact
from utils.config import Config
from utils.dataset.boxes import read_boxes
from utils.dataset.folders import ClipLocation
from utils.dataset.geometry import Box
from utils.dataset.labels import MOMENT_COLUMNS
from utils.dataset.readers import frame_files, open_sequence, video_of
from utils.dataset.sequence import Sequence
from utils.dataset.tables import DataRoot, open_data
from utils.errors import DataError, reading
from utils.flow.features import Moments, features_of
from utils.parallel import parallel_map
from utils.render.view_set import Views
from utils.render.views import views_of
from utils.train.samples import CHANNELS, CLASSES, Samples

VIEW_PARAMETERS = ("views", "axes", "size", "yaw_deg", "stabilise", "renderer")  # of the configuration, for `views_of`
FEATURE_PARAMETERS = ("flow_method", "apex_method", "apex_size", "feature_size")  # for `features_of`


@dataclass(frozen=True)
class Job:
    """A clip and the configuration it is worked on with."""

    config: Config
    split: str
    id: str
    clip: ClipLocation  # path of its frames
    boxes: tuple[Box, ...] | None = None  # crops of boxes.csv, one per view
    given: Moments | None = None  # moments of train.csv, which replace the spotted ones

    @property
    def folder(self) -> Path:
        return self.clip.path

    @property
    def views_path(self) -> Path:
        return self.config.work_root / "views" / self.split / f"{self.id}.npz"

    @property
    def features_path(self) -> Path:
        return self.config.work_root / "features" / self.split / f"{self.id}.npz"

    @property
    def view_parameters(self) -> dict:
        of_clip = {"boxes": self.boxes, "span": self.clip.span}
        return {name: getattr(self.config, name) for name in VIEW_PARAMETERS} | of_clip

    @property
    def feature_parameters(self) -> dict:
        of_clip = {"given": self.given, "longer": self.config.moments == "found"}
        return {name: getattr(self.config, name) for name in FEATURE_PARAMETERS} | of_clip

    def views_key(self) -> str:
        if not self.folder.exists():
            raise DataError.at(self.folder, "there is no such folder", "put the frames of this Id there")
        code = artefact_key((), self.view_parameters, views_of)
        with reading(self.folder, "one of its files", "make all of them readable"):
            cut_out = self.clip.span and not video_of(self.folder)
            inputs = artefact_key(frame_files(*self.clip) if cut_out else [self.folder])
        return artefact_key((), {"inputs": inputs, "code": code})

    def features_key(self) -> str:
        return artefact_key((), {"views": self.views_key(), **self.feature_parameters}, features_of)

    def sequence(self) -> Sequence:
        """Open the frames. Raises DataError if they cannot be read."""
        return open_sequence(self.clip.path, span=self.clip.span)

    def views(self) -> Views:
        """The views of the clip. Raises DataError if its frames cannot be read."""
        return Views.from_arrays(
            cached(self.views_path, self.views_key(), lambda: views_of(self.folder, **self.view_parameters))
        )

    def features(self) -> dict[str, np.ndarray]:
        """The arrays of `features_of`. The views are loaded only if these must be computed."""
        return cached(self.features_path, self.features_key(), self._make_features)

    def _make_features(self) -> dict[str, np.ndarray]:
        views = self.views()
        if self.given and self.given[-1] >= len(views.frames):
            fault = f"its table names frame {self.given[-1]}, counted from 0, of {len(views.frames)}"
            raise DataError.at(self.folder, fault, "correct the table, or say in layout.toml how frames are counted")
        return features_of(views, **self.feature_parameters)


def load_data(config: Config) -> DataRoot:
    """The checked data root of a run."""
    return open_data(config.data_root, CLASSES, config.subject_pattern or None)


def jobs_of(config: Config, data: DataRoot) -> list[Job]:
    """The jobs of all clips, training clips first."""
    boxes = boxes_of(config, data)
    given = given_moments(data) if config.moments == "given" else {}
    ids = [("train", id) for id in data.train["Id"]] + [("test", id) for id in data.test_ids]
    return [
        Job(config, split, id, data.clip(split, id), boxes.get(id), given.get(id) if split == "train" else None)
        for split, id in ids
    ]


def boxes_of(config: Config, data: DataRoot) -> dict[str, tuple[Box, ...]]:
    """The crops of boxes.csv by Id. Raises DataError for an Id that is in no other table."""
    boxes = read_boxes(config.data_root, config.n_views)
    if unknown := sorted(boxes.keys() - set(data.train["Id"]) - set(data.test_ids)):
        fault = f"{len(unknown)} of its Ids are in no other table, the first is {unknown[0]}"
        raise DataError.at(config.data_root / "boxes.csv", fault, "correct their spelling, or remove their rows")
    return boxes


def jobs_by_id(config: Config, data: DataRoot) -> dict[str, Job]:
    """The jobs by Id; an Id belongs to one split only."""
    return {job.id: job for job in jobs_of(config, data)}


def given_moments(data: DataRoot) -> dict[str, Moments]:
    """Onset, apex and offset by Id, for the training clips that have all three in train.csv."""
    if not set(MOMENT_COLUMNS) <= set(data.train):
        return {}
    known = data.train.dropna(subset=list(MOMENT_COLUMNS)).set_index("Id")[list(MOMENT_COLUMNS)]
    return {id: tuple(int(value) for value in row) for id, row in zip(known.index, known.to_numpy(), strict=True)}


# 01_render ----------------------------------------------------------------------------------------------------------


def render_all(config: Config, data: DataRoot) -> pd.DataFrame:
    """Make the views of all clips; returns the manifest, and writes it to `views/manifest.csv`.

    Columns: Id, split, n_frames, crop (how its box was found), stabilised, warning (empty if there is none).
    """
    manifest = pd.DataFrame(parallel_map(_render, jobs_of(config, data), config.jobs, description="views"))
    write_artefact(config.work_root / "views" / "manifest.csv", manifest)
    return manifest


def _render(job: Job) -> dict:
    row = {"Id": job.id, "split": job.split, "n_frames": 0, "crop": "", "stabilised": False, "warning": ""}
    try:
        views = job.views()
    except DataError as error:
        return row | {"warning": _unread(job, error)}
    return row | {
        "n_frames": len(views.frames),
        "crop": views.source,
        "stabilised": views.stabilised,
        "warning": " ".join(views.warnings),
    }


def _unread(job: Job, error: DataError) -> str:
    """The warning for a test clip that cannot be read. Raises the error for a training clip."""
    if job.split == "train":
        raise error
    return f"{error} This test clip gets the training prior."


# 02_flow_apex -------------------------------------------------------------------------------------------------------


def extract_all(config: Config, data: DataRoot) -> pd.DataFrame:
    """Spot the apex and compute the features of all clips; returns the moments, and writes `features/moments.csv`.

    Columns: Id, split, onset, apex, offset (of the features), spotted (the apex found), warning (why a test clip has no
    moments). Also writes `features/train.npz` and `features/test.npz`, the samples of the network.
    """
    jobs = jobs_of(config, data)
    done = parallel_map(_extract, jobs, config.jobs, description="apex and features")
    table = pd.DataFrame([row for row, _ in done])
    for split in ("train", "test"):
        items = [(row["Id"], x) for row, x in done if row["split"] == split and x is not None]
        path = _samples_path(config, split)
        samples_of(data, split, items).save(path, _samples_key(jobs, data, split))
    write_artefact(config.work_root / "features" / "moments.csv", table, _moments_key(jobs))
    return table


def _extract(job: Job) -> tuple[dict, np.ndarray | None]:
    row = {"Id": job.id, "split": job.split, **dict.fromkeys((*MOMENT_COLUMNS, "spotted")), "warning": ""}
    try:
        features = job.features()
    except DataError as error:
        return row | {"warning": _unread(job, error)}, None
    moments = dict(zip(MOMENT_COLUMNS, features["moments"].tolist(), strict=True))
    return row | moments | {"spotted": int(features["spotted"][1])}, features["x"]


def load_moments(config: Config, data: DataRoot) -> pd.DataFrame:
    """The table of `extract_all`, which is called if the stored table is not current."""
    path = config.work_root / "features" / "moments.csv"
    if is_current(path, _moments_key(jobs_of(config, data))):
        return read_artefact(path)
    return extract_all(config, data)


def load_samples(config: Config, data: DataRoot, split: str) -> Samples:
    """The samples of a split, "train" or "test". Calls `extract_all` if the stored ones are not current."""
    path = _samples_path(config, split)
    if not is_current(path, _samples_key(jobs_of(config, data), data, split)):
        extract_all(config, data)
    return Samples.load(path)


def unread_clips(config: Config, data: DataRoot) -> dict[str, str]:
    """The warnings of the test clips that could not be read, by Id."""
    table = load_moments(config, data)
    return table[table["apex"].isna()].set_index("Id")["warning"].to_dict()


def _samples_path(config: Config, split: str) -> Path:
    return config.work_root / "features" / f"{split}.npz"


def _samples_key(jobs: list[Job], data: DataRoot, split: str) -> str:
    labels = data.train[["Id", "subject", *CLASSES]].to_dict("list") if split == "train" else data.test_ids
    return artefact_key((), {"features": _features_keys(jobs, split), "labels": labels}, samples_of)


def _moments_key(jobs: list[Job]) -> str:
    return artefact_key((), _features_keys(jobs, "train") + _features_keys(jobs, "test"))


def _features_keys(jobs: list[Job], split: str) -> list[str]:
    """The features key of each clip of a split; "not read" for a clip whose files cannot be read."""
    return [_features_key(job) for job in jobs if job.split == split]


def _features_key(job: Job) -> str:
    try:
        return job.features_key()
    except DataError:
        return "not read"


def samples_of(data: DataRoot, split: str, items: list[tuple[str, np.ndarray]]) -> Samples:
    """Samples of a split from (Id, features) pairs. Test clips have zeros for labels and their Id for the subject.

    A data root without a test split has no test samples.
    """
    if split == "test" and not data.test_ids:
        none = np.array([], dtype=str)
        return Samples(np.zeros((0, 1, 2, len(CHANNELS), 1, 1)), np.zeros((0, len(CLASSES))), none, none, CLASSES)
    if not items:
        raise DataError.at(data.root / split, "no clip of it could be read", "see the warnings in views/manifest.csv")
    ids = np.array([id for id, _ in items])
    x = np.stack([features for _, features in items])
    if split == "test":
        return Samples(x, np.zeros((len(ids), len(CLASSES)), np.float32), ids, ids, CLASSES)
    table = data.train.set_index("Id").loc[ids]
    return Samples(x, table[list(CLASSES)].to_numpy(np.float32), ids, table["subject"].to_numpy(str), CLASSES)
