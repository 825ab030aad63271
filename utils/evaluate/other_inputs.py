"""Other inputs made of the training clips, in the crops of the run: without 3D stabilisation, with another flow method,
or with a shifted apex."""

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

OTHER_FLOWS = ("faceflow", "dis", "farneback")  # the fast methods of `utils.flow.methods`
Features = Callable[[Job, Moments, str, int], np.ndarray]  # features(job, moments, flow method, size)


def unstabilised_samples(config: Config, data: DataRoot) -> Samples:
    """The clips rendered without 3D stabilisation. The head's motion is subtracted from the flow instead."""
    name, what = "unstabilised", "views without stabilisation"
    return _training_samples(config, data, unstabilised_features, name, config.flow_method, what)


def unstabilised_features(job: Job, moments: Moments, method: str, size: int) -> np.ndarray:
    """The network's input for a clip whose head is not stabilised. Only the frames of `moments` are rendered."""
    config, boxes = job.config, [tuple(box) for box in job.views().boxes]
    sequence = job.sequence()
    views = render_views(sequence, config.size, config.yaw_deg, False, config.renderer, boxes, moments, config.axes)
    return clip_features(views, (0, 1, 2), size, method)


def samples_with_flow(config: Config, data: DataRoot, method: str) -> Samples:
    """The clips with the flow of this method."""
    return _training_samples(config, data, flow_features, f"flow-{method}", method, f"flow by {method}")


def flow_features(job: Job, moments: Moments, method: str, size: int) -> np.ndarray:
    """The network's input for a clip by a flow method."""
    return clip_features(job.views(), moments, size, method)


def samples_with_apex(config: Config, data: DataRoot, shift: int) -> Samples:
    """The clips with the apex `shift` frames later (earlier if negative), but always between onset and offset."""
    name, what = f"apex{shift:+d}", f"apex {shift:+d}"
    return _training_samples(config, data, flow_features, name, config.flow_method, what, shift)


def _training_samples(
    config: Config, data: DataRoot, features: Features, name: str, method: str, what: str, shift: int = 0
) -> Samples:
    table = load_moments(config, data).set_index("Id")[list(MOMENT_COLUMNS)]
    jobs = [job for job in jobs_of(config, data) if job.split == "train"]
    tasks = [(job, _shifted(*map(int, table.loc[job.id]), shift)) for job in jobs]
    maps = parallel_map(partial(_stored_maps, features, name, method), tasks, config.jobs, description=what)
    return samples_of(data, "train", [(job.id, x) for job, x in zip(jobs, maps, strict=True)])


def _shifted(onset: int, apex: int, offset: int, shift: int) -> Moments:
    if shift:
        apex = int(np.clip(apex + shift, onset + 1, max(offset - 1, onset + 1)))
    return onset, apex, offset


def _stored_maps(features: Features, name: str, method: str, task: tuple[Job, Moments]) -> np.ndarray:
    """The features of a clip. They are stored in the folder `name` beside the features of the run."""
    job, moments = task
    size = job.config.feature_size
    parameters = {"views": job.views_key(), "moments": moments, "method": method, "size": size}
    path = job.config.work_root / "features" / name / f"{job.id}.npz"
    key = artefact_key((), parameters, features)
    return cached(path, key, lambda: {"x": features(job, moments, method, size)})["x"]
