"""A smoothly shaded picture of a mesh without its texture."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import binary_fill_holes

from utils.render.axes import AXES
from utils.render.camera import surface_points
from utils.render.view_set import Views
from utils.render.views import mesh_box, wide_cameras
from utils.report.figures.common import bare

LIGHT = np.array([-0.5, 0.6, 0.62])  # direction towards the light: upper left, in front of the face
AMBIENT = 0.25  # share of the light that comes from all directions
SOFTNESS = 0.35  # how far the light reaches round the face: 0 is a lamp, 1 is an overcast sky
CLAY = np.array([236, 226, 216])  # RGB of the surface in full light
SUBSAMPLES = 2  # rays per pixel side
BORDER = 1.08  # side of the picture divided by the side of the mesh
WELD_MM = 1e-3  # vertices closer than this are one vertex, so that no edge shows at a seam of the texture


def shaded_mesh(vertices: np.ndarray, faces: np.ndarray, size: int = 360) -> np.ndarray:
    """The mesh from the front, (size, size, 4) uint8 RGBA, with a transparent background.

    vertices: (V, 3) mm, y up, z towards the viewer; faces: (F, 3), in either winding.
    """
    camera = wide_cameras(vertices, 0.0)[0]
    x, y, side = mesh_box(vertices, camera)
    rim = side * (BORDER - 1) / 2
    camera = camera.cropped((x - rim, y - rim, side * BORDER), size * SUBSAMPLES)
    triangle, bary = surface_points(vertices, faces, camera)
    seen = triangle >= 0
    normal = np.einsum("nk,nkc->nc", bary[seen], smooth_normals(vertices, faces)[faces[triangle[seen]]])
    normal *= np.where(normal[:, 2:] < 0, -1, 1) / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9)
    towards = normal @ (LIGHT / np.linalg.norm(LIGHT))  # cosine of the angle between surface and light
    light = np.full(seen.shape, AMBIENT)  # gaps in the surface, as between the lips, get ambient light only
    light[seen] += (1 - AMBIENT) * ((towards + SOFTNESS) / (1 + SOFTNESS)).clip(0)
    fine = np.dstack([light[..., None] * CLAY, np.full(seen.shape, 255.0)]) * binary_fill_holes(seen)[..., None]
    mean = fine.reshape(size, SUBSAMPLES, size, SUBSAMPLES, 4).mean((1, 3))
    mean[..., :3] *= 255 / np.maximum(mean[..., 3:], 1)  # the rim is as bright as the surface, but less opaque
    return np.rint(mean).clip(0, 255).astype(np.uint8)


def smooth_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3): the mean over all triangles that touch the place of a vertex, weighted by their area."""
    _, place = np.unique(np.round(vertices / WELD_MM).astype(np.int64), axis=0, return_inverse=True)
    a, b, c = np.moveaxis(vertices[faces].astype(float), 1, 0)
    sums = np.zeros((place.max() + 1, 3))
    for corner in place[faces].T:
        np.add.at(sums, corner, np.cross(b - a, c - a))  # its length is twice the area, which is the weight
    return (sums / (np.linalg.norm(sums, axis=1, keepdims=True) + 1e-12))[place]


def turned(frame, views: Views):
    """The frame with its mesh turned into the project's axes (`utils.render.axes`)."""
    return replace(frame, vertices=frame.vertices @ AXES[views.axes].T.astype(np.float32))


def draw_mesh(axis: plt.Axes, frame) -> None:
    """The frame's mesh from the front, smoothly shaded."""
    axis.imshow(shaded_mesh(frame.vertices, frame.faces))
    bare(axis, f"mesh, {len(frame.vertices):,} vertices")
