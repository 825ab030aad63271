"""Benchmark of the stages from meshes to features: apex rules, throughput, memory, workers."""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil

from utils.artefacts import remove
from utils.config import Config
from utils.evaluate.measure import apex_errors
from utils.flow.apex import spot_apex
from utils.flow.methods import estimate_flow
from utils.lab.bench.cluster import Cluster, children_of, end
from utils.lab.bench.photographs import enlarged, h264, jpeg, small
from utils.lab.bench.setting import Setting, clip_root, resident_mb, row, seconds_of
from utils.lab.figures import memory_curves
from utils.parallel import parallel_map
from utils.pipeline import Job, extract_all, jobs_of, load_data, render_all
from utils.report.figures.common import save_figure
from utils.synthetic.truth import load_truth
from utils.train.samples import Samples

# Apex ---------------------------------------------------------------------------------------------------------------


GROSS = 3  # frames: no clip's apex should be farther off


def apex(setting: Setting) -> list[dict]:
    """Mean absolute apex error by what disturbs the clip, on rendered clips of people on whom no rule was chosen: our
    rule, the peak of the plain mean magnitude of the same flow, and the peak of the frame difference to the onset; then
    the same of the frames as an H.264 film of 384 px keeps them, and as JPEG pictures of faces of 100 px do. Ratio: the
    row's mean error divided by ours, so 3 errs three times as much as ours."""
    config = clip_root(setting, "apex")
    data = load_data(config)
    render_all(config, data)
    jobs = jobs_of(config, data)
    found = parallel_map(apexes, jobs, config.jobs, description="apex rules")
    remove(config.work_root)
    truth = load_truth(config).loc[[job.id for job in jobs]]
    found = by_recording(found, truth.index)
    clean = found["as rendered"]
    errors = clean.sub(truth["apex"], axis=0).abs()
    gross = truth["source"][errors["ours"] > GROSS]
    print(f"ours is off by more than {GROSS} frames in: {', '.join(gross) or 'no clip'}", flush=True)
    damaged = [
        {**one, "name": f"{damage}, {one['name']}"}
        for damage in RECORDINGS
        for one in errors_by_confounder(found[damage], truth)
        if one["name"].startswith("all clips")
    ]
    return (
        errors_by_confounder(clean, truth)
        + damaged
        + [
            row(f"more than {GROSS} frames off: {rule}", int((errors[rule] > GROSS).sum()), "clips", n=len(errors))
            for rule in clean
        ]
    )


def by_recording(found: list[dict[tuple[str, str], int]], ids: pd.Index) -> pd.DataFrame:
    """The apexes of `apexes`, a row per clip: columns by what became of the frames, and under it by rule."""
    table = pd.DataFrame(found, index=ids)
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return table


def errors_by_confounder(found: pd.DataFrame, truth: pd.DataFrame) -> list[dict]:
    """Rows of apex errors, a group of clips after the other. found: a column per rule, "ours" among them, by Id."""
    tables = {rule: apex_errors(found[rule], truth) for rule in found}
    groups = tables["ours"].index[tables["ours"]["clips"] > 0]
    rows = []
    for group in groups:
        ours = tables["ours"].loc[group, "mean_abs"]
        for rule, table in tables.items():
            error = table.loc[group]
            ratio = error["mean_abs"] / ours if ours else None
            spread = {"median": error["median_abs"], "worst": error["worst"]}
            rows.append(row(f"{group}: {rule}", error["mean_abs"], "frames", ratio, int(error["clips"]), **spread))
    return rows


# What becomes of the grey frames (T, S, S) of a view when they are recorded.
RECORDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "H.264 at 384 px": partial(h264, side=384),
    "faces of 100 px, JPEG": lambda frames: enlarged(jpeg(small(frames))),
}


def apexes(job: Job) -> dict[tuple[str, str], int]:
    """The apex of one clip by what became of its frames and by each rule."""
    views, config = job.views(), job.config
    found = {}
    for damage, frames in {"as rendered": views.frames, **damaged_views(views.frames)}.items():
        found |= {
            (damage, "ours"): spot_apex(frames, views.masks, config.apex_size, config.apex_method).apex,
            (damage, "mean magnitude"): mean_magnitude_peak(frames, config.apex_size, config.apex_method),
            (damage, "frame difference"): frame_difference_peak(frames, config.apex_size),
        }
    return found


def damaged_views(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Frames (T, V, S, S, 3) uint8 by what became of them: grey ones of the same shape."""
    size = frames.shape[2]
    grey = reduced_to_grey(frames, size).swapaxes(0, 1)  # (V, T, S, S)
    found = {}
    for name, damage in RECORDINGS.items():
        views = np.stack([[cv2.resize(one, (size, size)) for one in damage(np.float32(view))] for view in grey], 1)
        found[name] = np.repeat(views.round().clip(0, 255).astype(np.uint8)[..., None], 3, -1)
    return found


def mean_magnitude_peak(frames: np.ndarray, size: int, method: str) -> int:
    """The frame at which the mean of |flow(onset -> t)| over the whole picture, both views added, is largest."""
    grey = reduced_to_grey(frames, size)
    flows = [[estimate_flow(*pair, method) for pair in zip(grey[0], now, strict=True)] for now in grey]
    return int(np.linalg.norm(flows, axis=-1).mean((1, 2, 3)).argmax())


def frame_difference_peak(frames: np.ndarray, size: int) -> int:
    """The frame that differs most from the onset, by the mean absolute difference of grey levels in both views."""
    grey = reduced_to_grey(frames, size).astype(int)
    return int(np.abs(grey - grey[0]).mean((1, 2, 3)).argmax())


def reduced_to_grey(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames (T, V, S, S, 3) uint8 as grey ones (T, V, size, size) uint8."""
    small = [[cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA) for view in frame] for frame in frames]
    return np.array([[cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in frame] for frame in small])


