"""Facts about the views of a sequence: rendering, rigid stabilisation, crops, composites."""

import numpy as np
import pytest
from helpers.pictures import picture_clip

from utils.dataset.boxes import read_boxes
from utils.dataset.readers import open_sequence
from utils.dataset.writers import write_clip, write_obj_sequence
from utils.errors import DataError
from utils.flow.methods import estimate_flow
from utils.render.crops import crop_image, ellipse_mask, square_box
from utils.render.pictures import half_projection, silhouette
from utils.render.view_set import Views
from utils.render.views import align_rigidly, make_views, mesh_box, view_cameras, wide_cameras
from utils.synthetic.expressions import rotation
from utils.synthetic.photography import BACKGROUND

SIZE = 96


@pytest.fixture(scope="module")
def clip(tiny):
    """One synthetic sequence."""
    return open_sequence(sorted((tiny.data_root / "train").iterdir())[0])


@pytest.fixture(scope="module")
def rendered(clip):
    return make_views(clip, "render", SIZE)


@pytest.fixture(scope="module")
def split(clip):
    return make_views(clip, "split", SIZE)


@pytest.fixture
def composites(clip, tmp_path):
    """The same sequence as composite images only."""
    return picture_clip(tmp_path / clip.id, map(clip.texture, range(len(clip))))


@pytest.fixture
def still_dome(dome, dome_clip):
    return open_sequence(dome_clip(np.stack([dome.vertices] * 2), name="S01_009"))


# Rendering


def test_views_have_frame_view_size_and_colour(clip, rendered):
    assert rendered.frames.shape == (len(clip), 2, SIZE, SIZE, 3) and rendered.frames.dtype == np.uint8
    assert rendered.masks.shape == (2, SIZE, SIZE) and rendered.masks.dtype == bool
    assert rendered.boxes.shape == (2, 3)
    assert (rendered.source, rendered.stabilised, rendered.warnings) == ("mesh", True, ())


def test_views_are_restored_from_their_arrays(rendered):
    restored = Views.from_arrays(rendered.arrays())
    assert all(np.array_equal(part, restored.arrays()[name]) for name, part in rendered.arrays().items())
    assert (restored.source, restored.stabilised, restored.axes, restored.warnings) == ("mesh", True, "y-up", ())


def test_the_face_fills_the_crop_and_is_not_cut(rendered):
    for mask in rendered.masks:
        assert 0.4 < mask.mean() < 0.9
        assert max(np.flatnonzero(mask.any(axis)).size for axis in (0, 1)) > 0.9 * SIZE
        assert not mask[:, 0].all() and not mask[0].all()


def test_obj_frames_and_the_compact_clip_give_the_same_views(clip, rendered, split, tmp_path):
    frames = open_sequence(write_obj_sequence(clip, tmp_path / clip.id))
    assert type(frames) is not type(clip)
    for name, compact in (("render", rendered), ("split", split)):
        views = make_views(frames, name, SIZE)
        for part in ("frames", "masks", "boxes"):
            assert np.array_equal(getattr(views, part), getattr(compact, part))


def test_view_0_is_that_of_the_camera_at_the_viewers_left(dome, dome_clip):
    texture = np.full((256, 256, 3), 60, np.uint8)
    texture[:, :128, 0] = 250  # the viewer's left half of the dome is red
    views = make_views(open_sequence(dome_clip(np.stack([dome.vertices] * 2), texture)), "render", SIZE)
    red = [(views.frames[0, v, ..., 0] > 150).sum() for v in range(2)]
    assert red[0] > 1.3 * red[1]


def test_a_mirrored_face_gives_mirrored_views_in_reverse_order(dome, dome_clip, speckle):
    vertices = dome.vertices + 15 * np.sin(dome.vertices[:, :1] / 30) * [0, 0, 1.0]  # not symmetric
    mirrored = vertices.reshape(41, 41, 3)[:, ::-1].reshape(-1, 3) * [-1, 1, 1]
    views = make_views(open_sequence(dome_clip(np.stack([vertices] * 2))), "render", SIZE)
    twin = dome_clip(np.stack([mirrored] * 2), speckle[:, ::-1], "S01_002")
    twin = make_views(open_sequence(twin), "render", SIZE)
    for v in range(2):
        frame, flipped = views.frames[0, v].astype(int), twin.frames[0, :, :, ::-1].astype(int)
        assert np.abs(frame - flipped[1 - v]).mean() < 3 and np.abs(frame - flipped[v]).mean() > 15
        assert (views.masks[v] != twin.masks[1 - v, :, ::-1]).mean() < 0.02


