"""Pictures of a textured mesh, by two renderers that draw the same pixels.

The texture of a scanner already contains the light, so nothing is shaded here: a pixel is the colour of the texture,
times an optional colour of the vertices. `PyrenderRenderer` draws with OpenGL (EGL or OSMesa). `EmbreeRenderer` casts
rays on the CPU, for machines without OpenGL. `get_renderer` tries them in this order, once per process.
"""

import os
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from utils.render.camera import Camera, surface_points

BACKENDS = ("egl", "osmesa", "embree")
LIBRARIES = {"egl": "libEGL (an OpenGL driver)", "osmesa": "libOSMesa", "embree": "the package embreex"}
SUBSAMPLES = 2  # rays per side of a pixel in the ray caster
# Constants of OpenGL, written here because PyOpenGL must not be imported before its platform is chosen.
GL_TRIANGLES, GL_LINEAR, GL_CLAMP, GL_REPEAT = 4, 9729, 33071, 10497


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh with one texture: vertices (V, 3) mm, faces (F, 3), uv (V, 2) with v up, texture (H, W, 3) uint8 RGB.

    tint: (V, 3) float in 0..1, multiplies the texture (baked light), or None. clamp: outside uv 0..1 the border of the
    texture is repeated instead of the whole texture. A mesh with several textures is drawn as a list of these.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    tint: np.ndarray | None = None
    clamp: bool = False


class Picture(NamedTuple):
    rgb: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) bool, where the mesh is


Meshes = TexturedMesh | list[TexturedMesh]


def parts_of(meshes: Meshes) -> list[TexturedMesh]:
    """The parts that are drawn: a mesh as it is if its uv lie in 0..1, otherwise its faces in two groups.

    Faces within one tile (a unit square of uv) are moved to 0..1 and clamped, so that the texture does not mix with its
    other side at the border. Only faces that cross the border of a tile repeat the texture.
    """
    return [part for mesh in ([meshes] if isinstance(meshes, TexturedMesh) else meshes) for part in _parts(mesh)]


def _parts(mesh: TexturedMesh) -> list[TexturedMesh]:
    slack = 0.5 / min(mesh.texture.shape[:2])  # exporters round uv by up to half a texel: that is no repetition
    if mesh.clamp or (mesh.uv.min() >= -slack and mesh.uv.max() <= 1 + slack):
        return [replace(mesh, clamp=True)]
    uv = mesh.uv[mesh.faces].astype(float)  # (F, 3, 2)
    low, high = uv.min(1), uv.max(1)
    origin = np.floor((low + high) / 2)
    within = ((low >= origin - slack) & (high <= origin + 1 + slack)).all(1)
    parts = []
    for chosen, clamp in ((within, True), (~within, False)):
        if chosen.any():  # vertices are not shared: a neighbouring face may lie in another tile
            corners = mesh.faces[chosen].ravel()
            faces = np.arange(len(corners)).reshape(-1, 3)
            moved = (uv[chosen] - origin[chosen][:, None]).reshape(-1, 2)
            tint = None if mesh.tint is None else mesh.tint[corners]
            parts.append(TexturedMesh(mesh.vertices[corners], faces, moved, mesh.texture, tint, clamp))
    return parts


