"""Facts about the synthetic 4D faces: the plan, the performances, the photographs and the data root."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.data import TINY_LABEL_SETS, make_root, plan_of, tiny_clips
from helpers.face_models import write_obj_model

from utils.config import load_config
from utils.dataset.readers import open_sequence
from utils.dataset.tables import open_data
from utils.errors import DataError
from utils.report.data_card import write_card
from utils.synthetic import data_root as synthetic
from utils.synthetic.action_units import ACTION_UNITS
from utils.synthetic.data_root import LABEL_SETS, make_identity, make_subject
from utils.synthetic.expressions import BLINK, Repertoire, rotation
from utils.synthetic.face_model import SKIN, load_face_model
from utils.synthetic.performance import (
    PIVOT,
    PIXELS_PER_MM,
    face_shapes,
    perform,
    pose_vertices,
    true_motion_curve,
)
from utils.synthetic.photography import BACKGROUND, PHOTO, STEREO, photograph, scanner_surface, scanner_uv
from utils.train.samples import CLASSES


@pytest.fixture(scope="module")
def acts(person):
    return [perform(person.identity, ["Positive"], np.random.default_rng(seed)) for seed in range(100)]


def truth_of(config):
    return pd.read_csv(config.data_root / "truth" / "clips.csv")


# The plan


def test_the_demo_plan_has_the_label_sets_of_4dme():
    plan = plan_of(load_config("demo"))
    found = Counter(tuple(sorted(name for name in CLASSES if row[name])) for row in plan.to_dict("records"))
    assert found == {tuple(sorted(names)): count for names, count in LABEL_SETS.items()}
    assert len(plan) == 267


def test_the_demo_plan_splits_24_subjects_into_18_and_6():
    plan = plan_of(load_config("demo"))
    subjects = {split: set(rows["subject"]) for split, rows in plan.groupby("split")}
    assert len(subjects["train"]) == 18 and len(subjects["test"]) == 6
    assert not subjects["train"] & subjects["test"]
    assert plan.groupby("subject").size().min() >= 3


@pytest.mark.parametrize("seed", range(6))
def test_the_test_subjects_hold_a_fair_share_of_every_class(seed):
    plan = plan_of(load_config("demo", data_seed=seed))
    share = plan[plan["split"] == "test"][list(CLASSES)].sum() / plan[list(CLASSES)].sum()
    assert share.between(0.7 / 4, 1.5 / 4).all()


def test_ids_are_unique_and_name_their_subject():
    plan = plan_of(load_config("demo"))
    assert plan["Id"].is_unique
    assert (plan["Id"].str.split("_").str[0] == plan["subject"]).all()


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    plan = plan_of(load_config("demo"))
    assert plan.equals(plan_of(load_config("demo", seed=9)))  # the seed of training is another one
    assert not plan.equals(plan_of(load_config("demo", data_seed=8)))


@pytest.mark.parametrize("change", [{"n_subjects": 12, "n_test_subjects": 3}, {"n_test_subjects": 0}])
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_an_impossible_plan_is_refused_rather_than_sought_for_ever(change):
    with pytest.raises(ValueError, match="Remedy"):
        plan_of(load_config("smoke", **change))


# Performances


def test_peak_motion_lies_between_a_third_and_two_and_a_half_pixels(person, acts):
    for act in acts:
        moved = np.einsum("u,uvc->vc", act.expression[act.course.apex], person.identity.shape_offsets)
        assert 0.299 < np.linalg.norm(moved[:, :2], axis=1).max() * PIXELS_PER_MM < 2.501


def test_strength_scales_the_expression(person):
    one, two = (perform(person.identity, ["Positive"], np.random.default_rng(0), strength) for strength in (1.0, 2.0))
    assert np.allclose(2 * one.expression, two.expression, rtol=1e-5)


def test_every_confounder_occurs_and_is_missing_in_some_clips(acts):
    for name in ("blink", "gaze", "drift", "flicker"):
        assert {act.confounders[name] for act in acts} == {True, False}


def added(act, names):
    """Contraction (T, len(names)) of units beside the expression."""
    columns = [load_face_model().shape_names.index(name) for name in names]
    return (act.contraction - act.expression)[:, columns]


def test_a_blink_closes_both_lids_and_opens_them_again(acts):
    blinks = [added(act, BLINK) for act in acts if act.confounders["blink"]]
    for left, right in (lids.T for lids in blinks):
        assert np.array_equal(left, right) and left.min() >= 0
        assert 0.29 < left.max() <= 1  # also where an end of the clip cuts it
    inside = [lids[:, 0] for lids in blinks if 4 <= lids[:, 0].argmax() < len(lids) - 7]
    assert len(inside) >= 5
    for lids in inside:
        peak = lids.argmax()
        assert max(lids[peak - 4], lids[peak + 7]) < 0.05 * lids[peak]  # open, closed, open
        assert (np.diff(lids[: peak + 1]) > 0).all() and (np.diff(lids[peak:]) < 0).all()


def test_closing_lids_come_down(person):
    contraction = np.zeros((1, 52), np.float32)
    contraction[0, [load_face_model().shape_names.index(name) for name in BLINK]] = 1
    moved = (face_shapes(person.identity, contraction)[0] - person.identity.vertices)[load_face_model().island == SKIN]
    left = load_face_model().template[load_face_model().island == SKIN, 0] > 0
    for side in (moved[left], moved[~left]):
        assert side[np.linalg.norm(side, axis=1).argmax(), 1] < -5  # mm


@pytest.fixture(scope="module")
def eyes():
    """Vertices of the right and of the left eyeball's front, and all units that turn them."""
    model = load_face_model()
    balls = [np.flatnonzero(model.island == island) for island in model.eyes]
    fronts = [ball[model.template[ball, 2] > np.quantile(model.template[ball, 2], 0.9)] for ball in balls]
    return fronts, [name for name in model.shape_names if name.startswith("eyeLook")]


