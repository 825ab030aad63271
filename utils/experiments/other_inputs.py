"""The same clips seen otherwise: with the head's motion left in, or by another flow method."""

import numpy as np

from utils.artefacts import artefact_key, cached, read_artefact
from utils.config import Config
from utils.dataset.samples import Samples
from utils.dataset.sequences import open_sequence
from utils.dataset.tables import DataRoot
from utils.flow.features import clip_features
from utils.parallel import parallel_map
from utils.pipeline import Job, load_views, samples_of
from utils.render.renderer import TexturedMesh, get_renderer
from utils.render.views import view_cameras

OTHER_FLOWS = ("faceflow", "dis", "farneback")  # the fast ones of the registry


def unstabilised_samples(
    config: Config, data: DataRoot, samples: Samples, moments: dict[str, tuple[int, int, int]]
) -> Samples:
    """The same clips and moments, but rendered with the head's rigid motion left in (training split)."""
    tasks = [(Job(config, "train", id), moments[id]) for id in samples.ids]
    maps = parallel_map(_unstabilised, tasks, config.jobs, description="views without stabilisation")
    return samples_of(data, "train", list(zip(samples.ids, maps, strict=True)))


def _unstabilised(task: tuple[Job, tuple[int, int, int]]) -> np.ndarray:
    job, moments = task
    config = job.config
    parameters = {"moments": list(moments)} | {
        name: getattr(config, name) for name in ("size", "yaw_deg", "renderer", "flow_method", "feature_size")
    }

    def make() -> dict[str, np.ndarray]:
        sequence = open_sequence(job.folder)
        cameras = view_cameras(sequence.geometry(0)[0], config.size, config.yaw_deg)
        pictures = []
        for t in moments:
            shape, faces, uv = sequence.geometry(t)
            mesh = TexturedMesh(shape, faces, uv, sequence.texture(t))
            pictures.append(get_renderer(config.renderer).render(mesh, cameras))
        frames = np.stack([[picture.rgb for picture in pair] for pair in pictures])
        masks = np.stack([picture.mask for picture in pictures[0]])
        return {"x": clip_features(frames, masks, (0, 1, 2), config.feature_size, config.flow_method)}

    path = config.work_root / "features" / "unstabilised" / f"{job.id}.npz"
    return cached(path, artefact_key([job.folder], parameters, _unstabilised), make)["x"]


def samples_with_flow(
    config: Config, data: DataRoot, samples: Samples, moments: dict[str, tuple[int, int, int]]
) -> Samples:
    """The same clips and moments with the flow of `config.flow_method` (training split)."""
    tasks = [(Job(config, "train", id), moments[id]) for id in samples.ids]
    maps = parallel_map(_with_flow, tasks, config.jobs, description=f"flow by {config.flow_method}")
    return samples_of(data, "train", list(zip(samples.ids, maps, strict=True)))


def _with_flow(task: tuple[Job, tuple[int, int, int]]) -> np.ndarray:
    job, moments = task
    config = job.config
    parameters = {"moments": list(moments), "size": config.feature_size, "method": config.flow_method}

    def make() -> dict[str, np.ndarray]:
        views = load_views(job.views_path)
        return {"x": clip_features(views.frames, views.masks, **parameters, subtract_head=not views.stabilised)}

    path = config.work_root / "features" / f"flow-{config.flow_method}" / f"{job.id}.npz"
    return cached(path, artefact_key([job.views_path], parameters, _with_flow), make)["x"]


def moments_of(config: Config, samples: Samples) -> dict[str, tuple[int, int, int]]:
    """Onset, apex and offset of every clip by Id, as `02_flow_apex` left them."""
    table = read_artefact(config.work_root / "features" / "moments.csv").set_index("Id")
    return {id: tuple(table.loc[id, ["onset", "apex", "offset"]].astype(int).tolist()) for id in samples.ids}
