"""Facts about the benchmark: what it writes, and that its alternatives do the same work as ours. No times."""

import os
import subprocess
import sys
import time
from importlib.metadata import version

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from helpers.data import tiny_clips

from utils.evaluate.scores import Interval
from utils.lab.bench import __main__ as bench
from utils.lab.bench import stages
from utils.lab.bench.cluster import wait_for
from utils.lab.bench.setting import resident_mb, row
from utils.lab.bench.stages import (
    dask_cluster,
    errors_by_confounder,
    frame_difference_peak,
    mean_magnitude_peak,
    recorded_views,
    sample_memory,
)
from utils.lab.bench.training import augment_clip, people_to_train_and_test
from utils.lab.figures import memory_curves
from utils.lab.tables import as_markdown, load, tidy
from utils.parallel import parallel_map
from utils.provenance import commit
from utils.synthetic.truth import CONFOUNDERS
from utils.train.augment import augment
from utils.train.settings import TrainConfig

RUN = ("rendering", "leaks", "features", "training")


@pytest.fixture(scope="module")
def benched(tmp_path_factory):
    """A quick run of the cheaper sections on nine clips of six frames: its folder, its table and its record."""
    folder = tmp_path_factory.mktemp("bench")
    with tiny_clips():
        bench.main(["--quick", "--jobs", "1", "--only", *RUN, "--out", str(folder)])
    return folder, *load(folder / "bench.json")


def test_the_chosen_sections_are_written_with_values_units_and_repetitions(benched):
    _, table, _ = benched
    assert tuple(table["section"].unique()) == RUN and {"ratio", "macro_uf1_low"} <= set(table)
    assert np.isfinite(table["value"]).all() and (table["unit"] != "").all() and (table["n"] >= 1).all()


def test_the_record_says_which_machine_and_which_code_were_measured(benched):
    _, _, record = benched
    assert record["machine"]["processor"] and record["machine"]["cores"] >= 1 and record["machine"]["memory_gb"] > 0
    assert record["commit"].removesuffix("-dirty") == commit().removesuffix("-dirty")
    assert record["packages"]["torch"] == version("torch") and record["parameters"]["quick"] is True
    assert set(record["seconds"]) == set(RUN)


def test_every_section_has_a_caption_and_a_table_in_markdown(benched):
    folder, table, _ = benched
    text = (folder / "bench.md").read_text()
    for name in RUN:
        part = text.split(f"## {name}\n")[1].split("\n## ")[0]
        lines = [line for line in part.splitlines() if line.startswith("|")]
        assert len(lines) == 2 + (table["section"] == name).sum()
        assert len({line.count("|") for line in lines}) == 1
        assert bench.caption(name) in part and "\n" not in bench.caption(name)
    assert all(len(bench.caption(name)) > 80 for name in bench.SECTIONS)


def test_our_pictures_are_pyrenders_without_light_and_sequences_leave_no_opengl_objects(benched):
    values = benched[1].set_index("name")["value"]
    assert values["pixels, ours and theirs: mean difference"] < 3  # its mipmaps blur a texture drawn at half its size
    assert values["pixels that one of the two covers"] == values["OpenGL objects gained"] == 0


def test_training_and_held_out_clips_share_no_subject():
    samples, (train, test) = people_to_train_and_test(2)
    assert len(train) == 24 and len(test) == 200
    assert not set(samples.subjects[train]) & set(samples.subjects[test])


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_the_plain_loop_augments_a_clip_as_we_augment_a_batch(mirror, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape[0] if shape == ((),) else shape, 0.8))
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.full(shape[0] if shape == ((),) else shape, -0.7))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 2, 3, 28, 28)).astype(np.float32))
    config = TrainConfig(mirror=mirror)
    assert not torch.allclose(augment_clip(x, config), x, atol=0.1)
    assert torch.allclose(augment_clip(x, config), augment(x[None], config)[0], atol=1e-5)


def test_the_other_apex_rules_find_the_largest_motion_of_an_undisturbed_clip(speckle):
    shifts = [0, 0.4, 0.9, 1.6, 0.8, 0.2]
    moved = [cv2.warpAffine(speckle, np.array([[1.0, 0, s], [0, 1, 0]]), (256, 256), flags=3) for s in shifts]
    frames = np.stack([[image, image] for image in moved])
    assert mean_magnitude_peak(frames, 128, "dis") == 3
    assert frame_difference_peak(frames, 128) == 3


