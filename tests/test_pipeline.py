"""Facts about the stages over all clips: shapes, reuse of artefacts, and clips that cannot be read."""

import shutil
import struct
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.data import refusing

from utils import artefacts, pipeline
from utils.dataset.boxes import read_boxes
from utils.dataset.images import write_image
from utils.dataset.labels import MOMENT_COLUMNS
from utils.errors import DataError
from utils.pipeline import extract_all, jobs_by_id, jobs_of, load_data, load_moments, load_samples, render_all
from utils.train.samples import CLASSES, Samples


@pytest.fixture
def copied(tiny_run, tmp_path):
    """The configuration of a copy of the tiny root and its artefacts, which a test may damage."""
    shutil.copytree(tiny_run.config.data_root, tmp_path / "data")
    shutil.copytree(tiny_run.config.work_root, tmp_path / "work")
    return replace(tiny_run.config, data=str(tmp_path / "data"), work=str(tmp_path / "work"))


@pytest.fixture
def data(copied):
    """The tables of the copied root before the test changes them."""
    return load_data(copied)


def times(config):
    """When each artefact of a clip was written, by relative path."""
    paths = [path for job in jobs_of(config, load_data(config)) for path in (job.views_path, job.features_path)]
    return {path.relative_to(config.work_root): path.stat().st_mtime_ns for path in paths if path.exists()}


def features_of_training(config):
    return Samples.load(config.work_root / "features" / "train.npz").x


def cut_off(file):
    file.write_bytes(file.read_bytes()[:2000])


# Results ------------------------------------------------------------------------------------------------------------


def test_the_manifest_and_the_moments_list_every_clip(tiny_run):
    manifest, moments, config = tiny_run.manifest, tiny_run.moments, tiny_run.config
    assert manifest["Id"].tolist() == [*tiny_run.data.train["Id"], *tiny_run.data.test_ids]
    assert list(manifest) == ["Id", "split", "n_frames", "crop", "stabilised", "warning"]
    assert (manifest["n_frames"] == 6).all() and (manifest["crop"] == "mesh").all()
    assert manifest["stabilised"].all() and (manifest["warning"] == "").all()
    stored = pd.read_csv(config.work_root / "views" / "manifest.csv", keep_default_na=False)
    assert stored["Id"].tolist() == moments["Id"].tolist() == manifest["Id"].tolist()
    assert (moments["onset"] == 0).all() and (moments["offset"] == 5).all() and moments["apex"].between(1, 4).all()


def test_views_have_the_size_of_the_configuration(tiny_run):
    config = tiny_run.config
    for job in jobs_of(config, tiny_run.data):
        views = job.views()
        assert views.frames.shape == (6, 2, config.size, config.size, 3) and views.frames.dtype == np.uint8
        assert views.masks.shape == (2, config.size, config.size) and views.boxes.shape == (2, 3)
        assert (views.source, views.stabilised, views.warnings) == ("mesh", True, ())


def test_training_samples_have_labels_and_subjects_and_test_samples_have_none(tiny_run):
    config, table = tiny_run.config, tiny_run.data.train.set_index("Id")
    train, test = (load_samples(config, tiny_run.data, split) for split in ("train", "test"))
    assert train.x.shape == (6, 2, 2, 3, config.feature_size, config.feature_size)
    assert len(np.unique(train.x.reshape(6, -1), axis=0)) == 6  # no two clips have the same features
    assert train.classes == CLASSES and sorted(train.ids) == sorted(table.index)
    for id, y, subject in zip(train.ids, train.y, train.subjects, strict=True):
        assert y.tolist() == table.loc[id, list(CLASSES)].tolist() and subject == table.loc[id, "subject"]
    assert test.ids.tolist() == tiny_run.data.test_ids and not test.y.any() and test.x.any()


def test_two_workers_compute_the_same_features_as_one(copied, data):
    before = features_of_training(copied)
    shutil.rmtree(copied.work_root / "features" / "train")
    extract_all(replace(copied, jobs=2), data)
    assert np.array_equal(features_of_training(copied), before)


def test_views_can_be_split_from_the_composites(copied, data):
    config = replace(copied, views="split", work=copied.work + "-split")
    manifest = render_all(config, data)
    assert (manifest["crop"] == "mesh").all() and not manifest["stabilised"].any()
    extract_all(config, data)
    split, rendered = features_of_training(config), features_of_training(copied)
    assert split.shape == rendered.shape and not np.array_equal(split, rendered)


