"""Facts about FaceFlow: its features, its training, and what it does when its network seems wrong."""

import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.pictures import shifted

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
INNER, ALL_INNER = np.s_[32:-32, 32:-32], np.s_[..., 16:-16, 16:-16]  # of a flow (H, W, 2), of maps (..., H, W)


@pytest.fixture(scope="session")
def speckle(speckle):
    """The smooth texture in grey, (SIZE, SIZE)."""
    return cv2.cvtColor(speckle, cv2.COLOR_RGB2GRAY)


def as_tensor(image):
    return torch.from_numpy(image)[None, None].float()


# Features


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


@pytest.mark.parametrize(("period", "error"), [(16, 0.005), (6, 0.08)])
def test_the_derivative_of_fine_texture_is_exact_enough(period, error):
    """Differences over three pixels would be wrong by 0.17 for a period of 6."""
    phase = 2 * torch.pi * torch.arange(64.0) / period
    derivative = 2 * torch.pi / period * torch.cos(phase)
    estimate = x_derivative(2 * torch.sin(phase).expand(1, 1, 8, 64))
    assert (estimate - derivative)[..., 4:-4].abs().max() < error * derivative.max()


@pytest.mark.parametrize("shift", [(0.4, -0.2), (-0.3, 0.5)])
def test_least_squares_measures_a_small_shift(speckle, shift):
    frames = detail(as_tensor(speckle), as_tensor(shifted(speckle, *shift)))
    maps = lucas_kanade_features(*frames, GRID)[0, :, 8:-8, 8:-8]
    for window in range(3):
        u, v, unexplained = maps[6 + 3 * window : 9 + 3 * window]
        assert u.median().item() == pytest.approx(shift[0], abs=0.05)
        assert v.median().item() == pytest.approx(shift[1], abs=0.05)
        assert 0 <= unexplained.median().item() < 0.2


def test_a_backward_warp_undoes_a_shift_at_any_size(speckle):
    first, second = as_tensor(speckle), as_tensor(shifted(speckle, 1.6, -2.2))
    flow = torch.tensor([1.6, -2.2])[None, :, None, None].expand(1, 2, GRID, GRID)
    for by, share in ((1, 0.1), (2, 0.15)):  # the flow is in pixels of the full size
        a, b = downsample(first, by), downsample(second, by)
        error = (backward_warp(b, flow) - a)[ALL_INNER].abs().mean()
        assert error < share * (b - a)[ALL_INNER].abs().mean()


def test_an_untrained_network_gives_the_least_squares_flow(speckle):
    with torch.inference_mode():
        flow, nonrigid, _ = FlowNet(SMALL).eval()(as_tensor(speckle), as_tensor(shifted(speckle, 1, -0.5)))
    assert flow.shape == nonrigid.shape == (1, 2, OUT, OUT)
    medians = [maps[0, :, 16:-16, 16:-16].flatten(1).median(1).values for maps in (flow, nonrigid)]
    u, v = medians[0].tolist()
    assert 0.7 < u < 1.1 and -0.55 < v < -0.35
    assert medians[1].abs().max() < 0.15  # a shift of the whole picture is the head's


def test_the_heads_motion_is_rigid_and_excludes_an_expression():
    x, y = coordinates(torch.zeros(GRID, GRID))
    relief = 0.3 * torch.exp(-(x.square() + y.square()) / 0.02)  # a nose
    depth = relief - x.square() - y.square()
    rigid = torch.stack([0.8 - 0.3 * x + 0.1 * y + 0.5 * depth, -0.2 + 0.2 * x - 0.4 * depth])
    mouth, everywhere = (y > 0.4).float() * (x.abs() < 0.5), torch.ones(GRID, GRID)
    face = (torch.hypot(x, y) < 0.8).float()

    def head(flow, rigidity, face):
        return head_motion(flow[None], *(maps[None, None] for maps in (relief, rigidity, face)))[0]

    moved = rigid + 2 * mouth
    assert (head(moved, 6 - 14 * mouth, everywhere) - rigid).abs().max() < 0.02
    assert (head(moved, 0 * mouth, everywhere) - rigid).abs().max() > 0.1
    assert (head(moved, 0 * mouth, 1 - mouth) - rigid).abs().max() < 0.02  # the face mask excludes the mouth
    # It also excludes the background, which stands still.
    assert ((head(rigid * face, 0 * mouth, face) - rigid) * face).abs().max() < 0.02


