"""Facts about the search for a face: in meshes with other axes, in busts, in pictures of one camera, in composites."""

import numpy as np
import pytest
from helpers.mesh_files import grid_faces
from helpers.one_camera import film
from helpers.pictures import picture_clip

from utils.config import AXIS_NAMES
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
    """A person's mesh and its texture: vertices (V, 3), faces, uv, texture."""
    identity, rng = make_identity(820 + request.param, "S01")
    model = load_face_model()
    return identity.vertices, model.faces, model.uv, np.uint8(paint_skin(identity, rng))


def mesh_clip(folder, vertices, faces, uv, texture):
    """A sequence of two frames with this mesh."""
    moved = np.stack([vertices, vertices + np.float32(0.2)])
    return open_sequence(write_clip(folder / "S01_001", moved, faces, uv, 60.0, [texture] * 2))


def test_the_settings_name_all_axes_and_each_is_a_rotation():
    assert tuple(AXES) == AXIS_NAMES
    for turn in AXES.values():
        assert np.linalg.det(turn) == 1 and (turn @ turn.T == np.eye(3)).all()


@pytest.mark.parametrize("name", [name for name in AXES if name not in ("y-up", "y-down")])
def test_a_face_in_other_axes_is_turned_towards_the_cameras(tmp_path, face, name):
    vertices, *rest = face
    upright = make_views(mesh_clip(tmp_path / "upright", *face), size=SIZE, axes="auto")
    turned = mesh_clip(tmp_path / "turned", (vertices @ AXES[name]).astype(np.float32), *rest)
    by_search = make_views(turned, size=SIZE, axes="auto")
    assert upright.axes == "y-up" and upright.warnings == () and upright.source == "mesh"
    assert by_search.axes == name and f'SET="axes={name}"' in by_search.warnings[0]
    assert np.abs(by_search.frames[0].astype(int) - upright.frames[0]).mean() < 1
    by_name = make_views(turned, size=SIZE, axes=name)
    assert by_name.warnings == () and np.array_equal(by_name.frames, by_search.frames)


def test_a_mesh_without_a_face_is_refused_unless_its_axes_are_named(dome_clip, dome):
    grain = np.random.default_rng(0).integers(60, 200, (256, 256, 3), dtype=np.uint8)
    clip = open_sequence(dome_clip(np.stack([dome.vertices] * 2), grain))
    with pytest.raises(DataError, match="S01_001.*shows no face.*axes=y-up"):
        make_views(clip, size=SIZE, axes="auto")
    assert make_views(clip, size=SIZE, axes="y-up").warnings == ()


def test_the_inside_of_a_mask_does_not_bulge(face):
    assert bulges(face[0]) and not bulges(face[0] * np.float32([-1, 1, -1]))


def test_a_picture_of_one_grey_is_refused(tmp_path, face):
    white = mesh_clip(tmp_path, *face[:3], np.full((64, 64, 3), 255, np.uint8))
    with pytest.raises(DataError, match="view 0 is one grey .25. of 255.*Remedy"):
        make_views(white, size=SIZE)
    assert not has_contrast(np.full((9, 9, 3), 30, np.uint8), np.ones((9, 9), bool))


def test_the_crop_of_a_bust_is_that_of_its_face(tmp_path, face):
    """The bust is the face with a plane behind and below it, as wide as shoulders."""
    vertices, faces, uv, texture = face
    low = vertices.min(0)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 30)), -1).reshape(-1, 2)
    body = np.column_stack([grid[:, 0] * 260, low[1] - 180 + grid[:, 1] * 170, np.full(len(grid), low[2] - 60)])
    body_uv = np.repeat(uv[[int(vertices[:, 1].argmax())]], len(body), axis=0)  # the colour of one point of the skin
    bust_faces = np.concatenate([faces, grid_faces(30) + len(vertices)])
    bust_vertices, bust_uv = np.float32(np.concatenate([vertices, body])), np.concatenate([uv, body_uv])
    bust = mesh_clip(tmp_path / "bust", bust_vertices, bust_faces, bust_uv, texture)
    views = make_views(bust, size=SIZE, axes="auto")
    alone = make_views(mesh_clip(tmp_path / "alone", *face), size=SIZE, axes="auto")
    assert views.source == "face" and alone.source == "mesh"
    assert 0.75 < views.boxes[0][2] / alone.boxes[0][2] < 1.25
    assert make_views(bust, size=SIZE, boxes=views.boxes).source == "override"


@pytest.mark.parametrize(("views", "fault"), [("split", "its texture is no composite"), ("single", "it is a mesh")])
def test_a_mesh_with_an_atlas_is_neither_a_composite_nor_a_picture(tmp_path, face, views, fault):
    with pytest.raises(DataError, match=f"{fault}.*set views to 'render'"):
        make_views(mesh_clip(tmp_path, *face), views, SIZE)


# Pictures of one camera, and composites


@pytest.fixture(scope="module")
def frames():
    return film(3, ["Surprise"], 1)[0][:3]


def test_a_detection_that_a_second_detector_does_not_confirm_is_dropped(frames):
    grey = np.ascontiguousarray(frames[0][..., 1])
    x, y, side = frontal_face(frames[0])
    face = np.array([x + side / 8, y + side / 8, side * 0.75, side * 0.75]).astype(int)
    tie = np.array([0, grey.shape[0] - 200, 200, 200])
    assert np.array_equal(seen_twice(grey, [tie, face]), [face]) and seen_twice(grey, [tie]) == []


def test_pictures_of_one_camera_give_one_view(tmp_path, frames):
    views = make_views(picture_clip(tmp_path / "clip", frames), "single", SIZE)
    assert views.frames.shape == (3, 1, SIZE, SIZE, 3) and views.source == "detector" and views.warnings == ()
    assert np.array_equal(views.masks, frontal_mask(SIZE)[None])


def test_the_picture_of_one_camera_is_not_split(tmp_path, frames):
    with pytest.raises(DataError, match="img0.png: it shows one face in its middle.*set views to 'single'"):
        make_views(picture_clip(tmp_path / "clip", frames), "split", SIZE)


def test_a_composite_is_not_taken_for_the_picture_of_one_camera(tmp_path, frames):
    composites = picture_clip(tmp_path / "clip", np.concatenate([frames, frames], axis=2))
    with pytest.raises(DataError, match="img0.png: it shows two faces of one size.*set views to 'split'"):
        make_views(composites, "single", SIZE)
    assert make_views(composites, "split", SIZE).source == "detector"


def test_a_face_that_fills_the_picture_is_cropped_whole(tmp_path, frames):
    """In a picture from brow to chin, the detector finds nothing or only a nose."""
    x, y, side = make_views(picture_clip(tmp_path / "whole", frames), "single", SIZE).boxes[0]
    edge = 0.1 * side
    tight = frames[:, int(y + edge) : int(y + side), int(x + edge) : int(x + side - edge)]
    views = make_views(picture_clip(tmp_path / "tight", tight), "single", SIZE)
    assert is_a_face(tight[0]) and views.source in ("picture", "detector")
    assert views.boxes[0][2] > 0.8 * min(tight.shape[1:3])
