"""Facts about the procedural skin."""

from dataclasses import replace

import numpy as np
import pytest

from utils.synthetic.face_model import SKIN, load_face_model, sample_identity
from utils.synthetic.skin import TEXELS, landmarks, paint_skin, texel_surface


def painted(ancestry):
    """The skin of a person of one ancestry."""
    identity = sample_identity(np.random.default_rng(1))
    traits = identity.traits | dict.fromkeys(("african", "asian", "caucasian"), 0.0) | {ancestry: 1.0}
    return paint_skin(replace(identity, traits=traits), np.random.default_rng(5))


@pytest.fixture(scope="module")
def pale():
    return painted("caucasian")


def around(place, radius=3.0):
    """Texels of the skin within `radius` mm of a place on the template."""
    position, island, _ = texel_surface()
    return (np.linalg.norm(position - place, axis=-1) < radius) & (island == SKIN)


def test_every_texel_of_a_face_knows_its_place_on_the_template():
    model = load_face_model()
    position, island, masks = texel_surface()
    at = np.rint(np.stack([model.uv[:, 0], 1 - model.uv[:, 1]], -1) * TEXELS - 0.5).astype(int).clip(0, TEXELS - 1)
    on_skin = (model.island == SKIN) & (island[at[:, 1], at[:, 0]] == SKIN)
    distance = np.linalg.norm(position[at[:, 1], at[:, 0]] - model.template, axis=1)[on_skin]
    assert np.median(distance) < 0.5  # mm; a texel covers about 0.3
    assert set(masks) == set(model.masks)


def test_the_same_seed_paints_the_same_skin(pale):
    again = painted("caucasian")
    assert again.shape == (TEXELS, TEXELS, 3) and again.dtype == np.uint8
    assert np.array_equal(again, pale)


def test_skin_follows_the_traits(pale):
    cheek = around(landmarks()["cheek"])
    assert pale[cheek].mean() > painted("african")[cheek].mean() + 60


def test_brows_and_pupils_are_darker_than_the_cheek(pale):
    model, marks, island = load_face_model(), landmarks(), texel_surface()[1]
    cheek = pale[around(marks["cheek"])].mean()
    brow = pale[around(marks["brow"] * [0.0, 1, 1] + [marks["eye"][0], 0, 0], 14)]
    assert np.quantile(brow.mean(-1), 0.1) < cheek - 60
    for eye in model.eyes:
        ball = pale[island == eye].mean(-1)
        assert ball.min() < 20 and ball.max() > 150  # pupil and sclera


def test_lips_are_redder_than_the_cheek(pale):
    _, _, masks = texel_surface()
    lips, cheek = pale[masks["lips"] > 0.9].mean(0), pale[around(landmarks()["cheek"])].mean(0)
    assert lips[0] / lips[1] > 1.15 * cheek[0] / cheek[1]


def test_skin_has_detail_for_optical_flow(pale):
    forehead = pale[around(landmarks()["brow"] + np.array([0, 22.0, -6]), 8)].astype(float)
    assert len(forehead) > 200 and forehead.mean(-1).std() > 4