def test_each_quarter_of_a_cell_moves_as_the_neighbours_with_its_weights():
    flow, blend = torch.rand(1, 2, 6, 6), torch.zeros(1, 9, 4, 6, 6)
    blend[:, 3, 0] = blend[:, 8, 3] = 50  # upper left quarter: the cell to the left; lower right: the cell below right
    sharp = convex_upsample(flow, blend.flatten(1, 2))
    torch.testing.assert_close(sharp[..., ::2, ::2][..., 1:], flow[..., :-1])
    torch.testing.assert_close(sharp[..., 1::2, 1::2][..., :-1, :-1], flow[..., 1:, 1:])
    torch.testing.assert_close(sharp[..., ::2, 1::2], smooth(flow))  # with equal weights: all nine
    first, second = torch.rand(2, 1, 1, SIZE, SIZE)
    quarters, change = F.pixel_shuffle(edge_features(first, second), 2).split(1, 1)
    torch.testing.assert_close(quarters, downsample(first, 2))
    torch.testing.assert_close(change, downsample(second - first, 2))


# Training


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
    pictures = as_tensor(speckle).expand(8, 1, SIZE, SIZE)
    first, second, flow = foreign_pairs(pictures)
    assert flow.shape == (8, 2, OUT, OUT) and flow.norm(dim=1).mean() > 0.2
    error = (backward_warp(second, flow) - first)[ALL_INNER].abs()
    assert error.mean((1, 2, 3)).max() < 2.5  # two draws of noise
    assert (second - pictures).abs().mean((1, 2, 3)).gt(5).any()  # some do not show the given picture


OFF = ("moved", "detailed", "softened", "grounded", "cropped", "small", "lit", "correlated", "coded")
GENTLE = Degradation(**dict.fromkeys(OFF, 0.0), contrast=(1.0, 1.0), noise=(0.3, 1.0))


def first_batch(lessons, config):
    return next(batches(lessons, config, torch.device("cpu")))


