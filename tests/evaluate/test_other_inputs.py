"""Facts about other inputs made of the same clips: their crops, their moments, and the head's motion."""

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
    """The tiny run with an explicit crop of its first training clip: config, data and the Id of this clip."""
    shutil.copytree(tiny_run.config.data_root, tmp_path / "data")
    shutil.copytree(tiny_run.config.work_root, tmp_path / "work")
    config = replace(tiny_run.config, data=str(tmp_path / "data"), work=str(tmp_path / "work"))
    first = tiny_run.data.train["Id"].iloc[0]
    (config.data_root / "boxes.csv").write_text(BOX.format(first))
    return config, load_data(config), first


def test_without_stabilisation_crop_and_moments_stay_and_the_heads_motion_is_subtracted(boxed, monkeypatch):
    config, data, first = boxed
    calls = []

    def features(views, moments, size, method):
        calls.append((views, moments))
        return np.zeros((2, 2, 3, size, size), np.float32)

    moments = load_moments(config, data).set_index("Id").loc[first, ["onset", "apex", "offset"]].tolist()
    stabilised = jobs_by_id(config, data)[first].views()
    monkeypatch.setattr(other_inputs, "clip_features", features)
    samples = unstabilised_samples(config, data)
    views, frames = calls[0]
    assert samples.ids.tolist() == data.train["Id"].tolist()
    assert views.boxes.tolist() == stabilised.boxes.tolist() == [[100, 110, 200], [120, 115, 210]]
    assert not views.stabilised and frames == (0, 1, 2)  # hence the head's motion is subtracted from the flow
    assert np.array_equal(views.frames[0], stabilised.frames[int(moments[0])])  # stabilisation does not move the onset
    assert views.frames.shape[0] == 3 and not np.array_equal(views.frames[1], stabilised.frames[int(moments[1])])


def test_the_flow_method_of_the_run_gives_its_samples_and_another_method_gives_similar_ones(boxed):
    config, data, _ = boxed
    same, farneback = (samples_with_flow(config, data, method) for method in (config.flow_method, "farneback"))
    expected = load_samples(config, data, "train")
    assert np.array_equal(same.x, expected.x) and same.ids.tolist() == expected.ids.tolist()
    assert not np.allclose(farneback.x, expected.x)
    assert np.corrcoef(farneback.x.ravel(), expected.x.ravel())[0, 1] > 0.3


def test_other_inputs_are_stored_and_computed_again_for_other_moments(boxed, monkeypatch):
    config, data, _ = boxed
    before = samples_with_flow(config, data, "farneback")
    monkeypatch.setattr(other_inputs, "flow_features", refusing(other_inputs.flow_features))
    assert np.array_equal(samples_with_flow(config, data, "farneback").x, before.x)
    moments = load_moments(config, data).assign(apex=2)
    monkeypatch.setattr(other_inputs, "load_moments", lambda *_: moments)
    with pytest.raises(AssertionError, match="called"):
        samples_with_flow(config, data, "farneback")
