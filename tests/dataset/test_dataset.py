"""Facts about reading and writing a data root: sequences and tables, and the refusals of faulty input."""

import shutil

import numpy as np
import pandas as pd
import pytest
import trimesh
from helpers.refusals import refused
from PIL import Image

from utils.dataset.images import write_image
from utils.dataset.readers import open_sequence
from utils.dataset.tables import load_labels, load_sample_submission, open_data
from utils.dataset.writers import write_clip, write_obj_sequence

CLASSES = ("Negative", "Positive", "Repression", "Surprise", "Others")
T, SIDE = 3, 5


def face_like(frames=T, seed=0):
    """A moving grid of a face's size in millimetres, its uv, and a composite per frame."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE)), axis=-1).reshape(-1, 2)
    rest = np.column_stack([grid * 160 - 80, rng.normal(0, 10, len(grid))])
    vertices = (rest + rng.normal(0, 0.5, (frames, *rest.shape))).astype(np.float32)
    index = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    a, b, c, d = (corner.ravel() for corner in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    faces = np.concatenate([np.column_stack([a, b, c]), np.column_stack([d, c, b])]).astype(np.int32)
    uv = (grid * 0.4 + rng.uniform(0, 1e-3, grid.shape)).astype(np.float32)
    textures = rng.integers(0, 256, (frames, 12, 20, 3), dtype=np.uint8)
    return vertices, faces, uv, textures


def write(folder, textures=None, **changes):
    """Write the moving grid as a clip, with some of its arrays replaced."""
    vertices, faces, uv, composites = face_like()
    arrays = {"vertices": vertices, "faces": faces, "uv": uv, **changes}
    return write_clip(folder, fps=60, textures=composites if textures is None else textures, **arrays)


@pytest.fixture
def clip(tmp_path):
    return open_sequence(write(tmp_path / "c1"))


@pytest.fixture
def obj(tmp_path, clip):
    return open_sequence(write_obj_sequence(clip, tmp_path / "o1"))


@pytest.fixture
def composites(tmp_path):
    folder = tmp_path / "i1"
    folder.mkdir()
    for t, texture in enumerate(face_like()[3]):
        write_image(folder / f"img{t}.png", texture)
    return folder


# Sequences ------------------------------------------------------------------------------------------


def test_a_clip_reads_back_as_written(clip):
    vertices, faces, uv, textures = face_like()
    assert (clip.id, clip.kind, len(clip), clip.fps, clip.constant_topology) == ("c1", "mesh", T, 60, True)
    np.testing.assert_array_equal(clip.vertices(), vertices)
    for t, frame in enumerate(clip):
        np.testing.assert_array_equal(frame.faces, faces)
        np.testing.assert_array_equal(frame.uv, uv)
        np.testing.assert_array_equal(frame.texture, textures[t])


def test_uv_may_change_from_frame_to_frame(tmp_path):
    moving = face_like()[2] + np.arange(T, dtype=np.float32)[:, None, None] / 100
    np.testing.assert_array_equal(open_sequence(write(tmp_path / "c", uv=moving)).frame(2).uv, moving[2])


def test_obj_frames_equal_the_compact_clip_they_came_from(clip, obj):
    assert obj.constant_topology and len(clip) == len(obj)
    for frame, twin in zip(clip, obj, strict=True):
        for name in ("vertices", "faces", "uv", "texture"):
            np.testing.assert_array_equal(getattr(frame, name), getattr(twin, name))
    np.testing.assert_array_equal(clip.vertices(), obj.vertices())


def test_writing_a_clip_twice_gives_the_same_bytes(tmp_path):
    folders = [write(tmp_path / name) for name in "ab"]
    for file in folders[0].iterdir():
        assert file.read_bytes() == (folders[1] / file.name).read_bytes()


def test_an_obj_that_numbers_its_uv_differently_gets_one_uv_per_vertex(tmp_path, clip):
    frame, folder = clip.frame(0), tmp_path / "shuffled"
    order = np.random.default_rng(1).permutation(len(frame.uv))
    place = np.argsort(order)
    lines = ["v {:.9g} {:.9g} {:.9g}".format(*row) for row in frame.vertices]
    lines += ["vt {:.9g} {:.9g}".format(*row) for row in frame.uv[order]]
    lines += ["f " + " ".join(f"{v + 1}/{place[v] + 1}" for v in face) for face in frame.faces]
    folder.mkdir()
    for t in range(2):
        (folder / f"{t}.obj").write_text("\n".join(lines))
        write_image(folder / f"{t}.png", frame.texture)
    read = open_sequence(folder).frame(1)
    np.testing.assert_array_equal(read.vertices, frame.vertices)
    np.testing.assert_array_equal(read.uv, frame.uv)


def test_a_vertex_on_a_uv_seam_is_doubled(tmp_path):
    for t in range(2):
        (tmp_path / f"{t}.obj").write_text(
            "v 0 0 0\nv 100 0 0\nv 0 100 0\nv 100 100 0\n"
            "vt 0 0\nvt .4 0\nvt 0 .4\nvt .6 0\nvt .6 .4\nvt 1 .4\n"
            "f 1/1 2/2 3/3\nf 2/4 4/6 3/5\n"
        )
        write_image(tmp_path / f"{t}.png", np.zeros((4, 8, 3), np.uint8))
    vertices, faces, uv = open_sequence(tmp_path).geometry(0)
    np.testing.assert_array_equal(vertices[faces[1]], [[100, 0, 0], [100, 100, 0], [0, 100, 0]])
    np.testing.assert_allclose(uv[faces[0]], [[0, 0], [0.4, 0], [0, 0.4]])
    np.testing.assert_allclose(uv[faces[1]], [[0.6, 0], [1, 0.4], [0.6, 0.4]])


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_ply_and_glb_frames_give_the_same_surface(tmp_path, clip, suffix):
    folder = tmp_path / "m"
    folder.mkdir()
    for t, frame in enumerate(clip):
        visual = trimesh.visual.TextureVisuals(uv=frame.uv, image=Image.fromarray(frame.texture))
        unit = 1000 if suffix == ".glb" else 1  # glTF is in metres
        mesh = trimesh.Trimesh(frame.vertices / unit, frame.faces, visual=visual, process=False)
        mesh.export(folder / f"{t}{suffix}")
        if suffix == ".ply":
            write_image(folder / f"{t}.png", frame.texture)
    for read, frame in zip(open_sequence(folder), clip, strict=True):
        np.testing.assert_allclose(read.vertices[read.faces], frame.vertices[frame.faces], atol=1e-4)
        np.testing.assert_allclose(read.uv[read.faces], frame.uv[frame.faces], atol=1e-6)
        np.testing.assert_array_equal(read.texture, frame.texture)


def test_frames_are_ordered_by_number_not_by_text(tmp_path):
    for number in (10, 9, 100, 2):
        write_image(tmp_path / f"take1_{number}.png", np.full((2, 4, 3), number, np.uint8))
    assert [int(frame.texture[0, 0, 0]) for frame in open_sequence(tmp_path)] == [2, 9, 10, 100]


def test_composites_come_without_mesh(composites):
    sequence = open_sequence(composites)
    frame = sequence.frame(1)
    assert (sequence.kind, sequence.fps, sequence.constant_topology) == ("images", 60, False)
    assert frame.vertices is None and frame.faces is None and frame.uv is None
    np.testing.assert_array_equal(frame.texture, face_like()[3][1])


def test_frames_with_different_faces_have_no_constant_topology(obj):
    lines = obj.files[1].read_text().splitlines()
    lines[-1] = "f 1/1 2/2 7/7"
    obj.files[1].write_text("\n".join([*lines, ""]))
    again = open_sequence(obj.folder)
    assert not again.constant_topology
    with refused("do not share one mesh"):
        again.vertices()


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with refused():
        write(tmp_path / "c", textures=face_like()[3][:-1])
    assert list(tmp_path.iterdir()) == []


# Faulty sequences -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\n", "empty"),
        ("v 0 0 0\nvt 0 0\nf 1/1 2/1 9/1\n", "frame_0001.obj"),
        ("v 0 0 0\nv 90 0 0\nv 0 90 0\nf 1 2 3\n", "no texture coordinates"),
        ("\x00\x01 not a mesh", "frame_0001.obj"),
    ],
)
def test_an_unreadable_or_empty_mesh_is_named(obj, content, fault):
    obj.files[1].write_text(content)
    with refused("frame_0001.obj", fault):
        open_sequence(obj.folder).frame(1)


def test_a_missing_composite_of_a_clip_is_named(clip):
    clip.files[0].unlink()
    with refused("clip.npz", "3 frames, and 2 images"):
        open_sequence(clip.folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "img1.png").write_bytes(b"\x89PNG\r\n\x1a\n"), ("img1.png", "cannot be read")),
        (lambda folder: write_image(folder / "img1.png", np.zeros((12, 22, 3), np.uint8)), ("img1.png", "(12, 22)")),
        (lambda folder: shutil.copy(folder / "img1.png", folder / "other_1.png"), ("frame number of",)),
        (lambda folder: shutil.copy(folder / "img1.png", folder / "cover.png"), ("cover.png", "no frame number")),
        (lambda folder: [file.unlink() for file in sorted(folder.iterdir())[1:]], ("i1", "1 frame")),
        (lambda folder: [file.unlink() for file in folder.iterdir()], ("i1", "no meshes and no images")),
        (shutil.rmtree, ("i1", "no such folder")),
    ],
)
def test_a_faulty_folder_of_images_is_refused(composites, change, words):
    change(composites)
    with refused(*words):
        list(open_sequence(composites))


def test_two_forms_of_a_sequence_in_one_folder_are_refused(obj):
    np.savez(obj.folder / "clip.npz")
    with refused(".obj and clip.npz", "keep one form"):
        open_sequence(obj.folder)


# Tables ---------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    """A data root of two training clips and one test clip, composites only."""
    for folder in ("train/007", "train/s2_b", "test/t1"):
        (tmp_path / folder).mkdir(parents=True)
        for t in range(4):
            write_image(tmp_path / folder / f"{t}.png", np.zeros((2, 4, 3), np.uint8))
    labels = {name: [0, 1] for name in CLASSES}
    train = pd.DataFrame(
        {"Id": ["007", "s2_b"], "subject": ["01", "02"], **labels, "onset": [0, 0], "apex": ["2", ""], "offset": [3, 3]}
    )
    train.to_csv(tmp_path / "train.csv", index=False)
    write_sample(tmp_path, ["t1"])
    return tmp_path


def write_sample(root, ids):
    pd.DataFrame({"Id": ids, **dict.fromkeys(CLASSES, 0)}).to_csv(root / "sample_submission.csv", index=False)


def rewrite(path, **columns):
    """Change columns of a CSV; None drops a column."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name, values in columns.items():
        table = table.drop(columns=name) if values is None else table.assign(**{name: values})
    table.to_csv(path, index=False)


