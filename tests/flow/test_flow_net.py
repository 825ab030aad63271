"""Facts about FaceFlow: what it measures, what it learns, and what it does where it is unsure."""

import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils.flow import faceflow as face_flow
from utils.flow.classical import deepflow
from utils.flow.faceflow import (
    FLOW_WEIGHTS,
    RESEMBLANCE,
    STILL,
    correlation,
    face_motion,
    face_motions,
    fine_detail,
    load_flow_net,
    resemblance,
    whole_shift,
)
from utils.flow.faceflow_net import (
    GRID,
    OUT,
    SIZE,
    FlowNet,
    FlowNetConfig,
    backward_warp,
    convex_upsample,
    coordinates,
    detail,
    downsample,
    edge_features,
    head_motion,
    lucas_kanade_features,
    smooth,
    x_derivative,
)
from utils.flow.methods import FLOW_METHODS, estimate_flows
from utils.flow.truth import flow_errors
from utils.lab.bench.flow import make_pairs, moved, turn_and_zoom
from utils.lab.bench.setting import SEEDS
from utils.lab.teachers.flow_clips import Conditions
from utils.lab.teachers.flow_degradation import Degradation
from utils.lab.teachers.flow_lessons import CLIPS_EACH, MOMENTS, Lessons, pairs_of_person
from utils.lab.teachers.train_flow import (
    FlowTraining,
    batches,
    charbonnier,
    drop_large_motion,
    foreign_pairs,
    mirrored,
    train,
)

SMALL = FlowNetConfig((8, 8, 16), (8, 8, 8, 16))


