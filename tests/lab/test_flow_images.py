"""Facts about flow images that the field shares: how they are read and written, scored, and altered."""

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.data import write_shared_images

from utils.errors import DataError
from utils.evaluate.other_inputs import samples_with_apex
from utils.lab.flow_images import estimators, held_out_predictions, main, pictures_of, read_sources
from utils.lab.robustness import (
    CROPS,
    across_databases,
    crop_figure,
    image_conditions,
    noisy,
    run_conditions,
    score_conditions,
)
from utils.lab.shared_files import phases_of, read_flow_images, read_loso_tree, write_flow_images
from utils.lab.shared_image import from_image
from utils.lab.tables import load, tidy
from utils.pipeline import load_samples
from utils.train.settings import TrainConfig

# Reading


@pytest.fixture
def shared(tmp_path):
    """The folder and the table of 24 clips: two databases of three subjects, two classes."""
    return write_shared_images(tmp_path)


def test_names_match_despite_spaces_and_extensions_and_subjects_carry_their_database(shared):
    samples, databases = read_flow_images(*shared)
    assert samples.x.shape == (24, 1, 1, 3, 28, 28) and samples.classes == ("0", "1")
    assert sorted(set(samples.subjects)) == [f"{d}/s{i}" for d in ("first", "second") for i in range(3)]
    assert set(databases) == {"first", "second"} and samples.ids[0] == "first/clip00_first"


def test_red_is_u_green_is_v_blue_is_strain_in_the_size_of_the_first_image(shared):
    root, labels = shared
    image = np.zeros((28, 28, 3), np.uint8)
    image[2, 3], image[4, 5, 1], image[6, 7, 2] = (255, 0, 0), 255, 51
    cv2.imwrite(str(root / "clip00_first .png"), image[:, :, ::-1])
    cv2.imwrite(str(root / "clip05_second .png"), np.zeros((56, 56, 3), np.uint8))
    maps = read_flow_images(root, labels)[0].x[0, 0, 0]
    assert maps.shape == (3, 28, 28)
    assert maps[0, 2, 3] == 1 and maps[1, 4, 5] == 1 and maps[2, 6, 7] == pytest.approx(0.2)
    assert np.abs(maps).sum() == pytest.approx(2.2)


def test_the_median_of_u_and_v_stands_for_no_motion():
    image = np.full((3, 28, 28), 90, np.uint8)
    image[:, :5] = 200
    maps = from_image(image)
    assert np.median(maps[0]) == 0 and np.median(maps[1]) == 0 and maps[2].min() > 0.3


def test_faults_name_the_file_and_the_remedy(shared, tmp_path):
    root, labels = shared
    for content in (b"no image", b""):
        (root / "clip07_second .png").write_bytes(content)
        with pytest.raises(DataError, match="clip07_second .png: the image cannot be read.*Remedy"):
            read_flow_images(root, labels)
    (root / "clip07_second .png").unlink()
    table = pd.read_csv(labels, dtype=str)
    for faulty, message in (
        (table, "labels.csv, line 9: no image 'clip07_second.jpg' under .*Remedy"),
        (table.drop(columns="sub"), "labels.csv: no column sub. Remedy"),
        (table.assign(label=["", *table["label"][1:]]), "labels.csv, line 2: no label. Remedy"),
    ):
        faulty.to_csv(labels, index=False)
        with pytest.raises(DataError, match=message):
            read_flow_images(root, labels)
    with pytest.raises(DataError, match="no such folder"):
        read_flow_images(tmp_path / "nowhere", labels)


def rename(root, labels, files, name):
    """Give the image of line 5 other file names, and another name in the table."""
    for file in files:
        (root / file).write_bytes((root / "clip03_second .png").read_bytes())
    (root / "clip03_second .png").unlink()
    labels.write_text(labels.read_text().replace("clip03_second", name))


