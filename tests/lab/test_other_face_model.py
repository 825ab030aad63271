"""Facts about utils.lab.other_face_model."""

import numpy as np
from helpers.face_models import write_obj_model

from utils.lab.other_face_model import sample_clips
from utils.synthetic.blend_shapes import read_blend_shapes
from utils.train.samples import CLASSES


def test_people_of_any_face_model_make_clips_of_the_pipelines_form(tmp_path):
    model = read_blend_shapes(write_obj_model(tmp_path))
    samples = sample_clips(model, 2, 3, seed=0)
    assert samples.x.shape == (6, 2, 2, 3, 28, 28) and samples.classes == CLASSES
    assert np.array_equal(samples.x, sample_clips(model, 2, 3, seed=0).x) and len(np.unique(samples.subjects)) == 2
    assert 0.1 < np.abs(samples.x).max() < 10
    assert sample_clips(None, 1, 2, seed=0).x.shape == (2, 2, 2, 3, 28, 28)
