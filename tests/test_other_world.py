"""Facts about face models of other people: their blend shapes are laid upon ours, and make clips."""

import numpy as np
import pytest

from utils.dataset.reading import DataError
from utils.dataset.tables import CLASSES
from utils.experiments.other_world import LANDMARKS, read_blend_shapes, world
from utils.face.expressions import rotation
from utils.face.model import load_face_model

TURN = rotation(np.array([5.0, -10.0, 20.0]))
HALVES = ("browInnerUp_L", "browInnerUp_R")  # some models have two of what ours has one


def elsewhere(vertices):
    """In centimetres, turned and shifted."""
    return 0.1 * vertices @ TURN.T + [3.0, -2.0, 50.0]


def write_obj(path, vertices, faces):
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in elsewhere(vertices)]
    path.write_text("\n".join(["# a face", *lines, *(f"f {a} {b} {c}" for a, b, c in faces + 1)]) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("model"), load_face_model()
    write_obj(folder / "generic_neutral_mesh.obj", model.template, model.faces)
    write_obj(folder / "identity000.obj", model.template * [1.05, 1, 1], model.faces)
    left = (model.template[:, :1] > 0).astype(float)
    for name, side in zip(HALVES, (left, 1 - left), strict=True):
        write_obj(folder / f"{name}.obj", model.template + side * model.units["browInnerUp"], model.faces)
    for name in (*LANDMARKS, "mouthSmileLeft"):
        if name != "browInnerUp":
            spelt = name.replace("Left", "_L") if name == "mouthSmileLeft" else name
            write_obj(folder / f"{spelt}.obj", model.template + model.units[name], model.faces)
    return folder


def test_a_face_model_in_another_frame_is_brought_into_ours(folder):
    found, model = read_blend_shapes(folder), load_face_model()
    index = model.unit_index
    assert np.abs(found.neutral[found.faces].mean((0, 1)) - model.template[model.faces].mean((0, 1))).max() < 0.5  # mm
    assert np.abs(np.ptp(found.neutral, 0) - np.ptp(model.template, 0)).max() < 1
    for name in ("browInnerUp", "mouthSmileLeft", "jawOpen"):
        moved, ours = (np.linalg.norm(units, axis=1).max() for units in (found.units[index[name]], model.units[name]))
        assert moved == pytest.approx(ours, rel=0.01)
    assert not found.units[index["cheekPuff"]].any() and len(found.directions) == 1


def test_its_people_differ_and_make_clips_of_the_pipelines_form(folder):
    model = read_blend_shapes(folder)
    one, other = (model.sample_identity(np.random.default_rng(seed)) for seed in (0, 1))
    assert np.abs(one.vertices - other.vertices).max() > 0.1 and not np.array_equal(
        one.unit_offsets, other.unit_offsets
    )
    samples = world(model, 2, 3, seed=0)
    assert samples.x.shape == (6, 2, 2, 3, 28, 28) and samples.classes == CLASSES
    assert np.array_equal(samples.x, world(model, 2, 3, seed=0).x) and len(np.unique(samples.subjects)) == 2
    assert 0.1 < np.abs(samples.x).max() < 10
    assert world(None, 1, 2, seed=0).x.shape == (2, 2, 2, 3, 28, 28)


def test_a_folder_without_a_face_at_rest_or_with_another_mesh_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="neutral.*Remedy"):
        read_blend_shapes(tmp_path)
    for file in folder.glob("*.obj"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "jawOpen.obj").unlink()
    read_blend_shapes.cache_clear()
    with pytest.raises(DataError, match="jawOpen.*Remedy"):
        read_blend_shapes(tmp_path)
    (tmp_path / "jawOpen.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(DataError, match="faces are not those.*Remedy"):
        read_blend_shapes(tmp_path)
