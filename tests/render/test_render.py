"""Facts about cameras and the two renderers."""

import cv2
import numpy as np
import pytest

from utils.render import renderer as render
from utils.render.camera import Camera, surface_points
from utils.render.renderer import EmbreeRenderer, TexturedMesh, get_renderer, make_renderer, sample_bilinear
from utils.synthetic.face_model import load_face_model

FRONT = Camera(0.0, 500.0, (0.0, 0.0, 0.0), 500.0, (63.5, 63.5), (128, 128))  # 1 px per mm at the target
FACES = np.array([[0, 1, 2], [0, 2, 3]])
SQUARE_UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
DOTS = np.array([[20, 30], [100, 24], [64, 64], [30, 96], [90, 104]])  # texels (x, y)


@pytest.fixture(params=["auto", "embree"])
def draw(request):
    """A function that draws a mesh, or a list of them, with one camera."""
    renderer = get_renderer() if request.param == "auto" else EmbreeRenderer()
    return lambda meshes, camera=FRONT: renderer.render(meshes, [camera])[0]


@pytest.fixture
def opengl():
    renderer = get_renderer()
    if isinstance(renderer, EmbreeRenderer):
        pytest.skip("no OpenGL here")
    return renderer


def corners(half_side, z=0.0):
    return np.column_stack([np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half_side, np.full(4, z)])


def square(texture, half_side=50.0, z=0.0, uv=SQUARE_UV, tint=None, clamp=False):
    return TexturedMesh(corners(half_side, z), FACES, uv, texture, tint, clamp)


def plain(*colour):
    return np.full((8, 8, 3), colour, np.uint8)


def dotted_texture():
    ys, xs = np.mgrid[:128, :128]
    blobs = sum(np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * 2.5**2)) for x, y in DOTS)
    return np.repeat(np.rint(20 + 220 * blobs)[..., None], 3, -1).astype(np.uint8)


def red_and_blue():
    """A texture that is red in its left half and blue in its right half."""
    texture = plain(200, 0, 0)
    texture[:, 4:] = 0, 0, 100
    return texture


def centroid(image, near, radius=8):
    """The brightness centroid (x, y) within a window around a pixel."""
    x, y = np.rint(near).astype(int)
    ys, xs = np.mgrid[y - radius : y + radius + 1, x - radius : x + radius + 1]
    weight = np.clip(image[ys, xs, 0].astype(float) - 40, 0, None)
    return np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("yaw", [0.0, 25.0, -25.0])
def test_a_textured_plane_is_drawn_at_the_pixels_to_which_the_camera_projects_it(draw, yaw):
    camera = FRONT._replace(yaw_deg=yaw, target=(3.0, -2.0, 5.0))
    picture = draw(square(dotted_texture()), camera)
    for x, y in DOTS:
        expected = camera.project(np.array([(x + 0.5) / 128 * 100 - 50, 50 - (y + 0.5) / 128 * 100, 0]))
        assert np.abs(centroid(picture.rgb, expected) - expected).max() < 0.15


def test_the_mask_is_where_the_mesh_is(draw):
    picture = draw(square(dotted_texture(), 40.2))
    rows, columns = np.flatnonzero(picture.mask.any(1)), np.flatnonzero(picture.mask.any(0))
    assert picture.mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert np.abs(np.array([rows[0], columns[0]]) - (63.5 - 40.2)).max() < 1
    assert np.abs(np.array([rows[-1], columns[-1]]) - (63.5 + 40.2)).max() < 1
    near = cv2.dilate(picture.mask.astype(np.uint8), np.ones((3, 3))) > 0  # outlines are smoothed
    assert not picture.rgb[~near].any()


def test_a_tint_multiplies_the_texture(draw):
    picture = draw(square(plain(200, 200, 200), tint=np.tile([1.0, 0.5, 0.25], (4, 1))))
    assert np.abs(picture.rgb[64, 64].astype(int) - [200, 100, 50]).max() <= 1


def test_the_texture_is_drawn_unlit_and_upright(draw):
    texture = plain(0, 0, 0)
    texture[:4, :, 0] = 250  # the upper half is red
    texture[:, 4:, 2] = 120  # the right half is blue
    picture = draw(square(texture))
    assert picture.rgb[30, 30].tolist() == [250, 0, 0]
    assert picture.rgb[96, 96].tolist() == [0, 0, 120]


