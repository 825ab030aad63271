"""The training clips seen otherwise, in the crops and at the moments of the run: with the head's motion left in, or by
another flow method."""

from collections.abc import Callable
from functools import partial

import numpy as np

from utils.artefacts import artefact_key, cached
from utils.config import Config
from utils.dataset.labels import MOMENT_COLUMNS
from utils.dataset.tables import DataRoot
from utils.flow.features import Moments, clip_features
from utils.parallel import parallel_map
from utils.pipeline import Job, jobs_of, load_moments, samples_of
from utils.render.views import render_views
from utils.train.samples import Samples

OTHER_FLOWS = ("faceflow", "dis", "farneback")  # the fast ones of the registry
Task = tuple[Job, Moments]


def unstabilised_samples(config: Config, data: DataRoot) -> Samples:
    """The clips drawn without 3D stabilisation. As wherever 3D did not hold the head still, its motion is subtracted
    from the flow instead."""
    return _training_samples(_unstabilised, config, data, "views without stabilisation")


def _unstabilised(task: Task) -> np.ndarray:
    job, moments = task
    return _kept("unstabilised", job, moments, job.config.flow_method, unstabilised_features)


def unstabilised_features(job: Job, moments: Moments, method: str, size: int) -> np.ndarray:
    """The network's input of a clip whose head moves as it did; only the frames `moments` are drawn."""
    config, boxes = job.config, [tuple(box) for box in job.views().boxes]
    sequence = job.sequence()
    views = render_views(sequence, config.size, config.yaw_deg, False, config.renderer, boxes, moments, config.axes)
    return clip_features(views, (0, 1, 2), size, method)


def samples_with_flow(config: Config, data: DataRoot, method: str) -> Samples:
    """The clips with the flow of another method."""
    return _training_samples(partial(_with_flow, method), config, data, f"flow by {method}")


def _with_flow(method: str, task: Task) -> np.ndarray:
    return _kept(f"flow-{method}", *task, method, flow_features)


def flow_features(job: Job, moments: Moments, method: str, size: int) -> np.ndarray:
    """The network's input of a clip by a flow method."""
    return clip_features(job.views(), moments, size, method)


def samples_with_apex(config: Config, data: DataRoot, shift: int) -> Samples:
    """The clips with the apex taken `shift` frames later, or before it where negative, between onset and offset."""
    return _training_samples(partial(_with_apex, shift), config, data, f"apex {shift:+d}")


def _with_apex(shift: int, task: Task) -> np.ndarray:
    job, (onset, apex, offset) = task
    moved = int(np.clip(apex + shift, onset + 1, max(offset - 1, onset + 1)))
    return _kept(f"apex{shift:+d}", job, (onset, moved, offset), job.config.flow_method, flow_features)


def _training_samples(function: Callable[[Task], np.ndarray], config: Config, data: DataRoot, what: str) -> Samples:
    table = load_moments(config, data).set_index("Id")[list(MOMENT_COLUMNS)]
    jobs = [job for job in jobs_of(config, data) if job.split == "train"]
    tasks = [(job, tuple(int(moment) for moment in table.loc[job.id])) for job in jobs]
    maps = parallel_map(function, tasks, config.jobs, description=what)
    return samples_of(data, "train", [(job.id, x) for job, x in zip(jobs, maps, strict=True)])


def _kept(folder: str, job: Job, moments: Moments, method: str, make: Callable) -> np.ndarray:
    """What `make` makes of a clip, kept in a folder beside the features."""
    parameters = {"views": job.views_key(), "moments": moments, "method": method, "size": job.config.feature_size}
    path = job.config.work_root / "features" / folder / f"{job.id}.npz"
    key = artefact_key((), parameters, make)
    return cached(path, key, lambda: {"x": make(job, moments, method, job.config.feature_size)})["x"]