def test_a_glance_turns_both_eyes_together_and_they_stay_turned(acts, eyes, person):
    fronts, units = eyes
    glances = [act for act in acts if act.confounders["gaze"]]
    directions = set()
    for act in glances:
        turn = added(act, units)
        chosen = np.flatnonzero(turn.any(0))
        assert len(chosen) == 2 and np.array_equal(*turn[:, chosen].T)  # a unit for each eye, in step
        assert (np.diff(turn[:, chosen[0]]) >= 0).all() and 0 < turn.max() <= 0.5
        shapes = face_shapes(person.identity, act.contraction - act.expression)
        one, other = ((shapes[-1] - shapes[0])[front, :2].mean(0) for front in fronts)
        assert one @ other > 0.8 * np.linalg.norm(one) * np.linalg.norm(other) > 0
        directions.add((np.abs(one).argmax(), np.sign(one[np.abs(one).argmax()])))
    assert directions == {(0, 1), (0, -1), (1, 1), (1, -1)}  # to both sides, up and down


def test_a_drifting_head_turns_and_shifts_and_another_hardly(acts):
    for motion in ("angles", "shift"):  # degrees, mm
        range_of = {True: [], False: []}
        for act in acts:
            range_of[act.confounders["drift"]].append(np.ptp(getattr(act, motion), axis=0).max())
        assert np.median(range_of[True]) > 0.8 and max(range_of[False]) < 0.3


def test_clips_without_blink_and_glance_move_by_their_expression_alone(acts, eyes):
    for act in acts:
        assert added(act, BLINK).any() == act.confounders["blink"]
        assert added(act, eyes[1]).any() == act.confounders["gaze"]
        assert not act.expression[:, [load_face_model().shape_names.index(name) for name in (*BLINK, *eyes[1])]].any()
        others = [name for name in load_face_model().shape_names if name not in (*BLINK, *eyes[1])]
        assert not added(act, others).any()


