"""Errors of flow and apex against the synthetic ground truth `<DATA>/truth`, which no stage reads."""

import time

import pandas as pd

from utils.config import Config
from utils.dataset.tables import DataRoot
from utils.flow.methods import FLOW_METHODS, estimate_flow
from utils.flow.truth import exact_flow, flow_errors
from utils.parallel import parallel_map
from utils.pipeline import Job, jobs_by_id
from utils.render.views import stable_vertices, view_cameras
from utils.synthetic.truth import CONFOUNDERS, load_truth


def apex_errors(apexes: pd.Series, truth: pd.DataFrame) -> pd.DataFrame:
    """Errors of apexes (frames, by Id) against `load_truth`: columns clips, mean_abs, median_abs, worst, in frames.

    Rows: all clips, the clips without confounder, the clips with each confounder.
    """
    truth = truth.loc[apexes.index]
    error = (apexes - truth["apex"]).abs()
    groups = {"all clips": error, "no confounder": error[~truth[list(CONFOUNDERS)].any(axis=1)]}
    return _error_table(groups | {f"with {name}": error[truth[name].astype(bool)] for name in CONFOUNDERS})


def _error_table(groups: dict[str, pd.Series]) -> pd.DataFrame:
    """A row per group of absolute errors. An empty group has NaN."""
    return pd.DataFrame(
        {
            name: {"clips": len(error), "mean_abs": error.mean(), "median_abs": error.median(), "worst": error.max()}
            for name, error in groups.items()
        }
    ).T


def given_apexes(data: DataRoot) -> pd.Series:
    """The apexes in train.csv by Id, without the clips that have none."""
    table = data.train if "apex" in data.train else data.train.assign(apex=pd.NA)
    return table.set_index("Id")["apex"].dropna().astype(int)


def given_apex_errors(spotted: pd.Series, data: DataRoot) -> pd.DataFrame | None:
    """Errors of spotted apexes (frames, by Id) against `given_apexes`: a row as in `apex_errors`, or None."""
    truth = given_apexes(data)
    truth = truth[truth.index.isin(spotted.index)]
    return _error_table({"clips with a given apex": (spotted.loc[truth.index] - truth).abs()}) if len(truth) else None


def measure_flow(config: Config, data: DataRoot, ids: list[str]) -> pd.DataFrame:
    """Errors of all flow methods on rendered clips, from onset to true apex, against the exact flow.

    The views must be rendered and stabilised, and the meshes must have constant topology. One row per method with means
    over clips and views: epe (end-point error, pixels), zero_epe (of zero flow), direction_deg, magnitude_ratio, ms
    (time per pair of frames with one thread on this machine).
    """
    truth, jobs = load_truth(config), jobs_by_id(config, data)
    tasks = [(jobs[id], int(truth.loc[id, "apex"])) for id in ids]
    rows = [row for rows in parallel_map(_measure_clip, tasks, config.jobs, description="flow methods") for row in rows]
    return pd.DataFrame(rows).groupby("method", sort=False).mean()


def _measure_clip(task: tuple[Job, int]) -> list[dict]:
    job, apex = task
    views, sequence = job.views(), job.sequence()
    vertices, faces = stable_vertices(sequence), sequence.geometry(0)[1]
    cameras = view_cameras(vertices[0], job.config.size, job.config.yaw_deg, [tuple(box) for box in views.boxes])
    rows = []
    for v, camera in enumerate(cameras):
        true, visible = exact_flow(vertices[0], vertices[apex], faces, camera)
        for method in FLOW_METHODS:
            start = time.perf_counter()
            flow = estimate_flow(views.frames[0, v], views.frames[apex, v], method)
            ms = 1000 * (time.perf_counter() - start)
            rows.append({"method": method, **flow_errors(flow, true, visible & views.masks[v]), "ms": ms})
    return rows