def shifted(image, x, y):
    """Grey (SIZE, SIZE) of an image after everything moved by (x, y) pixels, right and down."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.warpAffine(grey, np.float32([[1, 0, x], [0, 1, y]]), (SIZE, SIZE), flags=cv2.INTER_CUBIC)


def as_tensor(image):
    return torch.from_numpy(image)[None, None].float()


# Measurements


def test_cells_and_smoothings_are_means():
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(downsample(x, 4), F.avg_pool2d(x, 4), atol=1e-6)
    assert torch.allclose(smooth(x)[..., 1:-1, 1:-1], F.avg_pool2d(x, 3, 1), atol=1e-6)


def test_detail_is_what_changes_within_a_few_pixels():
    steps = torch.arange(256.0)
    fine, slow = (torch.sin(2 * torch.pi * steps / period).expand(1, 1, 256, 256) for period in (5, 60))
    inner = np.s_[..., 8:-8, 8:-8]
    alone, with_slow = detail(20 * fine, 20 * fine)[0][inner], detail(20 * fine + 40 * slow, 20 * fine)[0][inner]
    assert (with_slow - alone).abs().max() < 0.15 * alone.abs().max()


def test_slope_is_the_derivative_of_fine_texture_too():
    steps = torch.arange(64.0)
    for period, error in ((16, 0.005), (6, 0.08)):  # over three pixels 0.17 of a period of 6
        wave = torch.sin(2 * torch.pi * steps / period).expand(1, 1, 8, 64)
        derivative = 2 * torch.pi / period * torch.cos(2 * torch.pi * steps / period)
        assert (x_derivative(2 * wave) - derivative)[..., 4:-4].abs().max() < error * derivative.max()


@pytest.mark.parametrize("shift", [(0.4, -0.2), (-0.3, 0.5)])
def test_least_squares_measures_a_small_shift(speckle, shift):
    frames = detail(as_tensor(shifted(speckle, 0, 0)), as_tensor(shifted(speckle, *shift)))
    maps = lucas_kanade_features(*frames, GRID)[0, :, 8:-8, 8:-8]
    for window in range(3):
        u, v, left = maps[6 + 3 * window : 9 + 3 * window]
        assert u.median().item() == pytest.approx(shift[0], abs=0.05)
        assert v.median().item() == pytest.approx(shift[1], abs=0.05)
        assert 0 <= left.median().item() < 0.2


def test_bringing_back_undoes_a_shift(speckle):
    first, second = (as_tensor(shifted(speckle, *by)) for by in ((0, 0), (1.6, -2.2)))
    flow = torch.tensor([1.6, -2.2])[None, :, None, None].expand(1, 2, GRID, GRID)
    back = backward_warp(second, flow)
    inner = np.s_[..., 16:-16, 16:-16]
    assert (back - first)[inner].abs().mean() < 0.1 * (second - first)[inner].abs().mean()
    half = backward_warp(downsample(second, 2), flow)  # the flow stays in pixels of the full size
    left, moved_by = half - downsample(first, 2), downsample(second, 2) - downsample(first, 2)
    assert left[inner].abs().mean() < 0.15 * moved_by[inner].abs().mean()


def test_an_untrained_network_starts_from_what_is_measured(speckle):
    frames = as_tensor(shifted(speckle, 0, 0)), as_tensor(shifted(speckle, 1, -0.5))
    with torch.inference_mode():
        flow, nonrigid, _ = FlowNet(SMALL).eval()(*frames)
    assert flow.shape == nonrigid.shape == (1, 2, OUT, OUT)
    assert nonrigid[0, :, 16:-16, 16:-16].flatten(1).median(1).values.abs().max() < 0.15  # a shift of all is the head's
    u, v = flow[0, :, 16:-16, 16:-16].flatten(1).median(1).values.tolist()
    assert 0.7 < u < 1.1 and -0.55 < v < -0.35


def test_the_heads_motion_is_that_of_a_body_and_leaves_an_expression_alone():
    x, y = coordinates(torch.zeros(GRID, GRID))
    relief = 0.3 * torch.exp(-(x.square() + y.square()) / 0.02)  # a nose
    depth = relief - x.square() - y.square()
    rigid = torch.stack([0.8 - 0.3 * x + 0.1 * y + 0.5 * depth, -0.2 + 0.2 * x - 0.4 * depth])
    mouth = (y > 0.4).float() * (x.abs() < 0.5)
    flow = rigid + 2 * mouth
    alike, everywhere = torch.zeros(1, 1, GRID, GRID), torch.ones(1, 1, GRID, GRID)
    found = head_motion(flow[None], relief[None, None], (6 - 14 * mouth)[None, None], everywhere)[0]
    assert (found - rigid).abs().max() < 0.02
    assert (head_motion(flow[None], relief[None, None], alike, everywhere) - rigid).abs().max() > 0.1
    # The mouth is left out of the face, or the ground, which stands still, is.
    assert (head_motion(flow[None], relief[None, None], alike, (1 - mouth)[None, None])[0] - rigid).abs().max() < 0.02
    face = (torch.hypot(x, y) < 0.8).float()
    before_ground = head_motion((rigid * face)[None], relief[None, None], alike, face[None, None])[0]
    assert ((before_ground - rigid) * face).abs().max() < 0.02


def test_each_quarter_of_a_cell_moves_as_the_neighbours_that_it_is_told():
    flow, blend = torch.rand(1, 2, 6, 6), torch.zeros(1, 9, 4, 6, 6)
    blend[:, 3, 0] = blend[:, 8, 3] = 50  # upper left: of the cell to the left; lower right: of that below to the right
    sharp = convex_upsample(flow, blend.flatten(1, 2))
    torch.testing.assert_close(sharp[..., ::2, ::2][..., 1:], flow[..., :-1])
    torch.testing.assert_close(sharp[..., 1::2, 1::2][..., :-1, :-1], flow[..., 1:, 1:])
    torch.testing.assert_close(sharp[..., ::2, 1::2], smooth(flow))  # the others, told nothing, as all nine
    first, second = torch.rand(2, 1, 1, SIZE, SIZE)
    detail_there, change = F.pixel_shuffle(edge_features(first, second), 2).split(1, 1)
    torch.testing.assert_close(detail_there, downsample(first, 2))
    torch.testing.assert_close(change, downsample(second - first, 2))


# Learning


def test_the_lessons_are_rendered_pairs_with_their_flow():
    pairs = pairs_of_person(0, 100_000)
    assert all(len(part) == CLIPS_EACH * 2 * (MOMENTS - 1) for part in pairs.values())
    assert pairs["first"].shape[1:] == (SIZE, SIZE) and pairs["flow"].shape[1:] == (2, OUT, OUT)
    still = pairs["flow"][:6], pairs["nonrigid"][:6]  # the first clip is stabilised
    assert np.array_equal(*still) and not np.array_equal(pairs["flow"], pairs["nonrigid"])
    moving = np.linalg.norm(pairs["flow"].astype(np.float32), axis=1).mean((1, 2)).argsort()[-6:]
    for i in moving:
        flow = cv2.resize(np.moveaxis(pairs["flow"][i], 0, -1).astype(np.float32), (SIZE, SIZE))
        details = fine_detail(pairs["first"][i]), fine_detail(pairs["second"][i])
        assert resemblance(*details, flow) > resemblance(*details, np.zeros_like(flow)) > correlation(*details) - 1e-5


def test_a_mirrored_flow_points_the_other_way():
    flow = torch.rand(2, 2, 4, 4)
    turned = mirrored(flow, torch.tensor([True, False]), vectors=True)
    assert torch.equal(turned[1], flow[1])
    assert torch.equal(turned[0, 0], -flow[0, 0].flip(-1)) and torch.equal(turned[0, 1], flow[0, 1].flip(-1))


def test_foreign_pairs_are_moved_by_their_flow(speckle):
    pictures = as_tensor(shifted(speckle, 0, 0)).expand(8, 1, SIZE, SIZE)
    first, second, flow = foreign_pairs(pictures)
    assert flow.shape == (8, 2, OUT, OUT) and flow.norm(dim=1).mean() > 0.2
    inner = np.s_[..., 16:-16, 16:-16]
    for a, b, moved_by in zip(first, second, flow, strict=True):
        back = backward_warp(b[None], moved_by[None])[0]
        assert (back - a)[inner].abs().mean() < 2.5  # two draws of noise
    assert (second - pictures).abs().mean((1, 2, 3)).gt(5).any()  # some are not of the picture given


GENTLE = Degradation(
    **dict.fromkeys(
        ("moved", "detailed", "softened", "grounded", "cropped", "small", "lit", "correlated", "coded"), 0.0
    ),
    contrast=(1.0, 1.0),
    noise=(0.3, 1.0),
)


def test_a_masked_batch_comes_with_the_face_over_which_its_head_is_fitted(speckle):
    frame = shifted(speckle, 0, 0)
    visible = np.zeros((1, OUT, OUT), bool)
    visible[:, 32:96, 40:88] = True
    lessons = Lessons(frame[None], frame[None], *np.zeros((2, 1, 2, OUT, OUT), np.float16), visible)
    config = FlowTraining(foreign=0, batch=1, degradation=GENTLE, masked=1.0)
    lesson, face = next(batches(lessons, config, torch.device("cpu")))
    assert face.shape == (1, 1, SIZE, SIZE) and face.mean() == pytest.approx(visible.mean(), rel=0.02)
    assert face[0, 0, SIZE // 2, SIZE // 2] == 1 and lesson.known_nonrigid[0, 0, 0] == face[0, 0, 0, 0] == 0
    _, face = next(batches(lessons, replace(config, masked=0.0), torch.device("cpu")))
    assert face is None


@pytest.mark.parametrize("share", [0, 1])
def test_a_foreign_pair_replaces_a_lesson_with_all_that_belongs_to_it(speckle, share):
    frame, flow = shifted(speckle, 0, 0), np.full((1, 2, OUT, OUT), 0.5, np.float16)
    visible = np.zeros((1, OUT, OUT), bool)
    visible[:, 32:96, 32:96] = True
    lessons = Lessons(frame[None], frame[None], flow, flow / 2, visible)
    config = FlowTraining(foreign=share, batch=1, degradation=GENTLE)
    lesson, _ = next(batches(lessons, config, torch.device("cpu")))
    if share:
        assert lesson.known.all() and not lesson.known_nonrigid.any() and lesson.flow.std() > 0
        assert (lesson.first - lesson.second).abs().mean() > 0.5
    else:
        seen = torch.from_numpy(visible).float()
        assert torch.equal(lesson.known, seen) and torch.equal(lesson.known_nonrigid, seen)
        assert torch.allclose(lesson.flow.abs(), torch.tensor(0.5), atol=1e-4)
        assert torch.allclose(lesson.nonrigid.abs(), torch.tensor(0.25), atol=1e-4)


def test_pairs_that_move_too_far_on_the_face_are_left_out():
    flow, visible = np.zeros((3, 2, OUT, OUT), np.float16), np.zeros((3, OUT, OUT), bool)
    visible[:, : OUT // 2] = True
    flow[0, 1], flow[1, :, : OUT // 2], flow[2, :, OUT // 2 :] = 3.9, 3, 90  # 3.9 px, 4.2 px, and far off the face
    frames = np.arange(3, dtype=np.uint8)[:, None, None]
    assert drop_large_motion(Lessons(frames, frames, flow, flow, visible)).first.ravel().tolist() == [0, 2]


def test_an_error_off_the_face_does_not_count():
    truth, weight = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4)
    weight[:, :2] = 1
    wrong = truth.clone()
    wrong[:, :, 2:] = 9
    assert charbonnier(wrong, truth, weight).item() == pytest.approx(0.01, abs=1e-4)
    wrong[:, 0, :2] = 1
    assert charbonnier(wrong, truth, weight).item() == pytest.approx(1, abs=1e-3)


def test_training_learns_to_read_the_measurements_better_than_they_stand(speckle):
    rng = np.random.default_rng(0)
    shifts = rng.uniform(-1, 1, (16, 2)).astype(np.float32)
    flow = np.broadcast_to(shifts[:, :, None, None], (16, 2, OUT, OUT)).astype(np.float16)
    frames = [np.repeat(shifted(speckle, 0, 0)[None], 16, 0), np.stack([shifted(speckle, *by) for by in shifts])]
    lessons = Lessons(*frames, flow, np.zeros_like(flow), np.ones((16, OUT, OUT), bool))

    def errors(net) -> np.ndarray:
        """Of the flow, and of the flow without the head's motion, which here is all of it; px."""
        with torch.inference_mode():
            found, nonrigid, _ = net(*(torch.from_numpy(part)[:, None].float() for part in frames))
        return np.array([(found - torch.from_numpy(flow)).norm(dim=1).mean(), nonrigid.norm(dim=1).mean()])

    config = FlowTraining(epochs=10, batch=4, lr=4e-3, average=0.8, degradation=GENTLE)
    taught = train(lessons, config, SMALL)
    assert (errors(taught) < 0.75 * errors(FlowNet(SMALL).eval())).all()


