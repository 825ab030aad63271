"""Facts about utils.lab.teachers.flow_noise."""

import numpy as np
import pytest

from utils.flow.features import flow_maps
from utils.flow.truth import exact_flow
from utils.lab.shared_image import from_image
from utils.lab.teachers.flow_noise import FlowNoise, estimated_flow, fit_flow_noise, maps_of, smooth_noise
from utils.lab.teachers.frontal import FrontalCrop, flow_image, frontal_view
from utils.lab.teachers.motion_fields import CROP, RIGID, make_fields, sample_motion, true_flow
from utils.render.views import view_cameras
from utils.synthetic.face_model import load_face_model, sample_identity
from utils.synthetic.performance import pose_vertices

N_UNITS = 52


@pytest.fixture(scope="module")
def person():
    return sample_identity(np.random.default_rng(3))


def exact_maps(person, weights, angles, cameras, size):
    """Flow maps (V, P, 2, size, size) of the posed mesh by ray casting, from weights (M, 58)."""
    vertices = pose_vertices(person, weights[:, :N_UNITS], weights[:, 52:55] + angles, weights[:, 55:])
    faces, moments = load_face_model().faces, range(len(weights) - 1)
    found = [[exact_flow(vertices[0], vertices[m], faces, c)[0] for m in range(len(weights))] for c in cameras]
    flows = np.array([[view[m + 1] - view[m] for m in moments] for view in found])
    return flow_maps(flows, np.ones((len(cameras), CROP, CROP), bool), size)[:, :, :2]


@pytest.mark.parametrize("size", [28, 40])
def test_summed_fields_are_the_exact_flow_of_the_posed_mesh(person, size):
    angles = np.array([2.0, -3.0, 1.0])
    motion = sample_motion(person, [["Negative", "Surprise"]], np.random.default_rng(0), head=0.1)
    weights = motion.weights[0]
    rest = pose_vertices(person, np.zeros((1, N_UNITS)), angles[None], np.zeros((1, 3)))[0]
    cameras = view_cameras(rest, CROP, 25.0)
    flow = true_flow(make_fields(person, cameras, size, angles), motion.weights)[0]
    truth = exact_maps(person, weights, angles, cameras, size)
    inside = np.linalg.norm(truth, axis=2) > 0.2
    error = np.linalg.norm(flow - truth, axis=2)
    assert inside.sum() > 100
    assert error.mean() < 0.02
    assert np.median(error[inside] / np.linalg.norm(truth, axis=2)[inside]) < 0.05


def test_the_mask_is_the_share_of_each_map_pixel_that_the_face_covers(person):
    fields = make_fields(person, view_cameras(person.vertices, CROP, 25.0), 28)
    assert fields.fields.shape == (N_UNITS + len(RIGID), 2, 2, 28, 28)
    assert fields.mask.min() == 0 and fields.mask.max() == 1
    assert 0.3 < fields.mask.mean() < 0.8
    assert not fields.fields[:, :, :, :, :][..., 0, 0].any()  # a corner off the face


def test_the_two_phases_undo_each_other_but_for_what_is_left(person):
    rng = np.random.default_rng(1)
    weights = sample_motion(person, [["Positive"]] * 50, rng).weights[..., 43:45]  # both sides of the smile
    rise, fall = weights[:, 1] - weights[:, 0], weights[:, 2] - weights[:, 1]
    moved = rise > 0
    assert moved.any()
    assert (-fall[moved] <= rise[moved] + 1e-7).all() and (-fall[moved] >= rise[moved] * 5 / 6 - 1e-7).all()


def test_unit_targets_are_the_action_units_that_move(person):
    motion = sample_motion(person, [["Surprise"]] * 200, np.random.default_rng(2))
    assert motion.units.shape == (200, 19) and motion.units.min() == 0 and motion.units.max() <= 1
    raised = motion.weights[:, 1, load_face_model().shape_names.index("browInnerUp")]
    assert np.array_equal(raised > 0, motion.units[:, 0] > 0)


def test_the_same_seed_gives_the_same_motion(person):
    one, two = (sample_motion(person, [["Others"]] * 5, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one.weights, two.weights) and np.array_equal(one.units, two.units)


def test_the_fit_finds_the_noise_that_made_the_estimate():
    rng = np.random.default_rng(5)
    noise = FlowNoise(gain=0.85, blur=0.6, floor=0.04, relative=0.2, length=0.8, phases=-0.4, unresolved=0.05)
    true = 0.6 * smooth_noise((20, 2, 2, 2, 28, 28), 2.0, rng) * (smooth_noise((20, 2, 2, 1, 28, 28), 4.0, rng) > 0)
    share = np.ones((20, 2, 28, 28), np.float32)
    seen = np.stack([maps_of(estimated_flow(clip[None], noise, rng), share[0], noise)[0] for clip in true])
    found = fit_flow_noise(true.astype(np.float32), seen, share, largest=9)
    for name, tolerance in {
        "gain": 0.03,
        "blur": 0.11,
        "floor": 0.01,
        "relative": 0.03,
        "length": 0.1,
        "phases": 0.1,
        "unresolved": 0.01,
    }.items():
        assert abs(getattr(found, name) - getattr(noise, name)) < tolerance, name


def test_eyes_and_mouth_stand_where_the_crop_says(person):
    crop = FrontalCrop(eye_x=0.5, eye_y=0.3, eye_distance=0.5, mouth_drop=0.4)
    stretched, camera = frontal_view(person, crop)
    model = load_face_model()
    eyes = [camera.project(stretched.vertices[model.island == island].mean(0)) for island in (5, 7)]
    mouth = camera.project(stretched.vertices[model.masks["lips"] > 0.5].mean(0))
    assert np.allclose(np.mean(eyes, 0) + 0.5, [0.5 * CROP, 0.3 * CROP], atol=3)
    assert abs(abs(eyes[0][0] - eyes[1][0]) - 0.5 * CROP) < 1
    assert abs(mouth[1] + 0.5 - 0.7 * CROP) < 3


def test_a_flow_image_is_what_the_reader_of_shared_images_makes_of_it():
    flow = smooth_noise((2, 28, 28), 2.0, np.random.default_rng(6))
    maps = flow_image(flow)
    raw = maps.copy()
    raw[:2] -= raw[:2].min((1, 2), keepdims=True)
    image = np.rint(raw * 255).astype(np.uint8)
    assert image.min() == 0 and image.max() == 255
    assert np.allclose(from_image(image), maps, atol=1e-6)


def test_strain_is_zero_where_the_face_only_shifts_or_turns_in_the_picture():
    ys, xs = np.mgrid[:28, :28].astype(np.float32)
    stretched = flow_image(np.stack([0.1 * xs, 0 * ys]) + np.where(xs > 14, 0.1 * xs, 0))
    turned = flow_image(np.stack([-ys, xs]))
    assert stretched[2].max() == 1
    assert turned[2].max() < 1e-6
