from dataclasses import replace

import numpy as np
import pytest

from utils.evaluate.protocol import cross_validate, grouped_folds
from utils.evaluate.scores import pooled_score
from utils.lab.crop_match import Crop, crop_matched, cropped, information, match_crop
from utils.lab.flow_images import AS_IT_IS, estimators
from utils.lab.teachers.classifier import sample_dual, sample_single
from utils.train.ensemble import predict
from utils.train.shipped import load_pretrained, zero_shot_estimator


def test_a_crop_shows_the_middle_larger_and_the_motion_in_its_pixels():
    maps = np.zeros((1, 1, 1, 3, 28, 28), np.float32)
    maps[..., 0, 10:18, 10:18], maps[..., 2, 10:18, 10:18] = 1.0, 1.0
    closer = cropped(maps, Crop(zoom=2))
    assert (closer[0, 0, 0, 0] > 1.9).sum() > 3 * (maps[0, 0, 0, 0] > 0.9).sum()
    assert closer[0, 0, 0, 2].max() == pytest.approx(2)
    assert cropped(maps, Crop(zoom=2), pixels=False).max() == pytest.approx(1)


def test_a_crop_moves_two_views_as_mirror_images():
    maps = np.zeros((1, 2, 1, 3, 28, 28), np.float32)
    maps[:, 0, ..., 0, 14, 7] = maps[:, 1, ..., 0, 14, 20] = 1
    moved = cropped(maps, Crop(x=0.125))  # 3.5 pixels
    left, right = moved[0, 0, 0, 0], moved[0, 1, 0, 0]
    assert np.allclose(left, right[:, ::-1], atol=1e-6) and left[14, 3:5].sum() > 0.9


def test_information_is_large_where_answers_are_sure_and_differ():
    sure, unsure, same = np.eye(3)[[0, 1, 2] * 4], np.full((12, 3), 1 / 3), np.eye(3)[[0] * 12]
    told = [information(answers, single=True) for answers in (sure, unsure, same)]
    assert told[0] == pytest.approx(np.log(3), abs=1e-4) and np.allclose(told[1:], 0, atol=1e-4)


@pytest.fixture(scope="module")
def clips():
    return sample_single(400, seed=77)


def test_a_crop_that_was_loosened_on_purpose_is_found_without_a_label(clips):
    ensemble = load_pretrained("single")
    looser = cropped(clips.x, Crop(zoom=1 / 1.4, y=0.05), pixels=False)
    found = match_crop(ensemble, looser, pixels=False)
    assert 1.2 < found.zoom < 1.65

    def right(x):
        return (predict(ensemble, x)[0].argmax(1) == clips.y.argmax(1)).mean()

    assert right(cropped(looser, found, pixels=False)) > right(looser) + 0.1


def test_what_was_taught_reads_loose_pictures_in_the_crop_that_it_knows(clips):
    looser = replace(clips, x=cropped(clips.x, Crop(zoom=1 / 1.4), pixels=False))
    rows, folds = estimators(looser), grouped_folds(clips.y, clips.subjects, 2)
    matched, as_it_is = (
        pooled_score(cross_validate(looser, rows[name], folds))["macro_uf1"]
        for name in ("zero-shot", "zero-shot" + AS_IT_IS)
    )
    assert matched > as_it_is + 0.05


def test_clips_in_the_teachers_own_crop_stay_as_they_are(clips):
    assert match_crop(load_pretrained("single"), clips.x, pixels=False) == Crop()


def test_the_dual_networks_crop_is_found_too():
    clips, ensemble = sample_dual(200, seed=78), load_pretrained("dual")
    assert match_crop(ensemble, clips.x) == Crop()
    assert match_crop(ensemble, cropped(clips.x, Crop(zoom=0.7))).zoom > 1.2


@pytest.mark.parametrize("transduction", [False, True])
def test_a_predictor_in_its_crop_takes_it_from_clips_and_never_from_labels(clips, transduction):
    ensemble = load_pretrained("single")
    looser = replace(clips, x=cropped(clips.x, Crop(zoom=1 / 1.4), pixels=False))
    folds = grouped_folds(clips.y, clips.subjects, 2)
    plain = zero_shot_estimator(ensemble)
    matched = crop_matched(plain, ensemble, pixels=False, transduction=transduction)
    shuffled = replace(looser, y=np.roll(looser.y, 1, axis=1))
    as_is, found, other = (
        cross_validate(samples, estimator, folds, inner_folds=2)
        for samples, estimator in ((looser, plain), (looser, matched), (shuffled, matched))
    )
    assert pooled_score(found)["macro_uf1"] > pooled_score(as_is)["macro_uf1"] + 0.05
    assert np.array_equal(found.probability, other.probability)
    assert found.notes[0][0]["crop"]["zoom"] > 1.2
