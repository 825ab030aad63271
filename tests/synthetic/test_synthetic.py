"""Facts about the synthetic challenge: the plan, the performances, the photographs and the data root."""

import hashlib
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
from utils.synthetic.performance import PIVOT, PIXELS_PER_MM, face_shapes, perform, pose_vertices, true_motion_curve
from utils.synthetic.photography import BACKGROUND, PHOTO, STEREO, photograph, scanner_surface, scanner_uv
from utils.synthetic.truth import CONFOUNDERS, TRUTH, load_truth
from utils.train.samples import CLASSES

LOOKS = [name for name in load_face_model().shape_names if name.startswith("eyeLook")]


@pytest.fixture(scope="module")
def acts(person):
    return [perform(person.identity, ["Positive"], np.random.default_rng(seed)) for seed in range(100)]


# The plan


def test_the_demo_plan_has_the_label_sets_of_4dme():
    plan = plan_of(load_config("demo"))
    counts = Counter(tuple(sorted(name for name in CLASSES if row[name])) for row in plan.to_dict("records"))
    assert counts == {tuple(sorted(names)): count for names, count in LABEL_SETS.items()}
    assert len(plan) == 267


def test_the_demo_plan_splits_24_subjects_into_18_and_6():
    plan = plan_of(load_config("demo"))
    subjects = {split: set(rows["subject"]) for split, rows in plan.groupby("split")}
    assert len(subjects["train"]) == 18 and len(subjects["test"]) == 6
    assert not subjects["train"] & subjects["test"]
    assert plan.groupby("subject").size().min() >= 3
    assert plan["Id"].is_unique and (plan["Id"].str.split("_").str[0] == plan["subject"]).all()


@pytest.mark.parametrize("seed", range(6))
def test_the_test_subjects_hold_a_fair_share_of_every_class(seed):
    plan = plan_of(load_config("demo", data_seed=seed))
    share = plan[plan["split"] == "test"][list(CLASSES)].sum() / plan[list(CLASSES)].sum()
    assert share.between(0.7 / 4, 1.5 / 4).all()


def test_the_same_data_seed_gives_the_same_plan_and_another_one_another_plan():
    plan = plan_of(load_config("demo"))
    assert plan.equals(plan_of(load_config("demo", seed=9)))  # the seed of training does not matter
    assert not plan.equals(plan_of(load_config("demo", data_seed=8)))


@pytest.mark.parametrize("change", [{"n_subjects": 12, "n_test_subjects": 3}, {"n_test_subjects": 0}])
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_the_search_for_an_impossible_plan_ends_in_an_error(change):
    with pytest.raises(ValueError, match="Remedy"):
        plan_of(load_config("smoke", **change))


# Performances


def test_peak_motion_lies_between_0_3_and_2_5_pixels(person, acts):
    for act in acts:
        moved = np.einsum("u,uvc->vc", act.expression[act.course.apex], person.identity.shape_offsets)
        assert 0.299 < np.linalg.norm(moved[:, :2], axis=1).max() * PIXELS_PER_MM < 2.501


def test_every_confounder_occurs_in_some_clips_and_is_missing_in_others(acts):
    for name in CONFOUNDERS:
        assert {act.confounders[name] for act in acts} == {True, False}


def added(act, names):
    """Contraction (T, len(names)) of blend shapes beyond the expression."""
    index = load_face_model().shape_index
    return (act.contraction - act.expression)[:, [index[name] for name in names]]


def test_a_blink_closes_both_lids_and_opens_them_again(acts):
    blinks = [added(act, BLINK) for act in acts if act.confounders["blink"]]
    for left, right in (lids.T for lids in blinks):
        assert np.array_equal(left, right) and left.min() >= 0
        assert 0.29 < left.max() <= 1  # also if the clip starts or ends within the blink
    inside = [lids[:, 0] for lids in blinks if 4 <= lids[:, 0].argmax() < len(lids) - 7]
    assert len(inside) >= 5
    for lids in inside:
        peak = lids.argmax()
        assert max(lids[peak - 4], lids[peak + 7]) < 0.05 * lids[peak]  # open, closed, open
        assert (np.diff(lids[: peak + 1]) > 0).all() and (np.diff(lids[peak:]) < 0).all()


def test_closing_lids_come_down(person):
    model, contraction = load_face_model(), np.zeros((1, 52), np.float32)
    contraction[0, [model.shape_index[name] for name in BLINK]] = 1
    moved = face_shapes(person.identity, contraction)[0] - person.identity.vertices
    for side in (-1, 1):
        lid = moved[(model.island == SKIN) & (side * model.template[:, 0] > 0)]
        assert lid[np.linalg.norm(lid, axis=1).argmax(), 1] < -5  # mm