def test_the_crop_does_not_follow_the_face(dome, dome_clip, still_dome):
    step = np.array([3.0, 0, 0], np.float32)
    sequence = open_sequence(dome_clip(np.stack([dome.vertices, dome.vertices + step])))
    views = make_views(sequence, "render", 128, stabilise=False)
    assert np.array_equal(views.frames[0], make_views(still_dome, "render", 128).frames[0])
    assert not views.stabilised
    for v, camera in enumerate(view_cameras(dome.vertices, 128, 25.0)):
        expected = np.median(camera.project(dome.vertices + step) - camera.project(dome.vertices), axis=0)
        flow = np.median(estimate_flow(*views.frames[:, v])[30:-30, 30:-30], axis=(0, 1))
        assert np.abs(flow - expected).max() < 0.25 and expected[0] > 1.5


def test_stabilising_removes_the_heads_motion(dome, dome_clip):
    turn = rotation(np.array([1.0, -3, 2])).astype(np.float32)
    sequence = open_sequence(dome_clip(np.stack([dome.vertices, dome.vertices @ turn.T + [4, -2, 3]])))
    still = make_views(sequence, "render", SIZE).frames.astype(int)
    moving = make_views(sequence, "render", SIZE, stabilise=False).frames.astype(int)
    assert np.abs(still[1] - still[0]).mean() < 0.5
    assert np.abs(moving[1] - moving[0]).mean() > 10


def test_frames_without_constant_topology_are_drawn_unstabilised(still_dome, tmp_path):
    folder = write_obj_sequence(still_dome, tmp_path / "obj")
    lines = (folder / "frame_0001.obj").read_text().splitlines()
    middle = lines.index(next(line for line in lines if line.startswith("vt ")))
    lines = [*lines[:middle], "v 0 0 40", *lines[middle:-2], lines[-1]]  # one vertex more and one face less
    (folder / "frame_0001.obj").write_text("\n".join(lines) + "\n")
    views = make_views(open_sequence(folder), "render", SIZE)
    assert not views.stabilised and views.frames[1].any()
    assert views.warnings[0].startswith("obj: its frames do not share one mesh")


def test_a_composite_cannot_be_rendered(composites):
    with pytest.raises(DataError, match=f"{composites.id}.*Remedy: set views to 'split'"):
        make_views(composites, "render", SIZE)


def test_an_unknown_value_of_views_is_refused(clip):
    with pytest.raises(ValueError, match="'rendered'.*render, split"):
        make_views(clip, "rendered")


FLAT, SHIFT = [1, 1e-6, 1], np.float32([5000, 0, 0])


@pytest.mark.parametrize(
    ("scales", "shift", "fault"),
    [
        ((FLAT, FLAT), 0, "shows hardly anything of its mesh"),  # the cameras see it from its edge
        ((1, 1), SHIFT, "shows hardly anything of its mesh"),
        ((1000, 1000), 0, "measures 1.4e.05 mm, and reaches up to the virtual cameras"),
        ((1 / 1000, 1 / 1000), 0, "has the box"),
    ],
)
def test_a_mesh_that_the_cameras_do_not_see_is_refused(dome, dome_clip, scales, shift, fault):
    vertices = np.stack([dome.vertices * np.float32(scales[0]), dome.vertices * np.float32(scales[1]) + shift])
    with pytest.raises(DataError, match=f"S01_001.*{fault}.*Remedy"):
        make_views(open_sequence(dome_clip(vertices.astype(np.float32))), "render", SIZE, stabilise=False)


# Rigid alignment


def posed(vertices):
    return vertices @ rotation(np.array([4.0, -7, 3])).T + [3.0, -5, 8]


def test_the_motion_of_a_rigid_face_is_undone_exactly(person):
    face = person.identity.vertices
    assert np.abs(align_rigidly(posed(face), face) - face).max() < 1e-3  # mm


