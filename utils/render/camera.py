"""Pinhole cameras, and the point of a mesh that a camera sees at each pixel."""

from typing import NamedTuple

import numpy as np
import trimesh

from utils.dataset.geometry import TRIM, Box


class Camera(NamedTuple):
    """A pinhole camera that stands on a horizontal circle around `target` and looks at it.

    Pixel (0, 0) is the CENTRE of the top left pixel, x to the right, y down, as in optical flow.
    """

    yaw_deg: float  # degrees; a positive yaw moves the camera to the viewer's right
    distance: float  # millimetres from the target
    target: tuple[float, float, float]  # world coordinates, millimetres
    focal: float  # pixels
    centre: tuple[float, float]  # the target's pixel
    size: tuple[int, int]  # height, width in pixels

    @property
    def axes(self) -> np.ndarray:
        """Rows (3, 3): the camera's right, up and backward directions in world coordinates."""
        a = np.deg2rad(self.yaw_deg)
        return np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])

    @property
    def position(self) -> np.ndarray:
        """The camera's centre (3,) in world coordinates, millimetres."""
        return np.asarray(self.target) + self.distance * self.axes[2]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of world points (..., 3) in millimetres."""
        local = (points - np.asarray(self.target)) @ self.axes.T
        depth = self.distance - local[..., 2]
        x = self.centre[0] + self.focal * local[..., 0] / depth
        y = self.centre[1] - self.focal * local[..., 1] / depth
        return np.stack([x, y], -1)

    def cropped(self, box: Box, size: int) -> "Camera":
        """The same camera with only the square `box` (x, y of its first pixel, side) in view, at size x size pixels."""
        x, y, side = box
        scale = size / side
        centre = ((self.centre[0] - x + 0.5) * scale - 0.5, (self.centre[1] - y + 0.5) * scale - 0.5)
        return self._replace(focal=self.focal * scale, centre=centre, size=(size, size))


def camera_at(vertices: np.ndarray, yaw_deg: float, distance: float) -> Camera:
    """A camera with 512 px that looks at the middle of vertices (V, 3) mm, where a pixel is 1 mm wide."""
    low, high = np.quantile(vertices, [TRIM, 1 - TRIM], axis=0)
    target = tuple(float(value) for value in (low + high) / 2)
    return Camera(yaw_deg, distance, target, distance, (255.5, 255.5), (512, 512))


def surface_points(vertices: np.ndarray, faces: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Cast a ray through the centre of each pixel and find the first triangle that it hits.

    Returns the triangle (H, W) int64, -1 where the ray hits none, and barycentric weights (H, W, 3) float64.
    """
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    height, width = camera.size
    ys, xs = np.mgrid[:height, :width]
    local = np.stack(
        [(xs - camera.centre[0]) / camera.focal, -(ys - camera.centre[1]) / camera.focal, np.full(xs.shape, -1.0)], -1
    ).reshape(-1, 3)
    directions, origin = local @ camera.axes, camera.position
    surface = trimesh.Trimesh(vertices, faces, process=False)
    triangle = RayMeshIntersector(surface).intersects_first(np.broadcast_to(origin, directions.shape), directions)
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
