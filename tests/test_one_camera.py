"""Facts about the clips of one camera, from a data root in the layout of CASME II through all notebooks."""

import json
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.notebook_runs import run_notebooks
from helpers.one_camera import film, write_video
from helpers.stand_ins import write_casme2

from utils import pipeline
from utils.artefacts import read_artefact
from utils.config import load_config
from utils.errors import DataError
from utils.evaluate.held_out import Plan, final_network
from utils.evaluate.rows import TUNED_GENTLY
from utils.train.samples import CLASSES
from utils.train.shipped import KINDS, load_pretrained, unit_probabilities
from utils.train.stacking import predict_stack

CLASS_OF = ("Positive", "Surprise", "Negative", "Repression", "Others")  # the classes of `stand_ins.EMOTIONS`


@lru_cache
def filmed(subject, number):
    return film(subject, [CLASS_OF[(subject + number) % 5]], number)


def frontal(subject, number, t, count):
    """Frame t of `count` frames from the onset to the offset of a filmed clip."""
    frames, truth = filmed(subject, number)
    return frames[round(truth["onset"] + (truth["offset"] - truth["onset"]) * t / (count - 1))]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_casme2(tmp_path_factory.mktemp("casme2") / "data", frontal, people=4, clips=3, count=7)


def load_smoke(root, work, settings="views=single"):
    return load_config("smoke", settings, data=str(root), work=str(work), jobs=1)


@pytest.fixture(scope="module")
def stages(root):
    """The configuration of the root, its tables, and the results of stages 01 and 02."""
    config = load_smoke(root, root.parent / "stages")
    data = pipeline.load_data(config)
    manifest, moments = pipeline.render_all(config, data), pipeline.extract_all(config, data)
    samples = pipeline.load_samples(config, data, "train")
    return SimpleNamespace(config=config, data=data, manifest=manifest, moments=moments, samples=samples)


def test_clips_of_one_camera_have_one_view_of_the_face(stages):
    manifest, size, x = stages.manifest, stages.config.size, stages.samples.x
    assert (manifest["crop"] == "detector").all() and (manifest["warning"] == "").all() and len(manifest) == 12
    frames = read_artefact(stages.config.work_root / "views" / "train" / "sub01_EP02_01f.npz")["frames"]
    assert frames.shape == (7, 1, size, size, 3)
    assert x.shape == (12, 1, 2, 3, 28, 28) and np.abs(x).max() > 0.1


def test_without_a_test_split_there_are_no_test_samples(stages):
    assert stages.data.test_ids == [] and len(pipeline.load_samples(stages.config, stages.data, "test")) == 0


def test_given_moments_are_used_for_the_clips_that_have_all_three(stages):
    given = load_smoke(stages.config.data, stages.config.work, "views=single moments=given")
    moments = pipeline.extract_all(given, stages.data).set_index("Id")
    without_apex = "sub01_EP03_01f"
    assert (moments["apex"].drop(without_apex) == 3).all() and (moments["offset"] == 6).all()
    assert moments.loc[without_apex, "apex"] == stages.moments.set_index("Id").loc[without_apex, "apex"]


def test_the_pretrained_network_is_the_shipped_one_for_one_view(stages):
    x, stack = stages.samples.x, final_network(Plan.of(stages.config), stages.samples)
    assert stack.leading.model_config.views == 1 and KINDS[stages.config.n_views] == "frontal"
    assert stack.parts[TUNED_GENTLY].members[0].missing == ()
    assert predict_stack(stack, x)[0].shape == (12, len(CLASSES)) and unit_probabilities("frontal", x).shape[0] == 12
    assert load_pretrained("frontal").model_config.views == 1


def test_moments_after_the_end_of_a_video_are_refused(tmp_path):
    frames = np.stack([frontal(1, 0, t, 7) for t in range(7)])
    for split, name in (("train", "a"), ("train", "b"), ("test", "c")):
        (tmp_path / split).mkdir(exist_ok=True)
        write_video(tmp_path / split / f"{name}.mp4", frames)
    head = ",".join(CLASSES)
    rows = "a,s1,0,3,6,1,0,0,0,0\nb,s2,0,3,60,1,0,0,0,0\n"
    (tmp_path / "train.csv").write_text(f"Id,subject,onset,apex,offset,{head}\n{rows}")
    (tmp_path / "sample_submission.csv").write_text(f"Id,{head}\nc,0,0,0,0,0\n")
    config = load_smoke(tmp_path, tmp_path / "work", "views=single moments=given")
    jobs = pipeline.jobs_by_id(config, pipeline.load_data(config))
    assert jobs["a"].features()["moments"].tolist() == [0, 3, 6]
    with pytest.raises(DataError, match="b.mp4: its table names frame 60, counted from 0, of 7.*Remedy"):
        jobs["b"].features()


def test_all_notebooks_run_on_one_camera_without_a_test_split(root):
    out, work = run_notebooks(root.parent, "views=single"), root.parent / "work"
    record = json.loads((out / "run.json").read_text())
    assert record["parameters"]["views"] == "single" and 0 < record["scores"]["held_out"]["macro_uf1"] < 1
    assert not (out / "submission.csv").exists() and list(out.glob("*.safetensors"))
    table = pd.DataFrame(json.loads((work / "records" / "04_ablation.json").read_text())["scores"]["table"])
    assert {"from scratch", "pretrained, tuned gently", "zero-shot"} <= set(table["variant"])
    for stage in ("01", "02", "03", "04"):
        assert list((work / "figures").glob(f"{stage}_*.png")), stage