def test_a_good_data_root_opens(root):
    data = open_data(root, CLASSES)
    assert data.train["Id"].tolist() == ["007", "s2_b"] and data.train["subject"].tolist() == ["01", "02"]
    assert data.train[list(CLASSES)].to_numpy().tolist() == [[0] * 5, [1] * 5]
    assert data.train["apex"].tolist()[0] == 2 and pd.isna(data.train["apex"].tolist()[1])
    assert data.test_ids == ["t1"] and data.warnings == () and data.solution is None
    assert len(data.sequence("train", "007")) == 4


def test_a_root_without_moments_opens(root):
    rewrite(root / "train.csv", onset=None, apex=None, offset=None)
    assert open_data(root, CLASSES).train.columns.tolist() == ["Id", "subject", *CLASSES]


def test_a_pattern_finds_the_subject_in_the_id(root):
    rewrite(root / "train.csv", subject=None)
    assert open_data(root, CLASSES, r"^(s2|007)").train["subject"].tolist() == ["007", "s2"]
    with refused("train.csv", "Id 007 has no subject"):
        open_data(root, CLASSES, r"^(s\d+)_")


@pytest.mark.parametrize("pattern", [r"^s\d+_", r"(s)(\d)", r"(s"])
def test_a_pattern_without_exactly_one_group_is_refused(root, pattern):
    rewrite(root / "train.csv", subject=None)
    with refused(repr(pattern)):
        open_data(root, CLASSES, pattern)