class PyrenderRenderer:
    """Unlit OpenGL renderer on pyrender, with one context and one scene for the life of the process."""

    def __init__(self, platform: str = "egl"):
        os.environ["PYOPENGL_PLATFORM"] = platform  # PyOpenGL reads it when it is first imported
        os.environ.setdefault("LP_NUM_THREADS", "0")  # a software renderer without threads: the workers use all cores
        import pyrender

        self.name = f"pyrender ({platform})"
        self._pyrender = pyrender
        self._offscreen = pyrender.OffscreenRenderer(64, 64)
        self._scene = pyrender.Scene(bg_color=[0, 0, 0, 0], ambient_light=[1.0, 1.0, 1.0])
        self._camera = self._scene.add(pyrender.IntrinsicsCamera(1, 1, 0, 0))
        self._flags = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.RGBA | pyrender.RenderFlags.SKIP_CULL_FACES
        self._drawn = None  # the last node; it is removed only after the next one is added, which keeps shared textures
        self._textures = []  # (image, clamp, texture) of the last node

    def _texture_of(self, image: np.ndarray, clamp: bool):
        """The image as a texture. An image of the last node is not sent to OpenGL again."""
        for last_image, last_clamp, texture in self._textures:
            if last_image is image and last_clamp == clamp:
                return texture
        # Four channels, because OpenGL reads rows in steps of four bytes. No mipmaps, because the scale is about 1:1.
        wrap = GL_CLAMP if clamp else GL_REPEAT
        sampler = self._pyrender.Sampler(magFilter=GL_LINEAR, minFilter=GL_LINEAR, wrapS=wrap, wrapT=wrap)
        rgba = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        return self._pyrender.Texture(source=rgba, source_channels="RGBA", sampler=sampler)

    def _primitive(self, mesh: TexturedMesh):
        tint = None
        if mesh.tint is not None:
            tint = np.column_stack([mesh.tint, np.ones(len(mesh.tint))]).astype(np.float32)
        texture = self._texture_of(mesh.texture, mesh.clamp)
        return self._pyrender.Primitive(
            positions=mesh.vertices.astype(np.float32),
            indices=mesh.faces.astype(np.uint32),
            texcoord_0=mesh.uv.astype(np.float32),
            color_0=tint,
            mode=GL_TRIANGLES,
            material=self._pyrender.MetallicRoughnessMaterial(baseColorTexture=texture, alphaMode="OPAQUE"),
        )

    def render(self, meshes: Meshes, cameras: list[Camera]) -> list[Picture]:
        """One picture for each camera. The meshes and their textures are sent to OpenGL once."""
        parts = parts_of(meshes)
        primitives = [self._primitive(part) for part in parts]
        textures = [primitive.material.baseColorTexture for primitive in primitives]
        self._textures = [(part.texture, part.clamp, texture) for part, texture in zip(parts, textures, strict=True)]
        node = self._scene.add(self._pyrender.Mesh(primitives))
        if self._drawn is not None:
            self._scene.remove_node(self._drawn)
        self._drawn = node
        return [self._picture(camera) for camera in cameras]

    def _picture(self, camera: Camera) -> Picture:
        lens = self._camera.camera
        lens.fx = lens.fy = camera.focal
        lens.cx, lens.cy = camera.centre[0] + 0.5, camera.centre[1] + 0.5  # OpenGL counts from the pixel's corner
        lens.znear, lens.zfar = camera.distance * 0.2, camera.distance * 2
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = camera.axes.T, camera.position
        self._scene.set_pose(self._camera, pose)
        self._offscreen.viewport_height, self._offscreen.viewport_width = camera.size
        rgba, depth = self._offscreen.render(self._scene, self._flags)
        return Picture(np.ascontiguousarray(rgba[..., :3]), depth > 0)

    def close(self) -> None:
        """Release the OpenGL context."""
        self._offscreen.delete()


class EmbreeRenderer:
    """The same pictures by ray casting (Embree through trimesh), for machines without OpenGL."""

    name = "embree ray caster"

    def render(self, meshes: Meshes, cameras: list[Camera]) -> list[Picture]:
        """One picture for each camera."""
        parts = parts_of(meshes)
        counts = [len(part.vertices) for part in parts]
        vertices = np.concatenate([part.vertices for part in parts])
        faces = np.concatenate([part.faces + sum(counts[:i]) for i, part in enumerate(parts)])
        return [self._picture(parts, vertices, faces, camera) for camera in cameras]

    def _picture(self, parts: list[TexturedMesh], vertices: np.ndarray, faces: np.ndarray, camera: Camera) -> Picture:
        """The picture of parts. vertices (V, 3) and faces (F, 3) are those of all parts, in their order."""
        n, (height, width) = SUBSAMPLES, camera.size
        fine = camera.cropped((0, 0, 1.0), n)._replace(size=(height * n, width * n))
        triangle, bary = surface_points(vertices, faces, fine)
        colour = np.zeros((height * n, width * n, 3), np.float32)
        start = 0
        for part in parts:
            stop = start + len(part.faces)
            seen = (triangle >= start) & (triangle < stop)
            colour[seen] = _colours_at(part, triangle[seen] - start, bary[seen])
            start = stop
        rgb = cv2.resize(colour, (width, height), interpolation=cv2.INTER_AREA)
        mask = (triangle >= 0).reshape(height, n, width, n).any((1, 3))
        return Picture(np.rint(rgb).clip(0, 255).astype(np.uint8), mask)

    def close(self) -> None:
        """Do nothing: this renderer holds no resources."""