def test_a_glance_turns_both_eyes_together_and_they_stay_turned(acts, person):
    model = load_face_model()
    balls = [np.flatnonzero(model.island == island) for island in model.eyes]
    fronts = [ball[model.template[ball, 2] > np.quantile(model.template[ball, 2], 0.9)] for ball in balls]
    directions = set()
    for act in (act for act in acts if act.confounders["gaze"]):
        turn = added(act, LOOKS)
        chosen = np.flatnonzero(turn.any(0))
        assert len(chosen) == 2 and np.array_equal(*turn[:, chosen].T)  # a blend shape for each eye, in step
        assert (np.diff(turn[:, chosen[0]]) >= 0).all() and 0 < turn.max() <= 0.5
        shapes = face_shapes(person.identity, act.contraction - act.expression)
        first, second = ((shapes[-1] - shapes[0])[front, :2].mean(0) for front in fronts)
        assert first @ second > 0.8 * np.linalg.norm(first) * np.linalg.norm(second) > 0
        directions.add((np.abs(first).argmax(), np.sign(first[np.abs(first).argmax()])))
    assert directions == {(0, 1), (0, -1), (1, 1), (1, -1)}  # to both sides, up and down


def test_a_drifting_head_turns_and_shifts_and_another_hardly_moves(acts):
    for motion in ("angles", "shift"):  # degrees, mm
        range_of = {True: [], False: []}
        for act in acts:
            range_of[act.confounders["drift"]].append(np.ptp(getattr(act, motion), axis=0).max())
        assert np.median(range_of[True]) > 0.8 and max(range_of[False]) < 0.3


def test_clips_without_blink_and_glance_move_by_their_expression_alone(acts):
    rest = set(load_face_model().shape_names) - {*BLINK, *LOOKS}
    for act in acts:
        assert added(act, BLINK).any() == act.confounders["blink"]
        assert added(act, LOOKS).any() == act.confounders["gaze"]
        assert not added(act, rest).any()
        assert not act.expression[:, [load_face_model().shape_index[name] for name in (*BLINK, *LOOKS)]].any()


def test_a_pose_without_contraction_is_rigid(person):
    angles, shift = np.array([[0, 0, 0], [5, -8, 3.0]]), np.array([[0, 0, 0], [1, 2, 3.0]])
    still, moved = pose_vertices(person.identity, np.zeros((2, 52), np.float32), angles, shift)
    assert np.allclose(still, person.identity.vertices, atol=1e-4)
    chosen = np.random.default_rng(0).choice(len(still), 60)
    distances = [np.linalg.norm(vertices[chosen, None] - vertices[chosen], axis=-1) for vertices in (still, moved)]
    assert np.allclose(*distances, atol=1e-2)


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


def photos_of(person, n_frames, flicker):
    """Photographs (T, PHOTO, 2 PHOTO, 3) of the neutral face. Only flicker makes a difference."""
    vertices = np.repeat(person.identity.vertices[None], n_frames, axis=0)
    return np.stack(list(photograph(vertices, person.albedo, *map(np.random.default_rng, (1, 3)), flicker)))


@pytest.fixture(scope="module")
def steady(person):
    return photos_of(person, 8, flicker=False)


def test_a_photograph_is_a_composite_of_a_lit_face_on_the_background(steady):
    assert steady[0].shape == (PHOTO, 2 * PHOTO, 3) and steady.dtype == np.uint8
    for half in (steady[0, :, :PHOTO], steady[0, :, PHOTO:]):
        assert np.abs(half[:20, :20].mean((0, 1)) - BACKGROUND).max() < 2
        assert half[100:220, 100:220].mean() > BACKGROUND.mean() + 40


def test_the_left_half_is_of_the_camera_at_the_viewers_left():
    left, right = STEREO
    assert left.yaw_deg < 0 < right.yaw_deg and left.axes[2][0] < 0  # it stands at negative x
    nose, cheek = np.array([0, 0, 60.0]), np.array([0, 0, 0.0])
    assert left.project(nose)[0] > left.project(cheek)[0]  # seen from the left, the nearer point appears further right


def test_a_scanners_uv_point_to_where_its_vertex_appears_in_its_half(person):
    vertices = person.identity.vertices[None]
    source, camera, faces = scanner_surface()
    (uv,) = scanner_uv(vertices, source, camera)
    assert (uv > 0).all() and (uv < 1).all()
    assert ((uv[:, 0] > 0.5) == camera.astype(bool)).all()
    assert set(np.unique(source)) == set(np.unique(load_face_model().faces))
    assert (np.ptp(camera[faces], axis=1) == 0).all()  # no face takes its texture from both cameras
    pixels = np.stack([uv[:, 0] * 2 * PHOTO - 0.5 - PHOTO * camera, (1 - uv[:, 1]) * PHOTO - 0.5], -1)
    for number in (0, 1):
        seen = camera == number
        assert np.allclose(pixels[seen], STEREO[number].project(vertices[0, source[seen]]), atol=1e-3)


