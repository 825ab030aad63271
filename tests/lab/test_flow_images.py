import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.data import write_shared_images

from utils.errors import DataError
from utils.evaluate.other_inputs import samples_with_apex
from utils.lab.flow_images import leave_one_subject_out_scores, main, pictures_of, read_sources, run
from utils.lab.robustness import (
    CROPS,
    across_databases,
    crop_figure,
    format_losses,
    losses,
    noisy,
    of_images,
    of_run,
)
from utils.lab.shared_files import phases_of, read_flow_images, read_loso_tree, write_flow_images
from utils.lab.shared_image import from_image
from utils.pipeline import load_samples
from utils.train.settings import TrainConfig


def test_names_match_despite_spaces_and_extensions_and_subjects_carry_their_dataset(tmp_path):
    samples, datasets = read_flow_images(*write_shared_images(tmp_path))
    assert samples.x.shape == (24, 1, 1, 3, 28, 28) and samples.classes == ("0", "1")
    assert sorted(set(samples.subjects)) == [f"{d}/s{i}" for d in ("first", "second") for i in range(3)]
    assert set(datasets) == {"first", "second"} and samples.ids[0] == "first/clip00_first"


def test_red_is_u_green_is_v_blue_is_strain(tmp_path):
    root, labels = write_shared_images(tmp_path)
    image = np.zeros((28, 28, 3), np.uint8)
    image[2, 3], image[4, 5, 1], image[6, 7, 2] = (255, 0, 0), 255, 51
    cv2.imwrite(str(root / "clip00_first .png"), image[:, :, ::-1])
    maps = read_flow_images(root, labels)[0].x[0, 0, 0]
    assert maps[0, 2, 3] == 1 and maps[1, 4, 5] == 1 and maps[2, 6, 7] == pytest.approx(0.2)
    assert np.abs(maps).sum() == pytest.approx(2.2)


def test_the_median_of_u_and_v_stands_for_no_motion():
    image = np.full((3, 28, 28), 90, np.uint8)
    image[:, :5] = 200
    maps = from_image(image)
    assert np.median(maps[0]) == 0 and np.median(maps[1]) == 0 and maps[2].min() > 0.3


def test_images_of_another_size_are_brought_to_the_first_ones(tmp_path):
    root, labels = write_shared_images(tmp_path)
    cv2.imwrite(str(root / "clip05_second .png"), np.zeros((56, 56, 3), np.uint8))
    assert read_flow_images(root, labels)[0].x.shape[-2:] == (28, 28)