def test_a_moving_mouth_does_not_pull_the_head(person):
    face = person.identity.vertices
    talking = face.copy()
    mouth = np.linalg.norm(face - face[face[:, 2].argmax()] - [0, -35, 0], axis=1) < 40
    talking[mouth] += [1.0, -4, 0]
    error = np.linalg.norm(align_rigidly(posed(talking), face) - talking, axis=1)
    assert 0.1 < mouth.mean() < 0.5
    assert error.max() < 0.02  # mm; without weights, Kabsch leaves half a millimetre and more


def test_alignment_never_mirrors():
    flat = np.random.default_rng(0).normal(0, 30, (50, 3)) * [1, 1, 1e-3]
    mirrored = flat * [-1, 1, 1]
    moved = align_rigidly(mirrored, flat)
    turn = np.linalg.lstsq(mirrored - mirrored.mean(0), moved - moved.mean(0), rcond=None)[0]
    assert np.linalg.det(turn) > 0


# Boxes and crops


def test_a_square_box_is_centred_on_the_extent_with_a_margin():
    x, y, side = square_box(np.array([10.0, 20]), np.array([109.0, 69]))
    assert side == pytest.approx(1.04 * 99)
    assert (x + side / 2 - 0.5, y + side / 2 - 0.5) == pytest.approx((59.5, 44.5))  # counted from pixel centres


def test_stray_points_do_not_widen_the_box(person):
    face = person.identity.vertices
    camera = wide_cameras(face, 25.0)[0]
    stray = np.concatenate([face, [[900.0, 0, 0]]])
    assert np.abs(np.subtract(mesh_box(stray, camera), mesh_box(face, camera))).max() < 3


def test_a_crop_of_the_same_scale_is_a_slice_and_repeats_the_edge(speckle):
    assert np.array_equal(crop_image(speckle, (20, 30, 64), 64), speckle[30:94, 20:84])
    assert np.array_equal(crop_image(speckle, (-10, 0, 64), 64)[:, :10], np.repeat(speckle[:64, :1], 10, axis=1))


def test_a_smaller_crop_keeps_places():
    image = np.zeros((200, 200, 3), np.uint8)
    image[90:110, 130:150] = 255  # centre (139.5, 99.5)
    small = crop_image(image, (0, 0, 200), 50)[..., 0].astype(float)
    ys, xs = np.mgrid[:50, :50]
    centre = np.array([(xs * small).sum(), (ys * small).sum()]) / small.sum()
    assert np.abs(centre - (np.array([140, 100]) / 4 - 0.5)).max() < 0.05


@pytest.mark.parametrize("name", ["render", "split"])
def test_given_boxes_replace_the_detected_ones(clip, name):
    boxes = [(40.0, 50.0, 200.0), (60.0, 55.0, 180.0)]
    views = make_views(clip, name, SIZE, boxes=boxes)
    assert views.source == "override" and np.array_equal(views.boxes, boxes)
    if name == "split":
        assert np.array_equal(views.frames[2, 1], crop_image(clip.texture(2)[:, 320:], boxes[1], SIZE))


def test_boxes_outside_any_image_are_refused(clip, tmp_path):
    head = "Id,left_x,left_y,left_side,right_x,right_y,right_side\n"
    for row in "0,0,1e300,0,0,9 0,0,9,0,0,1e-300 0,1e9,9,0,0,9 nan,0,9,0,0,9 0,0,9,0,0,inf 0,0,-9,0,0,9".split():
        (tmp_path / "boxes.csv").write_text(f"{head}a,{row}\n")
        with pytest.raises(DataError, match="boxes.csv: the box of Id a is not"):
            read_boxes(tmp_path, 2)
    (tmp_path / "boxes.csv").write_text(f"{head}a,-3,0,9.5,0,0,9\n")
    assert read_boxes(tmp_path, 2) == {"a": ((-3, 0, 9.5), (0, 0, 9))}
    with pytest.raises(DataError, match=f"{clip.id}.*hardly anything.*correct its box"):
        make_views(clip, "render", SIZE, boxes=[(-900.0, 0, 50)] * 2)


def test_the_ellipse_fills_most_of_the_crop_and_is_symmetric():
    mask = ellipse_mask(SIZE)
    assert 0.6 < mask.mean() < 0.7
    assert np.array_equal(mask, mask[:, ::-1]) and np.array_equal(mask, mask[::-1])


# Splitting


def test_split_views_are_the_cropped_halves_of_the_composite(clip, split):
    assert split.frames.shape == (len(clip), 2, SIZE, SIZE, 3)
    assert (split.source, split.stabilised) == ("mesh", False)
    for t in (0, 3):
        for v, half in enumerate(np.split(clip.texture(t), 2, axis=1)):
            assert np.array_equal(split.frames[t, v], crop_image(half, tuple(split.boxes[v]), SIZE))


