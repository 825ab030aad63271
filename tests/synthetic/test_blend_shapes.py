"""Facts about users' own face models: they are read, registered with ours, painted and photographed."""

import re
import shutil

import numpy as np
import pytest
from helpers.face_models import HALVES, TURN, elsewhere, gltf_model, shapes, write_obj, write_obj_model

from utils.artefacts import write_artefact
from utils.dataset.readers import open_sequence
from utils.errors import DataError
from utils.flow.truth import exact_flow
from utils.paths import USER_FACE_MODEL
from utils.render.views import make_views, view_cameras
from utils.synthetic.action_units import ACTION_UNITS, shapes_of
from utils.synthetic.blend_shapes import files_of, known_name, load_blend_shapes, read_blend_shapes
from utils.synthetic.data_root import make_dataset, make_identity, make_subject
from utils.synthetic.expressions import LITERATURE, within_reach
from utils.synthetic.face_model import MOUTH_CAVITY, SKIN, load_face_model, moving_shapes
from utils.synthetic.performance import perform
from utils.synthetic.registration import assign_uv
from utils.synthetic.skin import TEXELS
from utils.train.samples import CLASSES

CLIP = {"Id": "S01_001", "subject": "S01", "split": "train"} | {name: int(name == "Positive") for name in CLASSES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_obj_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copied")


@pytest.fixture(scope="module")
def glb(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "face.glb"
    file.write_bytes(gltf_model().glb())
    return file


@pytest.fixture(scope="module")
def from_folder(folder):
    return read_blend_shapes(folder)


@pytest.fixture(scope="module")
def from_glb(glb):
    return read_blend_shapes(glb)


@pytest.fixture(params=["from_folder", "from_glb"])
def theirs(request):
    """The user's face model as it is read: our face model, placed elsewhere by the helpers."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def read_gltf(tmp_path):
    """Write a glTF file and read it as a face model."""

    def read(gltf):
        (tmp_path / "face.glb").write_bytes(gltf.glb())
        return read_blend_shapes(tmp_path / "face.glb")

    return read


def test_a_face_model_in_another_pose_and_scale_is_brought_to_ours(theirs):
    model = load_face_model()
    index = model.shape_index
    assert (
        np.abs(theirs.template[theirs.faces].mean((0, 1)) - model.template[model.faces].mean((0, 1))).max() < 0.5
    )  # mm
    assert np.abs(np.ptp(theirs.template, 0) - np.ptp(model.template, 0)).max() < 1
    for name in ("browInnerUp", "mouthSmileLeft", "jawOpen"):
        travel, ours = (
            np.linalg.norm(offset, axis=1).max() for offset in (theirs.offsets[index[name]], model.shapes[name])
        )
        assert travel == pytest.approx(ours, rel=0.01)
    assert not theirs.offsets[index["cheekPuff"]].any()
    assert len(theirs.faces) == pytest.approx(len(model.faces), rel=0.01)  # transparent parts are left out


def test_every_part_of_it_gets_the_texture_of_the_same_part_of_ours(theirs):
    """It is our own model, so the right uv of each face is known."""
    model = load_face_model()
    ours = {tuple(np.rint(place).astype(int)): i for i, place in enumerate(model.template[model.faces].mean(1) * 10)}
    pairs = [
        (face, ours[key])
        for face, place in zip(theirs.faces, theirs.template[theirs.faces].mean(1) * 10, strict=True)
        if (key := tuple(np.rint(place).astype(int))) in ours
    ]
    assert len(pairs) > 0.3 * len(model.faces)  # rounding separates the others
    faces, our_faces = np.array([face for face, _ in pairs]), model.faces[[i for _, i in pairs]]
    island, centres = model.island[our_faces[:, 0]], model.template[our_faces].mean(1)
    off = np.linalg.norm(theirs.uv[faces].mean(1) - model.uv[our_faces].mean(1), axis=1) * TEXELS
    for part in (SKIN, *model.eyes):
        assert np.median(off[island == part]) < 3 and np.quantile(off[island == part], 0.9) < 30  # texels
    lip = (np.abs(centres - model.template[model.masks["lips"] > 0.5].mean(0)) < [15, 8, 20]).all(1)
    assert np.median(off[lip & (island == SKIN)]) < 10
    dark, texel = theirs.uv[faces[island == MOUTH_CAVITY]].mean(1), model.uv[model.island == MOUTH_CAVITY]
    within = (dark > texel.min(0) - 0.01) & (dark < texel.max(0) + 0.01)  # anywhere in it: it has one colour
    assert within.all(1).mean() > 0.5


@pytest.mark.parametrize(("name", "least"), [("from_folder", 0.1), ("from_glb", 1.0)])  # mm
def test_its_people_differ_by_its_own_directions_or_as_our_people_do(request, name, least):
    model = request.getfixturevalue(name)
    first, again, second = (model.sample_identity(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.abs(first.vertices - second.vertices).max() > least
    assert np.array_equal(first.vertices, again.vertices) and first.traits == again.traits
    assert not np.array_equal(first.shape_offsets, second.shape_offsets) and first.traits != second.traits
    change = first.vertices - model.template
    step = np.linalg.norm(change[model.faces[:, 0]] - change[model.faces[:, 1]], axis=1)
    assert np.quantile(step, 0.99) < 3  # mm between neighbours: the change is smooth


@pytest.fixture(scope="module")
def root(from_folder, tmp_path_factory):
    """A data root with one clip of a person of the folder's model, and the clip's row of the truth."""
    root = tmp_path_factory.mktemp("root")
    write_artefact(root / USER_FACE_MODEL, from_folder.arrays())
    return root, make_subject(root, "S01", [CLIP], 7, False, "literature", face_model=True)[0]


def test_a_clip_of_its_people_is_photographed_and_rendered_as_any_other(root):
    root, row = root
    sequence = open_sequence(root / "train" / "S01_001")
    views = make_views(sequence, size=128)
    assert views.stabilised and views.source in ("mesh", "face") and not views.warnings
    assert 0.2 < views.masks.mean() < 0.9 and views.frames[0][:, views.masks[0]].std() > 10
    vertices, faces = sequence.vertices(), sequence.geometry(0)[1]
    camera = view_cameras(vertices[0], 128, 25.0, [tuple(box) for box in views.boxes])[0]
    flow, seen = exact_flow(vertices[0], vertices[row["apex"]], faces, camera)
    assert 0.02 < np.linalg.norm(flow[seen], axis=1).max() < 20


def test_the_truth_of_a_blend_shape_that_the_model_lacks_is_zero(root):
    row = root[1]
    values = np.array([row[au] for au in ACTION_UNITS])
    assert (np.abs(values) < 2).all() and row["AU9"] == row["AU9_side"] == 0 and row["AU12"] > 0


def test_the_data_root_keeps_the_registered_model(root, from_folder):
    kept = load_blend_shapes(root[0] / USER_FACE_MODEL, 0)
    assert all(np.array_equal(kept.arrays()[name], array) for name, array in from_folder.arrays().items())
    assert np.array_equal(make_identity(7, "S01", kept)[0].vertices, make_identity(7, "S01", from_folder)[0].vertices)


@pytest.mark.parametrize(
    ("content", "fault"), [("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", ".*faces are not those"), ("no mesh", "")]
)
def test_a_blend_shape_of_another_mesh_is_refused(copied, content, fault):
    (copied / "jawOpen.obj").write_text(content)
    with pytest.raises(DataError, match=f"jawOpen.obj{fault}.*Remedy"):
        read_blend_shapes(copied)


def test_a_model_whose_blend_shapes_have_other_names_or_move_nothing_is_refused(copied):
    for file in copied.glob("brow*.obj"):
        file.rename(copied / file.name.replace("browDown", "corrugator").replace("browOuterUp", "frontalis"))
    for half in HALVES:
        write_obj(copied / f"{half}.obj", load_face_model().template)
    with pytest.raises(DataError, match="two blend shapes of the brow.*recognised names are.*browDownLeft"):
        read_blend_shapes(copied)


def test_other_files_in_the_folder_are_not_read(copied, from_folder):
    (copied / "glasses.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (copied / "._neutral.obj").write_bytes(b"\0\5\26\7")
    assert np.array_equal(read_blend_shapes(copied).template, from_folder.template)


def test_a_folder_with_no_or_two_neutral_faces_and_a_single_file_are_refused(copied, tmp_path):
    (copied / "my_neutral_too.obj").write_text("v 0 0 0")
    for path, fault in ((copied, "both"), (tmp_path, "no OBJ file"), (copied / "jawOpen.obj", "neither a folder")):
        with pytest.raises(DataError, match=f"{fault}.*Remedy"):
            read_blend_shapes(path)


def test_blend_shapes_may_lack_the_uv_of_the_neutral_face(copied, from_folder):
    neutral = copied / "generic_neutral_mesh.obj"
    lines = neutral.read_text().splitlines()
    corners = [line.split()[1:] for line in lines if line[0] == "f"]
    faces = [" ".join(["f", *(f"{v}/{i + 1}" for i, v in enumerate(face))]) for face in corners]
    uv = ["vt 0 0", "vt 0 1", "vt 1 1"]
    neutral.write_text("\n".join([line for line in lines if line[0] == "v"] + uv + faces))
    assert np.array_equal(read_blend_shapes(copied).uv, from_folder.uv)


def cut_off(gltf):
    gltf.json["meshes"][0]["primitives"][0]["targets"][0]["POSITION"] = gltf.numbers(np.zeros((3, 3), "<f4"))


def without_names(gltf):
    del gltf.json["meshes"][0]["extras"]


def at_one_place(gltf):
    targets = gltf.json["meshes"][0]["primitives"][0]["targets"]
    targets[:] = [targets[0]] * len(targets)


def not_a_number(gltf):
    primitive = gltf.json["meshes"][0]["primitives"][0]
    count = gltf.json["accessors"][primitive["attributes"]["POSITION"]]["count"]
    primitive["targets"][0]["POSITION"] = gltf.numbers(np.full((count, 3), np.nan, "<f4"))


def renamed(rename):
    def damage(gltf):
        names = gltf.json["meshes"][0]["extras"]["targetNames"]
        names[:] = [rename(name) for name in names]

    return damage


OPPOSITE = {"L": "R", "R": "L", "Left": "Right", "Right": "Left"}
DAMAGE = {
    "number of vertices": cut_off,
    "with names": without_names,
    "one line": at_one_place,
    "no finite number": not_a_number,
    "blend shapes of the mouth": renamed(lambda name: name.replace("mouth", "lips").replace("jaw", "chin")),
    "exchanged": renamed(lambda name: re.sub(r"(Left|Right|(?<=_)[LR])$", lambda side: OPPOSITE[side[0]], name)),
    "two blend shapes are a jawopen": renamed(lambda name: name.replace("mouthPucker", "a.jawOpen")),
    "right side": renamed(lambda name: re.sub(r".*(Right|_R)$", "unknown", name)),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_gltf_whose_targets_do_not_fit_is_refused(read_gltf, fault):
    gltf = gltf_model()
    DAMAGE[fault](gltf)
    with pytest.raises(DataError, match=f"face.glb.*{fault}.*Remedy"):
        read_gltf(gltf)


def test_hair_is_left_out_and_faces_may_be_inside_out(read_gltf, from_glb):
    gltf, model = gltf_model(), load_face_model()
    gltf.part(elsewhere(model.template * 1.1 + [0, 20, 0]) / 100, model.faces, name="Hair")  # it has no target
    indices = gltf.json["accessors"][gltf.json["meshes"][0]["primitives"][0]["indices"]]
    view = gltf.json["bufferViews"][indices["bufferView"]]
    at = slice(view["byteOffset"], view["byteOffset"] + view["byteLength"])
    turned = np.frombuffer(gltf.binary[at], "<u4").reshape(-1, 3)[:, ::-1].tobytes()
    gltf.binary = gltf.binary[: at.start] + turned + gltf.binary[at.stop :]
    theirs = read_gltf(gltf)
    assert len(theirs.faces) == pytest.approx(len(from_glb.faces), rel=0.02)
    for face in (theirs, from_glb):
        assert face.normals(face.template)[:, 2].mean() > 0.2


def test_targets_of_one_name_move_all_meshes_of_a_file_together_whatever_their_prefix(read_gltf):
    """Head.jawOpen and Teeth.jawOpen are one blend shape."""
    gltf, model = gltf_model(), load_face_model()
    names = gltf.json["meshes"][0]["extras"]["targetNames"]
    lower = gltf.part(elsewhere(model.template * 0.5 + [0, -30, 0]) / 100, model.faces, name="Teeth")
    down = np.asarray(np.full((len(model.template), 3), [0, -20, 0]) @ TURN.T / 1000, "<f4")
    lower["targets"] = [{"POSITION": gltf.numbers(down)}]
    gltf.json["meshes"][-1]["extras"] = {"targetNames": ["Teeth.jawOpen"]}
    names[:] = [f"Head.{name}" for name in names]
    jaw = read_gltf(gltf).offsets[model.shape_index["jawOpen"]]
    assert (np.linalg.norm(jaw, axis=1) > 1).sum() > (np.linalg.norm(model.shapes["jawOpen"], axis=1) > 1).sum()


def test_a_mesh_with_a_skeleton_is_taken_at_rest(read_gltf, from_glb):
    gltf = gltf_model()
    gltf.json["nodes"][0] |= {"skin": 0, "translation": [5, 5, 5]}
    gltf.json["skins"] = [{"joints": [0]}]
    assert np.allclose(read_gltf(gltf).template, from_glb.template, atol=1e-3)


def test_a_blend_shape_that_moves_by_rounding_errors_alone_does_not_move(read_gltf):
    gltf, model = gltf_model(), load_face_model()
    noise = np.random.default_rng(0).normal(0, 1e-5, model.template.shape)  # metres; the head measures 0.26
    gltf.json["meshes"][0]["primitives"][0]["targets"].append({"POSITION": gltf.numbers(np.asarray(noise, "<f4"))})
    gltf.json["meshes"][0]["extras"]["targetNames"].append("noseSneerLeft")
    assert "noseSneerLeft" not in moving_shapes(read_gltf(gltf).offsets)


def test_the_error_for_a_damaged_file_names_the_file(glb, tmp_path):
    content, rng = glb.read_bytes(), np.random.default_rng(0)
    for n in range(20):
        broken = bytearray(content[: rng.integers(100, len(content))] if n % 2 else content)
        for place in rng.integers(0, 3000, 3):
            broken[place] = rng.integers(256)
        (tmp_path / "face.glb").write_bytes(broken)
        try:
            read_blend_shapes(tmp_path / "face.glb")
        except DataError as error:
            assert "face.glb" in str(error) and "Remedy" in str(error)


@pytest.mark.parametrize(
    "spelling", ["browDownLeft", "browDown_L", "BrowDown_left", "browDown.L", "browDown-L", "browDownL"]
)
@pytest.mark.parametrize("around", ["{}", "blendShape1.{}", "head|lod0:{}", "head_{}", "{}.001"])
def test_a_blend_shape_is_known_by_every_usual_spelling(spelling, around):
    assert known_name(around.format(spelling)) == "browdownleft"


def test_a_blend_shape_without_side_is_known_and_an_unknown_name_is_not():
    for name in ("mouthFunnel", "jawOpen", "browInnerUp", "mouthRollUpper", "jawLeft", "eyeLookUpRight"):
        assert known_name(name) == name.lower()
    assert known_name("browInnerUp_L") == "browinnerupleft" and known_name("identity012") == "identity012"
    assert known_name("glasses") is None and known_name("PupilDilate_L") is None
    assert {"mouthSmile_L", "mouthSmileRight", "browInnerUp_L"} <= shapes().keys()  # the helpers mix the spellings


def test_a_face_that_lacks_blend_shapes_shows_the_combinations_that_it_can(theirs):
    identity = theirs.sample_identity(np.random.default_rng(0))
    lacking = [au for au in ACTION_UNITS if identity.moving.isdisjoint(shapes_of(au))]
    assert "AU9" in lacking and "AU12" not in lacking
    names, rng = load_face_model().shape_names, np.random.default_rng(1)
    for emotion in CLASSES:
        for act in (perform(identity, [emotion], rng) for _ in range(10)):
            assert np.isfinite(act.contraction).all()
            moved = np.einsum("u,uvc->vc", act.expression[act.course.apex], identity.shape_offsets)
            assert np.linalg.norm(moved[:, :2], axis=1).max() > 0.2  # mm
    assert within_reach(LITERATURE, names) == LITERATURE
    distractors = within_reach(LITERATURE, identity.moving).distractors
    assert "AU12" in distractors and "AU9" not in distractors
    with pytest.raises(ValueError, match="cannot show Positive.*Remedy.*mouthSmile"):
        within_reach(LITERATURE, {name for name in names if "Smile" not in name})


def test_nothing_is_lost_or_made_where_a_model_is_refused(folder, copied, tmp_path):
    root, empty = tmp_path / "data", tmp_path / "empty"
    (root / "mine").mkdir(parents=True)
    parameters = {"clip_table": "smoke", "n_subjects": 6, "n_test_subjects": 2, "data_seed": 7, "obj_frames": False}
    with pytest.raises(DataError, match="not synthetic"):
        make_dataset(root, **parameters, expressions="literature", face_model=folder)
    for file in copied.glob("*Smile*.obj"):
        file.unlink()
    with pytest.raises(DataError, match="copied.*cannot show Positive.*Remedy.*mouthSmile"):
        make_dataset(empty, **parameters, expressions="literature", face_model=copied)
    assert not empty.exists() and list(root.glob("[!.]*")) == [root / "mine"]


def test_the_files_of_a_gltf_include_the_buffers_beside_it(tmp_path):
    for name in ("face.gltf", "face.bin", "face.glb"):
        (tmp_path / name).write_bytes(b"")
    assert files_of(tmp_path / "face.gltf") == [tmp_path / "face.gltf", tmp_path / "face.bin"]
    assert files_of(tmp_path / "face.glb") == [tmp_path / "face.glb"] and files_of(tmp_path) == [tmp_path]


def test_visible_faces_get_the_texture_of_skin_or_eyes():
    """Lips do, even where the bent face lies nearer to the inside of our mouth than to our lips."""
    model = load_face_model()
    _, uv, faces = assign_uv(model.template, model.faces, model.template - [0, 0, 8])
    inside = model.uv[model.island == MOUTH_CAVITY]
    dark = ((uv > inside.min(0)) & (uv < inside.max(0))).all(1)[faces].all(1)
    centres = model.template[model.faces].mean(1)
    lips = model.masks["lips"][model.faces].min(1) > 0.5
    foremost = lips & (centres[:, 2] > np.quantile(centres[lips, 2], 0.7))
    assert foremost.sum() > 10 and not dark[foremost].any()