def test_posing_without_contraction_is_rigid(person):
    angles, shift = np.array([[0, 0, 0], [5, -8, 3.0]]), np.array([[0, 0, 0], [1, 2, 3.0]])
    still, moved = pose_vertices(person.identity, np.zeros((2, 52), np.float32), angles, shift)
    assert np.allclose(still, person.identity.vertices, atol=1e-4)
    chosen = np.random.default_rng(0).choice(len(still), 60)
    gaps = [np.linalg.norm(shape[chosen, None] - shape[chosen], axis=-1) for shape in (still, moved)]
    assert np.allclose(*gaps, atol=1e-2)


def test_the_head_turns_about_the_neck(person):
    angles = np.array([[10.0, 20, 5]])
    (turned,) = pose_vertices(person.identity, np.zeros((1, 52), np.float32), angles, np.zeros((1, 3)))
    assert np.allclose(turned, (person.identity.vertices - PIVOT) @ rotation(angles)[0].T + PIVOT, atol=1e-3)


def test_the_motion_curve_starts_at_zero_and_peaks_near_the_apex(person, acts):
    for act in acts[:20]:
        curve = true_motion_curve(person.identity, act.expression)
        assert curve.shape == (act.course.n_frames,) and curve[0] == 0
        assert abs(int(curve.argmax()) - act.course.apex) <= 1 + (act.course.apex - act.course.onset) / 6


# Photographs


@pytest.fixture(scope="module")
def shot(person):
    """One photograph of the neutral face, its vertices and the scanner's mesh."""
    vertices = person.identity.vertices[None]
    (photo,) = photograph(vertices, person.albedo, np.random.default_rng(1), np.random.default_rng(2), False)
    return vertices, photo


def test_a_photograph_is_a_composite_of_a_lit_face_on_the_background(shot):
    _, photo = shot
    assert photo.shape == (PHOTO, 2 * PHOTO, 3) and photo.dtype == np.uint8
    for half in (photo[:, :PHOTO], photo[:, PHOTO:]):
        assert np.abs(half[:20, :20].mean((0, 1)) - BACKGROUND).max() < 2
        assert half[100:220, 100:220].mean() > BACKGROUND.mean() + 40


def test_the_left_half_is_the_camera_at_the_viewers_left():
    left, right = STEREO
    assert left.yaw_deg < 0 < right.yaw_deg
    nose, cheek = np.array([0, 0, 60.0]), np.array([0, 0, 0.0])
    # Seen from the left, what is nearer stands to the right.
    assert left.project(nose)[0] > left.project(cheek)[0]
    assert left.axes[2][0] < 0  # the camera itself stands at -x


def test_a_scanners_uv_points_to_where_its_vertex_stands_in_its_own_half(shot):
    vertices, _ = shot
    source, camera, faces = scanner_surface()
    (uv,) = scanner_uv(vertices, source, camera)
    assert (uv > 0).all() and (uv < 1).all()
    assert ((uv[:, 0] > 0.5) == camera.astype(bool)).all()
    assert set(np.unique(source)) == set(np.unique(load_face_model().faces))
    assert (np.ptp(camera[faces], axis=1) == 0).all()  # no face takes its texture from both
    pixels = np.stack([uv[:, 0] * 2 * PHOTO - 0.5 - PHOTO * camera, (1 - uv[:, 1]) * PHOTO - 0.5], -1)
    for number in (0, 1):
        own = camera == number
        assert np.allclose(pixels[own], STEREO[number].project(vertices[0, source[own]]), atol=1e-3)


@pytest.fixture(scope="module")
def series(person, shot):
    """Eight photographs of the neutral face, (T, PHOTO, 2 PHOTO, 3), without and with flicker, all else the same."""
    vertices = np.repeat(shot[0], 8, axis=0)

    def photos(flicker):
        return np.stack(list(photograph(vertices, person.albedo, *map(np.random.default_rng, (1, 3)), flicker)))

    return photos(False), photos(True)


