"""Facts about the answer for one clip: its files, whose networks give it, what it leaves open, and what is refused."""

import json
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
def clip(tmp_path_factory):
    """A video of one person who is surprised, and its number of frames."""
    path = tmp_path_factory.mktemp("clip") / "smile.mp4"
    frames, _ = film(1, ["Surprise"], 3)
    write_video(path, frames, fps=50.0)
    return path, len(frames)


def out_of_fold(probability, truth, subjects):
    """Held-out predictions of one seed and fold from arrays (N, K), (N, K), (N,)."""
    n, k = truth.shape
    ids, names = np.arange(n).astype(str), CLASSES[:k]
    thresholds, decision = np.full((1, 1, k), 0.5), probability[None] > 0.5
    fold = np.zeros(n, int)
    return OutOfFold(
        names, ids, subjects, fold, (0,), truth > 0, probability[None], decision, thresholds, [[{}]], seconds=0.0
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run on one camera's clips of twelve people, whose networks were trained for a moment."""
    rng, subjects = np.random.default_rng(0), np.repeat([f"S{i:02d}" for i in range(12)], 4)
    truth, ids = rng.integers(0, 2, (48, 5)), np.arange(48).astype(str)
    samples = Samples(rng.normal(size=(48, 1, 2, 3, 28, 28)), truth, ids, subjects, CLASSES)
    way = Learner(ModelConfig(views=1), TrainConfig(epochs=1))
    stack = fit_stack(samples, grouped_folds(truth, subjects, 2), {"plain": way})
    folder = tmp_path_factory.mktemp("runs") / "mine"
    save_stack(stack, folder)
    parameters = load_config("smoke", "views=single flow_method=dis").record
    data = {"training": 48, "test": 0, "synthetic": True}
    write_artefact(folder / "run.json", {"parameters": parameters, "data": data})
    held_out = out_of_fold(predict_stack(stack, samples.x)[0], truth, subjects)
    write_artefact(folder / "conformal.csv", conformal_scores(held_out))
    return folder


# The answer ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answered(clip, tmp_path_factory):
    """What the command prints of the clip, and the folder that it leaves."""
    out = tmp_path_factory.mktemp("out") / "answer"
    options = ["--input", str(clip[0]), "--out", str(out), "--set", FAST]
    done = subprocess.run([sys.executable, "-m", "utils.predict", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, out


def test_a_video_gets_probabilities_moments_and_units_and_no_claim_for_real_people(answered, clip):
    printed, out = answered
    found = json.loads((out / "prediction.json").read_text())
    assert list(found["classes"]) == list(CLASSES) and found["input"] == "smile"
    assert all(0 <= one["probability"] <= 1 and one["answer"] is None for one in found["classes"].values())
    moments = found["moments"]
    assert 0 <= moments["onset"] < moments["apex"] < moments["offset"] < clip[1] == found["frames"]
    assert {au: one["name"] for au, one in found["action_units"].items()} == AU_NAMES
    assert {one["side"] for one in found["action_units"].values()} <= {"left", "right", "both", None}
    assert printed.splitlines()[0] == SHIPPED == found["weights"] and "no real person" in SHIPPED
    assert {path.name for path in out.iterdir()} == {"prediction.json", "prediction.png", "overlay.mp4"}


def test_the_overlay_is_the_clip_with_colour_between_onset_and_offset_alone(answered, clip):
    with av.open(answered[1] / "overlay.mp4") as source:
        rate, codec = source.streams.video[0].average_rate, source.streams.video[0].codec_context.name
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]).astype(float)
    assert len(frames) == clip[1] and frames.shape[1:] == (128, 128, 3) and (rate, codec) == (50, "h264")
    found = json.loads((answered[1] / "prediction.json").read_text())["moments"]
    changed = np.abs(frames - frames[0]).mean(axis=(1, 2, 3))
    assert changed[found["apex"]] > 3 * changed[-1]


def test_a_4d_sequence_is_rendered_and_judged_by_the_weights_that_ship_for_two_views(tiny):
    data = load_data(tiny)
    path = data.folder("train", data.train["Id"][0])
    config, model = prepare(path, settings=FAST)
    found = predict(path, config, model)
    assert config.views == "render" and model.origin == SHIPPED and found.views.stabilised
    assert found.flows.shape[:2] == (2, 2) and found.classes["probability"].between(0, 1).all()
    assert prepare(path, settings="views=split")[0].n_views == 2


def test_pictures_of_one_camera_are_judged_as_the_video_is(clip, tmp_path):
    frames, _ = film(1, ["Surprise"], 3)
    write_film(tmp_path, "smile", frames, "")
    both = [predict(path, *prepare(path, settings=FAST)) for path in (tmp_path / "smile", clip[0])]
    assert both[0].id == both[1].id and both[0].config.views == "single"
    assert both[0].moments[1] == pytest.approx(both[1].moments[1], abs=1)


def test_a_clip_cut_from_onset_to_offset_keeps_its_ends(clip):
    path, count = clip
    found = predict(path, *prepare(path, settings=f"{FAST} moments=spotted"))
    assert (found.moments[0], found.moments[2]) == (0, count - 1)


def test_of_a_clip_in_which_nothing_moves_the_answer_says_so(tmp_path):
    path = tmp_path / "still.mp4"
    write_video(path, np.stack([film(1, ["Surprise"], 3)[0][0]] * 6))
    found = predict(path, *prepare(path, settings=FAST))
    assert "nothing moves by more than noise" in found.warnings[0]


def test_a_runs_networks_and_its_parameters_are_used_and_its_held_out_people_speak(clip, run, tmp_path):
    config, model = prepare(clip[0], str(run))
    assert (config.flow_method, config.size, config.moments) == ("dis", 128, "found")
    assert "run mine" in model.origin and "synthetic" in model.origin
    found = predict(clip[0], config, model)
    expected = possible_values(model.scores, CLASSES, found.classes["probability"].to_numpy()[None])[0]
    assert found.classes["answer"].tolist() == [answer(row) for row in expected]
    write_prediction(found, tmp_path / "answer")
    record = json.loads((tmp_path / "answer" / "prediction.json").read_text())
    assert record["classes"]["Others"]["possible"] in (["no"], ["yes"], ["no", "yes"], [])
    assert "12 held-out ones" in record["calibration"]


def test_a_run_that_kept_no_held_out_people_calibrates_nothing(clip, run, tmp_path):
    for file in run.iterdir():
        if file.name != "conformal.csv":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert model_of_run(str(tmp_path)).scores is None
    found = predict(clip[0], *prepare(clip[0], str(tmp_path)))
    assert "nothing is calibrated" in record_of(found)["calibration"]


# Answers that may abstain -------------------------------------------------------------------------------------------


def people(rng, count, each):
    """Clips of people, each with an ease of its own to be judged right: probability, truth (N, 1), subjects (N,)."""
    subjects = np.repeat(np.arange(count), each)
    truth = rng.integers(0, 2, (len(subjects), 1))
    ease = rng.normal(1.5, 1.0, count)[subjects, None]
    logit = (2 * truth - 1) * (ease + rng.normal(0, 0.5, truth.shape))
    return 1 / (1 + np.exp(-logit)), truth, subjects


@pytest.mark.parametrize("error", [0.1, 0.3])
def test_the_truth_of_new_people_is_excluded_about_as_often_as_is_allowed(error):
    rng, kept = np.random.default_rng(0), {0: [], 1: []}
    for _ in range(60):
        scores = conformal_scores(out_of_fold(*people(rng, 30, 6)))
        probability, truth, _ = people(rng, 60, 1)
        possible = possible_values(scores, CLASSES[:1], probability, error)
        for value in (0, 1):
            own = truth[:, 0] == value
            kept[value].append(possible[own, 0, value].mean())
    for value in (0, 1):
        assert 1 - error - 0.03 < np.mean(kept[value]) < 1 - error + 0.07


def test_each_person_has_one_voice_however_many_clips():
    scores = conformal_scores(out_of_fold(*people(np.random.default_rng(1), 20, 4)))
    first = scores["person"] == 0
    more = pd.concat([scores[~first], *[scores[first]] * 50])
    probability = np.linspace(0, 1, 101)[:, None]
    expected = possible_values(scores, CLASSES[:1], probability)
    np.testing.assert_array_equal(possible_values(more, CLASSES[:1], probability), expected)


def test_what_fewer_than_nine_people_showed_is_never_excluded():
    few, enough = (conformal_scores(out_of_fold(np.full((n, 1), 0.99), np.ones((n, 1)), np.arange(n))) for n in (8, 9))
    assert possible_values(few, CLASSES[:1], np.array([[0.0]])).all()
    assert possible_values(enough, CLASSES[:1], np.array([[0.0]])).tolist() == [[[True, False]]]


@pytest.mark.parametrize("possible, words", [("10", "no"), ("01", "yes"), ("11", "cannot tell"), ("00", "cannot tell")])
def test_an_answer_abstains_where_both_values_are_possible_or_neither_is(possible, words):
    assert answer(np.array([digit == "1" for digit in possible])) == words


def test_what_a_run_keeps_of_held_out_people_does_not_name_them(run):
    text = (run / "conformal.csv").read_text()
    assert text.splitlines()[0] == "class,value,person,score" and "S0" not in text


# What is refused ----------------------------------------------------------------------------------------------------


def test_what_is_no_clip_is_refused(tmp_path):
    for name, text in (("notes.txt", "no film"), ("notes.mp4", "no film")):
        (tmp_path / name).write_text(text)
    (tmp_path / "empty").mkdir()
    for name in ("notes.txt", "notes.mp4", "empty", "missing.mp4", "missing"):
        with pytest.raises(DataError, match=f"{name}.*Remedy"):
            prepare(tmp_path / name)


def test_a_run_of_another_number_of_views_is_refused(tiny, clip, run):
    data = load_data(tiny)
    path = data.folder("train", data.train["Id"][0])
    with pytest.raises(DataError, match="views=render makes 2 of it.* take 1.*Remedy: set views=single"):
        prepare(path, str(run))


def test_a_run_on_composites_cuts_the_composites_of_a_mesh(tiny, run, tmp_path):
    data = load_data(tiny)
    path = data.folder("train", data.train["Id"][0])
    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = json.loads((run / "run.json").read_text())
    write_artefact(tmp_path / "run.json", record | {"parameters": record["parameters"] | {"views": "split"}})
    with pytest.raises(DataError, match="views=split makes 2 of it"):
        prepare(path, str(tmp_path))


def test_a_run_that_is_none_or_is_damaged_is_refused(clip, run, tmp_path):
    with pytest.raises(DataError, match="no-such-run.*Remedy: name a folder that make submit left"):
        prepare(clip[0], "no-such-run")
    (tmp_path / "model.json").write_text((run / "model.json").read_text())
    with pytest.raises(DataError, match="cannot be read.*Remedy: copy the folder whole"):
        prepare(clip[0], str(tmp_path))


@pytest.mark.parametrize("settings", ["epochs=3", "moments=given", "views=render"])
def test_settings_that_do_not_belong_to_one_clip_are_refused(clip, settings):
    with pytest.raises(ValueError, match="Remedy"):
        predict(clip[0], *prepare(clip[0], settings=settings))


def test_the_command_says_what_is_wrong_in_a_line_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("no film")
    for clip in (str(tmp_path / "notes.txt"), ""):
        monkeypatch.setattr(sys, "argv", ["predict", "--input", clip, "--out", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as ended:
            command.main()
        said = capsys.readouterr()
        assert ended.value.code == 2 and "Remedy" in said.err and said.err.count("\n") == 1 and said.out == ""
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused(clip, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").write_text("a file")
    options = ["--input", str(clip[0]), "--out", str(tmp_path / "out"), "--set", FAST]
    monkeypatch.setattr(sys, "argv", ["predict", *options])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2 and "Remedy: name another folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "a file"
