"""Facts about face models that users bring: they are read, laid upon ours, painted, and photographed as data."""

import re

import numpy as np
import pytest
from helpers.face_models import HALVES, TURN, elsewhere, gltf_model, shapes, write_obj, write_obj_model

from utils.artefacts import write_artefact
from utils.dataset.readers import open_sequence
from utils.errors import DataError
from utils.flow.truth import exact_flow
from utils.paths import USER_FACE_MODEL
from utils.render.views import make_views, view_cameras
from utils.synthetic.action_units import ACTION_UNITS, sides_of
from utils.synthetic.blend_shapes import files_of, known_name, load_blend_shapes, read_blend_shapes
from utils.synthetic.data_root import make_dataset, make_identity, make_subject
from utils.synthetic.expressions import LITERATURE, within_reach
from utils.synthetic.face_model import MOUTH_CAVITY, SKIN, load_face_model
from utils.synthetic.performance import perform
from utils.synthetic.registration import lay_atlas
from utils.synthetic.skin import TEXELS
from utils.train.samples import CLASSES

CLIP = {"Id": "S01_001", "subject": "S01", "split": "train"} | {name: int(name == "Positive") for name in CLASSES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_obj_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def glb(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "face.glb"
    file.write_bytes(gltf_model().glb())
    return file


@pytest.fixture(scope="module", params=["folder", "glb"])
def found(request):
    return read_blend_shapes(request.getfixturevalue(request.param))


def test_a_face_model_in_another_frame_is_brought_into_ours(found):
    model = load_face_model()
    index = model.shape_index
    assert np.abs(found.template[found.faces].mean((0, 1)) - model.template[model.faces].mean((0, 1))).max() < 0.5  # mm
    assert np.abs(np.ptp(found.template, 0) - np.ptp(model.template, 0)).max() < 1
    for name in ("browInnerUp", "mouthSmileLeft", "jawOpen"):
        moved, ours = (np.linalg.norm(units, axis=1).max() for units in (found.units[index[name]], model.shapes[name]))
        assert moved == pytest.approx(ours, rel=0.01)
    assert not found.units[index["cheekPuff"]].any()


def test_what_is_transparent_is_left_out(found):
    assert len(found.faces) == pytest.approx(len(load_face_model().faces), rel=0.01)


def test_every_part_of_it_finds_its_like_in_our_atlas(found):
    """The model is ours, so that each face knows where it should lie."""
    model = load_face_model()
    ours = {tuple(np.rint(place).astype(int)): i for i, place in enumerate(model.template[model.faces].mean(1) * 10)}
    pairs = [
        (face, ours[key])
        for face, place in zip(found.faces, found.template[found.faces].mean(1) * 10, strict=True)
        if (key := tuple(np.rint(place).astype(int))) in ours
    ]
    assert len(pairs) > 0.3 * len(model.faces)  # the rest is rounded elsewhere
    theirs, own = np.array([face for face, _ in pairs]), model.faces[[i for _, i in pairs]]
    island = model.island[own[:, 0]]
    off = np.linalg.norm(found.uv[theirs].mean(1) - model.uv[own].mean(1), axis=1) * TEXELS
    for part in (SKIN, *model.eyes):
        assert np.median(off[island == part]) < 3 and np.quantile(off[island == part], 0.9) < 30  # texels
    lip = (np.abs(model.template[own].mean(1) - model.template[model.masks["lips"] > 0.5].mean(0)) < [15, 8, 20]).all(1)
    assert np.median(off[lip & (island == SKIN)]) < 10
    dark, texel = found.uv[theirs[island == MOUTH_CAVITY]].mean(1), model.uv[model.island == MOUTH_CAVITY]
    within = (dark > texel.min(0) - 0.01) & (dark < texel.max(0) + 0.01)  # one colour, wherever in it
    assert within.all(1).mean() > 0.5


def test_its_people_differ_by_its_own_directions_or_else_by_ours(folder, glb):
    for path, least in ((folder, 0.1), (glb, 1.0)):
        model = read_blend_shapes(path)
        one, other = (model.sample_identity(np.random.default_rng(seed)) for seed in (0, 1))
        again = model.sample_identity(np.random.default_rng(0))
        assert np.abs(one.vertices - other.vertices).max() > least
        assert np.array_equal(one.vertices, again.vertices) and one.traits == again.traits
        assert not np.array_equal(one.shape_offsets, other.shape_offsets) and one.traits != other.traits
    moved = one.vertices - model.template
    step = np.linalg.norm(moved[model.faces[:, 0]] - moved[model.faces[:, 1]], axis=1)
    assert np.quantile(step, 0.99) < 3  # mm between neighbours: what is carried over is smooth


@pytest.fixture(scope="module")
def root(folder, tmp_path_factory):
    """A data root of one clip of a person of the folder's model, and the row of its truth."""
    root = tmp_path_factory.mktemp("root")
    write_artefact(root / USER_FACE_MODEL, read_blend_shapes(folder).arrays())
    return root, make_subject(root, "S01", [CLIP], 7, False, "literature", face_model=True)[0]


def test_a_clip_of_its_people_is_photographed_and_drawn_as_any_other(root):
    root, row = root
    sequence = open_sequence(root / "train" / "S01_001")
    views = make_views(sequence, size=128)
    assert views.stabilised and views.source in ("mesh", "face") and not views.warnings
    assert 0.2 < views.masks.mean() < 0.9 and views.frames[0][:, views.masks[0]].std() > 10
    vertices, faces = sequence.vertices(), sequence.geometry(0)[1]
    camera = view_cameras(vertices[0], 128, 25.0, [tuple(box) for box in views.boxes])[0]
    flow, seen = exact_flow(vertices[0], vertices[row["apex"]], faces, camera)
    assert 0.02 < np.linalg.norm(flow[seen], axis=1).max() < 20


def test_what_was_laid_upon_ours_comes_back_from_the_data_root(root, folder):
    kept, read = load_blend_shapes(root[0] / USER_FACE_MODEL, 0), read_blend_shapes(folder)
    assert all(np.array_equal(kept.arrays()[name], part) for name, part in read.arrays().items())
    assert np.array_equal(make_identity(7, "S01", kept)[0].vertices, make_identity(7, "S01", read)[0].vertices)


def test_a_folder_without_a_face_at_rest_or_with_another_mesh_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="neutral.*Remedy"):
        read_blend_shapes(tmp_path)
    for file in folder.glob("*.obj"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "jawOpen.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(DataError, match="jawOpen.obj.*faces are not those.*Remedy"):
        read_blend_shapes(tmp_path)
    (tmp_path / "jawOpen.obj").write_text("no mesh")
    with pytest.raises(DataError, match="jawOpen.obj.*Remedy"):
        read_blend_shapes(tmp_path)


def test_a_model_whose_shapes_are_named_otherwise_or_move_nothing_is_refused(folder, tmp_path):
    for file in folder.glob("*.obj"):
        name = file.name.replace("browDown", "corrugator")
        if not name.startswith("browOuterUp"):
            (tmp_path / name).write_bytes(file.read_bytes())
    for half in HALVES:
        write_obj(tmp_path / f"{half}.obj", load_face_model().template)
    with pytest.raises(DataError, match="two shapes of the brow.*known by name are.*browDownLeft"):
        read_blend_shapes(tmp_path)


def test_what_else_lies_in_a_folder_is_not_read(folder, tmp_path):
    for file in folder.glob("*.obj"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "glasses.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (tmp_path / "._neutral.obj").write_bytes(b"\0\5\26\7")
    assert np.array_equal(read_blend_shapes(tmp_path).template, read_blend_shapes(folder).template)
    (tmp_path / "my_neutral_too.obj").write_text("v 0 0 0")
    with pytest.raises(DataError, match="both have neutral.*Remedy"):
        read_blend_shapes(tmp_path)
    with pytest.raises(DataError, match="neither a folder.*Remedy"):
        read_blend_shapes(tmp_path / "jawOpen.obj")


def test_shapes_may_lack_the_uv_of_the_face_at_rest(folder, tmp_path):
    for file in folder.glob("*.obj"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    neutral = tmp_path / "generic_neutral_mesh.obj"
    lines = neutral.read_text().splitlines()
    faces = [
        " ".join(["f", *(f"{v}/{i % 3 + 1}" for i, v in enumerate(line.split()[1:]))])
        for line in lines
        if line[0] == "f"
    ]
    uv = ["vt 0 0", "vt 0 1", "vt 1 1"]
    neutral.write_text("\n".join([line for line in lines if line[0] == "v"] + uv + faces))
    assert np.array_equal(read_blend_shapes(tmp_path).uv, read_blend_shapes(folder).uv)


def cut(gltf):
    gltf.json["meshes"][0]["primitives"][0]["targets"][0]["POSITION"] = gltf.numbers(np.zeros((3, 3), "<f4"))


def without_names(gltf):
    del gltf.json["meshes"][0]["extras"]


def without_a_mouth(gltf):
    names = gltf.json["meshes"][0]["extras"]["targetNames"]
    names[:] = [name.replace("mouth", "lips").replace("jaw", "chin") for name in names]


def exchange_sides(gltf):
    names = gltf.json["meshes"][0]["extras"]["targetNames"]
    other = {"L": "R", "R": "L", "Left": "Right", "Right": "Left"}
    names[:] = [re.sub(r"(Left|Right|(?<=_)[LR])$", lambda side: other[side[0]], name) for name in names]


def on_one_place(gltf):
    targets = gltf.json["meshes"][0]["primitives"][0]["targets"]
    targets[:] = [targets[0]] * len(targets)


def twice(gltf):
    names = gltf.json["meshes"][0]["extras"]["targetNames"]
    names[names.index("mouthPucker")] = "a.jawOpen"


def no_number(gltf):
    primitive = gltf.json["meshes"][0]["primitives"][0]
    count = gltf.json["accessors"][primitive["attributes"]["POSITION"]]["count"]
    primitive["targets"][0]["POSITION"] = gltf.numbers(np.full((count, 3), np.nan, "<f4"))


def one_side(gltf):
    names = gltf.json["meshes"][0]["extras"]["targetNames"]
    names[:] = [f"{i}" if re.search(r"(Right|_R)$", name) else name for i, name in enumerate(names)]


DAMAGE = {
    cut: "number of vertices",
    without_names: "with names",
    without_a_mouth: "shapes of the mouth",
    exchange_sides: "left and right are exchanged",
    on_one_place: "one line",
    twice: "two shapes are a jawopen",
    no_number: "no finite number",
    one_side: "right side",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_gltf_whose_targets_do_not_fit_is_refused(tmp_path, damage):
    gltf = gltf_model()
    damage(gltf)
    (tmp_path / "face.glb").write_bytes(gltf.glb())
    with pytest.raises(DataError, match=f"face.glb.*{DAMAGE[damage]}.*Remedy"):
        read_blend_shapes(tmp_path / "face.glb")


def test_hair_is_left_out_and_faces_may_be_inside_out(tmp_path, glb):
    gltf, model = gltf_model(), load_face_model()
    gltf.part(elsewhere(model.template * 1.1 + [0, 20, 0]) / 100, model.faces, name="Hair")  # it has no target
    indices = gltf.json["accessors"][gltf.json["meshes"][0]["primitives"][0]["indices"]]
    view = gltf.json["bufferViews"][indices["bufferView"]]
    at = slice(view["byteOffset"], view["byteOffset"] + view["byteLength"])
    turned = np.frombuffer(gltf.binary[at], "<u4").reshape(-1, 3)[:, ::-1].tobytes()
    gltf.binary = gltf.binary[: at.start] + turned + gltf.binary[at.stop :]
    (tmp_path / "face.glb").write_bytes(gltf.glb())
    found, plain = read_blend_shapes(tmp_path / "face.glb"), read_blend_shapes(glb)
    assert len(found.faces) == pytest.approx(len(plain.faces), rel=0.02)
    assert found.normals(found.template)[:, 2].mean() > 0.2 and plain.normals(plain.template)[:, 2].mean() > 0.2


def test_meshes_of_one_file_move_together_whatever_their_prefix(tmp_path):
    """Head.jawOpen and Teeth.jawOpen are one."""
    gltf, model = gltf_model(), load_face_model()
    names = gltf.json["meshes"][0]["extras"]["targetNames"]
    lower = gltf.part(elsewhere(model.template * 0.5 + [0, -30, 0]) / 100, model.faces, name="Teeth")
    down = np.asarray(np.full((len(model.template), 3), [0, -20, 0]) @ TURN.T / 1000, "<f4")
    lower["targets"] = [{"POSITION": gltf.numbers(down)}]
    gltf.json["meshes"][-1]["extras"] = {"targetNames": ["Teeth.jawOpen"]}
    names[:] = [f"Head.{name}" for name in names]
    (tmp_path / "face.glb").write_bytes(gltf.glb())
    jaw = read_blend_shapes(tmp_path / "face.glb").units[model.shape_index["jawOpen"]]
    assert (np.linalg.norm(jaw, axis=1) > 1).sum() > (np.linalg.norm(model.shapes["jawOpen"], axis=1) > 1).sum()


def test_a_mesh_with_a_skeleton_is_taken_at_rest(tmp_path, glb):
    gltf = gltf_model()
    gltf.json["nodes"][0] |= {"skin": 0, "translation": [5, 5, 5]}
    gltf.json["skins"] = [{"joints": [0]}]
    (tmp_path / "face.glb").write_bytes(gltf.glb())
    assert np.allclose(read_blend_shapes(tmp_path / "face.glb").template, read_blend_shapes(glb).template, atol=1e-3)


def test_a_damaged_model_ends_in_an_error_that_names_it(glb, tmp_path):
    data, rng = glb.read_bytes(), np.random.default_rng(0)
    for n in range(20):
        broken = bytearray(data[: rng.integers(100, len(data))] if n % 2 else data)
        for place in rng.integers(0, 3000, 3):
            broken[place] = rng.integers(256)
        (tmp_path / "face.glb").write_bytes(broken)
        try:
            read_blend_shapes(tmp_path / "face.glb")
        except DataError as error:
            assert "face.glb" in str(error) and "Remedy" in str(error)


@pytest.mark.parametrize(
    "spelt", ["browDownLeft", "browDown_L", "BrowDown_left", "browDown.L", "browDown-L", "browDownL"]
)
@pytest.mark.parametrize("around", ["{}", "blendShape1.{}", "head|lod0:{}", "head_{}", "{}.001"])
def test_a_shape_is_known_by_every_usual_spelling(spelt, around):
    assert known_name(around.format(spelt)) == "browdownleft"


def test_a_shape_without_side_has_none_and_another_is_not_known():
    for name in ("mouthFunnel", "jawOpen", "browInnerUp", "mouthRollUpper", "jawLeft", "eyeLookUpRight"):
        assert known_name(name) == name.lower()
    assert known_name("browInnerUp_L") == "browinnerupleft" and known_name("identity012") == "identity012"
    assert known_name("glasses") is None and known_name("PupilDilate_L") is None
    assert {"mouthSmile_L", "mouthSmileRight", "browInnerUp_L"} <= shapes().keys()  # which these models mix


def test_a_face_that_lacks_muscles_shows_what_it_can(found):
    """Clips of each emotion, of combinations whose units all move something."""
    identity = found.sample_identity(np.random.default_rng(0))
    lacking = [
        au for au, units in ACTION_UNITS.items() if not {side for u in units for side in sides_of(u)} & identity.moving
    ]
    assert "AU9" in lacking and "AU12" not in lacking
    index, rng = load_face_model().shape_index, np.random.default_rng(1)
    for emotion in CLASSES:
        for act in (perform(identity, [emotion], rng) for _ in range(10)):
            assert np.isfinite(act.contraction).all()
            moved = np.einsum("u,uvc->vc", act.expression[act.course.apex], identity.shape_offsets)
            assert np.linalg.norm(moved[:, :2], axis=1).max() > 0.2  # mm
    assert within_reach(LITERATURE, set(index)) is LITERATURE
    distractors = within_reach(LITERATURE, identity.moving).distractors  # which are drawn beside the emotion's own
    assert "AU12" in distractors and "AU9" not in distractors
    with pytest.raises(ValueError, match="cannot show Positive.*Remedy.*mouthSmile"):
        within_reach(LITERATURE, {name for name in index if "Smile" not in name})


def test_the_truth_of_its_clips_is_an_intensity_and_not_the_inverse_of_nothing(root):
    """Of a unit that the model lacks it is zero."""
    row = root[1]
    values = np.array([row[au] for au in ACTION_UNITS])
    assert (np.abs(values) < 2).all() and row["AU9"] == 0


def test_nothing_is_lost_where_a_model_cannot_be_read_or_shows_too_little(folder, tmp_path):
    root = tmp_path / "data"
    (root / "mine").mkdir(parents=True)
    parameters = {"clip_table": "smoke", "n_subjects": 6, "n_test_subjects": 2, "data_seed": 7, "obj_frames": False}
    with pytest.raises(DataError, match="not synthetic"):
        make_dataset(root, **parameters, expressions="literature", face_model=folder)
    few = tmp_path / "few"
    few.mkdir()
    for file in folder.glob("*.obj"):
        if "Smile" not in file.name:
            (few / file.name).write_bytes(file.read_bytes())
    other = tmp_path / "other"
    with pytest.raises(DataError, match="few.*cannot show Positive.*Remedy.*mouthSmile"):
        make_dataset(other, **parameters, expressions="literature", face_model=few)
    assert not other.exists() and list(root.glob("[!.]*")) == [root / "mine"]


def test_a_shape_that_moves_by_rounding_alone_is_none(tmp_path):
    gltf, model = gltf_model(), load_face_model()
    noise = np.random.default_rng(0).normal(0, 1e-5, model.template.shape)  # metres; the head measures 0.26
    gltf.json["meshes"][0]["primitives"][0]["targets"].append({"POSITION": gltf.numbers(np.asarray(noise, "<f4"))})
    gltf.json["meshes"][0]["extras"]["targetNames"].append("noseSneerLeft")
    (tmp_path / "face.glb").write_bytes(gltf.glb())
    assert "noseSneerLeft" not in read_blend_shapes(tmp_path / "face.glb").moving


def test_the_buffers_of_a_gltf_are_part_of_it(tmp_path):
    for name in ("face.gltf", "face.bin", "face.glb"):
        (tmp_path / name).write_bytes(b"")
    assert files_of(tmp_path / "face.gltf") == [tmp_path / "face.gltf", tmp_path / "face.bin"]
    assert files_of(tmp_path / "face.glb") == [tmp_path / "face.glb"] and files_of(tmp_path) == [tmp_path]


def test_what_is_seen_at_rest_is_skin_or_eye():
    """Even where the bent face lies nearer to the inside of our mouth than to our lips."""
    model = load_face_model()
    _, uv, faces = lay_atlas(model.template, model.faces, model.template - [0, 0, 8])
    inside = model.uv[model.island == MOUTH_CAVITY]
    dark = ((uv > inside.min(0)) & (uv < inside.max(0))).all(1)[faces].all(1)
    middle = model.template[model.faces].mean(1)
    lips = model.masks["lips"][model.faces].min(1) > 0.5
    foremost = lips & (middle[:, 2] > np.quantile(middle[lips, 2], 0.7))
    assert foremost.sum() > 10 and not dark[foremost].any()