def test_faults_name_the_file_and_the_remedy(tmp_path):
    root, labels = write_shared_images(tmp_path)
    table = pd.read_csv(labels)
    (root / "clip07_second .png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="clip07_second .png: the image cannot be read.*Remedy"):
        read_flow_images(root, labels)
    (root / "clip07_second .png").write_bytes(b"")
    with pytest.raises(ValueError, match="clip07_second .png: the image cannot be read.*Remedy"):
        read_flow_images(root, labels)
    (root / "clip07_second .png").unlink()
    with pytest.raises(ValueError, match="labels.csv, line 9: no image 'clip07_second.jpg' under .*Remedy"):
        read_flow_images(root, labels)
    table.drop(columns="sub").to_csv(labels, index=False)
    with pytest.raises(ValueError, match="labels.csv: no column sub. Remedy"):
        read_flow_images(root, labels)
    table.assign(label=["", *table["label"].astype(str)[1:]]).to_csv(labels, index=False)
    with pytest.raises(ValueError, match="labels.csv, line 2: no label. Remedy"):
        read_flow_images(root, labels)
    table.to_csv(labels, index=False)
    with pytest.raises(ValueError, match="no such folder"):
        read_flow_images(tmp_path / "nowhere", labels)


def renamed(root, labels, files, name):
    """The sample with the image of line 5 under other names, and another name for it in the table."""
    for file in files:
        (root / file).write_bytes((root / "clip03_second .png").read_bytes())
    (root / "clip03_second .png").unlink()
    labels.write_text(labels.read_text().replace("clip03_second", name))


@pytest.mark.parametrize("file", ["s01_s01_ne_03 .png", "s1_s1_ne_3.bmp", "s001_s1_ne_0003.jpg"])
def test_names_match_whatever_the_zeros_before_their_numbers(tmp_path, file):
    root, labels = write_shared_images(tmp_path)
    before = read_flow_images(root, labels)[0].x
    renamed(root, labels, [file], "s01_s1_ne_03")
    np.testing.assert_array_equal(read_flow_images(root, labels)[0].x, before)


@pytest.mark.parametrize("file", ["s10_s1_ne_03.png", "s01_s1_ne_30.png", "s01_s1_ne_3_0.png", "s1001_s1_ne_3.png"])
def test_zeros_within_and_after_numbers_count(tmp_path, file):
    root, labels = write_shared_images(tmp_path)
    name = "s101_s1_ne_03" if file.startswith("s1001") else "s01_s1_ne_03"
    renamed(root, labels, [file], name)
    with pytest.raises(DataError, match=f"labels.csv, line 5: no image '{name}'? "):
        read_flow_images(root, labels)


def test_a_name_that_fits_several_images_is_refused_and_an_exact_one_is_taken(tmp_path):
    root, labels = write_shared_images(tmp_path)
    renamed(root, labels, ["s01.png", "s001.png"], "s1")
    with pytest.raises(DataError, match="line 5: image 's1' may be s001.png or s01.png. Remedy"):
        read_flow_images(root, labels)
    labels.write_text(labels.read_text().replace(",s1\n", ",s001\n"))
    assert "second/s001" in read_flow_images(root, labels)[0].ids
    (root / "more").mkdir()
    (root / "s001.png").rename(root / "more" / "s001.png")
    (root / "s01.png").rename(root / "s001.bmp")
    with pytest.raises(DataError, match="line 5: image 's001' may be more/s001.png or s001.bmp. Remedy"):
        read_flow_images(root, labels)


def test_an_image_that_two_lines_name_is_refused(tmp_path):
    root, labels = write_shared_images(tmp_path)
    renamed(root, labels, ["s01.png"], "s01")
    labels.write_text(labels.read_text() + "first,s9,1,s1\n")
    with pytest.raises(DataError, match="line 26: image 's1' is 's01.png', which line 5 names too. Remedy"):
        read_flow_images(root, labels)


def test_a_fault_of_the_command_is_one_line(tmp_path, monkeypatch, capsys):
    root, labels = write_shared_images(tmp_path)
    monkeypatch.setattr("sys.argv", ["flow_images", "--root", str(root), "--labels", str(labels)])
    (root / "clip07_second .png").unlink()
    with pytest.raises(
        SystemExit, match="^error: .*labels.csv, line 9: no image .*Remedy: add it or delete the line.$"
    ):
        run()
    monkeypatch.setattr("sys.argv", ["flow_images", "--root", str(tmp_path / "none"), "--labels", str(labels)])
    with pytest.raises(SystemExit, match="none: no such folder. Remedy"):
        run()


def test_the_fields_loso_tree_is_read_from_its_test_halves_alone(tmp_path):
    for subject in ("s1", "s2"):
        for half in ("u_test", "u_train"):
            for label in ("0", "2"):
                folder = tmp_path / subject / half / label
                folder.mkdir(parents=True)
                cv2.imwrite(str(folder / f"{subject}_{label}.png"), np.full((28, 28, 3), 9, np.uint8))
    samples, datasets = read_loso_tree(tmp_path)
    assert samples.ids.tolist() == ["s1/s1_0", "s1/s1_2", "s2/s2_0", "s2/s2_2"]
    assert samples.subjects.tolist() == ["s1", "s1", "s2", "s2"] and samples.classes == ("0", "2")
    assert set(datasets) == {"all"}
    with pytest.raises(ValueError, match="no image in <subject>/u_test"):
        read_loso_tree(tmp_path / "s1")


def test_the_command_scores_every_row_pooled_and_per_dataset(tmp_path, monkeypatch, capsys):
    root, labels = write_shared_images(tmp_path)
    monkeypatch.setattr(
        "utils.lab.flow_images.TRAIN", TrainConfig(mode="single-label", patience=0, batch=16, epochs=20)
    )
    out = tmp_path / "scores.json"
    rows = ["best constant", "RBF-SVM", "best constant + RBF-SVM"]
    common = ["--root", str(root), "--labels", str(labels), "--jobs", "1", "--seeds", "1"]
    main([*common, "--json", str(out), "--rows", *rows])
    found = json.loads(out.read_text())
    assert found["clips"] == {"pooled": 24, "first": 12, "second": 12} and found["subjects"] == 6
    assert list(found["rows"]) == rows
    for row in rows[1:]:
        for part in ("pooled", "first", "second"):
            assert found["rows"][row][part]["uf1"]["value"] > 0.9
    assert found["rows"]["best constant"]["pooled"]["uf1"]["value"] < 0.5
    assert "best constant + RBF-SVM" in capsys.readouterr().out


def test_members_are_averaged_and_recorded(tmp_path, monkeypatch):
    root, labels = write_shared_images(tmp_path)
    quick = TrainConfig(mode="single-label", patience=0, batch=16, epochs=2)
    monkeypatch.setattr("utils.lab.flow_images.TRAIN", quick)
    pictures = pictures_of(read_sources([str(root)], str(labels))[0])
    one, two = (leave_one_subject_out_scores(pictures, ["network"], (0,), 1, n)["network"] for n in (1, 2))
    assert not np.allclose(one.probability, two.probability) and np.allclose(two.probability.sum(-1), 1, atol=1e-5)
    assert [len(note["parts"][0]["epochs"]) for note in two.notes[0]] == [2] * 6
    out = tmp_path / "scores.json"
    main(["--root", str(root), "--labels", str(labels), "--members", "3", "--rows", "LDA", "--json", str(out)])
    assert json.loads(out.read_text())["members"] == 3
    with pytest.raises(SystemExit):
        main(["--root", str(root), "--labels", str(labels), "--members", "0"])


def test_an_unknown_row_is_named(tmp_path):
    root, labels = write_shared_images(tmp_path)
    with pytest.raises(ValueError, match="row 'magic' is unknown"):
        main(["--root", str(root), "--labels", str(labels), "--rows", "magic"])


# Writing


@pytest.fixture(scope="module")
def written(tiny_run, tmp_path_factory):
    """The flow images of the tiny root: its folder, its table."""
    out = tmp_path_factory.mktemp("flow") / "images"
    table, left_out = write_flow_images(tiny_run.config, tiny_run.data, out)
    assert left_out == []
    return out, table


def test_what_is_written_is_read_again_one_source_for_each_view(tiny_run, written):
    train = tiny_run.data.train
    for view in ("left", "right"):
        samples, _ = read_flow_images(written[0] / view / "images", written[0] / view / "labels.csv")
        assert [id.split("/")[1] for id in samples.ids] == train["Id"].tolist()
        assert [subject.split("/")[1] for subject in samples.subjects] == train["subject"].tolist()
        assert set(samples.classes) <= {"Positive+Surprise", "Negative+Repression", "Others"}
        image = cv2.imread(str(written[0] / view / "images" / f"{train['Id'][0]}.png"))
        assert (
            image.shape == (28, 28, 3)
            and image.min((0, 1)).tolist() == [0] * 3
            and image.max((0, 1)).tolist() == [255] * 3
        )


def test_a_flow_image_shows_the_motion_of_the_networks_input(tiny_run, written):
    """Up to what min-max scaling loses, u and v are those of 02, and the second phase lies beside the first."""
    train = load_samples(tiny_run.config, tiny_run.data, "train")
    for i, id in enumerate(train.ids):
        for view, v in (("left", 0), ("right", 1)):
            for p, phase in enumerate(("", "_1")):
                image = cv2.imread(str(written[0] / view / "images" / f"{id}{phase}.png"))[:, :, ::-1].astype(float)
                for c in range(2):
                    assert np.corrcoef(image[:, :, c].ravel(), train.x[i, v, p, c].ravel())[0, 1] > 0.99


def test_another_flow_method_and_a_closer_crop_give_other_images(tiny_run, written, tmp_path):
    id = tiny_run.data.train["Id"][0]
    name = f"left/images/{id}.png"
    write_flow_images(replace(tiny_run.config, flow_method="dis"), tiny_run.data, tmp_path / "dis")
    write_flow_images(tiny_run.config, tiny_run.data, tmp_path / "close", size=14, zoom=2.0)
    first, dis, close = (
        cv2.imread(str(root / name)).astype(int) for root in (written[0], tmp_path / "dis", tmp_path / "close")
    )
    assert 0 < np.abs(dis - first).mean() < 60
    middle = first[7:21, 7:21, 1:]  # v and u; strain has maxima of its own outside the middle
    assert all(np.corrcoef(close[..., c].ravel(), middle[..., c - 1].ravel())[0, 1] > 0.95 for c in (1, 2))


def test_megc_has_three_classes_and_leaves_out_what_is_none(tiny_run, tmp_path):
    table, left_out = write_flow_images(tiny_run.config, tiny_run.data, tmp_path / "megc", megc=True)
    train = tiny_run.data.train.set_index("Id")
    none = train.index[(train["Others"] == 1) | (train["Positive"] == 1)]  # Positive comes with Surprise here
    assert {line.split(":")[0] for line in left_out} == set(none)
    assert set(table["label"]) == {"0"} and len(table) == len(train) - len(
        none
    )  # Negative with Repression is one class


def test_a_folder_that_is_there_is_left_as_it_is(tiny_run, tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}: it is there already. Remedy: name a new folder"):
        write_flow_images(tiny_run.config, tiny_run.data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_what_its_options_say(tiny_run, tmp_path, monkeypatch, capsys):
    place = ["--data", tiny_run.config.data, "--work", tiny_run.config.work, "--profile", "smoke", "--jobs", "1"]
    main(["--write", str(tmp_path / "out"), *place, "--set", "n_subjects=3 n_test_subjects=1", "--size", "32"])
    assert "both phases, flow by faceflow" in capsys.readouterr().out
    assert next((tmp_path / "out" / "right" / "images").glob("*_1.png"))
    with pytest.raises(SystemExit):
        main(["--write", str(tmp_path / "more"), *place, "--set", "flow_method=none"])
    assert "parameter flow_method='none' is not possible" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--write", str(tmp_path / "more"), "--root", str(tmp_path)])


# Several sources and phases


def write_sources(folder: Path) -> tuple[list[str], str]:
    """Two sources of the same clips: the second is larger, has both phases, and shows the class in the later one."""
    rng = np.random.default_rng(1)
    first, labels = write_shared_images(folder / "a")
    second, _ = write_shared_images(folder / "b", size=32)
    second = second.rename(folder / "b" / "others")
    for path in sorted(second.glob("*.png")):
        image = cv2.imread(str(path))
        cv2.imwrite(str(path.with_name(f"{path.stem.strip()}_1.png")), image)
        cv2.imwrite(str(path), rng.integers(0, 255, image.shape))
    return [str(first), str(second)], str(labels)


def test_both_phases_of_several_sources_are_read_in_the_order_of_one_table(tmp_path):
    roots, labels = write_sources(tmp_path)
    assert [phases_of(root, labels) for root in roots] == [1, 2]
    sources, datasets = read_sources(roots, labels)
    assert [samples.x.shape for samples in sources.values()] == [(24, 1, 1, 3, 28, 28), (24, 1, 2, 3, 32, 32)]
    assert np.array_equal(sources["images"].ids, sources["others"].ids) and len(datasets) == 24
    pictures = pictures_of(sources)
    assert list(pictures) == ["images", "others", "others, second phase", "others, both phases", "all pictures"]
    assert pictures["all pictures"].x.shape == (24, 1, 3, 3, 28, 28)
    (Path(roots[1]) / "clip07_second_1.png").unlink()
    with pytest.raises(DataError, match="line 9: no image 'clip07_second_1'"):
        read_sources(roots, labels)


def test_a_clip_named_like_anothers_second_phase_is_a_clip(tmp_path):
    root, labels = write_shared_images(tmp_path)
    renamed(root, labels, ["clip00_first_1.png"], "clip00_first_1")
    assert phases_of(root, labels) == 1


def test_a_row_is_scored_on_every_picture_and_averaged_over_the_sources(tmp_path, capsys):
    roots, labels = write_sources(tmp_path)
    out = tmp_path / "scores.json"
    main(["--root", *roots, "--labels", labels, "--jobs", "1", "--seeds", "1", "--rows", "LDA", "--json", str(out)])
    found = json.loads(out.read_text())
    uf1 = {row: parts["pooled"]["uf1"]["value"] for row, parts in found["rows"].items()}
    second = ["LDA [others]", "LDA [others, second phase]", "LDA [others, both phases]"]
    assert list(uf1) == ["LDA", *second, "LDA [all pictures]", "LDA + LDA [others]"]
    assert uf1["LDA"] > 0.9 and uf1["LDA [others, second phase]"] > 0.9 and uf1["LDA [others]"] < 0.8
    worth = found["second_phase"]["LDA [others, both phases]"]
    assert worth["value"] == pytest.approx(uf1["LDA [others, both phases]"] - uf1["LDA [others]"])
    assert "less that of onset to apex alone" in capsys.readouterr().out


def test_sources_of_one_name_and_sources_without_a_table_are_refused(tmp_path):
    root, labels = write_shared_images(tmp_path)
    with pytest.raises(DataError, match="two sources are called images. Remedy"):
        read_sources([str(root), str(root)], str(labels))
    with pytest.raises(DataError, match="several sources are of. Remedy: give --labels"):
        read_sources([str(root), str(root)], None)


# Robustness


def test_a_network_is_trained_once_and_judged_on_clips_seen_otherwise(tmp_path):
    roots, labels = write_sources(tmp_path)
    sources, datasets = read_sources(roots, labels)
    samples, rows, tested = of_images(sources)
    some = {name: tested[name] for name in ("as learnt", "noise of 1 of the motion", "source others")}
    rows = {"RBF-SVM": rows["RBF-SVM"]}
    found = losses(samples, rows, some, jobs=1)["RBF-SVM"]
    assert found["as learnt"]["difference"]["value"] == 0 and found["as learnt"]["uf1"]["value"] > 0.9
    assert found["source others"]["difference"]["value"] < -0.1
    across = across_databases(samples, rows, datasets, jobs=1)["RBF-SVM"]
    assert set(across) == {"first", "second"} and across["first"]["uf1"]["value"] > 0.9
    table = format_losses({"rows": {"RBF-SVM": found}, "across": {"RBF-SVM": across}})
    assert "first, learnt from the others" in table and "source others" in table


def test_the_picture_of_crops_shows_the_taught_network_in_all_of_them(tmp_path):
    span = {"uf1": {"value": 0.7, "low": 0.6, "high": 0.8}}
    conditions = dict.fromkeys(("as learnt", "noise of 1 of the motion", *CROPS, "source others"), span)
    found = {"rows": {"network": conditions, "zero-shot": conditions, "zero-shot, crop by the test clips": conditions}}
    (axis,) = crop_figure(found).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["source others", *list(CROPS)[::-1], "as learnt"]
    assert len(axis.get_legend().get_texts()) == 2


def test_noise_is_as_strong_as_it_is_called(tmp_path):
    samples, _ = read_flow_images(*write_shared_images(tmp_path))
    added = noisy(samples, 0.5, pixels=False).x - samples.x
    assert added[:, :, :, :2].std() == pytest.approx(0.5 * samples.x[:, :, :, :2].std(), rel=0.1)
    magnitude = noisy(samples, 0.5, pixels=True).x
    assert np.allclose(magnitude[..., 2, :, :], np.hypot(magnitude[..., 0, :, :], magnitude[..., 1, :, :]))


def test_the_apex_of_a_run_is_missed_by_as_many_frames_as_are_said(tiny_run, tmp_path):
    shutil.copytree(tiny_run.config.work_root, tmp_path / "work")  # other tests count what lies in theirs
    config, data = replace(tiny_run.config, work=str(tmp_path / "work")), tiny_run.data
    early, late = (samples_with_apex(config, data, shift) for shift in (-2, 2))
    found = load_samples(config, data, "train")
    assert np.array_equal(early.ids, found.ids)
    assert np.abs(early.x[:, :, 0]).mean() < np.abs(found.x[:, :, 0]).mean()
    assert not np.array_equal(late.x, found.x)
    samples, rows, tested = of_run(config, data)
    assert {"apex 4 frames too late", "flow by dis", "half looser"} < set(tested) and len(rows) == 4
