"""Facts about the shaded picture of a mesh."""

import numpy as np

from utils.report.figures.mesh import shaded_mesh, smooth_normals


def test_a_mesh_is_drawn_without_holes_and_is_brightest_at_the_upper_left(dome):
    picture = shaded_mesh(dome.vertices, dome.faces, size=60)
    opaque = picture[..., 3] == 255
    rows, columns = np.nonzero(opaque)
    assert opaque[rows.min() + 1 : rows.max(), columns.min() + 1 : columns.max()].all()
    assert picture[15, 15, 0] > picture[30, 30, 0] > picture[45, 45, 0]


def test_both_windings_of_the_triangles_give_the_same_picture(dome):
    reversed_winding = shaded_mesh(dome.vertices, dome.faces[:, ::-1], size=60)
    assert np.array_equal(reversed_winding, shaded_mesh(dome.vertices, dome.faces, size=60))


def test_no_edge_shows_at_a_seam_of_the_texture(dome):
    """Here every triangle has its own vertices, as if seams surrounded it; the normals are still those of the mesh."""
    corners = dome.faces.ravel()
    normals = smooth_normals(dome.vertices[corners], np.arange(len(corners)).reshape(-1, 3))
    assert np.allclose(normals, smooth_normals(dome.vertices, dome.faces)[corners], atol=1e-6)


def test_a_gap_in_the_surface_is_dark_and_opaque(dome):
    inside = np.abs(dome.vertices[dome.faces].mean(1)[:, :2]).max(1) < 10
    picture = shaded_mesh(dome.vertices, dome.faces[~inside], size=60)
    assert picture[30, 30, 3] == 255 and picture[30, 30, 0] < picture[..., 0][picture[..., 3] == 255].mean()
