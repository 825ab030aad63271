"""Facts about cameras and the two renderers."""

import cv2
import numpy as np
import pytest

from utils.render import renderer as render
from utils.render.camera import Camera, surface_points
from utils.render.renderer import (
    EmbreeRenderer,
    TexturedMesh,
    first_working,
    get_renderer,
    make_renderer,
    sample_bilinear,
)
from utils.synthetic.face_model import load_face_model

FRONT = Camera(0.0, 500.0, (0.0, 0.0, 0.0), 500.0, (63.5, 63.5), (128, 128))  # 1 px a mm at the target
FACES = np.array([[0, 1, 2], [0, 2, 3]])
SQUARE_UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
DOTS = np.array([[20, 30], [100, 24], [64, 64], [30, 96], [90, 104]])  # texels (x, y)


@pytest.fixture(params=["auto", "embree"])
def renderer(request):
    return get_renderer() if request.param == "auto" else EmbreeRenderer()


def square(half_side=50.0, z=0.0):
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half_side
    return np.column_stack([corners, np.full(4, z)])


def dotted_texture():
    ys, xs = np.mgrid[:128, :128]
    blobs = sum(np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * 2.5**2)) for x, y in DOTS)
    return np.repeat(np.rint(20 + 220 * blobs)[..., None], 3, -1).astype(np.uint8)


def centroid(image, near, radius=8):
    """The brightness centroid (x, y) within a window about a pixel."""
    x, y = np.rint(near).astype(int)
    ys, xs = np.mgrid[y - radius : y + radius + 1, x - radius : x + radius + 1]
    weight = np.clip(image[ys, xs, 0].astype(float) - 40, 0, None)
    return np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("yaw", [0.0, 25.0, -25.0])
def test_a_textured_plane_lands_on_the_pixels_that_the_camera_projects_to(renderer, yaw):
    camera = FRONT._replace(yaw_deg=yaw, target=(3.0, -2.0, 5.0))
    (picture,) = renderer.render(TexturedMesh(square(), FACES, SQUARE_UV, dotted_texture()), [camera])
    for x, y in DOTS:
        point = np.array([(x + 0.5) / 128 * 100 - 50, 50 - (y + 0.5) / 128 * 100, 0])
        expected = camera.project(point)
        assert np.abs(centroid(picture.rgb, expected) - expected).max() < 0.15


def test_the_mask_is_where_the_mesh_is(renderer):
    (picture,) = renderer.render(TexturedMesh(square(40.2), FACES, SQUARE_UV, dotted_texture()), [FRONT])
    rows, columns = np.flatnonzero(picture.mask.any(1)), np.flatnonzero(picture.mask.any(0))
    assert picture.mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert np.abs(np.array([rows[0], columns[0]]) - (63.5 - 40.2)).max() < 1
    assert np.abs(np.array([rows[-1], columns[-1]]) - (63.5 + 40.2)).max() < 1
    near = cv2.dilate(picture.mask.astype(np.uint8), np.ones((3, 3))) > 0  # smoothed outlines
    assert not picture.rgb[~near].any()


def test_a_tint_multiplies_the_texture(renderer):
    grey = np.full((8, 8, 3), 200, np.uint8)
    tint = np.tile([1.0, 0.5, 0.25], (4, 1))
    (picture,) = renderer.render(TexturedMesh(square(), FACES, SQUARE_UV, grey, tint), [FRONT])
    assert np.abs(picture.rgb[64, 64].astype(int) - [200, 100, 50]).max() <= 1


def test_the_texture_is_drawn_unlit_and_upright(renderer):
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:4, :, 0] = 250  # the upper half is red
    texture[:, 4:, 2] = 120  # the right half is blue
    (picture,) = renderer.render(TexturedMesh(square(), FACES, SQUARE_UV, texture), [FRONT])
    assert picture.rgb[30, 30].tolist() == [250, 0, 0]
    assert picture.rgb[96, 96].tolist() == [0, 0, 120]


def test_a_changed_texture_and_a_changed_mesh_are_drawn_anew(renderer):
    for grey in (50, 150):
        texture = np.full((8, 8, 3), grey, np.uint8)
        for half in (20.0, 40.0):
            (picture,) = renderer.render(TexturedMesh(square(half), FACES, SQUARE_UV, texture), [FRONT])
            assert picture.rgb[64, 64, 0] == grey
            assert abs(np.sqrt(picture.mask.sum()) - 2 * half) < 2


def test_parts_have_a_texture_each_and_the_nearer_one_is_seen(renderer):
    red, blue = (np.full((8, 8, 3), 0, np.uint8) + np.array(c, np.uint8) for c in ((200, 0, 0), (0, 0, 100)))
    skin = TexturedMesh(square(40), FACES, SQUARE_UV, red)
    eye = TexturedMesh(square(10, z=5.0), FACES, SQUARE_UV, blue)
    hidden = TexturedMesh(square(10, z=-5.0), FACES, SQUARE_UV, blue, np.full((4, 3), 0.5))
    for parts in ([skin, eye, hidden], [hidden, eye, skin]):
        (picture,) = renderer.render(parts, [FRONT])
        assert picture.rgb[64, 64].tolist() == [0, 0, 100] and picture.rgb[64, 40].tolist() == [200, 0, 0]
        (whole,) = renderer.render(skin, [FRONT])
        assert np.array_equal(picture.mask, whole.mask)