@pytest.mark.parametrize("file", ["s01_s01_ne_03 .png", "s1_s1_ne_3.bmp", "s001_s1_ne_0003.jpg"])
def test_names_match_whatever_the_zeros_before_their_numbers(shared, file):
    before = read_flow_images(*shared)[0].x
    rename(*shared, [file], "s01_s1_ne_03")
    np.testing.assert_array_equal(read_flow_images(*shared)[0].x, before)


@pytest.mark.parametrize("file", ["s10_s1_ne_03.png", "s01_s1_ne_30.png", "s01_s1_ne_3_0.png", "s1001_s1_ne_3.png"])
def test_zeros_within_and_after_numbers_count(shared, file):
    name = "s101_s1_ne_03" if file.startswith("s1001") else "s01_s1_ne_03"
    rename(*shared, [file], name)
    with pytest.raises(DataError, match=f"labels.csv, line 5: no image '{name}'? "):
        read_flow_images(*shared)


def test_a_name_that_fits_several_images_is_refused_and_an_exact_one_is_taken(shared):
    root, labels = shared
    rename(root, labels, ["s01.png", "s001.png"], "s1")
    with pytest.raises(DataError, match="line 5: image 's1' may be s001.png or s01.png. Remedy"):
        read_flow_images(root, labels)
    labels.write_text(labels.read_text().replace(",s1\n", ",s001\n"))
    assert "second/s001" in read_flow_images(root, labels)[0].ids
    (root / "more").mkdir()
    (root / "s001.png").rename(root / "more" / "s001.png")
    (root / "s01.png").rename(root / "s001.bmp")
    with pytest.raises(DataError, match="line 5: image 's001' may be more/s001.png or s001.bmp. Remedy"):
        read_flow_images(root, labels)


def test_an_image_that_two_lines_name_is_refused(shared):
    rename(*shared, ["s01.png"], "s01")
    shared[1].write_text(shared[1].read_text() + "first,s9,1,s1\n")
    with pytest.raises(DataError, match="line 26: image 's1' is 's01.png', which line 5 names too. Remedy"):
        read_flow_images(*shared)


def test_the_fields_loso_tree_is_read_from_its_test_halves_alone(tmp_path):
    for subject, half, label in product(("s1", "s2"), ("u_test", "u_train"), ("0", "2")):
        folder = tmp_path / subject / half / label
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / f"{subject}_{label}.png"), np.full((28, 28, 3), 9, np.uint8))
    samples, databases = read_loso_tree(tmp_path)
    assert samples.ids.tolist() == ["s1/s1_0", "s1/s1_2", "s2/s2_0", "s2/s2_2"]
    assert samples.subjects.tolist() == ["s1", "s1", "s2", "s2"] and samples.classes == ("0", "2")
    assert set(databases) == {"all"}
    with pytest.raises(DataError, match="no image in <subject>/u_test"):
        read_loso_tree(tmp_path / "s1")


# Scores


def score(roots, labels, out, *options):
    """Run the command; value by row, database and measure, and the record."""
    main(["--root", *map(str, roots), "--labels", str(labels), "--jobs", "1", "--json", str(out), *options])
    table, record = load(out)
    return table.set_index(["row", "database", "measure"]), record


def test_the_command_scores_every_row_pooled_and_per_database(shared, tmp_path, capsys):
    rows = ["best constant", "RBF-SVM", "best constant + RBF-SVM"]
    table, record = score([shared[0]], shared[1], tmp_path / "scores.json", "--seeds", "1", "--rows", *rows)
    assert list(table.index.unique("row")) == rows and record["parameters"]["seeds"] == 1
    assert table["n"].unstack("database").iloc[0].to_dict() == {"pooled": 24, "first": 12, "second": 12}
    assert table["value"].loc[rows[1:], :, "UF1"].min() > 0.9
    assert table["value"]["best constant", "pooled", "UF1"] < 0.5
    assert "| best constant + RBF-SVM | pooled | 24 | 6 | 1.000 [1.000, 1.000] |" in capsys.readouterr().out