# Throughput and memory ----------------------------------------------------------------------------------------------


def features(setting: Setting) -> list[dict]:
    """From meshes to the network's tensors by `utils.pipeline` with one worker: stage 01 (read, stabilise in 3D, draw
    both views, write) and stage 02 (apex, flow of both phases, maps, write). Median of the repetitions."""
    count, repeats = setting.count(8, 3), setting.count(3, 1)
    seconds = defaultdict(list)
    for _ in range(repeats):
        config = clip_root(setting, "features", count, jobs=1)
        data = load_data(config)
        seconds["stage 01, views"].append(seconds_of(render_all, config, data))
        seconds["stage 02, apex and features"].append(seconds_of(extract_all, config, data))
    remove(config.work_root)
    seconds["mesh to tensor"] = np.sum(list(seconds.values()), axis=0)
    return [
        row(name, count / np.median(times), "clips/s", n=repeats, seconds_per_clip=np.median(times) / count)
        for name, times in seconds.items()
    ]


# A run of its own, so that the memory of the benchmark and of its libraries does not count.
STAGES = """
import json, sys
from utils.config import load_config
from utils.pipeline import extract_all, load_data, render_all
config = load_config(**json.loads(sys.argv[1]))
data = load_data(config)
render_all(config, data)
extract_all(config, data)
"""


def memory(setting: Setting) -> list[dict]:
    """Stages 01 and 02 in a process of their own as the clips grow by 1, 3 and 10 times: resident memory of all its
    processes together, sampled every 0.1 s, and the time with that of starting. Clips beyond those made are the same
    ones under other Ids, worked on anew. Ratio: the run's memory, and its seconds, divided by the smallest run's."""
    curves = {}
    for count in (3, 6, 9) if setting.quick else (27, 81, 267):
        config = clip_root(setting, "memory", count)
        values = {"profile": config.profile, "data": config.data, "work": config.work, "jobs": config.jobs}
        curves[count] = sample_memory([sys.executable, "-c", STAGES, json.dumps(values)])
        remove(config.work_root)
        print(f"{count} clips: {curves[count][-1, 0]:.0f} s, peak {curves[count][:, 1].max():.0f} MB", flush=True)
    save_figure(memory_curves(curves), setting.folder / "memory.png")
    peaks = {count: curve[:, 1].max() for count, curve in curves.items()}
    smallest = min(peaks)
    return [
        row(
            f"{count} clips",
            peaks[count],
            "MB at the peak",
            peaks[count] / peaks[smallest],
            count,
            seconds=curve[-1, 0],
            seconds_ratio=curve[-1, 0] / curves[smallest][-1, 0],
        )
        for count, curve in curves.items()
    ]


def sample_memory(command: list[str], every: float = 0.1) -> np.ndarray:
    """Run a command to its end: (N, 2) of seconds since its start, and resident MB of it and all its children.

    Raises CalledProcessError when the command fails.
    """
    samples, start = [], time.perf_counter()
    process = subprocess.Popen(command)
    try:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            samples.append((time.perf_counter() - start, resident_mb([root, *children_of(process.pid)])))
            time.sleep(every)
    finally:
        end([process])
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return np.array(samples)


# Workers ------------------------------------------------------------------------------------------------------------


def workers(setting: Setting) -> list[dict]:
    """The same clips through stages 01 and 02 with one worker, two processes, and two Dask workers behind a scheduler
    on the loopback, all started and warmed up by four clips before. Ratio: the time of one worker divided
    by the row's, so 2 is twice as fast."""
    count, found = setting.count(24, 4), {}
    found["one worker"] = timed_run(setting, count, jobs=1)
    found["two processes"] = timed_run(setting, count, jobs=2)
    with dask_cluster(setting.folder / "runs" / "dask", 2):
        found["two Dask workers"] = timed_run(setting, count, jobs=2)
    seconds, expected = found["one worker"]
    return [
        row(
            name,
            took,
            "s",
            seconds / took,
            count,
            largest_difference=float(np.abs(x - expected).max()),
            hours_for_10000_clips=took / count * 10_000 / 3600,
        )
        for name, (took, x) in found.items()
    ]


def timed_run(setting: Setting, count: int, jobs: int) -> tuple[float, np.ndarray]:
    """Seconds of both stages over `count` clips, after four clips of warming up, and the features (N, ...)."""
    run_stages(clip_root(setting, "warm", 4, jobs=jobs))
    config = clip_root(setting, "workers", count, jobs=jobs)
    seconds = seconds_of(run_stages, config)
    x = [Samples.load(config.work_root / "features" / f"{split}.npz").x for split in ("train", "test")]
    remove(config.work_root)
    return seconds, np.concatenate(x)


def run_stages(config: Config) -> None:
    data = load_data(config)
    render_all(config, data)
    extract_all(config, data)


@contextmanager
def dask_cluster(folder: Path, count: int) -> Iterator[str]:
    """A Dask scheduler and `count` workers of one thread, as processes of this machine; DASK_SCHEDULER names it."""
    before = os.environ.get("DASK_SCHEDULER")
    with Cluster(folder, count) as cluster:
        os.environ["DASK_SCHEDULER"] = cluster.address
        try:
            yield cluster.address
        finally:
            os.environ.pop("DASK_SCHEDULER")
            if before is not None:
                os.environ["DASK_SCHEDULER"] = before
