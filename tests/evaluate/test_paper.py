"""Facts about the paper's input: split views, Farnebäck flow, the apex at the plain peak of the mean magnitude."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from helpers.data import refusing

from utils.dataset.readers import open_sequence
from utils.evaluate import paper
from utils.evaluate.paper import is_composite, paper_features, paper_samples, peak_moments
from utils.flow.features import flow_maps
from utils.flow.methods import phase_flows
from utils.pipeline import Job, jobs_of
from utils.render.views import make_views


def test_the_apex_is_the_frame_of_the_largest_mean_motion_whatever_moves(speckle):
    shifts = [0, 0.5, 1, 2, 1, 0.5]
    moves = [np.float32([[1, 0, shift], [0, 1, 0]]) for shift in shifts]
    frames = np.stack([cv2.warpAffine(speckle, move, (256, 256), borderMode=cv2.BORDER_REFLECT) for move in moves])
    assert peak_moments(np.stack([frames, frames], axis=1)) == (0, 3, 5)
    assert peak_moments(frames[:2, None]) == (0, 1, 1)
    early = frames[[0, 2, 0, 0, 0, 0]]  # moves by 1 px in one frame, the other view by up to 2 px
    assert peak_moments(np.stack([early, frames], axis=1)) == (0, 3, 5)


def test_only_one_wide_texture_is_a_composite(dome, dome_clip, speckle):
    vertices = np.stack([dome.vertices] * 2)
    wide = np.concatenate([speckle, speckle], axis=1)
    assert is_composite(open_sequence(dome_clip(vertices, wide, "wide")))
    assert not is_composite(open_sequence(dome_clip(vertices, speckle, "square")))


def test_the_input_has_unstabilised_split_views_and_unmasked_farneback_flow(tiny_run):
    job = jobs_of(tiny_run.config, tiny_run.data)[0]
    frames = make_views(job.sequence(), "split", 128, stabilise=False).frames
    flows = phase_flows(frames, peak_moments(frames), "farneback")
    expected = flow_maps(flows, np.ones((2, 128, 128), bool), 28)
    np.testing.assert_array_equal(paper_features(job.sequence(), "render", "auto", 128, 25.0, "auto", 28), expected)


def test_where_no_texture_is_a_composite_the_views_are_rendered_with_the_motion_of_the_head(dome, dome_clip):
    moving = np.stack([dome.vertices + np.float32([2 * t, 0, 0]) for t in (0, 1, 2, 1)])
    sequence = open_sequence(dome_clip(moving))
    frames = make_views(sequence, "render", 64, stabilise=False, axes="y-up").frames
    flows = phase_flows(frames, peak_moments(frames), "farneback")
    expected = flow_maps(flows, np.ones((2, 64, 64), bool), 28)
    np.testing.assert_array_equal(paper_features(sequence, "render", "y-up", 64, 25.0, "auto", 28), expected)
    assert np.abs(expected).max() > 0.5


def test_its_samples_are_the_training_clips_of_the_run(tiny_run, tmp_path):
    samples = paper_samples(replace(tiny_run.config, work=str(tmp_path)), tiny_run.data)
    assert samples.ids.tolist() == tiny_run.data.train["Id"].tolist() and samples.x.shape[1:] == (2, 2, 3, 28, 28)


def test_its_input_is_stored_and_computed_again_for_other_files(tiny_run, tmp_path, monkeypatch):
    config = replace(tiny_run.config, work=str(tmp_path), jobs=1)
    before = paper_samples(config, tiny_run.data)
    monkeypatch.setattr(paper, "paper_features", refusing(paper.paper_features))
    assert np.array_equal(paper_samples(config, tiny_run.data).x, before.x)
    monkeypatch.setattr(Job, "views_key", lambda job: "other files")
    with pytest.raises(AssertionError, match="called"):
        paper_samples(config, tiny_run.data)