def test_given_moments_replace_the_spotted_ones_of_a_clip_that_has_all_three(copied):
    columns = list(MOMENT_COLUMNS)
    table = pd.read_csv(copied.data_root / "train.csv", dtype=dict.fromkeys(columns, "Int64"))
    table.loc[0, columns] = [1, 3, 4]
    table.loc[1, columns] = [1, pd.NA, 4]
    table.to_csv(copied.data_root / "train.csv", index=False)
    data = load_data(copied)
    spotted, given = load_moments(copied, data), load_moments(replace(copied, moments="given"), data)
    assert given.loc[0, columns].tolist() == [1, 3, 4]
    assert given.loc[1, ["onset", "offset"]].tolist() == spotted.loc[1, ["onset", "offset"]].tolist() == [0, 5]
    assert given["spotted"].tolist() == spotted["apex"].tolist()


BOXES = "Id,left_x,left_y,left_side,right_x,right_y,right_side\n"


def test_a_table_of_boxes_replaces_only_the_crops_of_its_ids(copied, data):
    first, second = data.train["Id"].iloc[:2]
    (copied.data_root / "boxes.csv").write_text(BOXES + f"{first},100,110,200,120,115,210\n")
    manifest = render_all(copied, data).set_index("Id")
    assert (manifest.loc[first, "crop"], manifest.loc[second, "crop"]) == ("override", "mesh")
    assert jobs_by_id(copied, data)[first].views().boxes.tolist() == [[100, 110, 200], [120, 115, 210]]


@pytest.mark.parametrize("row", ["1,2,0,1,2,3", "1,2,x,1,2,3", "1,2,,1,2,3"])
def test_a_wrong_box_is_refused_with_file_and_id(tmp_path, row):
    (tmp_path / "boxes.csv").write_text(BOXES + f"S01_001,{row}\n")
    with pytest.raises(DataError, match=r"boxes\.csv.*S01_001.*Remedy"):
        read_boxes(tmp_path, 2)


# Reuse --------------------------------------------------------------------------------------------------------------


def test_a_second_run_makes_nothing_again_even_if_the_folders_were_copied(tiny_run, copied, data, monkeypatch):
    before = times(copied)
    assert len(before) == 18
    for name in ("views_of", "features_of"):
        monkeypatch.setattr(pipeline, name, refusing(getattr(pipeline, name)))
    assert render_all(copied, data).equals(tiny_run.manifest) and extract_all(copied, data).equals(tiny_run.moments)
    assert times(copied) == before


def test_only_a_damaged_artefact_is_made_again(copied, data):
    before, job = times(copied), jobs_of(copied, data)[1]
    cut_off(job.views_path)
    render_all(copied, data)
    extract_all(copied, data)
    after = times(copied)
    assert job.views().frames.shape[0] == 6
    assert {file for file in before if before[file] != after[file]} == {job.views_path.relative_to(copied.work_root)}


def test_another_feature_size_makes_new_features_but_no_new_views(copied, data):
    before, smaller = times(copied), replace(copied, feature_size=14)
    render_all(smaller, data)
    extract_all(smaller, data)
    changed = {file.parts[0] for file, time in times(copied).items() if before[file] != time}
    assert changed == {"features"} and features_of_training(copied).shape[-1] == 14


LOSSES = {
    "views and features of a clip": lambda work, id: [path.unlink() for path in work.rglob(f"{id}.npz")],
    "everything": lambda work, id: shutil.rmtree(work),
    "samples": lambda work, id: cut_off(work / "features" / "train.npz"),
    "moments": lambda work, id: (work / "features" / "moments.csv").write_text("Id\n"),
}


@pytest.mark.parametrize("lost", LOSSES)
def test_a_later_stage_makes_lost_inputs_again(copied, data, tiny_run, lost):
    before = load_samples(tiny_run.config, tiny_run.data, "train")
    LOSSES[lost](copied.work_root, before.ids[1])
    moments, samples = load_moments(copied, data), load_samples(copied, data, "train")
    assert np.array_equal(samples.x, before.x) and samples.ids.tolist() == before.ids.tolist()
    assert moments["apex"].tolist() == tiny_run.moments["apex"].tolist()


def test_a_changed_label_is_noticed(copied):
    table = pd.read_csv(copied.data_root / "train.csv")
    table.loc[0, "Negative"] = 1 - table.loc[0, "Negative"]
    table.to_csv(copied.data_root / "train.csv", index=False)
    assert load_samples(copied, load_data(copied), "train").y[0, 0] == table.loc[0, "Negative"]


# Clips that cannot be read ------------------------------------------------------------------------------------------


def test_a_composite_of_odd_width_is_refused(copied, data):
    folder = data.folder("train", data.train["Id"][0])
    (folder / "clip.npz").unlink()
    for t in range(6):
        write_image(folder / f"frame_{t:04d}.png", np.zeros((64, 127, 3), np.uint8))
    with pytest.raises(DataError, match="frame_0000.png.*width 127 is odd.*Remedy"):
        render_all(replace(copied, views="split"), data)