def test_flicker_changes_the_brightness_of_all_pixels_by_up_to_a_percent(person, steady):
    flickering = photos_of(person, 8, flicker=True)
    gain = flickering.mean((1, 2, 3)) / steady.mean((1, 2, 3)) - 1
    assert 0.006 < np.abs(gain).max() < 0.011 and np.ptp(gain) > 0.01
    halves = [np.array_split(photos.mean((1, 3)), 2, axis=1) for photos in (steady, flickering)]
    left, right = (bright.mean(1) / dim.mean(1) - 1 for dim, bright in zip(*halves, strict=True))
    assert np.abs(left - right).max() < 0.001  # both cameras see the same light


def test_without_flicker_the_light_is_steady_except_for_a_jitter(steady):
    light = steady.mean((1, 2, 3))
    assert 0 < np.std(light / light.mean()) < 0.006


def test_a_sensor_is_noisy(steady):
    first, second = (photo[150:170, 150:170].astype(float) for photo in steady[:2])
    difference = first / first.mean() - second / second.mean()
    assert 0.5 < difference.std() * first.mean() / np.sqrt(2) < 4  # grey levels


# The data root


def hashes(folder):
    """The hash of every file below a folder, by path, without keys and cards."""
    files = [
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".key" and "card" not in path.parts
    ]
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def copied(tiny, tmp_path):
    """The tiny root once more, free to be changed."""
    return replace(tiny, data=str(shutil.copytree(tiny.data_root, tmp_path / "data")), jobs=1)


def test_the_root_is_what_the_stages_read(tiny):
    data = open_data(tiny.data_root, CLASSES)
    assert len(data.train) == 6 and len(data.test_ids) == 3
    assert data.solution is not None and not data.warnings
    for id in data.train["Id"]:
        sequence = data.sequence("train", id)
        assert sequence.kind == "mesh" and len(sequence) == 6 and sequence.texture(0).shape == (PHOTO, 2 * PHOTO, 3)


def test_labels_of_the_root_are_those_of_the_plan_and_the_sample_submission_reveals_none(tiny):
    with tiny_clips():
        plan = plan_of(tiny).set_index("Id")
    names = ("train", "solution", "sample_submission")
    train, solution, sample = (pd.read_csv(tiny.data_root / f"{name}.csv").set_index("Id") for name in names)
    assert set(train.index) == set(plan.index[plan["split"] == "train"])
    labels = pd.concat([train, solution])[list(CLASSES)]
    assert labels.equals(plan.loc[labels.index, list(CLASSES)])
    assert labels.sum().eq(3).all() and len(labels) == sum(TINY_LABEL_SETS.values())
    assert not sample[list(CLASSES)].to_numpy().any() and sample.index.equals(solution.index)


def test_the_true_apex_is_the_peak_of_the_true_motion(tiny):
    for id, row in load_truth(tiny).iterrows():
        with np.load(tiny.data_root / "truth" / f"{id}.npz") as truth:
            assert row["apex"] == truth["motion"].argmax()
            assert len(truth["motion"]) == row["n_frames"]
        assert row["onset"] <= row["apex"] <= row["offset"] < row["n_frames"]


def test_the_mesh_on_disk_moves_as_the_truth_says(tiny):
    row = load_truth(tiny).iloc[0]
    identity, _ = make_identity(tiny.data_seed, row["subject"])
    with np.load(tiny.data_root / "truth" / f"{row.name}.npz") as truth:
        posed = pose_vertices(identity, truth["contraction"], truth["angles"], truth["shift"])
    sequence = open_sequence(tiny.data_root / row["split"] / row.name)
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


def test_clips_show_the_chosen_repertoire(tiny, tmp_path, monkeypatch):
    sneer = Repertoire({name: ((1, ("AU9",)),) for name in CLASSES}, {}, 0, (0.5, 1), 0, (0, 0))
    monkeypatch.setitem(synthetic.REPERTOIRES, "emfacs", sneer)
    monkeypatch.setattr(synthetic, "photograph", lambda v, *_, **__: np.zeros((len(v), PHOTO, 2 * PHOTO, 3), np.uint8))
    with tiny_clips():
        clips = plan_of(tiny).to_dict("records")[:3]
    units = {}
    for name in ("emfacs", "literature"):
        rows = make_subject(tmp_path / name, "S01", clips, tiny.data_seed, False, name)
        units[name] = {au for row in rows for au in ACTION_UNITS if row[au] > 0}
    assert units["emfacs"] == {"AU9"} != units["literature"]


