"""Facts about the prediction for one clip: its files, its networks, when it abstains, and what is refused."""

import json
import shutil
import subprocess
import sys

import av
import numpy as np
import pandas as pd
import pytest
from helpers.one_camera import film, write_film, write_video

from utils import predict as command
from utils.artefacts import write_artefact
from utils.config import load_config
from utils.errors import DataError
from utils.evaluate.conformal import answer, conformal_scores, possible_values
from utils.evaluate.explain import AU_NAMES
from utils.evaluate.protocol import OutOfFold, grouped_folds
from utils.pipeline import load_data
from utils.predict import SHIPPED, model_of_run, predict, prepare, record_of, write_prediction
from utils.train.network import ModelConfig
from utils.train.samples import CLASSES, Samples
from utils.train.settings import TrainConfig
from utils.train.stacking import Learner, fit_stack, predict_stack, save_stack

FAST = "size=128 apex_size=64 apex_method=dis flow_method=dis"


@pytest.fixture(scope="module")
def frames():
    """A clip of a surprised person: (T, H, W, 3) uint8."""
    return film(1, ["Surprise"], 3)[0]


@pytest.fixture(scope="module")
def video(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "smile.mp4"
    write_video(path, frames, fps=50.0)
    return path


@pytest.fixture(scope="module")
def mesh_clip(tiny):
    """The folder of a 4D sequence."""
    data = load_data(tiny)
    return data.folder("train", data.train["Id"][0])


def out_of_fold(probability, truth, subjects):
    """Held-out predictions of one seed and one fold from arrays (N, K), (N, K), (N,)."""
    n, k = truth.shape
    return OutOfFold(
        classes=CLASSES[:k],
        ids=np.arange(n).astype(str),
        subjects=subjects,
        fold=np.zeros(n, int),
        seeds=(0,),
        truth=truth > 0,
        probability=probability[None],
        decision=probability[None] > 0.5,
        thresholds=np.full((1, 1, k), 0.5),
        notes=[[{}]],
        seconds=0.0,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with briefly trained networks, on one camera's clips of twelve subjects."""
    rng, subjects = np.random.default_rng(0), np.repeat([f"S{i:02d}" for i in range(12)], 4)
    truth, ids = rng.integers(0, 2, (48, 5)), np.arange(48).astype(str)
    samples = Samples(rng.normal(size=(48, 1, 2, 3, 28, 28)), truth, ids, subjects, CLASSES)
    learner = Learner(ModelConfig(views=1), TrainConfig(epochs=1))
    stack = fit_stack(samples, grouped_folds(truth, subjects, 2), {"plain": learner})
    folder = tmp_path_factory.mktemp("runs") / "mine"
    save_stack(stack, folder)
    parameters = load_config("smoke", "views=single flow_method=dis").record
    data = {"training": 48, "test": 0, "synthetic": True}
    write_artefact(folder / "run.json", {"parameters": parameters, "data": data})
    held_out = out_of_fold(predict_stack(stack, samples.x)[0], truth, subjects)
    write_artefact(folder / "conformal.csv", conformal_scores(held_out))
    assert "S0" not in (folder / "conformal.csv").read_text(), "the scores name the held-out people"
    return folder


# The answer ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answered(video, tmp_path_factory):
    """The output of the command for the video, and the folder that it writes."""
    out = tmp_path_factory.mktemp("out") / "answer"
    options = ["--input", str(video), "--out", str(out), "--set", FAST]
    process = subprocess.run([sys.executable, "-m", "utils.predict", *options], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout, out


def test_a_video_gets_probabilities_moments_and_action_units_but_no_claim_for_real_people(answered, frames):
    printed, out = answered
    record = json.loads((out / "prediction.json").read_text())
    assert list(record["classes"]) == list(CLASSES) and record["input"] == "smile"
    assert all(0 <= row["probability"] <= 1 and row["answer"] is None for row in record["classes"].values())
    moments = record["moments"]
    assert 0 <= moments["onset"] < moments["apex"] < moments["offset"] < len(frames) == record["frames"]
    assert {au: row["name"] for au, row in record["action_units"].items()} == AU_NAMES
    assert {row["side"] for row in record["action_units"].values()} <= {"left", "right", "both", None}
    assert printed.splitlines()[0] == SHIPPED == record["weights"] and "no real person" in SHIPPED
    assert {path.name for path in out.iterdir()} == {"prediction.json", "prediction.png", "overlay.mp4"}


def test_the_overlay_is_the_clip_with_colours_at_the_apex(answered, frames):
    with av.open(answered[1] / "overlay.mp4") as source:
        rate, codec = source.streams.video[0].average_rate, source.streams.video[0].codec_context.name
        overlay = np.stack([frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]).astype(float)
    assert overlay.shape == (len(frames), 128, 128, 3) and (rate, codec) == (50, "h264")
    apex = json.loads((answered[1] / "prediction.json").read_text())["moments"]["apex"]
    change = np.abs(overlay - overlay[0]).mean(axis=(1, 2, 3))
    assert change[apex] > 3 * change[-1]


def test_the_shipped_weights_for_two_views_judge_a_4d_sequence(mesh_clip):
    config, model = prepare(mesh_clip, settings=FAST)
    result = predict(mesh_clip, config, model)
    assert config.views == "render" and model.origin == SHIPPED and result.views.stabilised
    assert result.flows.shape[:2] == (2, 2) and result.classes["probability"].between(0, 1).all()
    assert prepare(mesh_clip, settings="views=split")[0].n_views == 2


def test_pictures_and_a_video_of_one_clip_get_similar_answers(frames, video, tmp_path):
    write_film(tmp_path, "smile", frames)
    first, second = (predict(path, *prepare(path, settings=FAST)) for path in (tmp_path / "smile", video))
    assert first.id == second.id and first.config.views == "single"
    assert first.moments[1] == pytest.approx(second.moments[1], abs=1)


def test_with_spotted_moments_onset_and_offset_are_the_ends_of_the_clip(frames, video):
    result = predict(video, *prepare(video, settings=f"{FAST} moments=spotted"))
    assert (result.moments[0], result.moments[2]) == (0, len(frames) - 1)


def test_a_clip_without_motion_gets_a_warning(frames, tmp_path):
    path = tmp_path / "still.mp4"
    write_video(path, np.stack([frames[0]] * 6))
    result = predict(path, *prepare(path, settings=FAST))
    assert "nothing moves more than the noise" in result.warnings[0]


def test_a_run_gives_its_networks_its_parameters_and_its_calibration(video, run, tmp_path):
    config, model = prepare(video, str(run))
    assert (config.flow_method, config.size, config.moments) == ("dis", 128, "found")
    assert "run mine" in model.origin and "synthetic" in model.origin
    result = predict(video, config, model)
    expected = possible_values(model.scores, CLASSES, result.classes["probability"].to_numpy()[None])[0]
    assert result.classes["answer"].tolist() == [answer(row) for row in expected]
    write_prediction(result, tmp_path / "answer")
    record = json.loads((tmp_path / "answer" / "prediction.json").read_text())
    assert record["classes"]["Others"]["possible"] in (["no"], ["yes"], ["no", "yes"], [])
    assert "12 held-out people" in record["calibration"]


def test_a_run_without_scores_of_held_out_people_gives_no_calibration(video, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("conformal.csv"))
    assert model_of_run(str(copy)).scores is None
    result = predict(video, *prepare(video, str(copy)))
    assert "not calibrated" in record_of(result)["calibration"]


# When an answer abstains --------------------------------------------------------------------------------------------


def people(rng, count, clips):
    """Clips of people, some of whom are easier to judge: probability (N, 1), truth (N, 1), subjects (N,)."""
    subjects = np.repeat(np.arange(count), clips)
    truth = rng.integers(0, 2, (len(subjects), 1))
    ease = rng.normal(1.5, 1.0, count)[subjects, None]
    logit = (2 * truth - 1) * (ease + rng.normal(0, 0.5, truth.shape))
    return 1 / (1 + np.exp(-logit)), truth, subjects


def test_the_truth_of_new_people_is_excluded_about_as_often_as_allowed():
    rng, kept = np.random.default_rng(0), {0: [], 1: []}
    for _ in range(60):
        scores = conformal_scores(out_of_fold(*people(rng, 30, 6)))
        probability, truth, _ = people(rng, 60, 1)
        possible = possible_values(scores, CLASSES[:1], probability)
        for value in (0, 1):
            kept[value].append(possible[truth[:, 0] == value, 0, value].mean())
    for value in (0, 1):
        assert 0.87 < np.mean(kept[value]) < 0.97


def test_each_person_counts_once_whatever_the_number_of_clips():
    scores = conformal_scores(out_of_fold(*people(np.random.default_rng(1), 20, 4)))
    first = scores["person"] == 0
    more = pd.concat([scores[~first], *[scores[first]] * 50])
    probability = np.linspace(0, 1, 101)[:, None]
    expected = possible_values(scores, CLASSES[:1], probability)
    np.testing.assert_array_equal(possible_values(more, CLASSES[:1], probability), expected)


def test_a_value_that_fewer_than_nine_people_showed_is_never_excluded():
    few, enough = (conformal_scores(out_of_fold(np.full((n, 1), 0.99), np.ones((n, 1)), np.arange(n))) for n in (8, 9))
    assert possible_values(few, CLASSES[:1], np.array([[0.0]])).all()
    assert possible_values(enough, CLASSES[:1], np.array([[0.0]])).tolist() == [[[True, False]]]


@pytest.mark.parametrize("possible, words", [("10", "no"), ("01", "yes"), ("11", "cannot tell"), ("00", "cannot tell")])
def test_an_answer_abstains_if_both_values_or_none_are_possible(possible, words):
    assert answer(np.array([digit == "1" for digit in possible])) == words


# What is refused ----------------------------------------------------------------------------------------------------


def test_files_and_folders_that_are_not_clips_are_refused(tmp_path):
    for name in ("notes.txt", "notes.mp4"):
        (tmp_path / name).write_text("no film")
    (tmp_path / "empty").mkdir()
    for name in ("notes.txt", "notes.mp4", "empty", "missing.mp4", "missing"):
        with pytest.raises(DataError, match=f"{name}.*Remedy"):
            prepare(tmp_path / name)


def test_a_run_for_another_number_of_views_is_refused(mesh_clip, run, tmp_path):
    with pytest.raises(DataError, match=r"views=render makes 2 view\(s\) of it.* need 1.*Remedy: set views=single"):
        prepare(mesh_clip, str(run))
    copy = shutil.copytree(run, tmp_path / "copy")
    record = json.loads((run / "run.json").read_text())
    write_artefact(copy / "run.json", record | {"parameters": record["parameters"] | {"views": "split"}})
    with pytest.raises(DataError, match=r"views=split makes 2 view\(s\) of it"):  # a run on composites splits them
        prepare(mesh_clip, str(copy))


def test_a_missing_or_damaged_run_is_refused(video, run, tmp_path):
    with pytest.raises(DataError, match="no-such-run.*Remedy: name a folder that make submit wrote"):
        prepare(video, "no-such-run")
    (tmp_path / "model.json").write_text((run / "model.json").read_text())
    with pytest.raises(DataError, match="cannot be read.*Remedy: copy the whole folder"):
        prepare(video, str(tmp_path))


@pytest.mark.parametrize("settings", ["epochs=3", "moments=given", "views=render"])
def test_settings_that_do_not_suit_one_clip_are_refused(video, settings):
    with pytest.raises(ValueError, match="Remedy"):
        predict(video, *prepare(video, settings=settings))


def test_the_command_prints_a_fault_in_one_line_and_writes_no_file(video, tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("no film")
    (tmp_path / "file").write_text("not a folder")
    for clip, out in ((str(tmp_path / "notes.txt"), "out"), ("", "out"), (str(video), "file")):
        options = ["--input", clip, "--out", str(tmp_path / out), "--set", FAST]
        monkeypatch.setattr(sys, "argv", ["predict", *options])
        with pytest.raises(SystemExit) as ended:
            command.main()
        printed = capsys.readouterr()
        assert ended.value.code == 2 and "Remedy" in printed.err and printed.err.count("\n") == 1
        assert printed.out == (f"{SHIPPED}\n" if clip == str(video) else "")
    assert "name another folder" in printed.err and (tmp_path / "file").read_text() == "not a folder"
    assert not (tmp_path / "out").exists()
