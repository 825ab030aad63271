"""Facts about what is done where a view shows no face, or not as one would think: axes, busts, one picture or two."""

import numpy as np
import pytest
from helpers.one_camera import film

from utils.config import AXIS_NAMES
from utils.dataset.images import write_image
from utils.dataset.readers import open_sequence
from utils.dataset.writers import write_clip
from utils.errors import DataError
from utils.render.axes import AXES, bulges
from utils.render.crops import frontal_mask
from utils.render.faces import frontal_face, has_contrast, is_a_face, seen_twice
from utils.render.views import make_views
from utils.synthetic.data_root import make_identity
from utils.synthetic.face_model import load_face_model
from utils.synthetic.skin import paint_skin

SIZE = 128


@pytest.fixture(scope="module", params=(0, 1))
def face(request):
    """A person's mesh and its texture: vertices (V, 3), faces, uv, albedo."""
    identity, rng = make_identity(820 + request.param, "S01")
    model = load_face_model()
    return identity.vertices, model.faces, model.uv, paint_skin(identity, rng)


def written(folder, face, vertices=None, texture=None):
    own, faces, uv, albedo = face
    vertices = own if vertices is None else vertices
    moved = np.stack([vertices, vertices + np.float32(0.2)])
    texture = np.uint8(albedo) if texture is None else texture
    return open_sequence(write_clip(folder / "S01_001", moved, faces, uv, 60.0, [texture] * 2))


def test_the_settings_name_the_axes_there_are():
    assert tuple(AXES) == AXIS_NAMES
    for turn in AXES.values():
        assert np.linalg.det(turn) == 1 and (turn @ turn.T == np.eye(3)).all()


@pytest.mark.parametrize("name", [name for name in AXES if name not in ("y-up", "y-down")])
def test_a_face_in_other_axes_is_turned_to_look_at_the_cameras(tmp_path, face, name):
    right = make_views(written(tmp_path / "right", face), size=SIZE, axes="auto")
    turned = written(tmp_path / "turned", face, (face[0] @ AXES[name]).astype(np.float32))
    found = make_views(turned, size=SIZE, axes="auto")
    assert right.axes == "y-up" and right.warnings == () and right.source == "mesh"
    assert found.axes == name and f'SET="axes={name}"' in found.warnings[0]
    assert np.abs(found.frames[0].astype(int) - right.frames[0]).mean() < 1
    told = make_views(turned, size=SIZE, axes=name)
    assert told.warnings == () and np.array_equal(told.frames, found.frames)


def test_a_mesh_that_shows_no_face_is_refused_unless_its_axes_are_told(tmp_path, dome_clip, dome):
    grain = np.random.default_rng(0).integers(60, 200, (256, 256, 3), dtype=np.uint8)
    clip = open_sequence(dome_clip(np.stack([dome.vertices] * 2), grain))
    with pytest.raises(DataError, match="S01_001.*shows no face.*axes=y-up"):
        make_views(clip, size=SIZE, axes="auto")
    assert make_views(clip, size=SIZE, axes="y-up").warnings == ()


def test_the_inside_of_a_mask_does_not_bulge(face):
    assert bulges(face[0]) and not bulges(face[0] * np.float32([-1, 1, -1]))


def test_a_picture_of_one_grey_is_refused(tmp_path, face):
    white = written(tmp_path, face, texture=np.full((64, 64, 3), 255, np.uint8))
    with pytest.raises(DataError, match="view 0 is one grey .25. of 255.*Remedy"):
        make_views(white, size=SIZE)
    assert not has_contrast(np.full((9, 9, 3), 30, np.uint8), np.ones((9, 9), bool))