# At work


def test_the_shipped_weights_are_small_and_of_this_network():
    assert FLOW_WEIGHTS.stat().st_size < 2e6
    net = load_flow_net()
    assert net.config == FlowNetConfig() and face_flow.SIZE == SIZE


@pytest.fixture(scope="module")
def pairs():
    """Four pairs of one person the network never saw, the head still: two phases, two views."""
    return make_pairs(Conditions(), people=((SEEDS[0], "S01"),))


def mean_error(pairs, method):
    return np.mean([flow_errors(method(p), p.flow, p.visible)["epe"] for p in pairs])


def test_the_shipped_network_beats_dis_on_a_person_it_never_saw(pairs):
    ours, dis = (mean_error(pairs, lambda p, m=m: FLOW_METHODS[m](p.first, p.second)) for m in ("faceflow", "dis"))
    assert ours < 0.8 * dis


def test_it_tells_the_expression_from_the_heads_motion():
    moving = make_pairs(Conditions(stabilised=False), people=((SEEDS[0], "S01"),))

    def error(method):
        flows = estimate_flows([(p.first, p.second) for p in moving], method, [p.visible for p in moving])
        return np.mean([flow_errors(flow, p.nonrigid, p.visible)["epe"] for flow, p in zip(flows, moving, strict=True)])

    assert error("faceflow") < 0.8 * error("dis")