def test_flicker_changes_the_brightness_of_all_pixels_by_up_to_a_percent(series):
    steady, flickering = series
    gain = flickering.mean((1, 2, 3)) / steady.mean((1, 2, 3)) - 1
    assert 0.006 < np.abs(gain).max() < 0.011 and np.ptp(gain) > 0.01
    halves = [np.array_split(photos.mean((1, 3)), 2, axis=1) for photos in series]
    left, right = (bright.mean(1) / dim.mean(1) - 1 for dim, bright in zip(*halves, strict=True))
    assert np.abs(left - right).max() < 0.001  # both cameras see the same light


def test_without_flicker_the_light_is_steady_but_for_a_jitter(series):
    light = series[0].mean((1, 2, 3))
    assert 0 < np.std(light / light.mean()) < 0.006


def test_a_sensor_is_noisy(series):
    one, two = (photo[150:170, 150:170].astype(float) for photo in series[0][:2])
    assert 0.5 < (one / one.mean() - two / two.mean()).std() * one.mean() / np.sqrt(2) < 4  # grey levels


# The data root


def test_the_root_is_what_the_stages_read(tiny):
    data = open_data(tiny.data_root, CLASSES)
    assert len(data.train) == 6 and len(data.test_ids) == 3
    assert data.solution is not None and not data.warnings
    for id in data.train["Id"]:
        sequence = data.sequence("train", id)
        assert sequence.kind == "mesh" and len(sequence) == 6 and sequence.texture(0).shape == (PHOTO, 2 * PHOTO, 3)


def test_labels_of_the_root_are_those_of_the_plan(tiny):
    with tiny_clips():
        plan = plan_of(tiny).set_index("Id")
    train = pd.read_csv(tiny.data_root / "train.csv").set_index("Id")
    solution = pd.read_csv(tiny.data_root / "solution.csv").set_index("Id")
    assert set(train.index) == set(plan.index[plan["split"] == "train"])
    both = pd.concat([train, solution])[list(CLASSES)]
    assert both.equals(plan.loc[both.index, list(CLASSES)])
    assert both.sum().eq(3).all() and len(both) == sum(TINY_LABEL_SETS.values())


def test_the_sample_submission_gives_no_label_away(tiny):
    sample = pd.read_csv(tiny.data_root / "sample_submission.csv")
    assert not sample[list(CLASSES)].to_numpy().any()
    assert sample["Id"].tolist() == pd.read_csv(tiny.data_root / "solution.csv")["Id"].tolist()


def test_the_true_apex_is_the_peak_of_the_true_motion(tiny):
    for row in truth_of(tiny).to_dict("records"):
        with np.load(tiny.data_root / "truth" / f"{row['Id']}.npz") as truth:
            assert row["apex"] == truth["motion"].argmax()
            assert len(truth["motion"]) == row["n_frames"]
        assert row["onset"] <= row["apex"] <= row["offset"] < row["n_frames"]


def test_the_mesh_on_disk_moves_as_the_truth_says(tiny):
    row = truth_of(tiny).iloc[0]
    identity, _ = make_identity(tiny.data_seed, row["subject"])
    with np.load(tiny.data_root / "truth" / f"{row['Id']}.npz") as truth:
        posed = pose_vertices(identity, truth["contraction"], truth["angles"], truth["shift"])
    sequence = open_sequence(tiny.data_root / row["split"] / row["Id"])
    assert np.allclose(sequence.vertices(), posed[:, scanner_surface()[0]], atol=1e-3)


