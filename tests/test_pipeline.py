"""Facts about the stages over all sequences: shapes, reuse, and what a broken clip does."""

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
from utils.errors import DataError
from utils.pipeline import (
    extract_all,
    jobs_by_id,
    jobs_of,
    load_data,
    load_moments,
    load_samples,
    render_all,
    unread_clips,
)
from utils.train.samples import CLASSES, Samples


@pytest.fixture
def copied(tiny_run, tmp_path):
    """The tiny root and what was made of it, to be broken."""
    shutil.copytree(tiny_run.config.data_root, tmp_path / "data")
    shutil.copytree(tiny_run.config.work_root, tmp_path / "work")
    return replace(tiny_run.config, data=str(tmp_path / "data"), work=str(tmp_path / "work"))


def times(config):
    """When each artefact of a clip was written."""
    files = [job_file for job in jobs_of(config, load_data(config)) for job_file in (job.views_path, job.features_path)]
    return {file.relative_to(config.work_root): file.stat().st_mtime_ns for file in files if file.exists()}


def cut_off(file):
    file.write_bytes(file.read_bytes()[:2000])


def test_every_sequence_is_rendered_and_stands_in_the_manifest(tiny_run):
    manifest, config = tiny_run.manifest, tiny_run.config
    assert manifest["Id"].tolist() == [*tiny_run.data.train["Id"], *tiny_run.data.test_ids]
    assert list(manifest) == ["Id", "split", "n_frames", "crop", "stabilised", "warning"]
    assert (manifest["n_frames"] == 6).all() and (manifest["crop"] == "mesh").all()
    assert manifest["stabilised"].all() and (manifest["warning"] == "").all()
    stored = pd.read_csv(config.work_root / "views" / "manifest.csv", keep_default_na=False)
    assert stored["Id"].tolist() == manifest["Id"].tolist()


def test_views_on_disk_have_the_size_of_the_config(tiny_run):
    config = tiny_run.config
    for job in jobs_of(config, tiny_run.data):
        views = job.views()
        assert views.frames.shape == (6, 2, config.size, config.size, 3) and views.frames.dtype == np.uint8
        assert views.masks.shape == (2, config.size, config.size) and views.boxes.shape == (2, 3)
        assert (views.source, views.stabilised, views.warnings) == ("mesh", True, ())


def test_samples_have_the_networks_shape_labels_and_subjects(tiny_run):
    config, table = tiny_run.config, tiny_run.data.train.set_index("Id")
    train = Samples.load(config.work_root / "features" / "train.npz")
    assert train.x.shape == (6, 2, 2, 3, config.feature_size, config.feature_size)
    assert train.classes == CLASSES and sorted(train.ids) == sorted(table.index)
    for id, y, subject in zip(train.ids, train.y, train.subjects, strict=True):
        assert y.tolist() == table.loc[id, list(CLASSES)].tolist() and subject == table.loc[id, "subject"]


def test_test_samples_know_no_labels(tiny_run):
    test = Samples.load(tiny_run.config.work_root / "features" / "test.npz")
    assert test.ids.tolist() == tiny_run.data.test_ids
    assert not test.y.any() and test.x.any()


def test_moments_lie_within_the_sequences(tiny_run):
    moments = tiny_run.moments
    assert moments["Id"].tolist() == tiny_run.manifest["Id"].tolist()
    assert (moments["onset"] == 0).all() and (moments["offset"] == 5).all()
    assert moments["apex"].between(1, 4).all()


def test_features_differ_from_clip_to_clip(tiny_run):
    x = Samples.load(tiny_run.config.work_root / "features" / "train.npz").x
    assert len(np.unique(x.reshape(len(x), -1), axis=0)) == len(x)


def test_a_repeated_run_makes_nothing_anew(tiny_run, monkeypatch):
    before = times(tiny_run.config)
    assert len(before) == 18
    for name in ("views_of", "features_of"):
        monkeypatch.setattr(pipeline, name, refusing(getattr(pipeline, name)))
    manifest, moments = (stage(tiny_run.config, tiny_run.data) for stage in (render_all, extract_all))
    assert times(tiny_run.config) == before
    assert manifest.equals(tiny_run.manifest) and moments.equals(tiny_run.moments)


