"""Facts about utils.lab.teachers.flow_degradation: every change of a lesson leaves its flow true."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from utils.flow.faceflow_net import OUT, SIZE, backward_warp, upsample
from utils.lab.teachers.flow_degradation import (
    Degradation,
    Lesson,
    add_noise,
    blur,
    change_background,
    change_crop,
    change_skin,
    compress,
    degrade,
    expose,
    head_turn,
    local_pushes,
    record,
    relight,
    replace_motion,
    rounded_blocks,
    smooth_flow,
)

ALL = Degradation(moved=1.0, detailed=1.0, softened=0.0, grounded=1.0, cropped=1.0, small=0.0, lit=0.0)
N = 6


@pytest.fixture(autouse=True)
def same_random_numbers():
    torch.manual_seed(3)


@pytest.fixture
def lesson():
    """A disc of smooth texture on black, moved by a smooth flow."""
    grain = torch.randn(N, 1, SIZE // 4, SIZE // 4)
    skin = 120 + 40 * blur(upsample(grain, SIZE), torch.full((N, 1, 1, 1), 2.0))
    steps = torch.linspace(-1, 1, SIZE)
    disc = ((steps**2 + steps[:, None] ** 2) < 0.6).float()
    second = (skin * disc).clamp(0, 255)
    flow = local_pushes(torch.zeros(N, 2, OUT, OUT))
    first = backward_warp(second, flow).clamp(0, 255)
    first = torch.where(backward_warp(disc.expand_as(second), flow) > 0.99, first, torch.zeros(()))
    inside = F.avg_pool2d(disc.expand_as(second).contiguous(), SIZE // OUT)[:, 0] > 0.99
    return Lesson(first, second, flow, flow, inside.float(), inside.float())


def errors(lesson):
    """Mean difference from the first frame of the second one, warped back by the flow, and of the second one unmoved,
    where the flow is known and away from edges."""
    known = -F.max_pool2d(-lesson.known[:, None], 9, 1, 4)
    where = upsample(known, SIZE) > 0.99
    assert where.float().mean() > 0.05
    back = backward_warp(lesson.second, lesson.flow)
    return tuple(float((frame - lesson.first).abs()[where].mean()) for frame in (back, lesson.second))


def test_the_flow_is_true_before_and_after_the_motion_is_replaced(lesson):
    assert errors(lesson)[0] < 0.05 < errors(lesson)[1]
    moved, background = replace_motion(lesson, (lesson.second == 0).float(), ALL)
    warped, unmoved = errors(moved)
    assert warped < 0.05 < unmoved and not torch.equal(moved.flow, lesson.flow)
    assert (moved.known == 1).all() and background.shape == lesson.first.shape
    rigid = (moved.flow - moved.nonrigid).abs().amax((1, 2, 3))
    assert (rigid > 0.1).any() and (rigid < 1e-5).any()  # some heads turn


@pytest.mark.parametrize("softened", [0.0, 1.0])
def test_detail_moves_with_the_skin(lesson, softened):
    changed = change_skin(lesson, (lesson.second > 0).float(), replace(ALL, softened=softened, detail=(6.0, 6.0)))
    warped, unmoved = errors(changed)
    assert warped < unmoved / 2 and warped < 1.5
    assert ((changed.second - lesson.second).abs().mean((1, 2, 3)) > 0.3).all()


def test_the_background_stands_still_and_its_flow_is_unknown(lesson):
    first, second = ((frame == 0).float() for frame in (lesson.first, lesson.second))
    changed = change_background(lesson, first, second, ALL)
    assert (changed.second - lesson.second).abs()[second > 0].mean() > 20
    both = F.max_pool2d(1 - first * second, 9, 1, 4) == 0
    assert torch.equal(changed.first[both], changed.second[both])
    assert (changed.known * F.adaptive_max_pool2d(first, OUT)[:, 0]).sum() == 0
    assert errors(changed)[0] < 0.05


def test_a_closer_crop_moves_by_as_much_more(lesson):
    closer = change_crop(lesson, replace(ALL, zoom=(1.5, 1.5)))
    assert errors(closer)[0] < errors(closer)[1] / 2
    assert closer.flow.abs().max() == pytest.approx(1.5 * float(lesson.flow.abs().max()), rel=0.1)
    same = change_crop(lesson, replace(ALL, cropped=0.0))
    assert torch.allclose(same.flow, lesson.flow, atol=1e-4) and torch.allclose(same.first, lesson.first, atol=0.5)


def test_noise_has_the_given_deviation_and_differs_between_the_frames():
    grey = torch.full((64, 1, 64, 64), 128.0)
    first, second = add_noise(grey, grey, replace(ALL, noise=(3.0, 3.0)))
    assert (first - 128).std((2, 3)).mean() == pytest.approx(3.0, rel=0.05)
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.02


def test_a_codec_rounds_blocks_of_eight():
    image = 20 * torch.randn(4, 1, 32, 32) + 120
    fine, coarse = (rounded_blocks(image, torch.full((4, 1, 1, 1), step)) for step in (0.01, 30.0))
    assert (fine - image).abs().max() < 0.05 and 5 < (coarse - image).abs().mean() < 20
    assert torch.allclose(rounded_blocks(coarse, torch.full((4, 1, 1, 1), 30.0)), coarse, atol=1e-3)
    assert all(torch.equal(frame, image) for frame in compress(image, image, replace(ALL, coded=0.0)))


def test_contrast_and_brightness_change_equally_in_both_frames(lesson):
    first, second = expose(lesson.first, lesson.second, replace(ALL, contrast=(0.5, 0.5), brightness=(100.0, 100.0)))
    quarter = SIZE // 4
    inner = (..., slice(quarter, -quarter), slice(quarter, -quarter))
    assert first[inner].mean((1, 2, 3)).tolist() == pytest.approx([100.0] * N, abs=0.1)
    assert torch.allclose(first - second, (lesson.first - lesson.second) / 2, atol=1e-3)
    strong, _ = expose(lesson.first, lesson.second, replace(ALL, contrast=(3.0, 3.0)))
    assert strong.min() == 0 and strong[inner].std() > 1.5 * lesson.first[inner].std()


def test_the_light_on_the_second_frame_changes_within_bounds():
    grey = torch.full((200, 1, 16, 16), 100.0)
    lit = relight(grey, replace(ALL, lit=1.0))
    assert 1 < (lit - 100).abs().mean() < 5 and (lit - 100).abs().max() <= 11.01
    assert torch.equal(relight(grey, ALL), grey)


def test_small_frames_are_blurred_and_have_whole_grey_levels():
    frame = 60 * torch.rand(3, 1, SIZE, SIZE) + 90
    quiet = replace(ALL, small=1.0, side=(64, 64), noise=(1e-3, 2e-3), coded=0.0, contrast=(1.0, 1.0))
    first, _ = record(frame, frame, quiet)
    assert first.shape == frame.shape and torch.equal(first, first.round()) and first.std() < 0.6 * frame.std()


@pytest.mark.parametrize("make", [local_pushes, smooth_flow, head_turn], ids=lambda make: make.__name__)
def test_random_motions_are_smooth_and_of_about_a_pixel(make):
    flow = torch.cat([make(torch.zeros(8, 2, OUT, OUT)) for _ in range(8)])
    assert 0.1 < flow.norm(dim=1).amax((1, 2)).median() < 4
    assert flow.diff(dim=-1).abs().max() < 1.0


def test_all_changes_together_give_valid_lessons_and_others_each_time(lesson):
    changed = degrade(lesson, Degradation())
    for frame in (changed.first, changed.second):
        assert frame.shape == (N, 1, SIZE, SIZE) and frame.isfinite().all() and 0 <= frame.min() <= frame.max() <= 255
    assert changed.flow.isfinite().all() and set(changed.known.unique().tolist()) <= {0.0, 1.0}
    assert not torch.equal(degrade(lesson, Degradation()).first, changed.first)
