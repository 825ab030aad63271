"""Pinhole cameras, and the surface that a camera sees at every pixel."""

from typing import NamedTuple

import numpy as np
import trimesh


class Camera(NamedTuple):
    """A pinhole camera on a circle around the y axis, looking at `target`.

    Pixel (0, 0) is the CENTRE of the top left pixel, x to the right, y down, as optical flow counts them.
    """

    yaw_deg: float  # degrees, positive to the viewer's right; the camera looks back at the target
    distance: float  # millimetres from the target
    target: tuple[float, float, float]  # millimetres
    focal: float  # pixels
    centre: tuple[float, float]  # the target's pixel
    size: tuple[int, int]  # height, width in pixels

    @property
    def axes(self) -> np.ndarray:
        """Rows: the camera's right, up and backward directions in the world, (3, 3)."""
        a = np.deg2rad(self.yaw_deg)
        return np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of world points (..., 3) in millimetres."""
        local = (points - np.asarray(self.target)) @ self.axes.T
        depth = self.distance - local[..., 2]
        x = self.centre[0] + self.focal * local[..., 0] / depth
        y = self.centre[1] - self.focal * local[..., 1] / depth
        return np.stack([x, y], -1)

    def cropped(self, box: tuple[float, float, float], size: int) -> "Camera":
        """The same camera seeing only the square `box` (x, y of its first pixel, side), as size x size."""
        x, y, side = box
        scale = size / side
        centre = ((self.centre[0] - x + 0.5) * scale - 0.5, (self.centre[1] - y + 0.5) * scale - 0.5)
        return self._replace(focal=self.focal * scale, centre=centre, size=(size, size))


def surface_points(vertices: np.ndarray, faces: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """The visible surface at every pixel centre, by casting a ray.

    Returns the triangle (H, W) int64, -1 where the mesh is not, and barycentric weights (H, W, 3) float64.
    """
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    height, width = camera.size
    ys, xs = np.mgrid[:height, :width]
    local = np.stack(
        [(xs - camera.centre[0]) / camera.focal, -(ys - camera.centre[1]) / camera.focal, np.full(xs.shape, -1.0)], -1
    ).reshape(-1, 3)
    directions = local @ camera.axes
    origin = np.asarray(camera.target) + camera.distance * camera.axes[2]
    surface = trimesh.Trimesh(vertices, faces, process=False)
    origins = np.broadcast_to(origin, directions.shape)
    triangle = RayMeshIntersector(surface).intersects_first(origins, directions)
    hit = triangle >= 0
    bary = np.zeros((height * width, 3))
    a, b, c = np.moveaxis(vertices[faces[triangle[hit]]].astype(float), 1, 0)
    # Cramer's rule for origin + s * direction = a + beta (b - a) + gamma (c - a) (Möller and Trumbore, 1997).
    ab, ac, ray = b - a, c - a, directions[hit]
    across = np.cross(ray, ac)
    determinant = np.einsum("nc,nc->n", ab, across)
    beta = np.einsum("nc,nc->n", origin - a, across) / determinant
    gamma = np.einsum("nc,nc->n", ray, np.cross(origin - a, ab)) / determinant
    bary[hit] = np.stack([1 - beta - gamma, beta, gamma], -1)
    return triangle.reshape(height, width), bary.reshape(height, width, 3)
