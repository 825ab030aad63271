"""Facts about the viewer: what it draws, what its controls do, and both in a real JupyterLab."""

import json
import os
import pickle
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from urllib.request import urlopen

import nbformat
import numpy as np
import pandas as pd
import pytest
from helpers.browser import find_chromium, open_browser
from IPython.display import Image

from utils.evaluate.protocol import OutOfFold
from utils.lab.bench.cluster import end, wait_for
from utils.paths import ROOT
from utils.pipeline import jobs_by_id, load_samples
from utils.progress import HEADLESS
from utils.report import viewer
from utils.report.figures.common import PHASE_NAMES
from utils.report.viewer import CHANNELS, Choice, Clips, controls, draw_answers, draw_flow, draw_frames, png


@pytest.fixture(scope="module")
def jobs(tiny_run):
    return jobs_by_id(tiny_run.config, tiny_run.data)


@pytest.fixture(scope="module")
def ids(tiny_run):
    return tiny_run.data.train["Id"].tolist()


@pytest.fixture
def clips(jobs):
    return Clips(jobs)


@pytest.fixture
def box(clips, ids):
    return controls(lambda choice: draw_flow(clips, choice), clips, *viewer._flow_options(clips, ids, "dis"))


def control(box, name):
    return next(control for control in box.children[0].children if control.description == name)


def picture(box):
    return box.children[1].value


def test_the_same_choice_gives_the_same_picture_and_each_channel_another(clips, ids):
    choices = [Choice(ids[0], clips.moments(ids[0])[1], channel=channel, method="dis") for channel in CHANNELS]
    pictures = [png(draw_flow(clips, choice)) for choice in choices]
    assert pictures == [png(draw_flow(clips, choice)) for choice in choices]
    assert len(set(pictures)) == len(CHANNELS)


def test_flow_is_measured_from_the_first_moment_of_the_phase(clips, ids):
    onset, apex, offset = clips.moments(ids[0])
    first, second = (Choice(ids[0], apex, phase=phase, method="dis") for phase in PHASE_NAMES)
    assert np.abs(clips.flow(first)).max() > 0.1
    assert np.abs(clips.flow(second)).max() < 0.01  # from the apex to itself
    assert (clips.flow(first)[~clips.views(ids[0]).masks] == 0).all()


def test_the_frames_of_01_are_drawn_without_any_flow(clips, ids, monkeypatch):
    monkeypatch.setattr(viewer, "estimate_flows", None)
    assert png(draw_frames(clips, Choice(ids[0], 0))) != png(draw_frames(clips, Choice(ids[0], 5)))


def test_every_control_changes_the_picture(box):
    control(box, "frame").value = 1
    for name in ("frame", "phase", "method", "view", "id", "channel"):
        changed, before = control(box, name), picture(box)
        changed.value = 2 if name == "frame" else next(value for value in changed.options if value != changed.value)
        assert picture(box) != before, name


def test_another_clip_starts_at_its_apex_and_bounds_the_slider(box, clips, ids):
    control(box, "frame").value = 2
    control(box, "id").value = ids[1]
    slider = control(box, "frame")
    assert slider.value == clips.moments(ids[1])[1] and slider.max == len(clips.views(ids[1]).frames) - 1


def test_answers_stand_beside_the_clip(tiny_run, clips, jobs, ids):
    samples = load_samples(tiny_run.config, tiny_run.data, "train")
    n, k = samples.y.shape
    parts = {"ids": samples.ids, "subjects": samples.subjects, "fold": np.arange(n) % 2, "truth": samples.y > 0}
    parts |= {"probability": np.full((1, n, k), 0.4), "decision": np.zeros((1, n, k), bool), "seeds": (0,)}
    thresholds = np.array([[np.full(k, 0.3), np.full(k, 0.6)]])
    oof = OutOfFold(samples.classes, **parts, thresholds=thresholds, notes=[[{}, {}]], seconds=0)
    table = viewer.held_out_answers(oof, ids[0])
    assert table["probability"].tolist() == [0.4] * k and table["threshold"].tolist() == [0.3] * k
    assert sum(name.endswith(" *") for name in table.index) == samples.y[0].sum()
    units = pd.DataFrame(np.linspace(0, 1, 10 * len(ids)).reshape(-1, 10), ids, [f"AU{n}" for n in range(10)])
    assert png(draw_answers(clips, Choice(ids[0], 3, method="dis"), lambda id: table, lambda id: units.loc[id]))
    assert isinstance(viewer.answers(jobs, oof, units, "dis"), Image)  # this test has no front end


def test_without_a_front_end_the_first_picture_stands_for_the_controls(jobs, ids):
    pictures = [viewer.flow(jobs, ids, "dis") for _ in range(2)]
    assert all(isinstance(picture, Image) for picture in pictures) and pictures[0].data == pictures[1].data


# In JupyterLab ------------------------------------------------------------------------------------------------------


CELL = """
import os, pickle, sys
sys.path.insert(0, {root!r})
from utils.pipeline import jobs_by_id, load_data
from utils.report import viewer
with open({config!r}, "rb") as file:
    config = pickle.load(file)
data = load_data(config)
viewer.flow(jobs_by_id(config, data), data.train["Id"].tolist(), "dis")
"""


@contextmanager
def jupyter_lab(folder):
    """JupyterLab over a folder; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url=", "--ServerApp.disable_check_xsrf=True"]
    environment = {name: value for name, value in os.environ.items() if name != HEADLESS}
    kernels = {"JUPYTER_PATH": "", "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_CONFIG_DIR": str(folder / "config")}
    with open(folder / "lab.log", "w") as log:
        lab = subprocess.Popen(command, env=environment | kernels, stdout=log, stderr=log, cwd=folder)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            end([lab])


def test_in_jupyterlab_the_picture_follows_the_slider(tiny_run, tmp_path):
    if find_chromium() is None:
        pytest.skip("no Chromium on this machine")
    with open(tmp_path / "config.pickle", "wb") as file:
        pickle.dump(tiny_run.config, file)
    source = CELL.format(root=str(ROOT), config=str(tmp_path / "config.pickle")).strip()
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata=metadata)
    nbformat.write(book, tmp_path / "viewer.ipynb")
    shown = "document.querySelector('.jp-OutputArea img')"
    with jupyter_lab(tmp_path) as address, open_browser() as browser:
        wait_for(lambda: kernel_states(address) is not None, 600)
        browser.open(f"{address}/lab/tree/viewer.ipynb")
        browser.wait_until("document.querySelector('.jp-Notebook .cm-content') !== null", 600)
        wait_for(lambda: kernel_states(address) == ["idle"], 600)  # a starting kernel ignores requests
        browser.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells'); 0")
        browser.wait_until(f"{shown}?.naturalWidth > 0", 600)
        before = browser.evaluate(f"{shown}.src")
        press_until(browser, "ArrowLeft", f"{shown}?.naturalWidth > 0 && {shown}.src !== {before!r}")


def kernel_states(address):
    """The states of the kernels of a JupyterLab; None while it does not answer, as while a kernel starts."""
    try:
        with urlopen(f"{address}/api/kernels", timeout=60) as answer:
            return [kernel["execution_state"] for kernel in json.load(answer)]
    except OSError:
        return None


def press_until(browser, key, expression):
    """Press a key on the slider until an expression is true; the slider is visible shortly before it reacts to keys."""
    for _ in range(60):
        browser.evaluate("document.querySelector('.noUi-handle').focus()")
        for kind in ("rawKeyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=37)
        with suppress(TimeoutError):
            browser.wait_until(expression, 10)
            return
    pytest.fail("the picture does not follow the slider")