def test_many_pairs_at_once_are_as_one_by_one(pairs, monkeypatch):
    monkeypatch.setattr(face_flow, "BATCH", len(pairs))
    jump = cv2.warpAffine(pairs[0].second, np.float32([[1, 0, 6], [0, 1, -5]]), (SIZE, SIZE))
    given = [*((p.first, p.second) for p in pairs), (pairs[0].first, jump)]  # one more than a batch
    many = face_motions(*map(np.stack, zip(*given, strict=True)))
    assert len(many[0]) == len(many[1]) == len(given) > face_flow.BATCH
    for i, pair in enumerate(given):
        for together, alone in zip(many, face_motion(*pair), strict=True):
            assert np.abs(together[i] - alone).max() < 1e-3


@pytest.mark.parametrize("size", [(128, 128), (300, 200)])
def test_flow_comes_in_pixels_of_the_frames_given(pairs, size):
    pair = pairs[0]
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (pair.first, pair.second)]
    flow = face_motion(*small)[0]
    whole = cv2.resize(face_motion(pair.first, pair.second)[0], size) * np.float32(size) / SIZE
    assert flow.shape == (*size[::-1], 2)
    assert np.linalg.norm(flow - whole, axis=-1).mean() < 0.5 * np.linalg.norm(whole, axis=-1).mean() + 0.02


