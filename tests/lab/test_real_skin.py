"""Facts about the benchmark on photographs: its truth is true, and it measures the known errors of made-up methods."""

import cv2
import numpy as np
import pandas as pd
import pytest

from utils.dataset.images import write_image
from utils.errors import DataError
from utils.lab.bench import real_skin as bench
from utils.lab.bench.photographs import (
    CONDITIONS,
    PIXELS,
    SIZE,
    WARPS,
    Scene,
    Warp,
    find_face,
    inverse,
    make_pair,
    one_bump,
    portraits,
    scaled,
)
from utils.lab.bench.setting import Setting

STILL = Warp("still", np.zeros((SIZE, SIZE, 2), np.float32), np.zeros((SIZE, SIZE, 2), np.float32))


@pytest.fixture(scope="module")
def portrait():
    (portrait,) = portraits(None)
    return portrait


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("make", WARPS, ids=lambda make: make.__name__)
def test_the_second_frame_is_the_first_moved_by_the_true_flow(portrait, make):
    warp = make(rng())
    pair = make_pair(portrait, warp, Scene(lambda frames, _: frames), rng())
    assert 0.2 < np.linalg.norm(warp.flow, axis=-1)[pair.face].max() < 6
    brought_back = cv2.remap(pair.second, PIXELS + warp.flow, None, cv2.INTER_CUBIC)
    unlike = [np.abs(first.astype(float) - pair.first)[pair.face].mean() for first in (brought_back, pair.second)]
    assert unlike[0] < 0.6 and unlike[0] < unlike[1] / 3


def test_the_flow_backwards_is_the_inverse_of_the_flow():
    flow = one_bump(rng(), 1.2, 12.0)
    back = inverse(flow)
    there = flow + np.stack(
        [cv2.remap(part, PIXELS + flow, None, cv2.INTER_CUBIC) for part in np.moveaxis(back, -1, 0)], -1
    )
    assert np.abs(there).max() < 0.01


def test_a_closer_crop_moves_by_more_pixels():
    warp = Warp("push", *[one_bump(rng(3), 0.7, 10.0)] * 2)
    assert np.linalg.norm(scaled(warp, 1.4).flow, axis=-1).max() == pytest.approx(0.98, abs=0.05)


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_damages_both_frames_alike(portrait, name):
    pair = make_pair(portrait, STILL, CONDITIONS[name], rng())
    clean = make_pair(portrait, STILL, Scene(lambda frames, _: frames, CONDITIONS[name].zoom), rng())
    assert pair.first.shape == pair.second.shape == (SIZE, SIZE) and pair.first.dtype == np.uint8
    assert not np.array_equal(pair.first, clean.first)
    assert abs(pair.first.astype(float)[pair.face].mean() - pair.second[pair.face].mean()) < 8


def test_people_are_folders_and_photographs_without_a_face_are_left_out(tmp_path):
    from skimage.data import astronaut, coffee

    faces = [tmp_path / name for name in ("kim/a.png", "kim/b.png", "lee.jpg")]
    (tmp_path / "kim").mkdir()
    for path in faces:
        write_image(path, astronaut())
    write_image(tmp_path / "cup.png", coffee()[:200, :200])
    assert [portrait.person for portrait in portraits(tmp_path)] == ["kim", "kim", "lee"]
    for path in faces:
        path.unlink()
    with pytest.raises(DataError, match="no photograph shows a face of 90 pixels.*Remedy"):
        portraits(tmp_path)
    assert find_face("small", cv2.resize(astronaut(), (150, 150))) is None


def test_the_errors_of_a_method_are_the_errors_that_it_makes(portrait):
    warp = bench.peak_warp(rng())
    pair = make_pair(portrait, warp, Scene(lambda frames, _: frames), rng())
    half = bench.errors(pair, warp.flow / 2, warp.nonrigid / 2)
    right = bench.errors(pair, warp.flow, warp.nonrigid)
    assert right["epe"] == right["gross"] == right["nonrigid_epe"] == 0 and right["kept_peak"] == pytest.approx(1)
    assert half["kept_peak"] == pytest.approx(0.5) and half["magnitude_ratio"] == pytest.approx(0.5, abs=0.01)
    far = bench.errors(pair, warp.flow + np.float32(2), warp.nonrigid)
    assert far["gross"] == 1 and far["epe"] == pytest.approx(8**0.5, rel=1e-4)


def test_a_lead_is_the_mean_difference_with_an_interval_over_people():
    people = pd.Series(np.repeat(["a", "b", "c", "d"], 5))
    lead = bench.paired_lead(pd.Series(np.tile([0.1, 0.3], 10)), people)
    assert lead.value == pytest.approx(0.2) and lead.low <= lead.value <= lead.high
    same = bench.paired_lead(pd.Series(np.full(20, 0.1)), people)
    assert (same.value, same.low, same.high) == pytest.approx((0.1, 0.1, 0.1))


def test_the_section_has_a_row_per_condition_and_method(tmp_path):
    rows = bench.real_skin(Setting(tmp_path, jobs=1, quick=True))
    assert cv2.imread(str(tmp_path / "real_skin.png")).std() > 20
    assert {line["frames"] for line in rows} == set(list(CONDITIONS)[:2])
    assert [line["name"] for line in rows] == 2 * [bench.OURS, *bench.OTHERS]
    ours, deepflow, *_ = rows
    assert ours["ratio"] == 1 and 0.005 < ours["value"] < 0.3 and ours["n"] == len(WARPS) + 1 and ours["lead"] is None
    assert deepflow["lead"].value == pytest.approx(deepflow["value"] - ours["value"])
