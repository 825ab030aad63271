"""Facts about utils.lab.crop_match."""

from dataclasses import replace

import numpy as np
import pytest

from utils.evaluate.protocol import cross_validate, grouped_folds
from utils.evaluate.scores import pooled_score
from utils.lab.crop_match import Crop, cropped, information, match_crop
from utils.lab.flow_images import AS_IT_IS, estimators
from utils.lab.teachers.classifier import sample_dual, sample_single
from utils.train.ensemble import predict
from utils.train.shipped import load_pretrained


def test_a_closer_crop_shows_the_middle_larger_and_its_motion_in_pixels():
    maps = np.zeros((1, 1, 1, 3, 28, 28), np.float32)
    maps[..., 0, 10:18, 10:18], maps[..., 2, 10:18, 10:18] = 1.0, 1.0
    closer = cropped(maps, Crop(zoom=2))
    assert (closer[0, 0, 0, 0] > 1.9).sum() > 3 * (maps[0, 0, 0, 0] > 0.9).sum()
    assert closer[0, 0, 0, 2].max() == pytest.approx(2)
    assert cropped(maps, Crop(zoom=2), pixels=False).max() == pytest.approx(1)


def test_a_crop_moves_two_views_as_mirror_images():
    maps = np.zeros((1, 2, 1, 3, 28, 28), np.float32)
    maps[:, 0, ..., 0, 14, 7] = maps[:, 1, ..., 0, 14, 20] = 1
    left, right = cropped(maps, Crop(x=0.125))[0, :, 0, 0]  # 3.5 pixels
    assert np.allclose(left, right[:, ::-1], atol=1e-6) and left[14, 3:5].sum() > 0.9


def test_information_is_large_if_answers_are_certain_and_different():
    certain, uncertain, equal = np.eye(3)[[0, 1, 2] * 4], np.full((12, 3), 1 / 3), np.eye(3)[[0] * 12]
    values = [information(answers, single=True) for answers in (certain, uncertain, equal)]
    assert values[0] == pytest.approx(np.log(3), abs=1e-4) and np.allclose(values[1:], 0, atol=1e-4)


@pytest.fixture(scope="module")
def clips():
    return sample_single(400, seed=77)


@pytest.fixture(scope="module")
def loose(clips):
    """The same clips in a looser crop."""
    return replace(clips, x=cropped(clips.x, Crop(zoom=1 / 1.4, y=0.05), pixels=False))


def test_the_crop_of_loose_clips_is_found_without_labels(clips, loose):
    ensemble = load_pretrained("single")
    crop = match_crop(ensemble, loose.x, pixels=False)
    assert 1.2 < crop.zoom < 1.65

    def accuracy(x):
        return (predict(ensemble, x)[0].argmax(1) == clips.y.argmax(1)).mean()

    assert accuracy(cropped(loose.x, crop, pixels=False)) > accuracy(loose.x) + 0.1


def test_clips_in_the_crop_of_the_training_stay_uncropped(clips):
    assert match_crop(load_pretrained("single"), clips.x, pixels=False) == Crop()


def test_the_crop_of_the_dual_network_is_found_too():
    clips, ensemble = sample_dual(200, seed=78), load_pretrained("dual")
    assert match_crop(ensemble, clips.x) == Crop()
    assert match_crop(ensemble, cropped(clips.x, Crop(zoom=0.7))).zoom > 1.2


@pytest.mark.parametrize("name", ["zero-shot", "zero-shot, crop by the test clips"])
def test_an_estimator_finds_its_crop_without_labels_and_scores_higher_in_it(loose, name):
    folds, rows = grouped_folds(loose.y, loose.subjects, 2), estimators(loose)
    shuffled = replace(loose, y=np.roll(loose.y, 1, axis=1))
    runs = ((loose, rows["zero-shot" + AS_IT_IS]), (loose, rows[name]), (shuffled, rows[name]))
    uncropped, oof, relabelled = (cross_validate(samples, estimator, folds) for samples, estimator in runs)
    assert pooled_score(oof)["macro_uf1"] > pooled_score(uncropped)["macro_uf1"] + 0.05
    assert np.array_equal(oof.probability, relabelled.probability)
    assert oof.notes[0][0]["crop"]["zoom"] > 1.2
