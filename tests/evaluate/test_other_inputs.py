"""Facts about the rows that see the same clips otherwise: crops, moments, and what becomes of the head's motion."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.data import refusing

from utils.evaluate import other_inputs
from utils.evaluate.other_inputs import samples_with_flow, unstabilised_samples
from utils.pipeline import jobs_by_id, load_data, load_moments, load_samples

BOX = "Id,left_x,left_y,left_side,right_x,right_y,right_side\n{},100,110,200,120,115,210\n"


@pytest.fixture
def boxed(tiny_run, tmp_path):
    """The tiny root with an explicit crop of its first training clip; returns config, data and that Id."""
    shutil.copytree(tiny_run.config.data_root, tmp_path / "data")
    shutil.copytree(tiny_run.config.work_root, tmp_path / "work")
    config = replace(tiny_run.config, data=str(tmp_path / "data"), work=str(tmp_path / "work"))
    first = tiny_run.data.train["Id"].iloc[0]
    (config.data_root / "boxes.csv").write_text(BOX.format(first))
    return config, load_data(config), first


def test_without_stabilisation_crop_and_moments_stay_and_the_heads_motion_is_subtracted(boxed, monkeypatch):
    config, data, first = boxed
    seen = {}

    def features(views, moments, size, method):
        seen[len(seen)] = views, moments
        return np.zeros((2, 2, 3, size, size), np.float32)

    moments = load_moments(config, data).set_index("Id").loc[first, ["onset", "apex", "offset"]].tolist()
    stabilised = jobs_by_id(config, data)[first].views()
    monkeypatch.setattr(other_inputs, "clip_features", features)
    samples = unstabilised_samples(config, data)
    views, given = seen[0]
    assert samples.ids.tolist() == data.train["Id"].tolist()
    assert views.boxes.tolist() == stabilised.boxes.tolist() == [[100, 110, 200], [120, 115, 210]]
    assert not views.stabilised and given == (0, 1, 2)  # so the flow is taken less the head's motion
    assert np.array_equal(views.frames[0], stabilised.frames[int(moments[0])])  # the onset, which is not moved
    assert views.frames.shape[0] == 3 and not np.array_equal(views.frames[1], stabilised.frames[int(moments[1])])


def test_the_same_flow_method_gives_the_runs_own_samples_and_another_one_others(boxed):
    config, data, _ = boxed
    own, other = (samples_with_flow(config, data, method) for method in (config.flow_method, "farneback"))
    expected = load_samples(config, data, "train")
    assert np.array_equal(own.x, expected.x) and own.ids.tolist() == expected.ids.tolist()
    assert not np.allclose(other.x, expected.x) and np.corrcoef(other.x.ravel(), expected.x.ravel())[0, 1] > 0.3


def test_other_inputs_are_kept_and_made_again_only_for_other_moments(boxed, monkeypatch):
    config, data, _ = boxed
    before = samples_with_flow(config, data, "farneback")
    monkeypatch.setattr(other_inputs, "flow_features", refusing(other_inputs.flow_features))
    assert np.array_equal(samples_with_flow(config, data, "farneback").x, before.x)
    moments = load_moments(config, data).assign(apex=2)
    monkeypatch.setattr(other_inputs, "load_moments", lambda *_: moments)
    with pytest.raises(AssertionError, match="called"):
        samples_with_flow(config, data, "farneback")