def test_a_copied_root_and_work_folder_keep_their_artefacts(copied, monkeypatch):
    monkeypatch.setattr(pipeline, "views_of", refusing(pipeline.views_of))
    before = times(copied)
    render_all(copied, load_data(copied))
    assert times(copied) == before


def test_a_damaged_artefact_is_made_again_and_no_other(copied):
    data, before = load_data(copied), times(copied)
    job = jobs_of(copied, data)[1]
    cut_off(job.views_path)
    render_all(copied, data)
    extract_all(copied, data)
    after = times(copied)
    assert job.views().frames.shape[0] == 6
    assert {file for file in before if before[file] != after[file]} == {job.views_path.relative_to(copied.work_root)}


def test_another_feature_size_makes_features_but_no_views_anew(copied):
    data, before = load_data(copied), times(copied)
    smaller = replace(copied, feature_size=14)
    render_all(smaller, data)
    extract_all(smaller, data)
    changed = {file.parts[0] for file, time in times(copied).items() if before[file] != time}
    assert changed == {"features"}
    assert Samples.load(copied.work_root / "features" / "train.npz").x.shape[-1] == 14


def test_two_workers_give_what_one_gives(copied):
    data = load_data(copied)
    before = Samples.load(copied.work_root / "features" / "train.npz").x
    shutil.rmtree(copied.work_root / "features" / "train")
    extract_all(replace(copied, jobs=2), data)
    assert np.array_equal(Samples.load(copied.work_root / "features" / "train.npz").x, before)


def test_a_broken_training_clip_stops_the_run_and_is_named(copied):
    data = load_data(copied)
    file = data.folder("train", data.train["Id"][2]) / "frame_0003.png"
    cut_off(file)
    with pytest.raises(DataError, match=f"{file}.*Remedy"):
        render_all(copied, data)


def test_a_composite_of_odd_width_reaches_the_user(copied):
    data = load_data(copied)
    folder = data.folder("train", data.train["Id"][0])
    (folder / "clip.npz").unlink()
    for t in range(6):
        write_image(folder / f"frame_{t:04d}.png", np.zeros((64, 127, 3), np.uint8))
    with pytest.raises(DataError, match="frame_0000.png.*width 127 is odd.*Remedy"):
        render_all(replace(copied, views="split"), data)


def test_a_broken_test_clip_is_a_warning_and_the_rest_goes_on(copied):
    data = load_data(copied)
    broken = data.test_ids[1]
    file = data.folder("test", broken) / "frame_0000.png"
    cut_off(file)
    manifest = render_all(copied, data).set_index("Id")
    assert str(file) in manifest.loc[broken, "warning"] and "training prior" in manifest.loc[broken, "warning"]
    assert (manifest.drop(broken)["warning"] == "").all() and manifest.loc[broken, "n_frames"] == 0
    moments = extract_all(copied, data).set_index("Id")  # what the run before the damage made of this clip is not used
    rest = [id for id in data.test_ids if id != broken]
    assert moments["apex"].isna().tolist() == [id == broken for id in moments.index]
    assert load_samples(copied, data, "test").ids.tolist() == rest
    assert list(unread_clips(copied, data)) == [broken] and str(file) in unread_clips(copied, data)[broken]