def test_a_shift_of_the_whole_picture_is_found_and_is_the_heads(speckle):
    first, second = shifted(speckle, 0, 0), shifted(speckle, 14, -9)
    assert whole_shift(first, second) == (14, -9)
    assert whole_shift(first, shifted(speckle, 1, 1)) == (0, 0)
    flow, nonrigid = face_motion(first, second)
    inner = np.s_[32:-32, 32:-32]
    assert np.abs(np.median(flow[inner], axis=(0, 1)) - [14, -9]).max() < 0.3
    assert np.linalg.norm(nonrigid[inner], axis=-1).mean() < 1


def test_a_pure_shift_is_told_from_one_with_an_expression(pairs):
    first = pairs[0].first
    second = cv2.warpAffine(first, np.float32([[1, 0, 6], [0, 1, -5]]), (SIZE, SIZE))
    flow, nonrigid = face_motion(first, second)
    assert (flow == [6, -5]).all() and not nonrigid.any()
    away = cv2.warpAffine(pairs[0].second, np.float32([[1, 0, 6], [0, 1, -5]]), (SIZE, SIZE))
    assert face_motion(first, away)[1][pairs[0].visible].any()


@pytest.mark.parametrize(("gain", "believed"), [(2e-4, False), (2e-3, True)])
def test_a_motion_beside_a_shift_is_believed_if_it_brings_the_frame_back_clearly_better(
    speckle, monkeypatch, gain, believed
):
    first, second = shifted(speckle, 0, 0), shifted(speckle, 14, -9)
    some = np.full((SIZE, SIZE, 2), 0.3, np.float32)
    monkeypatch.setattr(face_flow, "_network_motions", lambda a, b, faces: [(some, some)])
    monkeypatch.setattr(face_flow, "correlation", lambda a, b: 0.9)
    monkeypatch.setattr(face_flow, "resemblance", lambda a, b, flow: 0.9 + gain)
    flow, nonrigid = face_motion(first, second)
    assert np.allclose(flow, np.float32([14, -9]) + 0.3 * believed) and nonrigid.any() == believed