def test_memory_of_children_counts_and_failures_are_told(tmp_path, monkeypatch, at_most):
    seen = tmp_path / "seen"  # appears once `sample_memory` has sampled more than 150 MB

    def sample(processes):
        if (megabytes := resident_mb(processes)) > 150:
            seen.touch()
        return megabytes

    monkeypatch.setattr(stages, "resident_mb", sample)
    child = "import os, sys; held = bytearray(150_000_000)\nwhile not os.path.exists(sys.argv[1]): pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, {str(seen)!r}])"
    with at_most(120):
        curve = sample_memory([sys.executable, "-c", parent])
    assert 150 < curve[:, 1].max() < 400 and (np.diff(curve[:, 0]) > 0).all()
    with pytest.raises(subprocess.CalledProcessError):
        sample_memory([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_command_ends_if_its_memory_cannot_be_read(monkeypatch):
    started = []

    def fail(processes):
        started.append(processes[0])
        raise OSError("no memory to be read")

    monkeypatch.setattr(stages, "resident_mb", fail)
    with pytest.raises(OSError, match="no memory"):
        sample_memory([sys.executable, "-c", "input()"])
    assert not started[0].is_running()


def test_a_dask_cluster_of_real_processes_is_named_only_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER", "another")

    def meet(_) -> int:  # local, since the workers do not know this module
        (tmp_path / "met").mkdir(exist_ok=True)
        (tmp_path / "met" / str(os.getpid())).touch()
        end = time.monotonic() + 120
        while len(os.listdir(tmp_path / "met")) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        return os.getpid()

    with dask_cluster(tmp_path, 2) as address:
        assert os.environ["DASK_SCHEDULER"] == address
        processes = set(parallel_map(meet, range(8), n_jobs=2))
    assert len(processes) == 2 and os.getpid() not in processes
    assert os.environ["DASK_SCHEDULER"] == "another"
    wait_for(lambda: not any(psutil.pid_exists(number) for number in processes), 60)


def test_a_table_has_the_columns_that_any_row_has():
    rows = [row("a", 1.0, "s", worst=None), row("b", Interval(1234.5, 1200.0, 1300.0), "s", 2.0, seconds=0.5)]
    assert as_markdown(tidy({"section": "x", **line} for line in rows)).splitlines() == [
        "| name | value | unit | ratio | n | low | high | seconds |",
        "|---|---|---|---|---|---|---|---|",
        "| a | 1 | s |  | 1 |  |  |  |",
        "| b | 1234 | s | 2 | 1 | 1200 | 1300 | 0.5 |",
    ]


def test_the_memory_figure_shows_peaks_and_times_by_clips():
    curves = {3: np.array([[0, 10.0], [1, 30], [2, 20]]), 9: np.array([[0, 10.0], [5, 40]])}
    left, right, seconds = memory_curves(curves).axes
    assert [line.get_xydata()[:, 1].max() for line in left.lines] == [30, 40]
    assert right.lines[0].get_xydata().tolist() == [[3, 30], [9, 40]]
    assert seconds.lines[0].get_xydata().tolist() == [[3, 2], [9, 5]]


def test_apex_errors_are_grouped_and_divided_by_ours():
    truth = pd.DataFrame({"apex": [5, 8], **dict.fromkeys(CONFOUNDERS, False)}, index=["a", "b"])
    truth["blink"] = [False, True]
    rows = errors_by_confounder(pd.DataFrame({"ours": [5, 10], "other": [6, 16]}, index=["a", "b"]), truth)
    errors = {(line["frames"], line["name"]): (line["value"], line["ratio"], line["n"], line["worst"]) for line in rows}
    assert errors["all clips", "ours"] == (1, 1, 2, 2) and errors["all clips", "other"] == (4.5, 4.5, 2, 8)
    assert errors["no confounder", "ours"] == (0, None, 1, 0) and errors["no confounder", "other"] == (1, None, 1, 1)
    assert errors["with blink", "other"] == (8, 4, 1, 8) and ("with gaze", "ours") not in errors


def test_recorded_views_are_nearly_the_same_views(speckle):
    frames = np.repeat(np.stack([speckle, np.roll(speckle, 2, 1)])[:, None], 2, 1)
    for name, recorded in recorded_views(frames).items():
        assert recorded.shape == frames.shape and recorded.dtype == np.uint8, name
        grey = frames.mean(-1, keepdims=True)
        right, crossed = (np.abs(views - grey).mean() for views in (recorded, recorded[::-1]))
        assert 0.1 < right < crossed, name