def test_light_flickers_in_the_clips_whose_truth_says_so(tiny, tmp_path, monkeypatch):
    asked = []

    def dark(vertices, albedo, rng_light, rng, flicker, **_):
        asked.append(flicker)
        return np.zeros((len(vertices), PHOTO, 2 * PHOTO, 3), np.uint8)

    monkeypatch.setattr(synthetic, "photograph", dark)
    with tiny_clips():
        clips = plan_of(tiny).to_dict("records")
        rows = make_subject(tmp_path, "S01", clips, tiny.data_seed, False, tiny.expressions)
    assert asked == [row["flicker"] for row in rows] and set(asked) == {True, False}


def test_clips_show_the_table_of_expressions_that_was_asked_for(tiny, tmp_path, monkeypatch):
    sneer = Repertoire({name: ((1, ("AU9",)),) for name in CLASSES}, {}, 0, (0.5, 1), 0, (0, 0))
    monkeypatch.setitem(synthetic.REPERTOIRES, "emfacs", sneer)
    monkeypatch.setattr(synthetic, "photograph", lambda v, *_, **__: np.zeros((len(v), PHOTO, 2 * PHOTO, 3), np.uint8))
    with tiny_clips():
        clips = plan_of(tiny).to_dict("records")[:3]
    units = {}
    for table in ("emfacs", "literature"):
        rows = make_subject(tmp_path / table, "S01", clips, tiny.data_seed, False, table)
        units[table] = {au for row in rows for au in ACTION_UNITS if row[au] > 0}
    assert units["emfacs"] == {"AU9"} != units["literature"]


def test_two_subjects_are_two_people(tiny):
    people = [make_identity(tiny.data_seed, subject)[0].vertices for subject in ("S01", "S02", "S03")]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(people[a] - people[b], axis=1).mean() > 1  # mm


