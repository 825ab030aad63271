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
from unittest.mock import patch

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
AS_RENDERED = "as rendered"
# Recordings of the grey frames (T, S, S) of a view, by name.
RECORDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "H.264 at 384 px": partial(h264, side=384),
    "faces of 100 px, JPEG": lambda frames: enlarged(jpeg(small(frames))),
}


def apex(setting: Setting) -> list[dict]:
    """Mean absolute apex error by what disturbs the clip, on rendered clips of people on whom no rule was chosen. The
    rules are ours, the peak of the plain mean magnitude of the same flow, and the peak of the frame difference to the
    onset. The last rows are for the same frames, recorded as an H.264 film of 384 px and as JPEG pictures of faces of
    100 px. Ratio: the row's mean error divided by ours, so 3 means an error three times as large."""
    config = clip_root(setting, "apex")
    data = load_data(config)
    render_all(config, data)
    jobs = jobs_of(config, data)
    spotted = parallel_map(apexes, jobs, config.jobs, description="apex rules")
    remove(config.work_root)
    truth = load_truth(config).loc[[job.id for job in jobs]]
    tables = {name: pd.DataFrame([clip[name] for clip in spotted], index=truth.index) for name in spotted[0]}
    errors = tables[AS_RENDERED].sub(truth["apex"], axis=0).abs()
    gross = truth["source"][errors["ours"] > GROSS]
    print(f"ours is off by more than {GROSS} frames in: {', '.join(gross) or 'no clip'}", flush=True)
    rows = errors_by_confounder(tables[AS_RENDERED], truth)
    for name in RECORDINGS:
        of_all_clips = (line for line in errors_by_confounder(tables[name], truth) if line["frames"] == "all clips")
        rows += [line | {"frames": f"{name}, all clips"} for line in of_all_clips]
    counts = (errors > GROSS).sum()
    title = f"more than {GROSS} frames off"
    return rows + [row(rule, int(counts[rule]), "clips", n=len(errors), frames=title) for rule in errors]


def errors_by_confounder(spotted: pd.DataFrame, truth: pd.DataFrame) -> list[dict]:
    """Rows of apex errors by group of clips and by rule. spotted: a column per rule, one of them "ours", by Id."""
    tables = {rule: apex_errors(spotted[rule], truth) for rule in spotted}
    rows = []
    for group, ours in tables["ours"].iterrows():
        for rule, table in tables.items():
            error = table.loc[group]
            ratio = error["mean_abs"] / ours["mean_abs"] if ours["mean_abs"] else None
            spread = {"median": error["median_abs"], "worst": error["worst"]}
            rows.append(row(rule, error["mean_abs"], "frames", ratio, int(error["clips"]), group, **spread))
    return [line for line in rows if line["n"]]


def apexes(job: Job) -> dict[str, dict[str, int]]:
    """The apex of one clip by recording of its frames and by rule."""
    views, config = job.views(), job.config
    return {
        name: {
            "ours": spot_apex(frames, views.masks, config.apex_size, config.apex_method).apex,
            "mean magnitude": mean_magnitude_peak(frames, config.apex_size, config.apex_method),
            "frame difference": frame_difference_peak(frames, config.apex_size),
        }
        for name, frames in {AS_RENDERED: views.frames, **recorded_views(views.frames)}.items()
    }


def recorded_views(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Frames (T, V, S, S, 3) uint8 by recording: grey frames of the same shape."""
    size = frames.shape[2]
    grey = reduced_to_grey(frames, size).swapaxes(0, 1)  # (V, T, S, S)
    recorded = {}
    for name, record in RECORDINGS.items():
        views = np.stack([[cv2.resize(frame, (size, size)) for frame in record(np.float32(view))] for view in grey], 1)
        recorded[name] = np.repeat(views.round().clip(0, 255).astype(np.uint8)[..., None], 3, -1)
    return recorded


def mean_magnitude_peak(frames: np.ndarray, size: int, method: str) -> int:
    """The frame with the largest mean of |flow(onset -> t)| over the whole picture and both views."""
    grey = reduced_to_grey(frames, size)
    flows = [[estimate_flow(*pair, method) for pair in zip(grey[0], now, strict=True)] for now in grey]
    return int(np.linalg.norm(flows, axis=-1).mean((1, 2, 3)).argmax())


def frame_difference_peak(frames: np.ndarray, size: int) -> int:
    """The frame with the largest mean absolute difference of grey levels to the onset, over both views."""
    grey = reduced_to_grey(frames, size).astype(int)
    return int(np.abs(grey - grey[0]).mean((1, 2, 3)).argmax())


def reduced_to_grey(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames (T, V, S, S, 3) uint8 as grey frames (T, V, size, size) uint8."""
    reduced = [[cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA) for view in frame] for frame in frames]
    return np.array([[cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in frame] for frame in reduced])