def test_members_are_averaged_and_recorded(shared, tmp_path, monkeypatch):
    quick = TrainConfig(mode="single-label", patience=0, batch=16, epochs=2)
    monkeypatch.setattr("utils.lab.flow_images.TRAIN", quick)
    samples, _ = read_flow_images(*shared)
    part, table = ("network", "images"), {"network": [("network", "images")]}
    alone, averaged = (
        held_out_predictions({part: (samples, estimators(samples, n)["network"])}, table, (0,), 1)["network"]
        for n in (1, 2)
    )
    assert not np.allclose(alone.probability, averaged.probability)
    assert np.allclose(averaged.probability.sum(-1), 1, atol=1e-5)
    assert [len(note["parts"][0]["epochs"]) for note in averaged.notes[0]] == [2] * 6
    _, record = score([shared[0]], shared[1], tmp_path / "scores.json", "--members", "3", "--rows", "LDA")
    assert record["parameters"]["members"] == 3


def test_faults_of_the_data_and_the_command_are_one_line(shared, tmp_path, capsys):
    root, labels = shared
    command = ["--root", str(root), "--labels", str(labels)]
    with pytest.raises(SystemExit, match="^error: --rows: row 'magic .*' is unknown. Remedy: choose from .*RBF-SVM"):
        main([*command, "--rows", "magic"])
    (root / "clip07_second .png").unlink()
    with pytest.raises(SystemExit, match="^error: .*, line 9: no image .*Remedy: add it or delete the line.$"):
        main(command)
    with pytest.raises(SystemExit, match="none: no such folder. Remedy"):
        main(["--root", str(tmp_path / "none"), *command[2:]])
    for options in (["--members", "0"], ["--write", str(tmp_path / "out")], ["--size", "4"]):
        with pytest.raises(SystemExit, match="2"):
            main([*command, *options])
    assert "--members starts at 1" in capsys.readouterr().err


# Several sources and phases


@pytest.fixture
def sources(tmp_path) -> tuple[list[Path], Path]:
    """Two sources of the same clips: the second is larger, has both phases, and shows the class in the later one."""
    rng = np.random.default_rng(1)
    first, labels = write_shared_images(tmp_path / "a")
    second, _ = write_shared_images(tmp_path / "b", size=32)
    second = second.rename(tmp_path / "b" / "others")
    for path in sorted(second.glob("*.png")):
        image = cv2.imread(str(path))
        cv2.imwrite(str(path.with_name(f"{path.stem.strip()}_1.png")), image)
        cv2.imwrite(str(path), rng.integers(0, 255, image.shape))
    return [first, second], labels


def test_both_phases_of_several_sources_are_read_in_the_order_of_one_table(sources):
    roots, labels = sources
    assert [phases_of(root, labels) for root in roots] == [1, 2]
    samples, databases = read_sources(roots, labels)
    assert [source.x.shape for source in samples.values()] == [(24, 1, 1, 3, 28, 28), (24, 1, 2, 3, 32, 32)]
    assert np.array_equal(samples["images"].ids, samples["others"].ids) and len(databases) == 24
    pictures = pictures_of(samples)
    assert list(pictures) == ["images", "others", "others, second phase", "others, both phases", "all pictures"]
    assert pictures["all pictures"].x.shape == (24, 1, 3, 3, 28, 28)
    (roots[1] / "clip07_second_1.png").unlink()
    with pytest.raises(DataError, match="line 9: no image 'clip07_second_1'"):
        read_sources(roots, labels)


def test_a_clip_named_like_anothers_second_phase_is_a_clip(shared):
    rename(*shared, ["clip00_first_1.png"], "clip00_first_1")
    assert phases_of(*shared) == 1


