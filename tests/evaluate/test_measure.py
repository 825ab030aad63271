"""Facts about the errors of flow and apex against the truth of synthetic clips."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from utils.config import load_config
from utils.dataset.readers import open_sequence
from utils.evaluate import measure
from utils.evaluate.measure import CONFOUNDERS, apex_errors, given_apex_errors, measure_flow
from utils.flow.methods import FLOW_METHODS
from utils.flow.truth import exact_flow
from utils.pipeline import jobs_by_id, load_data
from utils.render.views import stable_vertices, view_cameras
from utils.synthetic.truth import load_truth

BOXES = [(100.0, 110.0, 200.0), (120.0, 115.0, 210.0)]


@pytest.fixture(scope="module", params=["the mesh's crop", "an explicit crop"])
def run(request, tiny_run, tmp_path_factory):
    """The tiny run, and the same clips with a table of crops: config, data and the crops."""
    if request.param == "the mesh's crop":
        return tiny_run.config, tiny_run.data, None
    folder = tmp_path_factory.mktemp("boxed")
    shutil.copytree(tiny_run.config.data_root, folder / "data")
    columns = ["Id", *(f"{view}_{part}" for view in ("left", "right") for part in ("x", "y", "side"))]
    rows = [[id, *BOXES[0], *BOXES[1]] for id in tiny_run.data.test_ids]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "data" / "boxes.csv", index=False)
    config = replace(tiny_run.config, data=str(folder / "data"), work=str(folder / "work"))
    return config, load_data(config), BOXES


@pytest.fixture(scope="module")
def exact(run):
    """The Id of the test clip that moves most, and its exact flow from onset to true apex. The key is the bytes of the
    first grey frame."""
    config, data, boxes = run
    truth = load_truth(config).loc[data.test_ids]
    job = jobs_by_id(config, data)[truth["peak_px"].idxmax()]
    views, sequence = job.views(), open_sequence(job.folder)
    vertices, faces = stable_vertices(sequence), sequence.geometry(0)[1]
    flows = {}
    for v, camera in enumerate(view_cameras(vertices[0], config.size, config.yaw_deg, boxes)):
        grey = cv2.cvtColor(views.frames[0, v], cv2.COLOR_RGB2GRAY)
        flows[grey.tobytes()] = exact_flow(vertices[0], vertices[truth.loc[job.id, "apex"]], faces, camera)[0]
    return job.id, flows


@pytest.fixture(scope="module")
def measured(run, exact):
    id, flows = exact
    methods = {
        "exact": lambda first, second: flows[first.tobytes()],
        "zero": lambda first, second: np.zeros((*first.shape, 2), np.float32),
        "half": lambda first, second: flows[first.tobytes()] / 2,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, method in methods.items():
            patch.setitem(FLOW_METHODS, name, method)
        patch.setattr(measure, "FLOW_METHODS", (*methods, "faceflow"))
        return measure_flow(*run[:2], [id])


def test_flow_errors_of_exact_zero_half_and_estimated_flow(measured):
    exact, zero, half, ours = (measured.loc[name] for name in ("exact", "zero", "half", "faceflow"))
    assert exact["epe"] == 0 and exact["magnitude_ratio"] == pytest.approx(1)
    assert zero["epe"] == zero["zero_epe"] > 0.05
    assert half["epe"] == pytest.approx(zero["epe"] / 2) and half["magnitude_ratio"] == pytest.approx(0.5)
    assert ours["epe"] < 0.6 * ours["zero_epe"] and ours["ms"] > 0
    assert measured.index.tolist() == ["exact", "zero", "half", "faceflow"] and measured["zero_epe"].nunique() == 1


def test_real_data_have_no_truth(tmp_path):
    assert load_truth(load_config("smoke", data=str(tmp_path))) is None


# Apex


@pytest.fixture
def truth():
    """Apexes of four clips: without confounder, with a blink, with a gaze shift, with both."""
    table = pd.DataFrame({"apex": [5, 8, 3, 9], **dict.fromkeys(CONFOUNDERS, False)}, index=list("abcd"))
    table["blink"], table["gaze"] = [False, True, False, True], [False, False, True, True]
    return table


def test_apex_errors_are_absolute_and_grouped_by_confounder(truth):
    apexes = pd.Series({"d": 5, "a": 6, "b": 6, "c": 3})  # in another order; errors a 1, b 2, c 0, d 4
    errors = apex_errors(apexes, truth)
    expected = pd.DataFrame(
        [[4, 1.75, 1.5, 4], [1, 1, 1, 1], [2, 3, 3, 4], [2, 2, 2, 4]],
        ["all clips", "no confounder", "with blink", "with gaze"],
        ["clips", "mean_abs", "median_abs", "worst"],
    )
    pd.testing.assert_frame_equal(errors.loc[expected.index], expected.astype(float))


def test_a_group_without_clips_has_no_error(truth):
    errors = apex_errors(truth["apex"], truth).loc[["with drift", "with flicker"]]
    assert (errors["clips"] == 0).all() and errors["mean_abs"].isna().all()


def test_only_clips_with_a_spotted_apex_count(truth):
    errors = apex_errors(pd.Series({"b": 9}), truth)
    assert errors.loc["all clips"].tolist() == [1, 1, 1, 1] and errors.loc["no confounder", "clips"] == 0


def test_spotted_apexes_are_compared_with_the_given_ones():
    spotted = pd.Series({"a": 5, "b": 8, "c": 3})
    table = pd.DataFrame({"Id": ["a", "b", "c", "unread"], "apex": pd.array([7, None, 3, 4], "Int64")})
    errors = given_apex_errors(spotted, SimpleNamespace(train=table))
    assert errors.loc["clips with a given apex"].tolist() == [2, 1, 1, 2]
    assert given_apex_errors(spotted, SimpleNamespace(train=table.drop(columns="apex"))) is None
    assert given_apex_errors(spotted, SimpleNamespace(train=table.assign(apex=pd.NA))) is None
