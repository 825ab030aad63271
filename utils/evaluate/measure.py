"""Flow and apex held against the synthetic ground truth. Reads `<DATA>/truth`, which the stages themselves never do."""

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


def apex_errors(found: pd.Series, truth: pd.DataFrame) -> pd.DataFrame:
    """Apex error in frames by confounder: rows all, none, each confounder; columns clips, mean_abs, median_abs, worst.

    found: apex by Id; truth: `load_truth`.
    """
    own = truth.loc[found.index]
    error = (found - own["apex"]).abs()
    groups = {"all clips": error, "no confounder": error[~own[list(CONFOUNDERS)].any(axis=1)]}
    return _error_table(groups | {f"with {name}": error[own[name].astype(bool)] for name in CONFOUNDERS})


def _error_table(groups: dict[str, pd.Series]) -> pd.DataFrame:
    """Rows of absolute errors by group; those of an empty group are NaN."""
    return pd.DataFrame(
        {
            name: {"clips": len(error), "mean_abs": error.mean(), "median_abs": error.median(), "worst": error.max()}
            for name, error in groups.items()
        }
    ).T


def given_apexes(data: DataRoot) -> pd.Series:
    """The apexes of train.csv by Id, of the clips that have one."""
    table = data.train if "apex" in data.train else data.train.assign(apex=pd.NA)
    return table.set_index("Id")["apex"].dropna().astype(int)


def given_apex_errors(spotted: pd.Series, data: DataRoot) -> pd.DataFrame | None:
    """Spotted apexes (by Id) against those of train.csv, frames: one row as of `apex_errors`; None without any."""
    given = given_apexes(data)
    given = given[given.index.isin(spotted.index)]
    return _error_table({"clips with a given apex": (spotted.loc[given.index] - given).abs()}) if len(given) else None


def measure_flow(
    config: Config, data: DataRoot, ids: list[str], methods: tuple[str, ...] = tuple(FLOW_METHODS)
) -> pd.DataFrame:
    """End-point error of flow methods on rendered clips, onset to true apex, both views, against the exact flow.

    Needs views that were rendered and stabilised (constant topology). One row per method, means over clip and
    view: epe, zero_epe (no motion at all), direction_deg, magnitude_ratio, ms per pair (as measured here, one
    thread).
    """
    truth, jobs = load_truth(config), jobs_by_id(config, data)
    tasks = [(jobs[id], int(truth.loc[id, "apex"]), methods) for id in ids]
    rows = [row for rows in parallel_map(_measure_clip, tasks, config.jobs, description="flow methods") for row in rows]
    return pd.DataFrame(rows).groupby("method", sort=False).mean()


def _measure_clip(task: tuple[Job, int, tuple[str, ...]]) -> list[dict]:
    job, apex, methods = task
    views, sequence = job.views(), job.sequence()
    vertices, faces = stable_vertices(sequence), sequence.geometry(0)[1]
    boxes = [tuple(box) for box in views.boxes]
    cameras = view_cameras(vertices[0], job.config.size, job.config.yaw_deg, boxes)
    rows = []
    for v, camera in enumerate(cameras):
        true, visible = exact_flow(vertices[0], vertices[apex], faces, camera)
        for method in methods:
            start = time.perf_counter()
            flow = estimate_flow(views.frames[0, v], views.frames[apex, v], method)
            seconds = time.perf_counter() - start
            rows.append({"method": method, **flow_errors(flow, true, visible & views.masks[v]), "ms": seconds * 1000})
    return rows