def test_a_row_is_scored_on_every_picture_and_averaged_over_the_sources(sources, tmp_path, capsys):
    rows = ["LDA", "LDA + LDA [others, second phase]"]
    table, _ = score(*sources, tmp_path / "scores.json", "--seeds", "1", "--rows", *rows)
    uf1 = table["value"].loc[:, "pooled", "UF1"]
    later = ["LDA [others]", "LDA [others, second phase]", "LDA [others, both phases]"]
    assert list(uf1.index) == ["LDA", *later, "LDA [all pictures]", "LDA + LDA [others]", rows[1]]
    assert uf1["LDA"] > 0.9 and uf1["LDA [others, second phase]"] > 0.9 and uf1["LDA [others]"] < 0.8
    gain = table["value"]["LDA [others, both phases]", "pooled", "UF1 minus the first phase's"]
    assert gain == pytest.approx(uf1["LDA [others, both phases]"] - uf1["LDA [others]"])
    assert "UF1 minus the first phase's" in capsys.readouterr().out


def test_sources_of_one_name_and_sources_without_a_table_are_refused(shared):
    root, labels = shared
    with pytest.raises(DataError, match="two sources are called images. Remedy"):
        read_sources([root, root], labels)
    with pytest.raises(DataError, match="no table says which clips the images show. Remedy: give --labels"):
        read_sources([root, root], None)


# Writing


@pytest.fixture(scope="module")
def written(tiny_run, tmp_path_factory):
    """The folder of the flow images of the tiny root."""
    out = tmp_path_factory.mktemp("flow") / "images"
    _, left_out = write_flow_images(tiny_run.config, tiny_run.data, out)
    assert left_out == []
    return out


def test_written_images_are_read_again_one_source_for_each_view(tiny_run, written):
    train = tiny_run.data.train
    for view in ("left", "right"):
        samples, _ = read_flow_images(written / view / "images", written / view / "labels.csv")
        assert [id.split("/")[1] for id in samples.ids] == train["Id"].tolist()
        assert [subject.split("/")[1] for subject in samples.subjects] == train["subject"].tolist()
        assert set(samples.classes) <= {"Positive+Surprise", "Negative+Repression", "Others"}
        image = cv2.imread(str(written / view / "images" / f"{train['Id'][0]}.png"))
        assert image.shape == (28, 28, 3)
        assert image.min((0, 1)).tolist() == [0] * 3 and image.max((0, 1)).tolist() == [255] * 3


def test_a_flow_image_shows_the_motion_of_the_networks_input(tiny_run, written):
    """Up to the loss by min-max scaling, u and v are those of 02, and the second phase lies beside the first."""
    train = load_samples(tiny_run.config, tiny_run.data, "train")
    for (i, id), (v, view), (p, phase) in product(*map(enumerate, (train.ids, ("left", "right"), ("", "_1")))):
        image = cv2.imread(str(written / view / "images" / f"{id}{phase}.png"))[:, :, ::-1].astype(float)
        for c in range(2):
            assert np.corrcoef(image[:, :, c].ravel(), train.x[i, v, p, c].ravel())[0, 1] > 0.99


def test_another_flow_method_and_a_closer_crop_give_other_images(tiny_run, written, tmp_path):
    name = f"left/images/{tiny_run.data.train['Id'][0]}.png"
    write_flow_images(replace(tiny_run.config, flow_method="dis"), tiny_run.data, tmp_path / "dis")
    write_flow_images(tiny_run.config, tiny_run.data, tmp_path / "close", size=14, zoom=2.0)
    first, dis, close = (
        cv2.imread(str(root / name)).astype(int) for root in (written, tmp_path / "dis", tmp_path / "close")
    )
    assert 0 < np.abs(dis - first).mean() < 60
    middle = first[7:21, 7:21, 1:]  # v and u; strain has maxima of its own outside the middle
    assert all(np.corrcoef(close[..., c].ravel(), middle[..., c - 1].ravel())[0, 1] > 0.95 for c in (1, 2))


def test_megc_has_three_classes_and_leaves_out_clips_of_no_class(tiny_run, tmp_path):
    table, left_out = write_flow_images(tiny_run.config, tiny_run.data, tmp_path / "megc", megc=True)
    train = tiny_run.data.train.set_index("Id")
    none = train.index[(train["Others"] == 1) | (train["Positive"] == 1)]  # Positive comes with Surprise here
    assert {line.split(":")[0] for line in left_out} == set(none)
    assert set(table["label"]) == {"0"}  # Negative with Repression is one class
    assert len(table) == len(train) - len(none)
    with pytest.raises(DataError, match=f"{tmp_path}: it is there already. Remedy: name a new folder"):
        write_flow_images(tiny_run.config, tiny_run.data, tmp_path)


