"""Facts about the face model: its axes, blend shapes, texture seams and people."""

import numpy as np
import pytest

from utils.synthetic.face_model import ANCESTRIES, SKIN, load_face_model, sample_identity, with_macros

SHIFTING = ("jaw", "mouth")  # these blend shapes shift a whole part of the face to one side
SIDED = [name.removesuffix("Left") for name in load_face_model().shape_names if name.endswith("Left")]


@pytest.fixture(scope="module")
def model():
    return load_face_model()


def test_there_are_52_blend_shapes_and_each_but_the_tongue_moves_the_surface(model):
    assert len(model.shape_names) == 52
    travel = {name: np.linalg.norm(offset, axis=1).max() for name, offset in model.shapes.items()}  # mm
    assert [name for name, length in travel.items() if length < 2] == ["tongueOut"]  # the mesh has no tongue
    assert max(travel.values()) < 40


def test_the_template_is_a_face_in_millimetres_centred_and_turned_to_the_viewer(model):
    assert np.abs(model.template.mean(0)).max() < 1e-3
    assert (np.ptp(model.template, axis=0) > [110, 150, 50]).all()
    assert (np.ptp(model.template, axis=0) < [200, 250, 150]).all()
    nose = model.template[model.template[:, 2].argmax()]
    eyes = model.template[np.isin(model.island, model.eyes)].mean(0)
    assert abs(nose[0]) < 2 and nose[1] < eyes[1] and nose[2] > eyes[2]


@pytest.mark.parametrize("shape", SIDED)
def test_left_blend_shapes_move_the_subjects_left_which_is_the_viewers_right(model, shape):
    for side, sign in (("Left", 1), ("Right", -1)):
        length = np.linalg.norm(model.shapes[shape + side], axis=1)
        assert sign * np.average(model.template[:, 0], weights=length) > 1 + 4 * (shape not in SHIFTING)


def test_welded_vertices_stand_and_move_together(model):
    for number in np.unique(model.weld[np.bincount(model.weld)[model.weld] > 1])[:50]:
        twins = np.flatnonzero(model.weld == number)
        assert np.ptp(model.template[twins], axis=0).max() == 0
        assert max(np.ptp(offset[twins], axis=0).max() for offset in model.shapes.values()) == 0


def test_faces_name_vertices_and_uv_lie_in_the_texture(model):
    assert model.faces.min() == 0 and model.faces.max() == len(model.template) - 1
    assert model.uv.min() >= 0 and model.uv.max() <= 1
    assert {len(array) for array in (model.uv, model.island, model.weld)} == {len(model.template)}


def test_a_trait_halfway_gives_the_shape_halfway(model):
    traits = dict.fromkeys(ANCESTRIES, 1 / 3) | {"male": 0.2, "weight": 0.9}
    young, middle, old = (with_macros(model, traits | {"age": age}) for age in (0.0, 0.5, 1.0))
    assert np.allclose(middle, (young + old) / 2, atol=1e-3)
    assert np.abs(old - young).max() > 1  # mm


def test_the_same_seed_gives_the_same_person_and_another_seed_another_person():
    first, again, second = (sample_identity(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.vertices, again.vertices) and np.array_equal(first.shape_offsets, again.shape_offsets)
    assert np.linalg.norm(first.vertices - second.vertices, axis=1).mean() > 1  # mm
    assert first.traits != second.traits


def test_a_persons_sides_are_alike_but_not_the_same(model):
    identity = sample_identity(np.random.default_rng(3))
    travel = dict(zip(model.shape_names, np.linalg.norm(identity.shape_offsets, axis=(1, 2)), strict=True))
    gain = {name: travel[name] / (np.linalg.norm(offset) + 1e-9) for name, offset in model.shapes.items()}
    uneven = np.array([np.log(gain[name + "Left"] / gain[name + "Right"]) for name in SIDED])
    assert 0.05 < uneven.std() < 0.3


def test_normals_have_length_1_point_outwards_and_close_the_seams(model):
    normals = model.normals(np.stack([model.template] * 2))
    assert normals.shape == (2, *model.template.shape)
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-3)
    assert (normals[0, model.island == SKIN, 2] > 0).mean() > 0.85
    first = np.unique(model.weld, return_index=True)[1]
    assert np.array_equal(normals[0], normals[0][first][np.searchsorted(model.weld[first], model.weld)])


def test_normals_turn_with_the_face(model):
    quarter = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], np.float32)
    assert np.allclose(model.normals(model.template @ quarter.T), model.normals(model.template) @ quarter.T, atol=1e-3)
