"""The input of the network as the paper makes it, as far as the paper tells (arXiv 2603.26849).

The views are the halves of the composite texture, or rendered views where a frame has no composite. The head's motion
stays in them. The flow is Farnebäck's, the most common classical one, since the paper names none. The apex is the peak
of the mean flow magnitude, added over the views.
"""

from functools import partial

import cv2
import numpy as np

from utils.artefacts import artefact_key, cached
from utils.config import Config
from utils.dataset.sequence import Sequence
from utils.dataset.tables import DataRoot
from utils.flow.features import flow_maps
from utils.flow.methods import estimate_flows, phase_flows
from utils.parallel import parallel_map
from utils.pipeline import Job, jobs_of, samples_of
from utils.render.views import make_views
from utils.train.samples import Samples

FLOW = "farneback"
CURVE_SIZE = 128  # pixels a side at which the mean magnitude is measured
COMPOSITE_ASPECT = 1.3  # width over height from which a texture is taken for two photographs side by side


def paper_samples(config: Config, data: DataRoot) -> Samples:
    """The training clips as the paper sees them."""
    jobs = [job for job in jobs_of(config, data) if job.split == "train"]
    maps = parallel_map(_stored_features, jobs, config.jobs, description="the paper's input")
    return samples_of(data, "train", [(job.id, x) for job, x in zip(jobs, maps, strict=True)])


def _stored_features(job: Job) -> np.ndarray:
    config = job.config
    parameters = {name: getattr(config, name) for name in ("views", "axes", "size", "yaw_deg", "renderer")}
    make = partial(paper_features, **parameters, feature_size=config.feature_size)
    key = artefact_key((), {"inputs": job.views_key(), **make.keywords}, paper_features)
    path = config.work_root / "features" / "paper" / f"{job.id}.npz"
    return cached(path, key, lambda: {"x": make(job.sequence())})["x"]


def paper_features(
    sequence: Sequence, views: str, axes: str, size: int, yaw_deg: float, renderer: str, feature_size: int
) -> np.ndarray:
    """The network's input (V, P=2, C=3, feature_size, feature_size) of one clip; parameters as in `utils.config`."""
    if views == "render" and is_composite(sequence):
        views = "split"
    frames = make_views(sequence, views, size, yaw_deg, stabilise=False, renderer=renderer, axes=axes).frames
    flows = phase_flows(frames, peak_moments(frames), FLOW)
    return flow_maps(flows, np.ones(flows.shape[:1] + flows.shape[2:4], bool), feature_size)


def is_composite(sequence: Sequence) -> bool:
    """Whether the texture of a mesh is one wide picture, as that of two cameras is."""
    surfaces = sequence.surfaces(0)
    height, width = surfaces[0].texture.shape[:2]
    return len(surfaces) == 1 and surfaces[0].tint is None and width >= COMPOSITE_ASPECT * height


def peak_moments(frames: np.ndarray) -> tuple[int, int, int]:
    """First frame, frame of the largest mean flow magnitude against it, last frame. frames (T, V, S, S, 3) uint8."""
    side = min(CURVE_SIZE, frames.shape[2])
    small = [[cv2.resize(view, (side, side), interpolation=cv2.INTER_AREA) for view in frame] for frame in frames]
    pairs = [(first, second) for frame in small[1:] for first, second in zip(small[0], frame, strict=True)]
    magnitude = np.linalg.norm(estimate_flows(pairs, FLOW), axis=-1).mean(axis=(1, 2))  # ((T - 1) * V,)
    curve = magnitude.reshape(len(frames) - 1, -1).sum(axis=1)  # of frames 1 to T - 1
    last = len(frames) - 1
    return 0, 1 + int(curve[: max(last - 1, 1)].argmax()), last