def test_deepflows_head_motion_is_fitted_over_the_face(speckle, monkeypatch):
    first, second = shifted(speckle, 0, 0), shifted(speckle, 2, 1)
    second[SIZE // 2 :] = first[SIZE // 2 :]  # the lower half, which is no face, rests
    nothing = np.zeros((SIZE, SIZE, 2), np.float32)
    monkeypatch.setattr(face_flow, "_network_motions", lambda a, b, faces: [np.stack([nothing, nothing])])
    face = np.arange(SIZE)[:, None].repeat(SIZE, 1) < SIZE // 2
    over_face, over_all = (face_motions(first[None], second[None], faces)[1][0] for faces in ([face], None))
    inner = np.s_[32:96, 32:-32]
    assert np.linalg.norm(over_face[inner], axis=-1).mean() < 0.5 * np.linalg.norm(over_all[inner], axis=-1).mean()


def test_where_the_network_fails_deepflow_answers(speckle, monkeypatch):
    first = shifted(speckle, 0, 0)
    second = shifted(speckle, 2, 1)
    nothing = np.zeros((SIZE, SIZE, 2), np.float32)
    monkeypatch.setattr(face_flow, "_network_motions", lambda a, b, faces: [np.stack([nothing, nothing])])
    flow, nonrigid = face_motion(first, second)
    assert np.array_equal(flow, deepflow(first, second))
    assert (
        np.linalg.norm(nonrigid[32:-32, 32:-32], axis=-1).mean() < 0.3
    )  # an affine fit takes the shift for the head's


def test_a_network_that_invents_motion_is_doubted_where_none_explains_the_frames_better(speckle, monkeypatch):
    first = shifted(speckle, 0, 0)
    invented = np.full((SIZE, SIZE, 2), 0.4, np.float32)
    monkeypatch.setattr(face_flow, "_network_motions", lambda a, b, faces: [np.stack([invented, invented])])
    assert RESEMBLANCE < resemblance(*[fine_detail(first)] * 2, invented) < 1 - STILL
    assert np.abs(face_motion(first, first)[0]).max() < 0.05


def test_a_network_that_brings_the_frame_back_is_believed(speckle, monkeypatch):
    first, second = shifted(speckle, 0, 0), shifted(speckle, 2, 1)
    right = np.broadcast_to(np.float32([2, 1]), (SIZE, SIZE, 2))
    monkeypatch.setattr(face_flow, "_network_motions", lambda a, b, faces: [np.stack([right, right])])
    monkeypatch.setattr(face_flow, "deepflow", lambda a, b: pytest.fail("DeepFlow was asked"))
    assert np.array_equal(face_motion(first, second)[0], right)


def test_motion_that_no_face_makes_is_no_worse_than_by_deepflow(pairs):
    rng = np.random.default_rng(0)
    turned = [moved(p, turn_and_zoom(rng, p.first.shape), rng) for p in pairs[:2]]
    methods = (FLOW_METHODS[name] for name in ("faceflow", "deepflow"))
    ours, other = (mean_error(turned, lambda p, method=method: method(p.first, p.second)) for method in methods)
    assert ours < 1.1 * other


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_flow_of_the_cpu(pairs):
    frames = [as_tensor(image) for image in (pairs[0].first, pairs[0].second)]
    net = load_flow_net()
    on_gpu = net(*(frame.to("cuda") for frame in frames))[0].cpu()
    on_cpu = net.cpu()(*frames)[0]
    load_flow_net.cache_clear()
    assert (on_gpu - on_cpu).abs().max() < 0.02


FREED = """
import numpy as np, psutil
from utils.flow.faceflow import keep_memory
if {keep}: keep_memory()
blocks = [np.ones(2**17) for _ in range(100)]  # 1 MB each
full = psutil.Process().memory_info().rss
del blocks
print((full - psutil.Process().memory_info().rss) / 1e6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_is_kept_where_a_dask_worker_would_give_it_back():
    def given_back(keep):
        environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}  # as Dask sets it
        command = [sys.executable, "-c", FREED.format(keep=keep)]
        return float(subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300).stdout)

    assert given_back(False) > 90
    assert given_back(True) < 10