def test_a_label_may_be_written_as_a_number_with_spaces(root):
    rewrite(root / "train.csv", Surprise=["1.0", " 0 "], Others=["1e0", "+1"])
    labels = load_labels(root, CLASSES)
    assert labels["Surprise"].tolist() == [1, 0] and labels["Others"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "label", ["2", "", "yes", "0.5", "-1", "TRUE", "False", "0x1", "1_0", "inf", "nan", "1,0", "9" * 4000]
)
def test_a_label_that_is_not_0_or_1_is_refused(root, label):
    rewrite(root / "train.csv", Surprise=["1", label])
    with refused("train.csv", "s2_b", "Surprise", repr(label[:200])):
        load_labels(root, CLASSES)


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"subject": None}, "Id 007 has no subject"),
        ({"Positive": None}, "the column Positive is missing"),
        ({"Id": ["007", "007"]}, "Id 007 stands there twice"),
        ({"Id": ["007", "../test"]}, "'../test' is not the name of a folder"),
        *(({"Id": ["007", id]}, "is not the name of a folder") for id in ("x" * 201, "ä" * 101, ".", "a\tb")),
        ({"onset": ["0", "4"], "offset": ["3", "3"]}, "s2_b has its onset after its offset"),
        ({"apex": ["1", "9"], "offset": ["3", "8"]}, "s2_b has its apex after its offset"),
        ({"offset": ["3", "4"]}, "s2_b names frame 4 of 4"),
        ({"onset": ["-1", "0"]}, "007 has onset = '-1'"),
        ({"apex": ["1.5", "1"]}, "007 has apex = '1.5'"),
        ({"apex": ["early", "1"]}, "007 has apex = 'early'"),
        *(({"offset": [n, "3"]}, "Id 007 has offset = ") for n in ("9" * 20, "9" * 4000, "1e99", "1e9", "0x1")),
    ],
)
def test_a_faulty_training_table_is_refused(root, columns, fault):
    rewrite(root / "train.csv", **columns)
    with refused("train.csv", fault):
        open_data(root, CLASSES)