@pytest.mark.parametrize("damage", [lambda folder: cut_off(folder / "frame_0000.png"), shutil.rmtree])
def test_a_broken_or_missing_test_clip_gives_a_warning_until_it_is_repaired(copied, data, damage):
    ids, broken = data.test_ids, data.test_ids[1]
    folder = data.folder("test", broken)
    backup = shutil.copytree(folder, copied.data + "-backup")
    damage(folder)
    data = load_data(copied)
    manifest = render_all(copied, data).set_index("Id")
    assert str(folder) in manifest.loc[broken, "warning"] and "training prior" in manifest.loc[broken, "warning"]
    assert (manifest.drop(broken)["warning"] == "").all() and manifest.loc[broken, "n_frames"] == 0
    moments = extract_all(copied, data).set_index("Id")  # the features from before the damage are not used
    assert moments["apex"].isna().tolist() == [id == broken for id in moments.index]
    assert load_samples(copied, data, "test").ids.tolist() == [id for id in ids if id != broken]
    ((unread, warning),) = pipeline.unread_clips(copied, data).items()
    assert unread == broken and str(folder) in warning
    shutil.copytree(backup, folder, dirs_exist_ok=True)
    data = load_data(copied)
    assert load_samples(copied, data, "test").ids.tolist() == ids and not pipeline.unread_clips(copied, data)


def test_a_test_clip_without_permission_to_read_gives_a_warning(copied, data, monkeypatch):
    """The key of its views reads its files before any of them is opened as an image."""
    closed = data.folder("test", data.test_ids[0])
    fingerprint = artefacts._fingerprint

    def refuse(path, root):
        if path.parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return fingerprint(path, root)

    monkeypatch.setattr(artefacts, "_fingerprint", refuse)
    assert load_samples(copied, data, "test").ids.tolist() == data.test_ids[1:]
    assert "Permission denied" in pipeline.unread_clips(copied, data)[closed.name]


def test_a_run_without_any_readable_test_clip_is_refused(copied, data):
    for id in data.test_ids:
        cut_off(data.folder("test", id) / "frame_0000.png")
    assert (render_all(copied, data).query("split == 'test'")["warning"] != "").all()
    with pytest.raises(DataError, match="test: no clip.*manifest.csv"):
        extract_all(copied, data)


def bomb(data):
    """Write a size of 20000 x 20000 pixels into the header of a PNG."""
    header = b"IHDR" + struct.pack(">II", 20000, 20000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def picture(change):
    """A damage that changes the bytes of one picture of a clip."""

    def damage(folder):
        path = folder / "frame_0001.png"
        path.write_bytes(change(path.read_bytes()))

    return damage


def array(name, change):
    """A damage that changes one array of a clip."""

    def damage(folder):
        with np.load(folder / "clip.npz") as clip:
            arrays = dict(clip)
        np.savez(folder / "clip.npz", **arrays | {name: change(arrays[name])})

    return damage


PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop"
DAMAGES = {
    "a cut picture": picture(lambda data: data[:2000]),
    "a bomb": picture(bomb),
    "a program": picture(lambda data: PROGRAM),
    "an altered pixel": picture(lambda data: data[:-40] + bytes([data[-40] ^ 255]) + data[-39:]),
    "texts": array("faces", lambda faces: faces.astype(str)),
    "one point": array("vertices", lambda vertices: vertices * 0),
    "no area": array("faces", lambda faces: faces * 0),
    "uv in pixels": array("uv", lambda uv: uv * 640),
    "out of sight": array("vertices", lambda vertices: vertices + np.arange(6)[:, None, None] * 3000),
    "objects": array("fps", lambda fps: np.array([{}], dtype=object)),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_any_damage_gives_a_test_clip_a_warning_and_stops_the_run_for_a_training_clip(copied, data, at_most, name):
    jobs = jobs_by_id(replace(copied, stabilise=False, work=copied.work + "-new"), data)
    test, train = jobs[data.test_ids[0]], jobs[data.train["Id"][0]]
    for job in (test, train):
        DAMAGES[name](job.folder)
    with at_most(60):
        warning = pipeline._render(test)["warning"]
        assert str(test.folder) in warning and warning.endswith("the training prior.")
        with pytest.raises(DataError, match=f"{train.folder}.*Remedy: "):
            pipeline._render(train)


def test_an_error_in_our_own_code_does_not_become_a_warning(copied, data, monkeypatch):
    job = jobs_by_id(replace(copied, work=copied.work + "-new"), data)[data.test_ids[0]]
    monkeypatch.setattr("utils.render.views.mesh_box", lambda vertices, camera: vertices["no such key"])
    with pytest.raises(IndexError):
        pipeline._render(job)