def bomb(folder):
    """A header of 20000 x 20000 pixels in the place of the true one."""
    data = (folder / "frame_0001.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 20000, 20000) + data[24:29]
    whole = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    (folder / "frame_0001.png").write_bytes(whole)


def program(folder):
    (folder / "frame_0001.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop")


def altered_pixel(folder):
    data = bytearray((folder / "frame_0001.png").read_bytes())
    data[-40] ^= 255
    (folder / "frame_0001.png").write_bytes(data)


def arrays(**change):
    def rewrite(folder):
        with np.load(folder / "clip.npz") as clip:
            found = dict(clip)
        np.savez(folder / "clip.npz", **found | {name: make(found[name]) for name, make in change.items()})

    return rewrite


FAULTS = {
    "a bomb": bomb,
    "a program": program,
    "an altered pixel": altered_pixel,
    "texts": arrays(faces=lambda faces: faces.astype(str)),
    "one point": arrays(vertices=lambda vertices: vertices * 0),
    "no area": arrays(faces=lambda faces: faces * 0),
    "uv in pixels": arrays(uv=lambda uv: uv * 640),
    "out of sight": arrays(vertices=lambda vertices: vertices + np.arange(len(vertices))[:, None, None] * 3000),
    "objects": arrays(fps=lambda fps: np.array([{}], dtype=object)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_whatever_a_clip_suffers_a_test_clip_gets_the_prior_and_a_training_clip_stops(copied, at_most, name):
    data = load_data(copied)
    jobs = jobs_by_id(replace(copied, stabilise=False, work=copied.work + "-new"), data)
    for split, id in (("test", data.test_ids[0]), ("train", data.train["Id"][0])):
        FAULTS[name](data.folder(split, id))
        with at_most(60):
            if split == "test":
                row = pipeline._render(jobs[id])
                assert str(data.folder(split, id)) in row["warning"] and row["warning"].endswith("the training prior.")
                continue
            with pytest.raises(DataError, match=f"{data.folder(split, id)}.*Remedy: "):
                pipeline._render(jobs[id])


def test_a_mistake_in_our_own_code_is_no_fault_of_a_clip(copied, monkeypatch):
    data = load_data(copied)
    job = jobs_by_id(replace(copied, work=copied.work + "-new"), data)[data.test_ids[0]]
    monkeypatch.setattr("utils.render.views.mesh_box", lambda vertices, camera: vertices["no such key"])
    with pytest.raises(IndexError):
        pipeline._render(job)


def test_a_test_clip_whose_file_may_not_be_read_is_a_warning_too(copied, monkeypatch):
    """The key of its views needs its files, before any of them is opened as an image."""
    data = load_data(copied)
    closed = data.folder("test", data.test_ids[0])
    before = artefacts._fingerprint

    def refused(path, root):
        if path.parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return before(path, root)

    monkeypatch.setattr(artefacts, "_fingerprint", refused)
    assert load_samples(copied, data, "test").ids.tolist() == data.test_ids[1:]
    assert "Permission denied" in unread_clips(copied, data)[closed.name]


def test_a_repaired_test_clip_is_noticed(copied):
    data = load_data(copied)
    file = data.folder("test", data.test_ids[1]) / "frame_0000.png"
    whole = file.read_bytes()
    cut_off(file)
    assert len(load_samples(copied, data, "test")) == len(data.test_ids) - 1
    file.write_bytes(whole)
    assert load_samples(copied, data, "test").ids.tolist() == data.test_ids and not unread_clips(copied, data)


def lose_views_and_features(config, id):
    for path in config.work_root.rglob(f"{id}.npz"):
        path.unlink()


def lose_everything(config, id):
    shutil.rmtree(config.work_root)


def cut_the_samples(config, id):
    cut_off(config.work_root / "features" / "train.npz")


def cut_the_moments(config, id):
    (config.work_root / "features" / "moments.csv").write_text("Id\n")


@pytest.mark.parametrize("damage", [lose_views_and_features, lose_everything, cut_the_samples, cut_the_moments])
def test_what_a_later_stage_lacks_it_makes_again(copied, tiny_run, damage):
    before = load_samples(tiny_run.config, tiny_run.data, "train")
    damage(copied, before.ids[1])
    data = load_data(copied)
    moments, samples = load_moments(copied, data), load_samples(copied, data, "train")
    assert np.array_equal(samples.x, before.x) and samples.ids.tolist() == before.ids.tolist()
    assert moments["apex"].tolist() == tiny_run.moments["apex"].tolist()


def test_a_bit_flipped_between_the_sampled_blocks_is_found_when_the_views_are_read(copied):
    job = jobs_of(copied, load_data(copied))[0]
    before = job.views().frames
    content = bytearray(job.views_path.read_bytes())
    content[len(content) // 2 + 5000] ^= 1
    job.views_path.write_bytes(content)
    assert np.array_equal(job.views().frames, before)


def test_a_changed_label_is_noticed(copied):
    table = pd.read_csv(copied.data_root / "train.csv")
    table.loc[0, "Negative"] = 1 - table.loc[0, "Negative"]
    table.to_csv(copied.data_root / "train.csv", index=False)
    assert load_samples(copied, load_data(copied), "train").y[0, 0] == table.loc[0, "Negative"]


def test_given_moments_take_the_place_of_the_spotted_ones_where_all_three_are_known(copied):
    table = pd.read_csv(copied.data_root / "train.csv", dtype={"onset": "Int64", "apex": "Int64", "offset": "Int64"})
    table.loc[0, ["onset", "apex", "offset"]] = [1, 3, 4]
    table.loc[1, ["onset", "apex", "offset"]] = [1, pd.NA, 4]
    table.to_csv(copied.data_root / "train.csv", index=False)
    config = replace(copied, moments="given")
    spotted, given = (load_moments(one, load_data(one)) for one in (copied, config))
    assert given.loc[0, ["onset", "apex", "offset"]].tolist() == [1, 3, 4]
    assert given.loc[1, ["onset", "offset"]].tolist() == spotted.loc[1, ["onset", "offset"]].tolist() == [0, 5]
    assert given["spotted"].tolist() == spotted["apex"].tolist()


def test_a_test_clip_without_folder_is_a_warning_and_the_rest_goes_on(copied):
    missing = load_data(copied).test_ids[0]
    shutil.rmtree(copied.data_root / "test" / missing)
    data = load_data(copied)
    manifest = render_all(copied, data).set_index("Id")
    assert missing in manifest.loc[missing, "warning"] and "training prior" in manifest.loc[missing, "warning"]
    assert (manifest.drop(missing)["warning"] == "").all()


def test_a_run_without_any_readable_test_clip_is_refused(copied):
    data = load_data(copied)
    for id in data.test_ids:
        cut_off(data.folder("test", id) / "frame_0000.png")
    assert (render_all(copied, data).query("split == 'test'")["warning"] != "").all()
    with pytest.raises(DataError, match="test: no clip.*manifest.csv"):
        extract_all(copied, data)


def test_views_can_be_split_from_the_composites(copied):
    data = load_data(copied)
    config = replace(copied, views="split", work=copied.work + "-split")
    manifest = render_all(config, data)
    assert (manifest["crop"] == "mesh").all() and not manifest["stabilised"].any()
    extract_all(config, data)
    split, rendered = (Samples.load(c.work_root / "features" / "train.npz").x for c in (config, copied))
    assert split.shape == rendered.shape and not np.array_equal(split, rendered)


BOXES = "Id,left_x,left_y,left_side,right_x,right_y,right_side\n"


def test_a_table_of_boxes_overrides_the_crop_of_its_ids_alone(copied):
    config, data = copied, load_data(copied)
    first, second = data.train["Id"].iloc[:2]
    (config.data_root / "boxes.csv").write_text(BOXES + f"{first},100,110,200,120,115,210\n")
    manifest = render_all(config, data).set_index("Id")
    assert (manifest.loc[first, "crop"], manifest.loc[second, "crop"]) == ("override", "mesh")
    views = jobs_by_id(config, data)[first].views()
    assert views.boxes.tolist() == [[100, 110, 200], [120, 115, 210]]


@pytest.mark.parametrize("row", ["1,2,0,1,2,3", "1,2,x,1,2,3", "1,2,,1,2,3"])
def test_a_wrong_box_is_refused_with_file_and_id(tmp_path, row):
    (tmp_path / "boxes.csv").write_text(BOXES + f"S01_001,{row}\n")
    with pytest.raises(DataError, match=r"boxes\.csv.*S01_001.*Remedy"):
        read_boxes(tmp_path, 2)
