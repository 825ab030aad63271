"""Flow and apex held against the synthetic ground truth. Reads `<DATA>/truth`, which the stages themselves never do."""

import time

import numpy as np
import pandas as pd

from utils.artefacts import read_artefact
from utils.config import Config
from utils.dataset.sequences import open_sequence
from utils.flow.methods import FLOW_METHODS, estimate_flow
from utils.flow.truth import exact_flow, flow_errors
from utils.parallel import parallel_map
from utils.pipeline import Job, load_views
from utils.render.views import stable_vertices, view_cameras

CONFOUNDERS = ("blink", "gaze", "drift", "flicker")


def load_truth(config: Config) -> pd.DataFrame | None:
    """The truth of synthetic clips, one row per clip (Id as index); None for real data."""
    path = config.data_root / "truth" / "clips.csv"
    return read_artefact(path).set_index("Id") if path.exists() else None


def apex_errors(found: pd.Series, truth: pd.DataFrame) -> pd.DataFrame:
    """Apex error in frames by confounder: rows all, none, each confounder; columns clips, mean_abs, median_abs, worst.

    found: apex by Id; truth: `load_truth`.
    """
    error = (found - truth.loc[found.index, "apex"]).abs()
    own = truth.loc[found.index]
    groups = {"all clips": np.ones(len(own), bool), "no confounder": ~own[list(CONFOUNDERS)].any(axis=1).to_numpy()}
    groups |= {f"with {name}": own[name].to_numpy(bool) for name in CONFOUNDERS}
    return pd.DataFrame(
        {
            name: {
                "clips": int(mask.sum()),
                "mean_abs": error[mask].mean(),
                "median_abs": error[mask].median(),
                "worst": error[mask].max(),
            }
            for name, mask in groups.items()
        }
    ).T


def measure_flow(
    config: Config, ids: list[str], split: str = "test", methods: tuple[str, ...] = tuple(FLOW_METHODS)
) -> pd.DataFrame:
    """End-point error of flow methods on rendered clips, onset to true apex, both views, against the exact flow.

    Needs views that were rendered and stabilised (constant topology). One row per method, means over clip and
    view: epe, zero_epe (no motion at all), direction_deg, magnitude_ratio, ms per pair (as measured here, one
    thread).
    """
    truth = load_truth(config)
    jobs = [(Job(config, split, id), int(truth.loc[id, "apex"]), methods) for id in ids]
    rows = [row for rows in parallel_map(_measure_clip, jobs, config.jobs) for row in rows]
    return pd.DataFrame(rows).groupby("method", sort=False).mean()


def _measure_clip(task: tuple[Job, int, tuple[str, ...]]) -> list[dict]:
    job, apex, methods = task
    views, sequence = load_views(job.views_path), open_sequence(job.folder)
    vertices, faces = stable_vertices(sequence), sequence.geometry(0)[1]
    cameras = view_cameras(vertices[0], job.config.size, job.config.yaw_deg)
    rows = []
    for v, camera in enumerate(cameras):
        true, visible = exact_flow(vertices[0], vertices[apex], faces, camera)
        for method in methods:
            start = time.perf_counter()
            flow = estimate_flow(views.frames[0, v], views.frames[apex, v], method)
            seconds = time.perf_counter() - start
            rows.append({"method": method, **flow_errors(flow, true, visible & views.masks[v]), "ms": seconds * 1000})
    return rows
