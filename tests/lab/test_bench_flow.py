"""Facts about the benchmark of flow methods."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from utils.config import PROFILES
from utils.flow.methods import FLOW_METHODS
from utils.lab.bench import flow as bench_flow
from utils.lab.bench.flow import (
    LIBRARY_METHODS,
    PEOPLE,
    batch_errors,
    compare_methods,
    grain,
    make_pairs,
    moved,
    turn_and_zoom,
    waves,
)
from utils.lab.bench.setting import SEEDS
from utils.lab.teachers.flow_clips import Conditions


@pytest.fixture(scope="module")
def pairs():
    """Four pairs of one person at 128 px: two phases, two views."""
    return make_pairs(Conditions(size=128), people=((SEEDS[0], "S01"),))


def test_the_measured_people_are_not_the_people_of_the_challenge():
    assert not {config.data_seed for config in PROFILES.values()} & {*SEEDS, *(seed for seed, _ in PEOPLE)}


def test_quiet_eyes_leave_the_rest_of_the_face_its_motion():
    blinks = (102, "S01")
    (open_and_closed, *_), (quiet, *_) = (
        make_pairs(Conditions(size=128), people=(blinks,), quiet_eyes=quiet) for quiet in (False, True)
    )
    lids = np.linalg.norm(open_and_closed.flow - quiet.flow, axis=-1) * (open_and_closed.visible & quiet.visible)
    below = np.s_[80:]  # rows of a view of 128 px
    assert lids.max() > 1 and lids[below].max() < 0.01
    assert np.linalg.norm(quiet.flow, axis=-1)[below].max() > 0.1


def test_a_moving_head_adds_to_the_flow_and_not_to_the_flow_without_it():
    (still, *_), (moving, *_) = (
        make_pairs(Conditions(size=128, stabilised=stabilised), people=((SEEDS[0], "S02"),))
        for stabilised in (True, False)
    )
    assert np.array_equal(still.flow, still.nonrigid)
    assert np.linalg.norm(moving.flow - moving.nonrigid, axis=-1)[moving.visible].mean() > 0.05
    both = still.visible & moving.visible
    assert np.abs(moving.nonrigid - still.nonrigid)[both].max() < 0.05


def test_true_flow_has_no_error_and_no_flow_the_error_of_no_motion(pairs):
    answers = {pair.first.tobytes(): pair.flow for pair in pairs}
    methods = {"truth": lambda first, _: answers[first.tobytes()]}
    methods["nothing"] = lambda first, _: np.zeros((*first.shape, 2), np.float32)
    table = compare_methods(pairs, methods)
    assert table.loc["truth", "epe"] == 0 and table.loc["truth", "magnitude_ratio"] == pytest.approx(1)
    assert table.loc["nothing", "epe"] == pytest.approx(table.loc["nothing", "zero_epe"])


def test_the_errors_in_batches_are_the_errors_one_by_one(pairs):
    batches, alone = batch_errors(pairs), compare_methods(pairs, {"faceflow": FLOW_METHODS["faceflow"]}).loc["faceflow"]
    for name in ("epe", "nonrigid_epe", "direction_deg"):
        assert batches[name] == pytest.approx(alone[name], abs=1e-3)


def test_the_time_in_batches_is_the_time_of_the_flow_alone(pairs, monkeypatch):
    clock = [0.0]

    def taking(seconds, result):
        def work(*_):
            clock[0] += seconds
            return result

        return work

    monkeypatch.setattr(bench_flow, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(bench_flow, "face_motions", taking(2.0, (None, None)))
    monkeypatch.setattr(bench_flow, "_errors", taking(50.0, {"epe": 0.1}))
    assert batch_errors(pairs) == {"epe": 0.1, "ms": 2000 / len(pairs)}


def test_rows_have_no_ratio_where_the_default_method_has_no_error(pairs):
    answers = {pair.first.tobytes(): pair.flow for pair in pairs}
    methods = {"faceflow": lambda first, _: answers[first.tobytes()], "dis": FLOW_METHODS["dis"]}
    exact, rough = bench_flow._rows("here", compare_methods(pairs, methods), len(pairs))
    assert exact["ratio"] is rough["ratio"] is None and exact["value"] == 0 < rough["value"]
    assert (rough["name"], rough["frames"], rough["n"]) == ("dis", "here", 4) and rough["no_motion_epe"] > 0


@pytest.mark.parametrize("motion", [waves, turn_and_zoom])
def test_a_moved_picture_moves_by_the_flow_that_it_states(pairs, motion):
    rng = np.random.default_rng(0)
    textured = replace(pairs[0], first=grain(rng, (128, 128)))
    pair = moved(textured, motion(rng, (128, 128)), rng)
    error = np.linalg.norm(FLOW_METHODS["dis"](pair.first, pair.second) - pair.flow, axis=-1)[16:-16, 16:-16]
    assert error.mean() < 0.3 * np.linalg.norm(pair.flow, axis=-1)[16:-16, 16:-16].mean()


@pytest.mark.parametrize("name", LIBRARY_METHODS)
def test_every_library_method_gives_u_to_the_right_and_v_down(name):
    rng = np.random.default_rng(0)
    first = grain(rng, (128, 128))
    second = np.roll(first, (1, 2), axis=(0, 1))
    flow = LIBRARY_METHODS[name](first, second)[24:-24, 24:-24]
    assert np.median(flow[..., 0]) == pytest.approx(2, abs=0.5)
    assert np.median(flow[..., 1]) == pytest.approx(1, abs=0.5)