def _colours_at(mesh: TexturedMesh, triangle: np.ndarray, bary: np.ndarray) -> np.ndarray:
    """Colours (N, 3) float32 of points that are given by their triangle (N,) and barycentric weights (N, 3)."""
    corners = mesh.faces[triangle]
    uv = np.einsum("nk,nkc->nc", bary, mesh.uv[corners])
    rows, columns = mesh.texture.shape[:2]
    at = np.stack([uv[:, 0] * columns - 0.5, (1 - uv[:, 1]) * rows - 0.5], -1)
    if not mesh.clamp:
        at = at % (columns, rows)  # large coordinates would overflow the fixed-point numbers of cv2.remap
    colour = sample_bilinear(mesh.texture, at.astype(np.float32), not mesh.clamp)
    if mesh.tint is not None:
        colour *= np.einsum("nk,nkc->nc", bary, mesh.tint[corners])
    return colour


def sample_bilinear(image: np.ndarray, at: np.ndarray, repeat: bool = False) -> np.ndarray:
    """Colours (N, C) float32 of an image at pixels `at` (N, 2), (x, y).

    Outside the image, its edge is repeated, or with `repeat` the whole image.
    """
    rows = max(1, -(-len(at) // 8192))  # cv2.remap takes at most 32767 rows or columns
    grid = np.zeros((rows * 8192, 2), np.float32)
    grid[: len(at)] = at
    border = cv2.BORDER_WRAP if repeat else cv2.BORDER_REPLICATE
    grid = grid.reshape(rows, 8192, 2)
    sampled = cv2.remap(image.astype(np.float32), grid, None, cv2.INTER_LINEAR, borderMode=border)
    return sampled.reshape(rows * 8192, -1)[: len(at)]


Renderer = PyrenderRenderer | EmbreeRenderer


def make_renderer(backend: str) -> Renderer:
    """The renderer "egl", "osmesa" or "embree" after a test drawing, or with "auto" the first of them that works.

    Raises ValueError for another name, and RuntimeError with all failures if no renderer works on this machine.
    """
    if backend == "auto":
        failures = []
        for name in BACKENDS:
            try:
                return make_renderer(name)
            except Exception as error:  # any failure is a reason to try the next backend
                failures.append(f"{name}: {error}")
        raise RuntimeError("no renderer works here: " + "; ".join(failures))
    if backend not in BACKENDS:
        raise ValueError(f"renderer {backend!r} is unknown. Remedy: choose one of {', '.join(BACKENDS)} or auto.")
    try:
        renderer = EmbreeRenderer() if backend == "embree" else PyrenderRenderer(backend)
    except Exception as error:  # libraries report a missing driver by many kinds of exceptions
        raise RuntimeError(
            f"renderer {backend} does not work here: {LIBRARIES[backend]} is missing or broken ({error}). "
            "Remedy: install it, or choose renderer=auto."
        ) from error
    vertices, uv = np.array([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]]), np.array([[0.0, 0], [1, 0], [0, 1]])
    triangle = TexturedMesh(vertices, np.array([[0, 1, 2]]), uv, np.full((4, 4, 3), 200, np.uint8))
    (picture,) = renderer.render(triangle, [Camera(0.0, 10.0, (0, 0, 0), 32.0, (15.5, 15.5), (32, 32))])
    if picture.rgb[16, 16, 0] != 200:
        raise RuntimeError(f"renderer {backend} drew a wrong picture. Remedy: choose another renderer.")
    return renderer


# At most one renderer, because two OpenGL contexts in a process disturb each other.
_in_use: dict[str, Renderer] = {}


def get_renderer(backend: str = "auto") -> Renderer:
    """The renderer of this process: the named one, or with "auto" the first of EGL, OSMesa and Embree that works."""
    if backend not in _in_use:
        close_renderer()
        _in_use[backend] = make_renderer(backend)
    return _in_use[backend]


def close_renderer() -> None:
    """Close the renderer of this process, if there is one; the next `get_renderer` makes a new one."""
    for renderer in _in_use.values():
        renderer.close()
    _in_use.clear()