def test_a_masked_batch_has_the_face_over_which_the_heads_motion_is_fitted(speckle):
    visible = np.zeros((1, OUT, OUT), bool)
    visible[:, 32:96, 40:88] = True
    lessons = Lessons(speckle[None], speckle[None], *np.zeros((2, 1, 2, OUT, OUT), np.float16), visible)
    config = FlowTraining(foreign=0, batch=1, degradation=GENTLE, masked=1.0)
    lesson, face = first_batch(lessons, config)
    assert face.shape == (1, 1, SIZE, SIZE) and face.mean() == pytest.approx(visible.mean(), rel=0.02)
    assert face[0, 0, SIZE // 2, SIZE // 2] == 1 and lesson.known_nonrigid[0, 0, 0] == face[0, 0, 0, 0] == 0
    assert first_batch(lessons, replace(config, masked=0.0))[1] is None


@pytest.mark.parametrize("share", [0, 1])
def test_a_foreign_pair_replaces_all_parts_of_a_lesson(speckle, share):
    flow, visible = np.full((1, 2, OUT, OUT), 0.5, np.float16), np.zeros((1, OUT, OUT), bool)
    visible[:, 32:96, 32:96] = True
    lessons = Lessons(speckle[None], speckle[None], flow, flow / 2, visible)
    lesson, _ = first_batch(lessons, FlowTraining(foreign=share, batch=1, degradation=GENTLE))
    if share:
        assert lesson.known.all() and not lesson.known_nonrigid.any() and lesson.flow.std() > 0
        assert (lesson.first - lesson.second).abs().mean() > 0.5
    else:
        expected = torch.from_numpy(visible).float()
        assert torch.equal(lesson.known, expected) and torch.equal(lesson.known_nonrigid, expected)
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


def test_a_trained_network_is_more_accurate_than_an_untrained_one(speckle):
    shifts = np.random.default_rng(0).uniform(-1, 1, (16, 2)).astype(np.float32)
    flow = np.broadcast_to(shifts[:, :, None, None], (16, 2, OUT, OUT)).astype(np.float16)
    frames = [np.repeat(speckle[None], 16, 0), np.stack([shifted(speckle, *shift) for shift in shifts])]
    lessons = Lessons(*frames, flow, np.zeros_like(flow), np.ones((16, OUT, OUT), bool))

    def errors(net) -> np.ndarray:
        """Mean errors of flow and nonrigid, px. The whole motion is the head's, so nonrigid should be zero."""
        with torch.inference_mode():
            estimate, nonrigid, _ = net(*(torch.from_numpy(part)[:, None].float() for part in frames))
        return np.array([(estimate - torch.from_numpy(flow)).norm(dim=1).mean(), nonrigid.norm(dim=1).mean()])

    trained = train(lessons, FlowTraining(epochs=10, batch=4, lr=4e-3, average=0.8, degradation=GENTLE), SMALL)
    assert (errors(trained) < 0.75 * errors(FlowNet(SMALL).eval())).all()


# The shipped network


def test_the_shipped_weights_are_small_and_fit_this_network():
    assert FLOW_WEIGHTS.stat().st_size < 2e6
    assert load_flow_net().config == FlowNetConfig() and face_flow.SIZE == SIZE


@pytest.fixture(scope="module")
def pairs():
    """Four pairs (two phases, two views) of one person whom the network never saw, with a still head."""
    return make_pairs(Conditions(), people=((SEEDS[0], "S01"),))


def mean_error(pairs, method):
    flows = (FLOW_METHODS[method](pair.first, pair.second) for pair in pairs)
    return np.mean([flow_errors(flow, pair.flow, pair.visible)["epe"] for flow, pair in zip(flows, pairs, strict=True)])


def test_the_shipped_network_is_more_accurate_than_dis_on_a_new_person(pairs):
    assert mean_error(pairs, "faceflow") < 0.8 * mean_error(pairs, "dis")


def test_motion_that_no_face_makes_is_estimated_as_well_as_by_deepflow(pairs):
    rng = np.random.default_rng(0)
    turned = [moved(pair, turn_and_zoom(rng, pair.first.shape), rng) for pair in pairs[:2]]
    assert mean_error(turned, "faceflow") < 1.1 * mean_error(turned, "deepflow")


def test_the_expression_is_separated_from_the_heads_motion():
    moving = make_pairs(Conditions(stabilised=False), people=((SEEDS[0], "S01"),))

    def error(method):
        flows = estimate_flows([(p.first, p.second) for p in moving], method, [p.visible for p in moving])
        return np.mean([flow_errors(flow, p.nonrigid, p.visible)["epe"] for flow, p in zip(flows, moving, strict=True)])

    assert error("faceflow") < 0.8 * error("dis")


def test_many_pairs_at_once_give_the_same_flows_as_one_by_one(pairs, monkeypatch):
    monkeypatch.setattr(face_flow, "BATCH", len(pairs))
    frames = [(pair.first, pair.second) for pair in pairs]
    frames.append((pairs[0].first, shifted(pairs[0].second, 6, -5)))  # one more than a batch
    together = face_motions(*map(np.stack, zip(*frames, strict=True)))
    assert len(together[0]) == len(together[1]) == len(frames) > face_flow.BATCH
    for i, pair in enumerate(frames):
        for flows, alone in zip(together, face_motion(*pair), strict=True):
            assert np.abs(flows[i] - alone).max() < 1e-3


@pytest.mark.parametrize("size", [(128, 128), (300, 200)])
def test_the_flow_is_in_pixels_of_the_given_frames(pairs, size):
    frames = pairs[0].first, pairs[0].second
    flow = face_motion(*(cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in frames))[0]
    expected = cv2.resize(face_motion(*frames)[0], size) * np.float32(size) / SIZE
    assert flow.shape == (*size[::-1], 2)
    error = np.linalg.norm(flow - expected, axis=-1).mean()
    assert error < 0.5 * np.linalg.norm(expected, axis=-1).mean() + 0.02


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_flow_as_the_cpu(pairs):
    frames = [as_tensor(image) for image in (pairs[0].first, pairs[0].second)]
    net = load_flow_net()
    on_gpu = net(*(frame.to("cuda") for frame in frames))[0].cpu()
    on_cpu = net.cpu()(*frames)[0]
    load_flow_net.cache_clear()
    assert (on_gpu - on_cpu).abs().max() < 0.02


# Shifts of the whole picture


def test_a_shift_of_the_whole_picture_is_the_heads_motion(speckle):
    second = shifted(speckle, 14, -9)
    assert whole_shift(speckle, second) == (14, -9)
    assert whole_shift(speckle, shifted(speckle, 1, 1)) == (0, 0)
    flow, nonrigid = face_motion(speckle, second)
    assert np.abs(np.median(flow[INNER], axis=(0, 1)) - [14, -9]).max() < 0.3
    assert np.linalg.norm(nonrigid[INNER], axis=-1).mean() < 1


def test_a_pure_shift_is_distinguished_from_a_shift_with_an_expression(pairs):
    first, second = pairs[0].first, pairs[0].second
    flow, nonrigid = face_motion(first, shifted(first, 6, -5))
    assert (flow == [6, -5]).all() and not nonrigid.any()
    assert face_motion(first, shifted(second, 6, -5))[1][pairs[0].visible].any()


@pytest.fixture
def network_gives(monkeypatch):
    """Call it with a flow (SIZE, SIZE, 2), and the network gives this flow, without any motion of the head."""
    return lambda flow: monkeypatch.setattr(face_flow, "_network_motions", lambda a, b, faces: [(flow, flow)])


@pytest.mark.parametrize(("gain", "kept"), [(2e-4, False), (2e-3, True)])
def test_a_motion_besides_a_shift_is_kept_if_it_explains_the_frames_clearly_better(
    speckle, network_gives, monkeypatch, gain, kept
):
    network_gives(np.full((SIZE, SIZE, 2), 0.3, np.float32))
    monkeypatch.setattr(face_flow, "correlation", lambda a, b: 0.9)
    monkeypatch.setattr(face_flow, "resemblance", lambda a, b, flow: 0.9 + gain)
    flow, nonrigid = face_motion(speckle, shifted(speckle, 14, -9))
    assert np.allclose(flow, np.float32([14, -9]) + 0.3 * kept) and nonrigid.any() == kept


# Where the network seems wrong

NOTHING = np.zeros((SIZE, SIZE, 2), np.float32)


def test_the_head_motion_by_deepflow_is_fitted_over_the_face(speckle, network_gives):
    second = shifted(speckle, 2, 1)
    second[SIZE // 2 :] = speckle[SIZE // 2 :]  # the lower half is not a face and does not move
    network_gives(NOTHING)
    face = np.arange(SIZE)[:, None].repeat(SIZE, 1) < SIZE // 2
    over_face, over_all = (face_motions(speckle[None], second[None], faces)[1][0] for faces in ([face], None))
    inner = np.s_[32:96, 32:-32]
    assert np.linalg.norm(over_face[inner], axis=-1).mean() < 0.5 * np.linalg.norm(over_all[inner], axis=-1).mean()


def test_deepflow_replaces_a_network_that_misses_the_motion(speckle, network_gives):
    second = shifted(speckle, 2, 1)
    network_gives(NOTHING)
    flow, nonrigid = face_motion(speckle, second)
    assert np.array_equal(flow, deepflow(speckle, second))
    assert np.linalg.norm(nonrigid[INNER], axis=-1).mean() < 0.3  # the affine fit takes the shift as the head's


def test_a_motion_that_the_network_invents_is_rejected(speckle, network_gives):
    invented = np.full((SIZE, SIZE, 2), 0.4, np.float32)
    network_gives(invented)
    assert RESEMBLANCE < resemblance(*[fine_detail(speckle)] * 2, invented) < 1 - STILL
    assert np.abs(face_motion(speckle, speckle)[0]).max() < 0.05


def test_deepflow_is_not_run_if_the_network_explains_the_frames(speckle, network_gives, monkeypatch):
    true_flow = np.broadcast_to(np.float32([2, 1]), (SIZE, SIZE, 2))
    network_gives(true_flow)
    monkeypatch.setattr(face_flow, "deepflow", lambda a, b: pytest.fail("DeepFlow was run"))
    assert np.array_equal(face_motion(speckle, shifted(speckle, 2, 1))[0], true_flow)


# Memory

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
@pytest.mark.parametrize(("keep", "least", "most"), [(False, 90, 200), (True, -10, 10)])
def test_keep_memory_keeps_the_memory_that_a_dask_worker_would_return(keep, least, most):
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}  # as Dask sets it
    command = [sys.executable, "-c", FREED.format(keep=keep)]
    returned = subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300).stdout
    assert least < float(returned) < most  # MB