def test_parts_that_share_their_vertices_are_drawn_as_one_mesh(renderer, dome, speckle):
    cut = len(dome.faces) // 2
    parts = [TexturedMesh(dome.vertices, faces, dome.uv, speckle) for faces in np.split(dome.faces, [cut])]
    (one,), (two,) = (
        renderer.render(m, [FRONT]) for m in (TexturedMesh(dome.vertices, dome.faces, dome.uv, speckle), parts)
    )
    assert np.array_equal(one.rgb, two.rgb) and np.array_equal(one.mask, two.mask)


def test_uv_of_another_tile_draw_the_same_pixels(renderer, dome, speckle):
    expected = renderer.render(TexturedMesh(dome.vertices, dome.faces, dome.uv, speckle), [FRONT])[0].rgb
    for shift in ([1, 0], [-2, 3]):
        moved = renderer.render(TexturedMesh(dome.vertices, dome.faces, dome.uv + shift, speckle), [FRONT])[0].rgb
        assert np.abs(moved.astype(int) - expected).max() <= 1  # by the rounding of uv


def test_faces_in_several_tiles_repeat_the_texture(renderer, dome, speckle):
    twice = TexturedMesh(dome.vertices, dome.faces, dome.uv * 2, speckle)  # the tiles' border runs between faces
    repeated = TexturedMesh(dome.vertices, dome.faces, dome.uv, np.tile(speckle, (2, 2, 1)))
    ours, theirs = (renderer.render(mesh, [FRONT])[0].rgb.astype(int) for mesh in (twice, repeated))
    border = (np.abs(np.arange(128) - 63.5) < 2)[:, None] | (np.abs(np.arange(128) - 63.5) < 2)
    assert np.abs(ours - theirs)[~border].max() <= 2


def test_a_face_across_the_border_of_tiles_shows_both_sides(renderer):
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:, :4, 0], texture[:, 4:, 2] = 200, 100  # red at the left, blue at the right
    for shift in (0.5, 7.5, -4.5):
        (picture,) = renderer.render(TexturedMesh(square(), FACES, SQUARE_UV + [shift, 0], texture), [FRONT])
        assert picture.rgb[64, 24].tolist() == [0, 0, 100] and picture.rgb[64, 104].tolist() == [200, 0, 0]
        (picture,) = renderer.render(
            TexturedMesh(square(), FACES, SQUARE_UV + [shift, 0], texture, clamp=True), [FRONT]
        )
        assert picture.rgb[64, 104].tolist() == ([200, 0, 0] if shift < 0 else [0, 0, 100])


def test_uv_that_round_over_the_border_do_not_repeat(renderer):
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:, :4, 0], texture[:, 4:, 2] = 200, 100  # red at the left, blue at the right
    rounded = SQUARE_UV * 1.1 - 0.05  # by less than half a texel
    ours, theirs = (
        renderer.render(TexturedMesh(square(), FACES, rounded, texture, clamp=clamp), [FRONT])[0].rgb.astype(int)
        for clamp in (True, False)
    )
    assert np.array_equal(ours, theirs) and ours[64, 16].tolist() == [200, 0, 0]


def test_opengl_and_embree_repeat_a_texture_alike(dome, speckle):
    opengl = get_renderer()
    if isinstance(opengl, EmbreeRenderer):
        pytest.skip("no OpenGL here")
    mesh = TexturedMesh(dome.vertices, dome.faces, dome.uv * 1.7 - 0.4, speckle)
    (ours,), (theirs,) = opengl.render(mesh, [FRONT]), EmbreeRenderer().render(mesh, [FRONT])
    both = ours.mask & theirs.mask
    assert np.abs(ours.rgb[both].astype(float) - theirs.rgb[both]).mean() < 3.5


def test_a_cropped_camera_sees_the_crop(renderer, dome, speckle):
    mesh = TexturedMesh(dome.vertices, dome.faces, dome.uv, speckle)
    whole, part = renderer.render(mesh, [FRONT, FRONT.cropped((20, 30, 64), 64)])
    assert np.abs(part.rgb.astype(int) - whole.rgb[30:94, 20:84]).mean() < 0.5


def test_a_cropped_camera_projects_into_the_crops_pixels():
    points = np.random.default_rng(0).normal(0, 40, (50, 3))
    x, y, side, size = 11.5, -7.25, 80.0, 200
    # Pixel centres are whole numbers: the first pixel's corner lies half a pixel before its centre.
    expected = (FRONT.project(points) - [x, y] + 0.5) * size / side - 0.5
    assert np.allclose(FRONT.cropped((x, y, side), size).project(points), expected)


