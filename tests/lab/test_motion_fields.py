"""Facts about motion fields, the noise model of estimated flow, and frontal crops (utils.lab.teachers)."""

import numpy as np
import pytest

from utils.flow.features import flow_maps
from utils.flow.truth import exact_flow
from utils.lab.shared_image import from_image, strain_maps, to_image
from utils.lab.teachers.flow_noise import FlowNoise, estimated_flow, fit_flow_noise, maps_of, smooth_noise
from utils.lab.teachers.frontal import FrontalCrop, frontal_view
from utils.lab.teachers.motion_fields import CROP, RIGID, SIZE, make_fields, sample_motion, true_flow
from utils.render.views import view_cameras
from utils.synthetic.face_model import load_face_model, sample_identity
from utils.synthetic.performance import pose_vertices

N_SHAPES = 52


@pytest.fixture(scope="module")
def person():
    return sample_identity(np.random.default_rng(3))


def test_summed_fields_are_the_exact_flow_of_the_posed_mesh(person):
    angles = np.array([2.0, -3.0, 1.0])
    weights = sample_motion(person, [["Negative", "Surprise"]], np.random.default_rng(0), head=0.1).weights
    rest = pose_vertices(person, np.zeros((1, N_SHAPES)), angles[None], np.zeros((1, 3)))[0]
    cameras = view_cameras(rest, CROP, 25.0)
    flow = true_flow(make_fields(person, cameras, angles), weights)[0]
    contraction, turn, shift = np.split(weights[0], [N_SHAPES, N_SHAPES + 3], axis=1)
    moments, faces = pose_vertices(person, contraction, turn + angles, shift), load_face_model().faces
    flows = np.array([[exact_flow(moments[0], moment, faces, camera)[0] for moment in moments] for camera in cameras])
    truth = flow_maps(np.diff(flows, axis=1), np.ones((len(cameras), CROP, CROP), bool), SIZE)[:, :, :2]
    moving = np.linalg.norm(truth, axis=2) > 0.2
    error = np.linalg.norm(flow - truth, axis=2)
    assert moving.sum() > 100 and error.mean() < 0.02
    assert np.median(error[moving] / np.linalg.norm(truth, axis=2)[moving]) < 0.05


def test_the_mask_is_the_share_of_each_map_pixel_that_the_face_covers(person):
    fields, mask = make_fields(person, view_cameras(person.vertices, CROP, 25.0), np.zeros(3))
    assert fields.shape == (N_SHAPES + len(RIGID), 2, 2, SIZE, SIZE) and not fields[..., 0, 0].any()  # off the face
    assert mask.min() == 0 and mask.max() == 1 and 0.3 < mask.mean() < 0.8


def test_the_second_phase_takes_back_five_sixths_of_the_first_or_more(person):
    motion = sample_motion(person, [["Positive"]] * 50, np.random.default_rng(1), head=0.1)
    rise, fall = np.diff(motion.weights[..., 43:45], axis=1).swapaxes(0, 1)  # both sides of the smile
    moved = rise > 0
    assert moved.any()
    assert (-fall[moved] <= rise[moved] + 1e-7).all() and (-fall[moved] >= rise[moved] * 5 / 6 - 1e-7).all()


def test_the_units_of_a_motion_are_the_action_units_that_move(person):
    motion = sample_motion(person, [["Surprise"]] * 200, np.random.default_rng(2), head=0.1)
    assert motion.units.shape == (200, 19) and motion.units.min() == 0 and motion.units.max() <= 1
    raised = motion.weights[:, 1, load_face_model().shape_names.index("browInnerUp")]
    assert np.array_equal(raised > 0, motion.units[:, 0] > 0)


def test_the_fit_recovers_the_noise_of_the_estimate():
    rng = np.random.default_rng(5)
    noise = FlowNoise(gain=0.85, blur=0.6, floor=0.04, relative=0.2, length=0.8, phases=-0.4, unresolved=0.05)
    tolerance = FlowNoise(gain=0.03, blur=0.11, floor=0.01, relative=0.03, length=0.1, phases=0.1, unresolved=0.01)
    true = 0.4 * smooth_noise((20, 2, 2, 2, SIZE, SIZE), 2.0, rng)
    true *= smooth_noise((20, 2, 2, 1, SIZE, SIZE), 4.0, rng) > 0
    share = np.ones((20, 2, SIZE, SIZE), np.float32)
    estimate = np.stack([maps_of(estimated_flow(clip[None], noise, rng), share[0], noise)[0] for clip in true])
    fitted = fit_flow_noise(true.astype(np.float32), estimate, share)
    for name, limit in tolerance._asdict().items():
        assert abs(getattr(fitted, name) - getattr(noise, name)) < limit, name


def test_eyes_and_mouth_lie_where_the_crop_says(person):
    crop = FrontalCrop(eye_x=0.5, eye_y=0.3, eye_distance=0.5, mouth_drop=0.4)
    stretched, camera = frontal_view(person, crop)
    model = load_face_model()
    eyes = [camera.project(stretched.vertices[model.island == island].mean(0)) for island in (5, 7)]
    mouth = camera.project(stretched.vertices[model.masks["lips"] > 0.5].mean(0))
    assert np.allclose(np.mean(eyes, 0) + 0.5, [0.5 * CROP, 0.3 * CROP], atol=3)
    assert abs(abs(eyes[0][0] - eyes[1][0]) - 0.5 * CROP) < 1
    assert abs(mouth[1] + 0.5 - 0.7 * CROP) < 3


def test_a_flow_image_keeps_the_maps_up_to_scale_and_offset():
    maps = strain_maps(smooth_noise((2, 28, 28), 2.0, np.random.default_rng(6)))
    image = to_image(maps)
    assert image.min() == 0 and image.max() == 255
    assert all(np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999 for a, b in zip(maps, from_image(image), strict=True))


def test_strain_is_zero_where_the_face_only_shifts_or_turns_in_the_picture():
    ys, xs = np.mgrid[:28, :28].astype(np.float32)
    stretched = strain_maps(np.stack([0.1 * xs, 0 * ys]) + np.where(xs > 14, 0.1 * xs, 0))
    assert from_image(to_image(stretched))[2].max() == 1
    assert from_image(to_image(strain_maps(np.stack([-ys, xs]))))[2].max() < 1e-6
