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
GL_TRIANGLES, GL_LINEAR, GL_CLAMP, GL_REPEAT = 4, 9729, 33071, 10497


@dataclass(frozen=True)
class TexturedMesh:
    """What is drawn: vertices (V, 3) mm, faces (F, 3), uv (V, 2) with v up, texture (H, W, 3) uint8 RGB.

    `tint` (V, 3) float in 0..1, where given, multiplies the texture (baked light). Outside uv 0..1 the texture repeats,
    or with `clamp` its border does. A mesh with several textures is drawn as a list of these, one per texture.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    tint: np.ndarray | None = None
    clamp: bool = False


class Tile(NamedTuple):
    """A mesh whose uv lie in one tile of its texture, or, where `repeat`, reach over the border of tiles."""

    mesh: TexturedMesh
    repeat: bool


class Picture(NamedTuple):
    rgb: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) bool, where the mesh is


Meshes = TexturedMesh | list[TexturedMesh]


def tiles_of(meshes: Meshes) -> list[Tile]:
    """What is drawn at once: each mesh as it is, if its uv lie in 0..1, else its faces by how they lie to the tiles.

    A face within one tile is moved to 0..1 and ends at the border, as there. Only faces across a border repeat, where
    both sides of it are mixed.
    """
    return [tile for mesh in ([meshes] if isinstance(meshes, TexturedMesh) else meshes) for tile in _tiles(mesh)]


def _tiles(mesh: TexturedMesh) -> list[Tile]:
    slack = 0.5 / min(mesh.texture.shape[:2])  # half a texel more is what exporters round to, and no repetition
    if mesh.clamp or (mesh.uv.min() >= -slack and mesh.uv.max() <= 1 + slack):
        return [Tile(mesh, repeat=False)]
    corners = mesh.uv[mesh.faces].astype(float)  # (F, 3, 2)
    low, high = corners.min(1), corners.max(1)
    tile = np.floor((low + high) / 2)
    within = ((low >= tile - slack) & (high <= tile + 1 + slack)).all(1)
    tiles = []
    for chosen, repeat in ((within, False), (~within, True)):
        if chosen.any():  # each face with corners of its own, since its neighbour may lie in another tile
            of = mesh.faces[chosen].ravel()
            own = TexturedMesh(
                mesh.vertices[of],
                np.arange(len(of)).reshape(-1, 3),
                (corners[chosen] - tile[chosen][:, None]).reshape(-1, 2),
                mesh.texture,
                None if mesh.tint is None else mesh.tint[of],
            )
            tiles.append(Tile(own, repeat))
    return tiles


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
        self._textures = []  # those of the node: what each was made from, whether it repeats, and the texture

    def _texture_of(self, image: np.ndarray, repeat: bool):
        """The image as a texture; an array that was drawn last time is not sent to OpenGL again."""
        for known, repeats, texture in self._textures:
            if known is image and repeats == repeat:
                return texture
        # Four channels, since OpenGL reads rows in steps of four bytes; no mipmaps, the scale is about 1:1.
        wrap = GL_REPEAT if repeat else GL_CLAMP
        sampler = self._pyrender.Sampler(magFilter=GL_LINEAR, minFilter=GL_LINEAR, wrapS=wrap, wrapT=wrap)
        return self._pyrender.Texture(
            source=cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), source_channels="RGBA", sampler=sampler
        )

    def _primitive(self, tile: Tile):
        pyrender, mesh = self._pyrender, tile.mesh
        tint = None
        if mesh.tint is not None:
            tint = np.column_stack([mesh.tint, np.ones(len(mesh.tint))]).astype(np.float32)
        texture = self._texture_of(mesh.texture, tile.repeat)
        return pyrender.Primitive(
            positions=mesh.vertices.astype(np.float32),
            indices=mesh.faces.astype(np.uint32),
            texcoord_0=mesh.uv.astype(np.float32),
            color_0=tint,
            mode=GL_TRIANGLES,
            material=pyrender.MetallicRoughnessMaterial(baseColorTexture=texture, alphaMode="OPAQUE"),
        )

    def render(self, meshes: Meshes, cameras: list[Camera]) -> list[Picture]:
        """One picture per camera; the meshes and their textures are sent to OpenGL once."""
        tiles = tiles_of(meshes)
        primitives = [self._primitive(tile) for tile in tiles]
        self._textures = [
            (tile.mesh.texture, tile.repeat, primitive.material.baseColorTexture)
            for tile, primitive in zip(tiles, primitives, strict=True)
        ]
        node = self._scene.add(self._pyrender.Mesh(primitives))
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

    def render(self, meshes: Meshes, cameras: list[Camera]) -> list[Picture]:
        tiles = tiles_of(meshes)
        vertices, faces, tile_of = joined([tile.mesh for tile in tiles])
        return [self._picture(tiles, vertices, faces, tile_of, camera) for camera in cameras]

    def _picture(
        self, tiles: list[Tile], vertices: np.ndarray, faces: np.ndarray, tile_of: np.ndarray, camera: Camera
    ) -> Picture:
        n, (height, width) = SUBSAMPLES, camera.size
        fine = camera.cropped((0, 0, 1.0), n)._replace(size=(height * n, width * n))
        triangle, bary = surface_points(vertices, faces, fine)
        colour = np.zeros((height * n, width * n, 3), np.float32)
        first = 0
        for number, tile in enumerate(tiles):
            seen = (triangle >= 0) & (tile_of[triangle] == number)
            colour[seen] = _colours_at(tile, triangle[seen] - first, bary[seen])
            first += len(tile.mesh.faces)
        rgb = cv2.resize(colour, (width, height), interpolation=cv2.INTER_AREA)
        mask = (triangle >= 0).reshape(height, n, width, n).any((1, 3))
        return Picture(np.rint(rgb).clip(0, 255).astype(np.uint8), mask)

    def close(self) -> None:
        """Nothing to give back."""


def joined(meshes: list[TexturedMesh]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) of all meshes, and to which mesh a face belongs (F,)."""
    if len(meshes) == 1:
        return meshes[0].vertices, meshes[0].faces, np.zeros(len(meshes[0].faces), int)
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]
    tile_of = np.repeat(np.arange(len(meshes)), [len(mesh.faces) for mesh in meshes])
    return np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces), tile_of