def test_the_command_writes_with_its_options(tiny_run, tmp_path, capsys):
    place = ["--data", tiny_run.config.data, "--work", tiny_run.config.work, "--profile", "smoke", "--jobs", "1"]
    main(["--write", str(tmp_path / "out"), *place, "--set", "n_subjects=3 n_test_subjects=1", "--size", "32"])
    assert "both phases, flow by faceflow" in capsys.readouterr().out
    assert next((tmp_path / "out" / "right" / "images").glob("*_1.png"))
    with pytest.raises(SystemExit):
        main(["--write", str(tmp_path / "more"), *place, "--set", "flow_method=none"])
    assert "parameter flow_method='none' is not possible" in capsys.readouterr().err


# Robustness


def test_a_network_is_trained_once_and_tested_on_altered_clips(sources):
    samples, databases = read_sources(*sources)
    rows, conditions = image_conditions(samples)
    rows = {"RBF-SVM": rows["RBF-SVM"]}
    chosen = {name: conditions[name] for name in ("as learnt", "noise of 1 of the motion", "source others")}
    scores = tidy(score_conditions(rows, chosen, jobs=1)).set_index(["clips", "measure"])["value"]
    assert scores["as learnt", "UF1"] > 0.9 and scores["source others", "UF1 less as learnt"] < -0.1
    assert list(scores.index.unique("clips")) == list(chosen) and len(scores) == 5
    across = tidy(across_databases(conditions["as learnt"], rows, databases, jobs=1)).set_index("clips")
    assert list(across.index) == ["first, learnt from the others", "second, learnt from the others"]
    assert across["value"].iloc[0] > 0.9 and across["n"].tolist() == [12, 12]


def test_the_picture_of_crops_shows_the_taught_network_in_all_of_them():
    score = {"measure": "UF1", "value": 0.7, "low": 0.6, "high": 0.8}
    rows = [
        {"network": network, "clips": clips, **score}
        for network in ("network", "zero-shot", "zero-shot, crop by the test clips")
        for clips in ("as learnt", "noise of 1 of the motion", *CROPS, "source others")
    ]
    (axis,) = crop_figure(tidy(rows), ["others"]).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["source others", *list(CROPS)[::-1], "as learnt"]
    assert len(axis.get_legend().get_texts()) == 2


def test_noise_is_as_strong_as_it_is_called(shared):
    samples, _ = read_flow_images(*shared)
    added = noisy(samples, 0.5, pixels=False).x - samples.x
    assert added[:, :, :, :2].std() == pytest.approx(0.5 * samples.x[:, :, :, :2].std(), rel=0.1)
    magnitude = noisy(samples, 0.5, pixels=True).x
    assert np.allclose(magnitude[..., 2, :, :], np.hypot(magnitude[..., 0, :, :], magnitude[..., 1, :, :]))


def test_the_apex_of_a_run_is_moved_by_a_number_of_frames(tiny_run, tmp_path):
    shutil.copytree(tiny_run.config.work_root, tmp_path / "work")  # other tests count the files of theirs
    config, data = replace(tiny_run.config, work=str(tmp_path / "work")), tiny_run.data
    early, late = (samples_with_apex(config, data, shift) for shift in (-2, 2))
    samples = load_samples(config, data, "train")
    assert np.array_equal(early.ids, samples.ids)
    assert np.abs(early.x[:, :, 0]).mean() < np.abs(samples.x[:, :, 0]).mean()
    assert not np.array_equal(late.x, samples.x)
    rows, conditions = run_conditions(config, data)
    assert {"apex 4 frames too late", "flow by dis", "half looser"} < set(conditions) and len(rows) == 4