def test_of_a_bust_the_face_is_cropped(tmp_path, face):
    """The face with a plain skull behind it and shoulders below: the crop is about that of the face alone."""
    vertices, faces, uv, albedo = face
    low = vertices.min(0)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 30)), -1).reshape(-1, 2)
    body = np.column_stack([grid[:, 0] * 260, low[1] - 180 + grid[:, 1] * 170, np.full(len(grid), low[2] - 60)])
    index = np.arange(900).reshape(30, 30)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    quads = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]) + len(vertices)
    # The body takes its colour from one point of the skin's texture.
    body_uv = np.repeat(uv[[int(vertices[:, 1].argmax())]], len(body), axis=0)
    bust = np.float32(np.concatenate([vertices, body])), np.int32(np.concatenate([faces, quads]))
    bust = *bust, np.concatenate([uv, body_uv]), albedo
    seen = make_views(written(tmp_path / "bust", bust), size=SIZE, axes="auto")
    alone = make_views(written(tmp_path / "alone", face), size=SIZE, axes="auto")
    assert seen.source == "face" and alone.source == "mesh"
    assert 0.75 < seen.boxes[0][2] / alone.boxes[0][2] < 1.25
    assert make_views(written(tmp_path / "told", bust), size=SIZE, boxes=seen.boxes).source == "override"


def test_a_second_detector_has_a_say(frames):
    """What one takes for a larger face, and the other does not see, is none."""
    grey = np.ascontiguousarray(frames[0][..., 1])
    x, y, side = frontal_face(frames[0])
    true = np.array([x + side / 8, y + side / 8, side * 0.75, side * 0.75]).astype(int)
    tie = np.array([0, grey.shape[0] - 200, 200, 200])
    assert len(seen_twice(grey, [tie, true])) == 1 and (seen_twice(grey, [tie, true])[0] == true).all()
    assert seen_twice(grey, [tie]) == []


# Pictures of one camera, and composites


@pytest.fixture(scope="module")
def frames():
    return film(3, ["Surprise"], 1)[0][:3]


def pictures(folder, frames):
    folder.mkdir()
    for t, frame in enumerate(frames):
        write_image(folder / f"img{t + 1}.png", frame)
    return open_sequence(folder)


def test_one_cameras_pictures_have_one_view(tmp_path, frames):
    views = make_views(pictures(tmp_path / "clip", frames), "single", SIZE)
    assert views.frames.shape == (3, 1, SIZE, SIZE, 3) and views.source == "detector" and views.warnings == ()
    assert np.array_equal(views.masks, frontal_mask(SIZE)[None])


def test_one_cameras_picture_is_not_cut_in_two(tmp_path, frames):
    with pytest.raises(DataError, match="img1.png: it shows one face in its middle.*set views to 'single'"):
        make_views(pictures(tmp_path / "clip", frames), "split", SIZE)


def test_a_composite_is_not_taken_for_one_picture(tmp_path, frames):
    both = np.concatenate([frames, frames], axis=2)
    with pytest.raises(DataError, match="img1.png: it shows two faces of one size.*set views to 'split'"):
        make_views(pictures(tmp_path / "clip", both), "single", SIZE)
    assert make_views(open_sequence(tmp_path / "clip"), "split", SIZE).source == "detector"


def test_where_the_picture_is_the_face_all_of_it_is_the_crop(tmp_path, frames):
    """Cut from brow to chin: the detector finds nothing in it, or a nose."""
    x, y, side = make_views(pictures(tmp_path / "whole", frames), "single", SIZE).boxes[0]
    edge = 0.1 * side
    tight = frames[:, int(y + edge) : int(y + side), int(x + edge) : int(x + side - edge)]
    views = make_views(pictures(tmp_path / "tight", tight), "single", SIZE)
    assert is_a_face(tight[0]) and views.source in ("picture", "detector")
    assert views.boxes[0][2] > 0.8 * min(tight.shape[1:3])


def test_meshes_of_an_atlas_are_not_split(tmp_path, face):
    vertices, faces, uv, albedo = face
    clip = written(tmp_path, face)
    try:
        views = make_views(clip, "split", SIZE)
    except DataError as error:
        assert "Remedy" in str(error)
    else:
        x, y, side = views.boxes[0]
        half = albedo.shape[1] / 2
        assert max(-x, -y, x + side - half, y + side - albedo.shape[0]) <= 0.25 * side


def test_a_mesh_is_no_picture_of_one_camera(tmp_path, face):
    with pytest.raises(DataError, match="it is a mesh.*set views to 'render'"):
        make_views(written(tmp_path, face), "single", SIZE)
