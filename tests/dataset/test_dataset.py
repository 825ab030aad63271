"""Facts about reading and writing the data root: sequences, tables, and what bad input is answered with."""

import shutil

import numpy as np
import pandas as pd
import pytest
import trimesh
from PIL import Image

from utils.dataset.images import write_image
from utils.dataset.readers import open_sequence
from utils.dataset.tables import load_labels, load_sample_submission, open_data
from utils.dataset.writers import write_clip, write_obj_sequence
from utils.errors import DataError

CLASSES = ("Negative", "Positive", "Repression", "Surprise", "Others")
T, SIDE = 3, 5


def face_like(frames=T, seed=0):
    """A moving grid of a face's size in millimetres, its uv, and a composite per frame."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE)), axis=-1).reshape(-1, 2)
    rest = np.column_stack([grid * 160 - 80, rng.normal(0, 10, len(grid))])
    vertices = (rest + rng.normal(0, 0.5, (frames, *rest.shape))).astype(np.float32)
    index = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    corners = [index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]]
    a, b, c, d = (corner.ravel() for corner in corners)
    faces = np.concatenate([np.column_stack([a, b, c]), np.column_stack([d, c, b])]).astype(np.int32)
    uv = (grid * 0.4 + rng.uniform(0, 1e-3, grid.shape)).astype(np.float32)
    textures = rng.integers(0, 256, (frames, 12, 20, 3), dtype=np.uint8)
    return vertices, faces, uv, textures


@pytest.fixture
def clip(tmp_path):
    vertices, faces, uv, textures = face_like()
    return open_sequence(write_clip(tmp_path / "c1", vertices, faces, uv, 60, textures))


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


def assert_same_frames(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.vertices, b.vertices)
        np.testing.assert_array_equal(a.faces, b.faces)
        np.testing.assert_array_equal(a.uv, b.uv)
        np.testing.assert_array_equal(a.texture, b.texture)


# Sequences ------------------------------------------------------------------------------------------


def test_a_clip_reads_back_as_written(clip):
    vertices, faces, uv, textures = face_like()
    assert (clip.id, clip.kind, len(clip), clip.fps, clip.constant_topology) == ("c1", "mesh", T, 60, True)
    np.testing.assert_array_equal(clip.vertices(), vertices)
    for t, frame in enumerate(clip):
        np.testing.assert_array_equal(frame.faces, faces)
        np.testing.assert_array_equal(frame.uv, uv)
        np.testing.assert_array_equal(frame.texture, textures[t])


def test_uv_may_move_with_the_frames(tmp_path):
    vertices, faces, uv, textures = face_like()
    moving = uv + np.arange(T, dtype=np.float32)[:, None, None] / 100
    sequence = open_sequence(write_clip(tmp_path / "c", vertices, faces, moving, 60, textures))
    np.testing.assert_array_equal(sequence.frame(2).uv, moving[2])


def test_obj_frames_equal_the_compact_clip_they_came_from(clip, obj):
    assert obj.constant_topology
    assert_same_frames(clip, obj)
    np.testing.assert_array_equal(clip.vertices(), obj.vertices())


def test_writing_a_clip_twice_gives_the_same_bytes(tmp_path):
    vertices, faces, uv, textures = face_like()
    folders = [write_clip(tmp_path / name, vertices, faces, uv, 60, textures) for name in "ab"]
    for file in folders[0].iterdir():
        assert file.read_bytes() == (folders[1] / file.name).read_bytes()


def test_obj_with_numbers_of_its_own_for_uv_comes_out_with_one_uv_per_vertex(tmp_path, clip):
    frame, folder = clip.frame(0), tmp_path / "shuffled"
    order = np.random.default_rng(1).permutation(len(frame.uv))
    where = np.argsort(order)
    lines = ["v {:.9g} {:.9g} {:.9g}".format(*row) for row in frame.vertices]
    lines += ["vt {:.9g} {:.9g}".format(*row) for row in frame.uv[order]]
    lines += ["f " + " ".join(f"{v + 1}/{where[v] + 1}" for v in face) for face in frame.faces]
    folder.mkdir()
    for t in range(2):
        (folder / f"{t}.obj").write_text("\n".join(lines))
        write_image(folder / f"{t}.png", frame.texture)
    read = open_sequence(folder).frame(1)
    np.testing.assert_array_equal(read.vertices, frame.vertices)
    np.testing.assert_array_equal(read.uv, frame.uv)


def test_a_vertex_on_a_uv_seam_is_doubled(tmp_path):
    folder = tmp_path / "seam"
    folder.mkdir()
    for t in range(2):
        (folder / f"{t}.obj").write_text(
            "v 0 0 0\nv 100 0 0\nv 0 100 0\nv 100 100 0\n"
            "vt 0 0\nvt .4 0\nvt 0 .4\nvt .6 0\nvt .6 .4\nvt 1 .4\n"
            "f 1/1 2/2 3/3\nf 2/4 4/6 3/5\n"
        )
        write_image(folder / f"{t}.png", np.zeros((4, 8, 3), np.uint8))
    vertices, faces, uv = open_sequence(folder).geometry(0)
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


@pytest.mark.parametrize(("unit", "name"), [(1000, "metres"), (10, "centimetres")])
def test_meshes_in_larger_units_come_out_in_millimetres(tmp_path, unit, name):
    vertices, faces, uv, textures = face_like()
    small = open_sequence(write_clip(tmp_path / "clip", vertices / unit, faces, uv, 60, textures))
    read = open_sequence(write_obj_sequence(small, tmp_path / name))
    np.testing.assert_allclose(read.frame(1).vertices, vertices[1], rtol=1e-5, atol=1e-4)


def test_frames_are_ordered_by_number_not_by_text(tmp_path):
    folder = tmp_path / "n"
    folder.mkdir()
    for number in (10, 9, 100, 2):
        write_image(folder / f"take1_{number}.png", np.full((2, 4, 3), number, np.uint8))
    shades = [int(frame.texture[0, 0, 0]) for frame in open_sequence(folder)]
    assert shades == [2, 9, 10, 100]


def test_composites_come_without_mesh(composites):
    sequence = open_sequence(composites, fps=30)
    frame = sequence.frame(1)
    assert (sequence.kind, sequence.fps, sequence.constant_topology) == ("images", 30, False)
    assert frame.vertices is None and frame.faces is None and frame.uv is None
    np.testing.assert_array_equal(frame.texture, face_like()[3][1])


def test_a_material_may_name_a_texture_by_the_path_of_another_machine(obj):
    material = obj.files[0].with_suffix(".mtl")
    material.write_text("newmtl skin\nmap_Kd C:\\scans\\skin 1.png\n")
    material.with_suffix(".png").rename(material.with_name("skin 1.png"))
    assert obj.texture(0).shape == (12, 20, 3)


def test_the_parts_of_one_file_are_joined(tmp_path, obj):
    whole = obj.frame(0)
    lines = obj.files[0].read_text().splitlines()
    obj.files[0].write_text("\n".join([*lines[:-20], "usemtl other", *lines[-20:], ""]))
    joined = open_sequence(obj.folder).frame(0)
    corners = [{corner.tobytes() for corner in frame.vertices[frame.faces]} for frame in (whole, joined)]
    assert corners[0] == corners[1] and len(joined.faces) == len(whole.faces)


def test_frames_with_other_faces_have_no_constant_topology(obj):
    lines = obj.files[1].read_text().splitlines()
    lines[-1] = "f 1/1 2/2 7/7"
    obj.files[1].write_text("\n".join([*lines, ""]))
    again = open_sequence(obj.folder)
    assert not again.constant_topology
    with pytest.raises(DataError, match="do not share one mesh"):
        again.vertices()


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    vertices, faces, uv, textures = face_like()
    with pytest.raises(DataError):
        write_clip(tmp_path / "c", vertices, faces, uv, 60, textures[:-1])
    assert list(tmp_path.iterdir()) == []


# Bad sequences --------------------------------------------------------------------------------------


def refuses(action, *words):
    """The action raises DataError, and the message names these words and a remedy."""
    with pytest.raises(DataError) as caught:
        action()
    for word in (*words, "Remedy: "):
        assert str(word) in str(caught.value)


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
def test_unreadable_or_empty_mesh_is_named(obj, content, fault):
    obj.files[1].write_text(content)
    refuses(lambda: open_sequence(obj.folder).frame(1), "frame_0001.obj", fault)


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_damaged_binary_mesh_is_named(tmp_path, suffix):
    for t in range(2):
        (tmp_path / f"{t}{suffix}").write_bytes(b"glTF or ply, but not really")
    refuses(lambda: open_sequence(tmp_path).frame(0), f"0{suffix}")


def test_nan_vertex_in_obj_is_named(obj):
    text = obj.files[2].read_text()
    start = text.index("v ")
    obj.files[2].write_text(text[:start] + "v nan 0 0" + text[text.index("\n", start) :])
    refuses(lambda: open_sequence(obj.folder).frame(2), "frame_0002.obj", "NaN")


def test_nan_vertex_in_clip_is_named(tmp_path):
    vertices, faces, uv, textures = face_like()
    vertices[1, 4, 2] = np.nan
    refuses(lambda: write_clip(tmp_path / "c", vertices, faces, uv, 60, textures), "clip.npz", "not finite")


def test_missing_texture_is_named(obj):
    obj.files[0].with_suffix(".png").unlink()
    refuses(lambda: obj.frame(0), "frame_0000.obj", "names frame_0000.png")


def test_missing_composite_of_a_clip_is_named(clip):
    clip.files[0].unlink()
    refuses(lambda: open_sequence(clip.folder), "clip.npz", "3 frames, and 2 images")


def test_cut_off_image_is_named(composites):
    file = composites / "img1.png"
    file.write_bytes(file.read_bytes()[:200])
    refuses(lambda: open_sequence(composites).frame(1), "img1.png", "cannot be read")


def test_composite_of_another_size_is_named(composites):
    write_image(composites / "img1.png", np.zeros((12, 22, 3), np.uint8))
    refuses(lambda: list(open_sequence(composites)), "img1.png", "(12, 22)")


def test_one_frame_clip_is_refused(composites):
    for file in sorted(composites.iterdir())[1:]:
        file.unlink()
    refuses(lambda: open_sequence(composites), composites, "1 frame")


def test_damaged_clip_is_named(clip):
    file = clip.folder / "clip.npz"
    file.write_bytes(file.read_bytes()[:100])
    refuses(lambda: open_sequence(clip.folder), "clip.npz", "cannot be read")


def test_clip_with_faces_beyond_its_vertices_is_refused(tmp_path):
    vertices, faces, uv, textures = face_like()
    refuses(lambda: write_clip(tmp_path / "c", vertices, faces + 1, uv, 60, textures), "beyond the 25")
    refuses(lambda: write_clip(tmp_path / "c", vertices, faces[:0], uv, 60, textures), "empty")


def test_missing_and_empty_folders_are_refused(tmp_path):
    refuses(lambda: open_sequence(tmp_path / "nobody"), "nobody", "no such folder")
    refuses(lambda: open_sequence(tmp_path), tmp_path, "no meshes and no images")


def test_ambiguous_folders_are_refused(obj, composites):
    shutil.copy(composites / "img1.png", composites / "other_1.png")
    refuses(lambda: open_sequence(composites), "frame number of")
    (composites / "other_1.png").rename(composites / "cover.png")
    refuses(lambda: open_sequence(composites), "cover.png", "no frame number")
    np.savez(obj.folder / "clip.npz")
    refuses(lambda: open_sequence(obj.folder), ".obj and clip.npz")


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
    """Change columns of a CSV; None drops one."""
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


def test_subject_is_filled_from_the_id_by_a_pattern(root):
    rewrite(root / "train.csv", subject=None, Id=["s1_a", "s2_b"])
    assert load_labels(root, CLASSES, r"^(s\d+)_")["subject"].tolist() == ["s1", "s2"]


def test_no_subject_column_without_pattern_is_refused(root):
    rewrite(root / "train.csv", subject=None)
    refuses(lambda: load_labels(root, CLASSES), "train.csv", "007", "no subject")


def test_pattern_that_misses_an_id_is_refused(root):
    rewrite(root / "train.csv", subject=None)
    refuses(lambda: load_labels(root, CLASSES, r"^(s\d+)_"), "train.csv", "007", "no subject")


@pytest.mark.parametrize("pattern", [r"^s\d+_", r"(s)(\d)", r"(s"])
def test_pattern_without_exactly_one_group_is_refused(root, pattern):
    rewrite(root / "train.csv", subject=None)
    refuses(lambda: load_labels(root, CLASSES, pattern), repr(pattern))


def test_a_label_may_be_written_as_a_number_with_spaces(root):
    rewrite(root / "train.csv", Surprise=["1.0", " 0 "], Others=["1e0", "+1"])
    labels = load_labels(root, CLASSES)
    assert labels["Surprise"].tolist() == [1, 0] and labels["Others"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "label", ["2", "", "yes", "0.5", "-1", "TRUE", "False", "0x1", "1_0", "inf", "nan", "1,0", "9" * 4000]
)
def test_label_that_is_not_0_or_1_is_refused(root, label):
    rewrite(root / "train.csv", Surprise=["1", label])
    refuses(lambda: load_labels(root, CLASSES), "train.csv", "s2_b", "Surprise", repr(label[:200]))


def test_training_id_without_folder_is_refused(root):
    shutil.rmtree(root / "train" / "s2_b")
    refuses(lambda: open_data(root, CLASSES), "train.csv", "s2_b has no folder")


@pytest.mark.parametrize("split", ["train", "test"])
def test_folder_without_row_is_refused(root, split):
    (root / split / "stranger").mkdir()
    refuses(lambda: open_data(root, CLASSES), root / split / "stranger", "no row")


def test_a_single_test_id_without_folder_is_a_warning(root):
    write_sample(root, ["t1", "t2"])
    data = open_data(root, CLASSES)
    assert data.test_ids == ["t1", "t2"]
    assert len(data.warnings) == 1 and "t2" in data.warnings[0]


def test_a_test_split_without_any_folder_is_refused(root):
    shutil.rmtree(root / "test")
    refuses(lambda: open_data(root, CLASSES), root / "test", "no test Id")


@pytest.mark.parametrize("table", ["train.csv", "sample_submission.csv"])
def test_missing_table_and_missing_column_are_refused(root, table):
    rewrite(root / table, Positive=None)
    refuses(lambda: open_data(root, CLASSES), table, "column Positive is missing")
    (root / table).unlink()
    refuses(lambda: open_data(root, CLASSES), table, "no such table")


def test_repeated_ids_are_refused(root):
    rewrite(root / "train.csv", Id=["007", "007"])
    refuses(lambda: load_labels(root, CLASSES), "train.csv", "007 stands there twice")


def test_ids_that_leave_the_split_are_refused(root):
    rewrite(root / "train.csv", Id=["007", "../test"])
    refuses(lambda: load_labels(root, CLASSES), "train.csv", "'../test'")


@pytest.mark.parametrize("id", ["x" * 201, "ä" * 101, ".", "a\tb"])
def test_ids_that_no_folder_can_have_are_refused(root, id):
    rewrite(root / "train.csv", Id=["007", id])
    refuses(lambda: load_labels(root, CLASSES), "train.csv", "not the name of a folder")


@pytest.mark.parametrize("table", ["train.csv", "sample_submission.csv"])
def test_tables_of_a_header_alone_of_nothing_and_in_other_forms_are_refused(root, table):
    text = (root / table).read_text()
    for content, fault in {
        text.split("\n")[0]: "has no rows",
        "": "is empty",
        text.replace(",", ";"): "semicolons",
        text.replace(",", ',"', 1): "cannot be read",
    }.items():
        (root / table).write_text(content)
        refuses(lambda: open_data(root, CLASSES), table, fault)


def test_extra_columns_of_the_sample_submission_are_refused(root):
    rewrite(root / "sample_submission.csv", Disgust="0")
    refuses(lambda: load_sample_submission(root, CLASSES), "sample_submission.csv", "Disgust")


def test_sample_submission_keeps_its_own_column_order(root):
    order = ["Others", "Id", *CLASSES[:-1]]
    load_sample_submission(root, CLASSES)[order].to_csv(root / "sample_submission.csv", index=False)
    assert load_sample_submission(root, CLASSES).columns.tolist() == order


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"onset": ["0", "4"], "offset": ["3", "3"]}, "s2_b has its onset after its offset"),
        ({"apex": ["1", "9"], "offset": ["3", "8"]}, "s2_b has its apex after its offset"),
        ({"offset": ["3", "4"]}, "s2_b names frame 4 of 4"),
        ({"onset": ["-1", "0"]}, "007 has onset = '-1'"),
        ({"apex": ["1.5", "1"]}, "007 has apex = '1.5'"),
        ({"apex": ["early", "1"]}, "007 has apex = 'early'"),
    ],
)
def test_phases_out_of_order_or_range_are_refused(root, columns, fault):
    rewrite(root / "train.csv", **columns)
    refuses(lambda: open_data(root, CLASSES), "train.csv", fault)


def test_an_id_in_both_splits_is_refused(root):
    shutil.copytree(root / "train" / "007", root / "test" / "007")
    write_sample(root, ["t1", "007"])
    refuses(lambda: open_data(root, CLASSES), "sample_submission.csv", "007", "train.csv too")


def test_known_columns_are_found_whatever_their_case_and_stray_spaces(root):
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text.replace("Negative", " negative ").replace("apex", "Apex"))
    data = open_data(root, CLASSES)
    assert data.train["Negative"].tolist() == [0, 1] and data.train["apex"].tolist()[0] == 2


def test_a_column_that_stands_twice_is_refused(root):
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text.replace("Positive", "Negative "))
    refuses(lambda: open_data(root, CLASSES), "train.csv", "Negative stands there twice")


@pytest.mark.parametrize("position", ["9" * 20, "9" * 4000, "1e99", "1e9", "0x1"])
def test_a_frame_position_beyond_any_sequence_is_refused(root, position):
    rewrite(root / "train.csv", offset=[position, "3"])
    refuses(lambda: open_data(root, CLASSES), "007", "offset")