# Throughput and memory ----------------------------------------------------------------------------------------------


def features(setting: Setting) -> list[dict]:
    """From meshes to the network's tensors with one worker: stage 01 (read, stabilise in 3D, draw both views, write)
    and stage 02 (apex, flow of both phases, maps, write). Median of the repetitions."""
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


# Run in a separate process, so that the memory of the benchmark and of its libraries does not count.
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
    """Stages 01 and 02 in a separate process, as the number of clips grows by 3 and by 10 times. Value: peak of the
    resident memory of all its processes together, sampled every 0.1 s; the seconds include the start of the process.
    Clips beyond the measured ones are copies under other Ids, and are computed again. Ratio, seconds ratio: the run's
    memory and seconds divided by those of the smallest run."""
    curves = {}
    for count in (3, 6, 9) if setting.quick else (27, 81, 267):
        config = clip_root(setting, "memory", count)
        values = {"profile": config.profile, "data": config.data, "work": config.work, "jobs": config.jobs}
        curves[count] = sample_memory([sys.executable, "-c", STAGES, json.dumps(values)])
        remove(config.work_root)
        print(f"{count} clips: {curves[count][-1, 0]:.0f} s, peak {curves[count][:, 1].max():.0f} MB", flush=True)
    save_figure(memory_curves(curves), setting.folder / "memory.png")
    ends = {count: (curve[:, 1].max(), curve[-1, 0]) for count, curve in curves.items()}
    least_mb, least_seconds = ends[min(ends)]
    return [
        row(
            *(f"{count} clips", peak, "MB at the peak", peak / least_mb, count),
            seconds=seconds,
            seconds_ratio=seconds / least_seconds,
        )
        for count, (peak, seconds) in ends.items()
    ]


def sample_memory(command: list[str]) -> np.ndarray:
    """Run a command to its end: (N, 2) of seconds since its start, and resident MB of it and all its children.

    Raises CalledProcessError when the command fails.
    """
    samples, start = [], time.perf_counter()
    process = subprocess.Popen(command)
    try:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            samples.append((time.perf_counter() - start, resident_mb([root, *children_of(process.pid)])))
            time.sleep(0.1)
    finally:
        end([process])
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return np.array(samples)


# Workers ------------------------------------------------------------------------------------------------------------


def workers(setting: Setting) -> list[dict]:
    """The same clips through stages 01 and 02 with one worker, with two processes, and with two Dask workers behind a
    scheduler on the loopback. Four clips are run before, so that all workers have started. Ratio: the seconds of one
    worker divided by those of the row, so 2 is twice as fast."""
    count = setting.count(24, 4)
    runs = {"one worker": timed_run(setting, count, jobs=1), "two processes": timed_run(setting, count, jobs=2)}
    with dask_cluster(setting.folder / "runs" / "dask", 2):
        runs["two Dask workers"] = timed_run(setting, count, jobs=2)
    seconds_of_one, expected = runs["one worker"]
    return [
        row(
            *(name, seconds, "s", seconds_of_one / seconds, count),
            largest_difference=float(np.abs(x - expected).max()),
            hours_for_10000_clips=seconds / count * 10_000 / 3600,
        )
        for name, (seconds, x) in runs.items()
    ]


def timed_run(setting: Setting, count: int, jobs: int) -> tuple[float, np.ndarray]:
    """Seconds of both stages over `count` clips, after four clips to warm up, and the features (N, ...)."""
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
    """The address of a Dask scheduler with `count` workers of one thread on this machine; DASK_SCHEDULER holds it."""
    with Cluster(folder, count) as cluster, patch.dict(os.environ, DASK_SCHEDULER=cluster.address):
        yield cluster.address