def test_the_same_seed_writes_the_same_bytes_whatever_else_is_made(tiny, tmp_path):
    with tiny_clips():
        plan = plan_of(tiny)
        clip = plan[plan["split"] == "train"].iloc[1].to_dict()
        make_subject(tmp_path, clip["subject"], [clip], tiny.data_seed, False, tiny.expressions)
    original = tiny.data_root / "train" / clip["Id"]
    again = tmp_path / "train" / clip["Id"]
    names = sorted(file.name for file in original.iterdir())
    assert names == sorted(file.name for file in again.iterdir()) and len(names) == 7
    assert all((original / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_a_root_is_not_made_again_unless_something_changed(tiny, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(synthetic, "parallel_map", refuse)
    assert make_root(tiny) == tiny.data_root
    assert make_root(replace(tiny, seed=3, epochs=1)) == tiny.data_root  # not of the data
    copied = replace(tiny, data=str(shutil.copytree(tiny.data_root, tmp_path / "data")))
    with tiny_clips(), pytest.raises(AssertionError, match="made again"):
        make_root(replace(copied, data_seed=8))


def test_a_removed_clip_is_written_again_to_the_byte(tiny, tmp_path):
    copied = replace(tiny, data=str(shutil.copytree(tiny.data_root, tmp_path / "data")))
    clip = truth_of(tiny).iloc[3]
    lost, original = (config.data_root / clip["split"] / clip["Id"] for config in (copied, tiny))
    shutil.rmtree(lost)
    with tiny_clips():
        make_root(copied)
    assert all(file.read_bytes() == (lost / file.name).read_bytes() for file in original.iterdir())


def test_a_killed_writer_goes_on_with_the_subjects_that_it_had_not_finished(tiny, tmp_path, monkeypatch):
    config, written = replace(tiny, data=str(tmp_path / "data"), jobs=1), []  # subjects, in the order of their clips
    write = synthetic.write_clip

    def killed_at_the_second(folder, *rest):
        written.append(folder.name[:3])
        if len(set(written)) == 2:
            raise KeyboardInterrupt  # as sudden as a kill to the writer, not to the test
        return write(folder, *rest)

    monkeypatch.setattr(synthetic, "write_clip", killed_at_the_second)
    with tiny_clips():
        with pytest.raises(KeyboardInterrupt):
            make_root(config)
        assert not (config.data_root / "train.csv").exists()
        first, killed = dict.fromkeys(written)
        monkeypatch.setattr(
            synthetic, "write_clip", lambda folder, *rest: again.append(folder.name[:3]) or write(folder, *rest)
        )
        again = []
        make_root(config)
    assert set(again) == {"S01", "S02", "S03"} - {first} and killed in again
    files = {
        root: {path.relative_to(root): path for path in root.rglob("*") if path.is_file() and "card" not in path.parts}
        for root in (tiny.data_root, config.data_root)
    }
    before, after = files.values()
    assert before.keys() == after.keys()
    assert all(before[name].read_bytes() == after[name].read_bytes() for name in before if name.suffix != ".key")


def test_a_writer_of_another_face_model_that_was_killed_goes_on(tiny, tmp_path, monkeypatch):
    """Killed before the first subject was finished, and after it."""
    face_model = write_obj_model(tmp_path / "model")
    config, write = replace(tiny, data=str(tmp_path / "data"), jobs=1), synthetic.write_clip
    whole = tmp_path / "whole"

    def make(root=config.data_root):
        return synthetic.make_dataset(root, **config.synthetic, face_model=face_model)

    def killed_at(clip):
        left = iter(range(clip))

        def written(*arguments):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return write(*arguments)

        return written

    with tiny_clips():
        make(whole)
        for clip in (1, 5):
            monkeypatch.setattr(synthetic, "write_clip", killed_at(clip))
            with pytest.raises(KeyboardInterrupt):
                make()
        monkeypatch.setattr(synthetic, "write_clip", write)
        make()
    for file in whole.rglob("*.*"):
        if file.is_file() and file.suffix != ".key":
            assert file.read_bytes() == (config.data_root / file.relative_to(whole)).read_bytes(), file
    assert "another face model" in make_card(config)


def make_card(config):
    write_card(config.data_root)
    return (config.data_root / "card" / "README.md").read_text()


def test_clips_of_another_setting_do_not_stay(tiny, tmp_path):
    config = replace(tiny, data=str(shutil.copytree(tiny.data_root, tmp_path / "data")), data_seed=8)
    (config.data_root / "train" / "S09_099").mkdir()
    with tiny_clips():
        make_root(config)
    open_data(config.data_root, CLASSES)
    assert not (config.data_root / "train" / "S09_099").exists()


def test_what_a_writer_left_that_was_killed_at_any_moment_is_known_as_its_own(tiny, tmp_path):
    config = replace(tiny, data=str(shutil.copytree(tiny.data_root, tmp_path / "data")), jobs=1)
    (config.data_root / synthetic.UNFINISHED).mkdir()  # as between the tables and the truth, which is written last
    (config.data_root / "truth" / "clips.csv").unlink()
    with tiny_clips():
        make_root(config)
    original, again = ((one.data_root / "truth" / "clips.csv").read_bytes() for one in (tiny, config))
    assert original == again and not (config.data_root / synthetic.UNFINISHED).exists()


def test_other_data_are_never_overwritten(tiny, tmp_path):
    (tmp_path / "train.csv").write_text("Id\n")
    with pytest.raises(DataError, match="not synthetic.*Remedy"):
        make_root(replace(tiny, data=str(tmp_path)))
    assert (tmp_path / "train.csv").read_text() == "Id\n"


def test_obj_frames_on_request_replace_the_compact_clip(tiny, tmp_path):
    with tiny_clips():
        clip = plan_of(tiny).iloc[0].to_dict()
        make_subject(tmp_path, clip["subject"], [clip], tiny.data_seed, True, tiny.expressions)
    names = {file.suffix for file in (tmp_path / clip["split"] / clip["Id"]).iterdir()}
    assert names == {".obj", ".mtl", ".png"}