def _colours_at(tile: Tile, triangle: np.ndarray, bary: np.ndarray) -> np.ndarray:
    """Colours (N, 3) float32 of points, given by their triangle (N,) and their weights (N, 3) in it."""
    mesh = tile.mesh
    corners = mesh.faces[triangle]
    uv = np.einsum("nk,nkc->nc", bary, mesh.uv[corners])
    rows, columns = mesh.texture.shape[:2]
    at = np.stack([uv[:, 0] * columns - 0.5, (1 - uv[:, 1]) * rows - 0.5], -1)
    if tile.repeat:
        at = at % (columns, rows)  # `sample_bilinear` reads fixed numbers, which large ones would overflow
    colour = sample_bilinear(mesh.texture, at.astype(np.float32), tile.repeat)
    if mesh.tint is not None:
        colour *= np.einsum("nk,nkc->nc", bary, mesh.tint[corners])
    return colour


def sample_bilinear(image: np.ndarray, at: np.ndarray, repeat: bool = False) -> np.ndarray:
    """Colours (N, C) float32 of an image at pixels `at` (N, 2) as (x, y), beyond it edges or all of it repeated."""
    rows = max(1, -(-len(at) // 8192))  # cv2.remap takes at most 32767 rows or columns
    grid = np.zeros((rows * 8192, 2), np.float32)
    grid[: len(at)] = at
    grid = grid.reshape(rows, 8192, 2)
    border = cv2.BORDER_WRAP if repeat else cv2.BORDER_REPLICATE
    sampled = cv2.remap(image.astype(np.float32), grid, None, cv2.INTER_LINEAR, borderMode=border)
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