def test_a_training_id_without_folder_is_refused(root):
    shutil.rmtree(root / "train" / "s2_b")
    with refused("train.csv", "s2_b has no folder"):
        open_data(root, CLASSES)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_without_a_row_is_refused(root, split):
    (root / split / "stranger").mkdir()
    with refused(root / split / "stranger", "no row"):
        open_data(root, CLASSES)


def test_a_single_test_id_without_folder_is_a_warning(root):
    write_sample(root, ["t1", "t2"])
    data = open_data(root, CLASSES)
    assert data.test_ids == ["t1", "t2"]
    assert len(data.warnings) == 1 and "t2" in data.warnings[0]


def test_a_test_split_without_any_folder_is_refused(root):
    shutil.rmtree(root / "test")
    with refused(root / "test", "no test Id"):
        open_data(root, CLASSES)


@pytest.mark.parametrize("table", ["train.csv", "sample_submission.csv"])
def test_a_table_that_is_missing_empty_or_in_another_form_is_refused(root, table):
    text = (root / table).read_text()
    for content, fault in {
        text.replace("Positive", "other"): "column Positive is missing",
        text.replace("Positive", "Negative "): "Negative stands there twice",
        text.split("\n")[0]: "has no rows",
        "": "is empty",
        text.replace(",", ";"): "semicolons",
        text.replace(",", ',"', 1): "cannot be read",
    }.items():
        (root / table).write_text(content)
        with refused(table, fault):
            open_data(root, CLASSES)
    (root / table).unlink()
    with refused(table, "no such table"):
        open_data(root, CLASSES)


def test_extra_columns_of_the_sample_submission_are_refused(root):
    rewrite(root / "sample_submission.csv", Disgust="0")
    with refused("sample_submission.csv", "Disgust"):
        load_sample_submission(root, CLASSES)


def test_the_sample_submission_keeps_its_column_order(root):
    order = ["Others", "Id", *CLASSES[:-1]]
    load_sample_submission(root, CLASSES)[order].to_csv(root / "sample_submission.csv", index=False)
    assert load_sample_submission(root, CLASSES).columns.tolist() == order


def test_an_id_in_both_splits_is_refused(root):
    shutil.copytree(root / "train" / "007", root / "test" / "007")
    write_sample(root, ["t1", "007"])
    with refused("sample_submission.csv", "007", "train.csv too"):
        open_data(root, CLASSES)


def test_column_names_are_recognised_in_any_case_and_with_stray_spaces(root):
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text.replace("Negative", " negative ").replace("apex", "Apex"))
    data = open_data(root, CLASSES)
    assert data.train["Negative"].tolist() == [0, 1] and data.train["apex"].tolist()[0] == 2
