"""Pictures of a textured mesh: two renderers that give the same pixels.

The light is already in a scanner's texture, so nothing is shaded here: a pixel is the texture (times an optional
colour per vertex). `PyrenderRenderer` draws with OpenGL (EGL, else OSMesa), `EmbreeRenderer` casts rays on the
CPU where no OpenGL is to be had; `get_renderer` tries them in that order once per process.
"""

import os
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from utils.render.camera import Camera, surface_points

BACKENDS = ("egl", "osmesa", "embree")
LIBRARIES = {"egl": "libEGL (an OpenGL driver)", "osmesa": "libOSMesa", "embree": "the package embreex"}
SUBSAMPLES = 2  # rays per pixel side of the ray caster
# OpenGL's numbers, so that it is not imported before it is chosen
GL_TRIANGLES, GL_LINEAR, GL_CLAMP = 4, 9729, 33071


@dataclass(frozen=True)
class TexturedMesh:
    """What is drawn: vertices (V, 3) mm, faces (F, 3), uv (V, 2) with v up, texture (H, W, 3) uint8 RGB.

    `tint` (V, 3) float in 0..1, where given, multiplies the texture (baked light).
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    tint: np.ndarray | None = None


class Picture(NamedTuple):
    rgb: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) bool, where the mesh is


class PyrenderRenderer:
    """Unlit OpenGL renderer on pyrender. One context and one scene for the life of the process."""

    def __init__(self, platform: str = "egl"):
        os.environ["PYOPENGL_PLATFORM"] = platform  # read by PyOpenGL when it is first imported
        import pyrender

        self.name = f"pyrender ({platform})"
        self._pyrender = pyrender
        self._offscreen = pyrender.OffscreenRenderer(64, 64)
        self._scene = pyrender.Scene(bg_color=[0, 0, 0, 0], ambient_light=[1.0, 1.0, 1.0])
        self._camera = self._scene.add(pyrender.IntrinsicsCamera(1, 1, 0, 0))
        self._flags = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.RGBA | pyrender.RenderFlags.SKIP_CULL_FACES
        self._drawn = None  # the node drawn last, kept until the next one stands, so that a shared texture stays
        self._image, self._texture = None, None  # the texture sent last and what it was made from

    def _texture_of(self, image: np.ndarray):
        """The image as a texture; the same array as last time is not sent to OpenGL again."""
        if image is not self._image:
            # Four channels, since OpenGL reads rows in steps of four bytes; no mipmaps, the scale is about 1:1.
            sampler = self._pyrender.Sampler(magFilter=GL_LINEAR, minFilter=GL_LINEAR, wrapS=GL_CLAMP, wrapT=GL_CLAMP)
            self._image = image
            self._texture = self._pyrender.Texture(
                source=cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), source_channels="RGBA", sampler=sampler
            )
        return self._texture

    def _node(self, mesh: TexturedMesh):
        pyrender = self._pyrender
        tint = None
        if mesh.tint is not None:
            tint = np.column_stack([mesh.tint, np.ones(len(mesh.tint))]).astype(np.float32)
        primitive = pyrender.Primitive(
            positions=mesh.vertices.astype(np.float32),
            indices=mesh.faces.astype(np.uint32),
            texcoord_0=mesh.uv.astype(np.float32),
            color_0=tint,
            mode=GL_TRIANGLES,
            material=pyrender.MetallicRoughnessMaterial(
                baseColorTexture=self._texture_of(mesh.texture), alphaMode="OPAQUE"
            ),
        )
        return self._scene.add(pyrender.Mesh([primitive]))

    def render(self, mesh: TexturedMesh, cameras: list[Camera]) -> list[Picture]:
        """One picture per camera; the mesh and its texture are sent to OpenGL once."""
        node = self._node(mesh)
        if self._drawn is not None:
            self._scene.remove_node(self._drawn)
        self._drawn = node
        return [self._picture(camera) for camera in cameras]

    def _picture(self, camera: Camera) -> Picture:
        height, width = camera.size
        lens = self._camera.camera
        lens.fx = lens.fy = camera.focal
        # OpenGL counts from the pixel's corner.
        lens.cx, lens.cy = camera.centre[0] + 0.5, camera.centre[1] + 0.5
        lens.znear, lens.zfar = camera.distance * 0.2, camera.distance * 2
        pose = np.eye(4)
        pose[:3, :3] = camera.axes.T
        pose[:3, 3] = np.asarray(camera.target) + camera.distance * camera.axes[2]
        self._scene.set_pose(self._camera, pose)
        self._offscreen.viewport_height, self._offscreen.viewport_width = height, width
        rgba, depth = self._offscreen.render(self._scene, self._flags)
        return Picture(np.ascontiguousarray(rgba[..., :3]), depth > 0)

    def close(self) -> None:
        self._offscreen.delete()


class EmbreeRenderer:
    """The same pictures by ray casting (Embree through trimesh), for machines without OpenGL."""

    name = "embree ray caster"

    def render(self, mesh: TexturedMesh, cameras: list[Camera]) -> list[Picture]:
        return [self._picture(mesh, camera) for camera in cameras]

    def _picture(self, mesh: TexturedMesh, camera: Camera) -> Picture:
        n, (height, width) = SUBSAMPLES, camera.size
        fine = camera.cropped((0, 0, 1.0), n)._replace(size=(height * n, width * n))
        triangle, bary = surface_points(mesh.vertices, mesh.faces, fine)
        seen = triangle >= 0
        corners = mesh.faces[triangle[seen]]
        uv = np.einsum("nk,nkc->nc", bary[seen], mesh.uv[corners])
        rows, columns = mesh.texture.shape[:2]
        at = np.stack([uv[:, 0] * columns - 0.5, (1 - uv[:, 1]) * rows - 0.5], -1).astype(np.float32)
        colour = np.zeros((height * n, width * n, 3), np.float32)
        colour[seen] = sample_bilinear(mesh.texture, at)
        if mesh.tint is not None:
            colour[seen] *= np.einsum("nk,nkc->nc", bary[seen], mesh.tint[corners])
        rgb = cv2.resize(colour, (width, height), interpolation=cv2.INTER_AREA)
        return Picture(np.rint(rgb).clip(0, 255).astype(np.uint8), seen.reshape(height, n, width, n).any((1, 3)))

    def close(self) -> None:
        """Nothing to give back."""


def sample_bilinear(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Colours (N, C) float32 of an image at pixels `at` (N, 2) as (x, y), edges repeated."""
    rows = -(-len(at) // 8192)  # cv2.remap takes at most 32767 rows or columns
    grid = np.zeros((rows * 8192, 2), np.float32)
    grid[: len(at)] = at
    grid = grid.reshape(rows, 8192, 2)
    sampled = cv2.remap(image.astype(np.float32), grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled.reshape(rows * 8192, -1)[: len(at)]


def make_renderer(backend: str) -> PyrenderRenderer | EmbreeRenderer:
    """The named renderer ("egl", "osmesa", "embree"), shown to work by drawing one triangle."""
    if backend not in BACKENDS:
        raise ValueError(f"renderer {backend!r} is unknown; choose one of {', '.join(BACKENDS)} or auto.")
    try:
        renderer = EmbreeRenderer() if backend == "embree" else PyrenderRenderer(backend)
    except Exception as error:  # a missing library shows in many ways
        raise RuntimeError(
            f"renderer {backend} does not work here: {LIBRARIES[backend]} is missing or broken ({error}). "
            "Remedy: install it, or choose renderer=auto."
        ) from error
    triangle = TexturedMesh(
        np.array([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]]),
        np.array([[0, 1, 2]]),
        np.array([[0.0, 0], [1, 0], [0, 1]]),
        np.full((4, 4, 3), 200, np.uint8),
    )
    (picture,) = renderer.render(triangle, [Camera(0.0, 10.0, (0, 0, 0), 32.0, (15.5, 15.5), (32, 32))])
    if picture.rgb[16, 16, 0] != 200:
        raise RuntimeError(f"renderer {backend} drew a wrong picture")
    return renderer


# At most one: OpenGL contexts of one process disturb each other.
_in_use: dict[str, PyrenderRenderer | EmbreeRenderer] = {}


def get_renderer(backend: str = "auto") -> PyrenderRenderer | EmbreeRenderer:
    """The process's one renderer: the named one, or the first that works here of EGL, OSMesa and Embree."""
    if backend not in _in_use:
        close_renderer()
        _in_use[backend] = first_working() if backend == "auto" else make_renderer(backend)
    return _in_use[backend]


def close_renderer() -> None:
    """Give back the process's renderer, if there is one; the next `get_renderer` makes a new one."""
    for renderer in _in_use.values():
        renderer.close()
    _in_use.clear()


def first_working() -> PyrenderRenderer | EmbreeRenderer:
    """Try the backends in order. Raises RuntimeError with every backend's failure if none draws."""
    failures = []
    for name in BACKENDS:
        try:
            return make_renderer(name)
        except Exception as error:  # whatever a missing driver raises, the next renderer is the remedy
            failures.append(f"{name}: {error}")
    raise RuntimeError("no renderer works here: " + "; ".join(failures))