def test_camera_axes_are_a_right_handed_frame_that_looks_at_the_target():
    for yaw in (-25.0, 0.0, 40.0):
        camera = FRONT._replace(yaw_deg=yaw)
        assert np.allclose(camera.axes @ camera.axes.T, np.eye(3)) and np.isclose(np.linalg.det(camera.axes), 1)
        assert np.allclose(camera.project(np.zeros(3)), FRONT.centre)


def test_opengl_and_embree_draw_the_same_picture(person):
    opengl = get_renderer()
    if isinstance(opengl, EmbreeRenderer):
        pytest.skip("no OpenGL here")
    model = load_face_model()
    camera = Camera(25.0, 1000.0, (0.0, 0.0, 0.0), 1000.0, (95.5, 95.5), (192, 192))
    mesh = TexturedMesh(person.identity.vertices, model.faces, model.uv, person.albedo)
    (ours,), (theirs,) = opengl.render(mesh, [camera]), EmbreeRenderer().render(mesh, [camera])
    both = ours.mask & theirs.mask
    difference = ours.rgb[both].astype(float) - theirs.rgb[both]
    assert (ours.mask != theirs.mask).mean() < 0.015  # the outline: one takes a pixel's centre, the other its quarters
    assert np.abs(difference).mean() < 2.5 and abs(difference.mean()) < 0.3


def test_the_nearer_of_two_triangles_is_seen_whatever_their_order():
    near, far = square(20, z=30), square(20, z=0)
    both = np.concatenate([FACES, FACES + 4])
    for vertices, nearer in ((np.concatenate([near, far]), {0, 1}), (np.concatenate([far, near]), {2, 3})):
        triangle, _ = surface_points(vertices, both, FRONT)
        assert set(np.unique(triangle[50:78, 50:78])) <= nearer


def test_surface_points_lie_on_the_rays_of_their_pixels(dome):
    camera = FRONT._replace(yaw_deg=20.0, focal=380.0)
    triangle, weights = surface_points(dome.vertices, dome.faces, camera)
    hit = triangle >= 0
    assert hit.any() and not hit.all()
    assert np.allclose(weights[hit].sum(-1), 1) and weights[hit].min() > -1e-3 and not weights[~hit].any()
    points = np.einsum("nk,nkc->nc", weights[hit], dome.vertices[dome.faces[triangle[hit]]].astype(float))
    ys, xs = np.nonzero(hit)
    assert np.abs(camera.project(points) - np.stack([xs, ys], -1)).max() < 1e-3


def test_bilinear_sampling_interpolates_and_repeats_the_edge():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)[..., None].repeat(3, -1)
    at = np.array([[0, 0], [1.5, 1], [1, 0.5], [-5, 0], [9, 2]], np.float32)
    assert np.allclose(sample_bilinear(image, at)[:, 0], [0, 5.5, 3, 0, 11], atol=0.02)
    assert sample_bilinear(image, np.zeros((40000, 2), np.float32)).shape == (40000, 3)


def test_bilinear_sampling_mixes_both_edges_of_an_image_that_repeats():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)[..., None].repeat(3, -1)
    at = np.array([[3.5, 0], [-0.5, 0], [0, 2.5], [1.5, 1]], np.float32)
    assert np.allclose(sample_bilinear(image, at, repeat=True)[:, 0], [1.5, 1.5, 4, 5.5], atol=0.02)


def test_a_process_keeps_one_renderer():
    assert get_renderer() is get_renderer()


def test_an_unknown_renderer_is_refused():
    with pytest.raises(ValueError, match="'vulkan'.*egl"):
        make_renderer("vulkan")


def test_a_renderer_whose_library_is_missing_is_named_with_the_library(monkeypatch):
    def broken(self, platform):
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr("utils.render.renderer.PyrenderRenderer.__init__", broken)
    with pytest.raises(RuntimeError, match="osmesa.*libOSMesa.*Remedy"):
        make_renderer("osmesa")


def test_without_opengl_the_ray_caster_steps_in(monkeypatch):
    def no_driver(platform="egl"):
        raise ImportError(f"no driver for {platform}")

    monkeypatch.setattr(render, "PyrenderRenderer", no_driver)
    assert isinstance(first_working(), EmbreeRenderer)


def test_where_nothing_draws_every_failure_is_told(monkeypatch):
    class Blank(EmbreeRenderer):
        def render(self, mesh, cameras):
            return [picture._replace(rgb=picture.rgb * 0) for picture in super().render(mesh, cameras)]

    def no_driver(platform="egl"):
        raise ImportError(f"no driver for {platform}")

    monkeypatch.setattr(render, "PyrenderRenderer", no_driver)
    monkeypatch.setattr(render, "EmbreeRenderer", Blank)
    with pytest.raises(RuntimeError, match="(?s)no driver for egl.*no driver for osmesa.*embree drew a wrong picture"):
        first_working()