def test_a_changed_texture_and_a_changed_mesh_are_drawn_anew(draw):
    for grey in (50, 150):
        texture = plain(grey, grey, grey)
        for half_side in (20.0, 40.0):
            picture = draw(square(texture, half_side))
            assert picture.rgb[64, 64, 0] == grey
            assert abs(np.sqrt(picture.mask.sum()) - 2 * half_side) < 2


def test_each_part_has_its_texture_and_the_nearest_part_is_seen(draw):
    red, blue = plain(200, 0, 0), plain(0, 0, 100)
    skin, eye = square(red, 40), square(blue, 10, z=5.0)
    hidden = square(blue, 10, z=-5.0, tint=np.full((4, 3), 0.5))
    for parts in ([skin, eye, hidden], [hidden, eye, skin]):
        picture = draw(parts)
        assert picture.rgb[64, 64].tolist() == [0, 0, 100] and picture.rgb[64, 40].tolist() == [200, 0, 0]
        assert np.array_equal(picture.mask, draw(skin).mask)


def test_parts_that_share_their_vertices_are_drawn_as_one_mesh(draw, dome, speckle):
    halves = np.split(dome.faces, [len(dome.faces) // 2])
    parts = draw([TexturedMesh(dome.vertices, faces, dome.uv, speckle) for faces in halves])
    whole = draw(TexturedMesh(dome.vertices, dome.faces, dome.uv, speckle))
    assert np.array_equal(parts.rgb, whole.rgb) and np.array_equal(parts.mask, whole.mask)


# Textures that repeat: uv beyond 0..1


@pytest.mark.parametrize("shift", [[1, 0], [-2, 3]])
def test_uv_of_another_tile_draw_the_same_pixels(draw, dome, speckle, shift):
    expected, moved = (
        draw(TexturedMesh(dome.vertices, dome.faces, uv, speckle)).rgb for uv in (dome.uv, dome.uv + shift)
    )
    assert np.abs(moved.astype(int) - expected).max() <= 1  # uv are rounded


def test_faces_in_several_tiles_repeat_the_texture(draw, dome, speckle):
    twice = draw(TexturedMesh(dome.vertices, dome.faces, dome.uv * 2, speckle))  # tiles meet between faces
    expected = draw(TexturedMesh(dome.vertices, dome.faces, dome.uv, np.tile(speckle, (2, 2, 1))))
    border = (np.abs(np.arange(128) - 63.5) < 2)[:, None] | (np.abs(np.arange(128) - 63.5) < 2)
    assert np.abs(twice.rgb.astype(int) - expected.rgb)[~border].max() <= 2


@pytest.mark.parametrize("shift", [0.5, 7.5, -4.5])
def test_a_face_across_the_border_of_tiles_shows_both_sides(draw, shift):
    picture = draw(square(red_and_blue(), uv=SQUARE_UV + [shift, 0]))
    assert picture.rgb[64, 24].tolist() == [0, 0, 100] and picture.rgb[64, 104].tolist() == [200, 0, 0]
    clamped = draw(square(red_and_blue(), uv=SQUARE_UV + [shift, 0], clamp=True))
    assert clamped.rgb[64, 104].tolist() == ([200, 0, 0] if shift < 0 else [0, 0, 100])


def test_uv_that_are_rounded_beyond_the_border_do_not_repeat(draw):
    rounded = SQUARE_UV * 1.1 - 0.05  # by less than half a texel
    clamped, free = (draw(square(red_and_blue(), uv=rounded, clamp=clamp)).rgb for clamp in (True, False))
    assert np.array_equal(clamped, free) and free[64, 16].tolist() == [200, 0, 0]


def test_opengl_and_embree_repeat_a_texture_alike(opengl, dome, speckle):
    mesh = TexturedMesh(dome.vertices, dome.faces, dome.uv * 1.7 - 0.4, speckle)
    (by_opengl,), (by_rays,) = opengl.render(mesh, [FRONT]), EmbreeRenderer().render(mesh, [FRONT])
    both = by_opengl.mask & by_rays.mask
    assert np.abs(by_opengl.rgb[both].astype(float) - by_rays.rgb[both]).mean() < 3.5


def test_opengl_and_embree_draw_the_same_picture(opengl, person):
    model = load_face_model()
    camera = Camera(25.0, 1000.0, (0.0, 0.0, 0.0), 1000.0, (95.5, 95.5), (192, 192))
    mesh = TexturedMesh(person.identity.vertices, model.faces, model.uv, person.albedo)
    (by_opengl,), (by_rays,) = opengl.render(mesh, [camera]), EmbreeRenderer().render(mesh, [camera])
    both = by_opengl.mask & by_rays.mask
    difference = by_opengl.rgb[both].astype(float) - by_rays.rgb[both]
    assert (by_opengl.mask != by_rays.mask).mean() < 0.015  # on the outline: Embree casts four rays per pixel
    assert np.abs(difference).mean() < 2.5 and abs(difference.mean()) < 0.3


# Cameras and rays


def test_a_cropped_camera_draws_the_crop(draw, dome, speckle):
    mesh = TexturedMesh(dome.vertices, dome.faces, dome.uv, speckle)
    whole, part = draw(mesh), draw(mesh, FRONT.cropped((20, 30, 64), 64))
    assert np.abs(part.rgb.astype(int) - whole.rgb[30:94, 20:84]).mean() < 0.5


def test_a_cropped_camera_projects_to_the_pixels_of_the_crop():
    points = np.random.default_rng(0).normal(0, 40, (50, 3))
    x, y, side, size = 11.5, -7.25, 80.0, 200
    # The centres of pixels are whole numbers: the first pixel begins half a pixel before its centre.
    expected = (FRONT.project(points) - [x, y] + 0.5) * size / side - 0.5
    assert np.allclose(FRONT.cropped((x, y, side), size).project(points), expected)


@pytest.mark.parametrize("yaw", [-25.0, 0.0, 40.0])
def test_camera_axes_are_right_handed_and_the_camera_looks_at_its_target(yaw):
    camera = FRONT._replace(yaw_deg=yaw)
    assert np.allclose(camera.axes @ camera.axes.T, np.eye(3)) and np.isclose(np.linalg.det(camera.axes), 1)
    assert np.allclose(camera.project(np.zeros(3)), FRONT.centre)


@pytest.mark.parametrize(("depths", "nearer"), [((30, 0), {0, 1}), ((0, 30), {2, 3})])
def test_a_ray_meets_the_nearer_of_two_squares_in_any_order(depths, nearer):
    vertices = np.concatenate([corners(20, z) for z in depths])
    triangle, _ = surface_points(vertices, np.concatenate([FACES, FACES + 4]), FRONT)
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


def test_bilinear_sampling_repeats_the_edge_or_the_whole_image():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)[..., None].repeat(3, -1)
    edge = sample_bilinear(image, np.array([[0, 0], [1.5, 1], [1, 0.5], [-5, 0], [9, 2]], np.float32))
    assert np.allclose(edge[:, 0], [0, 5.5, 3, 0, 11], atol=0.02)
    whole = sample_bilinear(image, np.array([[3.5, 0], [-0.5, 0], [0, 2.5], [1.5, 1]], np.float32), repeat=True)
    assert np.allclose(whole[:, 0], [1.5, 1.5, 4, 5.5], atol=0.02)
    assert sample_bilinear(image, np.zeros((40000, 2), np.float32)).shape == (40000, 3)


# The choice of a renderer


def no_driver(self, platform="egl"):
    raise ImportError(f"no driver for {platform}")


def test_a_process_keeps_one_renderer():
    assert get_renderer() is get_renderer()


def test_an_unknown_renderer_is_refused():
    with pytest.raises(ValueError, match="'vulkan'.*egl"):
        make_renderer("vulkan")


def test_the_error_of_a_broken_renderer_names_its_library(monkeypatch):
    monkeypatch.setattr(render.PyrenderRenderer, "__init__", no_driver)
    with pytest.raises(RuntimeError, match="osmesa.*libOSMesa.*no driver for osmesa.*Remedy"):
        make_renderer("osmesa")


def test_without_opengl_the_ray_caster_is_chosen(monkeypatch):
    monkeypatch.setattr(render.PyrenderRenderer, "__init__", no_driver)
    assert isinstance(make_renderer("auto"), EmbreeRenderer)


def test_if_no_renderer_works_the_error_tells_all_failures(monkeypatch):
    class Blank(EmbreeRenderer):
        def render(self, meshes, cameras):
            return [picture._replace(rgb=picture.rgb * 0) for picture in super().render(meshes, cameras)]

    monkeypatch.setattr(render.PyrenderRenderer, "__init__", no_driver)
    monkeypatch.setattr(render, "EmbreeRenderer", Blank)
    with pytest.raises(RuntimeError, match="(?s)no driver for egl.*no driver for osmesa.*embree drew a wrong picture"):
        make_renderer("auto")
