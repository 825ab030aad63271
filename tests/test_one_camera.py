"""Facts about one camera's clips, from a data root in the layout of CASME II through all notebooks."""

import json
from functools import lru_cache

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
from utils.evaluate.rows import PRETRAINED
from utils.train.samples import CLASSES
from utils.train.shipped import KINDS, load_pretrained, unit_probabilities
from utils.train.stacking import predict_stack

CLASS_OF = ("Positive", "Surprise", "Negative", "Repression", "Others")  # of `stand_ins.EMOTIONS`


@lru_cache
def filmed(subject, number):
    return film(subject, [CLASS_OF[(subject + number) % 5]], number)


def frontal(subject, number, t, count):
    """Frame t of `count` from the onset to the offset of a filmed clip."""
    frames, truth = filmed(subject, number)
    return frames[round(truth["onset"] + (truth["offset"] - truth["onset"]) * t / (count - 1))]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_casme2(tmp_path_factory.mktemp("casme2") / "data", frontal, people=4, each=3, count=7)


@pytest.fixture(scope="module")
def config(root):
    return load_config("smoke", "views=single", data=str(root), work=str(root.parent / "stages"), jobs=1)


@pytest.fixture(scope="module")
def stages(config):
    """The root after the two image stages: data, manifest, moments."""
    data = pipeline.load_data(config)
    return data, pipeline.render_all(config, data), pipeline.extract_all(config, data)


def test_clips_of_one_camera_have_one_view_of_the_face(config, stages):
    data, manifest, _ = stages
    assert (manifest["crop"] == "detector").all() and (manifest["warning"] == "").all() and len(manifest) == 12
    frames = read_artefact(config.work_root / "views" / "train" / "sub01_EP02_01f.npz")["frames"]
    assert frames.shape == (7, 1, config.size, config.size, 3)
    samples = pipeline.load_samples(config, data, "train")
    assert samples.x.shape == (12, 1, 2, 3, 28, 28) and np.abs(samples.x).max() > 0.1


def test_without_a_test_split_there_are_no_test_samples(config, stages):
    assert stages[0].test_ids == [] and len(pipeline.load_samples(config, stages[0], "test")) == 0


def test_the_given_moments_are_used_where_all_three_are_known(config, stages):
    data, _, spotted = stages
    given = load_config("smoke", "views=single moments=given", data=config.data, work=config.work, jobs=1)
    moments = pipeline.extract_all(given, data).set_index("Id")
    assert (moments["apex"].drop("sub01_EP03_01f") == 3).all() and (moments["offset"] == 6).all()
    unknown = spotted.set_index("Id").loc["sub01_EP03_01f", "apex"]
    assert moments.loc["sub01_EP03_01f", "apex"] == unknown


def test_the_network_for_one_view_is_the_pretrained_one(config, stages):
    samples = pipeline.load_samples(config, stages[0], "train")
    ensemble = final_network(Plan.of(config), samples)
    assert ensemble.leading.model_config.views == 1 and KINDS[config.n_views] == "frontal"
    assert ensemble.parts[PRETRAINED].members[0].missing == ()
    assert predict_stack(ensemble, samples.x)[0].shape == (12, len(CLASSES))
    assert unit_probabilities("frontal", samples.x).shape[0] == 12
    assert load_pretrained("frontal").model_config.views == 1


def test_moments_beyond_the_end_of_a_video_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    rows = ["Id,subject,onset,apex,offset," + ",".join(CLASSES)]
    for name, last in (("a", 6), ("b", 60)):
        write_video(tmp_path / "train" / f"{name}.mp4", np.stack([frontal(1, 0, t, 7) for t in range(7)]))
        rows.append(f"{name},s{name},0,3,{last},1,0,0,0,0")
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "test").mkdir()
    write_video(tmp_path / "test" / "c.mp4", np.stack([frontal(1, 0, t, 7) for t in range(7)]))
    (tmp_path / "sample_submission.csv").write_text(f"Id,{','.join(CLASSES)}\nc,0,0,0,0,0\n")
    settings = "views=single moments=given"
    config = load_config("smoke", settings, data=str(tmp_path), work=str(tmp_path / "work"), jobs=1)
    jobs = pipeline.jobs_by_id(config, pipeline.load_data(config))
    assert jobs["a"].features()["moments"].tolist() == [0, 3, 6]
    with pytest.raises(DataError, match="b.mp4: its table names frame 60, counted from 0, of 7.*Remedy"):
        jobs["b"].features()


def test_all_notebooks_run_on_one_camera_without_a_test_split(root):
    out = run_notebooks(root.parent, "views=single")
    assert json.loads((out / "run.json").read_text())["parameters"]["views"] == "single"
    assert 0 < json.loads((out / "run.json").read_text())["scores"]["held_out"]["macro_uf1"] < 1
    assert not (out / "submission.csv").exists() and list(out.glob("*.safetensors"))
    table = pd.DataFrame(
        json.loads((root.parent / "work" / "records" / "04_ablation.json").read_text())["scores"]["table"]
    )
    assert {"ours, from scratch", "ours, pretrained", "zero-shot"} <= set(table["variant"])
    for stage in ("01", "02", "03", "04"):
        assert list((root.parent / "work" / "figures").glob(f"{stage}_*.png")), stage
