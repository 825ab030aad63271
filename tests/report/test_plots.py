"""Facts about the picture of a mesh in the figures."""

import numpy as np

from utils.report.mesh_picture import shaded_mesh, smooth_normals


def test_a_mesh_is_drawn_without_holes_and_its_upper_left_is_the_brightest(dome):
    picture = shaded_mesh(dome.vertices, dome.faces, size=60)
    opaque = picture[..., 3] == 255
    rows, columns = np.nonzero(opaque)
    assert opaque[rows.min() + 1 : rows.max(), columns.min() + 1 : columns.max()].all()
    assert picture[15, 15, 0] > picture[30, 30, 0] > picture[45, 45, 0]


def test_both_windings_of_the_triangles_give_the_same_picture(dome):
    other = shaded_mesh(dome.vertices, dome.faces[:, ::-1], size=60)
    assert np.array_equal(other, shaded_mesh(dome.vertices, dome.faces, size=60))


def test_a_seam_of_the_texture_is_no_edge_of_the_surface(dome):
    """Triangles with vertices of their own, as a scanner's texture cuts them, have the normals of the whole."""
    corners = dome.faces.ravel()
    cut = smooth_normals(dome.vertices[corners], np.arange(len(corners)).reshape(-1, 3))
    assert np.allclose(cut, smooth_normals(dome.vertices, dome.faces)[corners], atol=1e-6)


def test_what_shows_through_a_gap_is_dark_and_not_transparent(dome):
    inside = np.abs(dome.vertices[dome.faces].mean(1)[:, :2]).max(1) < 10
    picture = shaded_mesh(dome.vertices, dome.faces[~inside], size=60)
    assert picture[30, 30, 3] == 255 and picture[30, 30, 0] < picture[..., 0][picture[..., 3] == 255].mean()