def test_two_subjects_are_two_people(tiny):
    people = [make_identity(tiny.data_seed, subject)[0].vertices for subject in ("S01", "S02", "S03")]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(people[a] - people[b], axis=1).mean() > 1  # mm


def test_a_clip_made_alone_has_the_same_bytes(tiny, tmp_path):
    with tiny_clips():
        clip = plan_of(tiny).query("split == 'train'").iloc[1].to_dict()
        make_subject(tmp_path, clip["subject"], [clip], tiny.data_seed, False, tiny.expressions)
    files, again = (hashes(root / "train" / clip["Id"]) for root in (tiny.data_root, tmp_path))
    assert files == again and len(files) == 7


def test_a_root_is_not_made_again_unless_something_changed(tiny, copied, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(synthetic, "parallel_map", refuse)
    assert make_root(tiny) == tiny.data_root
    assert make_root(replace(tiny, seed=3, epochs=1)) == tiny.data_root  # these do not concern the data
    with tiny_clips(), pytest.raises(AssertionError, match="made again"):
        make_root(replace(copied, data_seed=8))


def test_a_removed_clip_is_written_again_with_the_same_bytes(tiny, copied):
    clip = load_truth(tiny).iloc[3]
    shutil.rmtree(copied.data_root / clip["split"] / clip.name)
    with tiny_clips():
        make_root(copied)
    assert hashes(copied.data_root) == hashes(tiny.data_root)


def writer(subjects, killed_after=1000):
    """`write_clip` that notes the subject of each clip, in a process that is killed after so many clips."""
    write = synthetic.write_clip

    def noted(folder, *rest):
        subjects.append(folder.name[:3])
        if len(subjects) > killed_after:
            raise KeyboardInterrupt  # stops the writer as suddenly as a kill, but not the test
        return write(folder, *rest)

    return noted


def test_a_killed_writer_resumes_with_the_subjects_that_it_had_not_finished(tiny, tmp_path, monkeypatch):
    config, resumed = replace(tiny, data=str(tmp_path / "data"), jobs=1), []
    with tiny_clips():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(synthetic, "write_clip", writer([], killed_after=5))
            make_root(config)
        finished = {file.stem for file in (config.data_root / synthetic.UNFINISHED).glob("*.csv")}
        assert finished and not (config.data_root / "train.csv").exists()
        monkeypatch.setattr(synthetic, "write_clip", writer(resumed))
        make_root(config)
    assert set(resumed) == {"S01", "S02", "S03"} - finished
    assert hashes(config.data_root) == hashes(tiny.data_root)


def test_a_killed_writer_of_a_users_face_model_resumes(tiny, tmp_path, monkeypatch):
    """It is killed before the first subject is finished, and once more after it."""
    face_model, root, whole = write_obj_model(tmp_path / "model"), tmp_path / "data", tmp_path / "whole"
    with tiny_clips():
        synthetic.make_dataset(whole, **tiny.synthetic, face_model=face_model)
        for clips in (1, 5):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(synthetic, "write_clip", writer([], killed_after=clips))
                synthetic.make_dataset(root, **tiny.synthetic, face_model=face_model)
        synthetic.make_dataset(root, **tiny.synthetic, face_model=face_model)
    assert hashes(root) == hashes(whole)
    write_card(root)
    assert "another face model" in (root / "card" / "README.md").read_text()


def test_clips_of_other_parameters_are_removed(copied):
    (copied.data_root / "train" / "S09_099").mkdir()
    with tiny_clips():
        make_root(replace(copied, data_seed=8))
    open_data(copied.data_root, CLASSES)
    assert not (copied.data_root / "train" / "S09_099").exists()


def test_a_root_whose_writer_was_killed_before_its_last_table_is_finished(tiny, copied):
    (copied.data_root / synthetic.UNFINISHED).mkdir()
    (copied.data_root / TRUTH).unlink()
    with tiny_clips():
        make_root(copied)
    assert hashes(copied.data_root) == hashes(tiny.data_root)
    assert not (copied.data_root / synthetic.UNFINISHED).exists()


def test_other_data_are_never_overwritten(tiny, tmp_path):
    (tmp_path / "train.csv").write_text("Id\n")
    with pytest.raises(DataError, match="not synthetic.*Remedy"):
        make_root(replace(tiny, data=str(tmp_path)))
    assert (tmp_path / "train.csv").read_text() == "Id\n"


def test_obj_frames_on_request_replace_the_compact_clip(tiny, tmp_path):
    with tiny_clips():
        clip = plan_of(tiny).iloc[0].to_dict()
        make_subject(tmp_path, clip["subject"], [clip], tiny.data_seed, True, tiny.expressions)
    suffixes = {file.suffix for file in (tmp_path / clip["split"] / clip["Id"]).iterdir()}
    assert suffixes == {".obj", ".mtl", ".png"}