def test_a_split_mask_is_where_the_face_is(split):
    for frame, mask in zip(split.frames[0], split.masks, strict=True):
        face = np.abs(frame - BACKGROUND).max(-1) > 14
        assert (face & mask).sum() / (face | mask).sum() > 0.9


def test_rendered_and_split_faces_have_about_one_size(rendered, split):
    assert np.abs(rendered.masks.mean((1, 2)) / split.masks.mean((1, 2)) - 1).max() < 0.15


def test_the_half_projection_maps_all_vertices_to_both_halves(clip):
    vertices, _, uv = clip.geometry(0)
    for v in range(2):
        points = half_projection(clip, v)
        in_half = (uv[:, 0] >= 0.5) == bool(v)
        expected = np.stack([uv[:, 0] * 640 - 320 * v - 0.5, (1 - uv[:, 1]) * 320 - 0.5], -1)
        assert len(points) == len(vertices)
        assert np.linalg.norm(points[in_half] - expected[in_half], axis=1).mean() < 2  # px: affine, not perspective


def test_a_mesh_whose_uvs_lie_in_one_half_has_no_silhouette_in_the_other(dome, tmp_path, speckle):
    vertices, textures = np.stack([dome.vertices] * 2), [np.hstack([speckle, speckle])] * 2
    sequence = open_sequence(
        write_clip(tmp_path / "S01_001", vertices, dome.faces, dome.uv * [0.49, 1], 60.0, textures)
    )
    assert half_projection(sequence, 1) is None
    assert np.array_equal(silhouette(sequence, 1, (0, 0, 256), SIZE), ellipse_mask(SIZE))
    assert make_views(sequence, "split", SIZE).source in ("detector", "centred")


def test_a_half_whose_uvs_are_one_point_is_refused(dome, tmp_path, speckle):
    uv = np.where(dome.uv[:, :1] < 0.5, [0.25, 0.5], dome.uv).astype(np.float32)
    folder = write_clip(tmp_path / "S01_001", np.stack([dome.vertices] * 2), dome.faces, uv, 60.0, [speckle] * 2)
    with pytest.raises(DataError, match="S01_001.*view 0 has the box.*Remedy"):
        make_views(open_sequence(folder), "split", SIZE)


@pytest.mark.parametrize("size", [(1, 2), (2, 16384), (4000, 2)])
def test_composites_that_are_far_too_narrow_are_refused(tmp_path, size):
    with pytest.raises(DataError, match="S01_005.*box"):
        make_views(picture_clip(tmp_path / "S01_005", np.full((2, *size, 3), 90, np.uint8)), "split", SIZE)


def test_composites_without_a_mesh_are_cropped_by_the_face_detector(composites, split):
    views = make_views(composites, "split", SIZE)
    assert views.source == "detector" and not views.warnings
    for (x, y, side), (a, b, width) in zip(views.boxes, split.boxes, strict=True):
        overlap = (min(x + side, a + width) - max(x, a)) * (min(y + side, b + width) - max(y, b))
        assert overlap / (side**2 + width**2 - overlap) > 0.5


def test_without_a_face_the_crop_is_the_centre_and_a_warning_says_so(tmp_path):
    ramp = np.full((2, 100, 240, 3), np.arange(240)[:, None], np.uint8)
    views = make_views(picture_clip(tmp_path / "S01_004", ramp), "split", SIZE)
    assert views.source == "centred"
    assert np.array_equal(views.boxes, [[10, 0, 100]] * 2)
    assert "S01_004" in views.warnings[0] and "Remedy" in views.warnings[0]
    assert np.array_equal(views.masks[0], ellipse_mask(SIZE))


def test_a_composite_of_odd_width_is_refused_by_its_name(tmp_path, dome, dome_clip, speckle):
    odd = speckle[:, :-1]
    mesh = open_sequence(dome_clip(np.stack([dome.vertices] * 2), odd))
    for sequence in (picture_clip(tmp_path / "pictures", [odd, odd]), mesh):
        with pytest.raises(DataError, match=f"{sequence.files[0].name}.*width 255 is odd.*Remedy"):
            make_views(sequence, "split", SIZE)
