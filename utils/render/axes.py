"""Which way a mesh looks: axes by name, and those under which it shows a face.

The project's own: x to the viewer's right, y up, z towards the viewer. Every other turns a mesh rigidly into these.
"""

from dataclasses import replace

import cv2
import numpy as np

from utils.dataset.geometry import TRIM, Box
from utils.dataset.sequence import Sequence
from utils.errors import DataError
from utils.render.camera import Camera
from utils.render.crops import square_box
from utils.render.faces import frontal_face, sureness
from utils.render.renderer import TexturedMesh, get_renderer

# Rows: where the project's x, y and z lie in the file's axes.
AXES: dict[str, np.ndarray] = {
    "y-up": np.eye(3),
    "z-up": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),  # facing -y: Blender, many scanners
    "z-up-back": np.array([[-1, 0, 0], [0, 0, 1], [0, 1, 0]]),  # facing +y
    "camera": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]]),  # y down, z away: computer vision
    "back": np.array([[-1, 0, 0], [0, 1, 0], [0, 0, -1]]),  # y up, facing -z
    "x-front": np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]]),  # y up, facing +x
    "x-back": np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]),  # y up, facing -x
    "z-up-x": np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]),  # z up, facing +x: robotics
    "y-down": np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 1]]),  # upside down
    "z-down": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),  # z down, facing +y
}
CLAY, LIGHT = np.full((2, 2, 3), 200, np.uint8), np.array([0, 0.57, 0.82])
GROUND = 128  # grey behind the mesh: before black, an outline alone can pass for a face
FRONT = 320  # pixels of the picture in which a face is looked for
AROUND = 1.2  # sides of the mesh's box that the picture shows
GRID = 12  # cells a side over which the mesh's depth is looked at
HEAD = 0.6  # share of the mesh's box below which the face is but a part of the mesh: of faces alone it is 0.75 to 1


def find_axes(sequence: Sequence, textured: list[TexturedMesh], renderer: str) -> tuple[str, str]:
    """The name of the axes under which the first frame shows a face, and a word where they are not the project's own.

    textured: the first frame as the file has it. Raises DataError where no axes show one.
    """
    vertices = textured[0].vertices
    if all(_both_sureness(textured, vertices, renderer)):  # one alone may take a profile, or a chin, for a face
        return "y-up", ""
    turned = {name: vertices @ turn.T.astype(np.float32) for name, turn in AXES.items()}
    sure = {name: sum(_both_sureness(textured, shape, renderer)) for name, shape in turned.items()}
    best = max(sure, key=sure.get)  # of equals the first, which is as the file has it
    if sure[best] <= 0:
        fault = "its mesh shows no face, in these axes or in any other usual ones"
        remedy = (
            "export the textured face alone, in millimetres, y up and facing z; or, if it is a face all the same, "
            'say which axes it has: SET="axes=y-up" takes it as it is'
        )
        raise DataError.at(sequence.files[0], fault, remedy)
    if best == "y-up":
        return best, ""
    return best, f'its mesh shows a face only as "{best}", and was turned so. Remedy: SET="axes={best}" if it is right.'


def _both_sureness(textured: list[TexturedMesh], vertices: np.ndarray, renderer: str) -> tuple[float, float]:
    """How surely the mesh with these vertices shows a face from the front, in clay and in its own colours.

    A mask seen from behind, which is hollow, shows none.
    """
    if not bulges(vertices):
        return 0.0, 0.0
    return tuple(_sureness(meshes, vertices, renderer) for meshes in (clay(textured, vertices), textured))


def _sureness(meshes: list[TexturedMesh], vertices: np.ndarray, renderer: str) -> float:
    return sureness(cv2.cvtColor(front(meshes, vertices, renderer), cv2.COLOR_RGB2GRAY), FRONT // 8)


def clay(textured: list[TexturedMesh], vertices: np.ndarray) -> list[TexturedMesh]:
    """The meshes in grey, lit from above the viewer: of 24 faces in flat colours the detector sees a third as they are,
    and all of them so."""
    faces = np.concatenate([mesh.faces for mesh in textured])
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    of_faces = np.cross(b - a, c - a)
    normals = np.stack([np.bincount(faces.ravel(), np.repeat(part, 3), len(vertices)) for part in of_faces.T], axis=-1)
    normals *= np.sign(normals[:, 2:]) / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    shade = 0.35 + 0.65 * np.clip(normals @ LIGHT, 0, 1)
    tint = np.repeat(shade[:, None], 3, axis=1).astype(np.float32)
    return [replace(mesh, texture=CLAY, tint=tint) for mesh in textured]


def front(meshes: list[TexturedMesh], vertices: np.ndarray, renderer: str) -> np.ndarray:
    """Meshes with these vertices from the front before grey, (FRONT, FRONT, 3) uint8."""
    camera, box = front_camera(vertices)
    placed = [replace(mesh, vertices=vertices) for mesh in meshes]
    picture = get_renderer(renderer).render(placed, [camera.cropped(_around(box), FRONT)])[0]
    return np.where(picture.mask[..., None], picture.rgb, np.uint8(GROUND))


def front_camera(vertices: np.ndarray) -> tuple[Camera, Box]:
    """A camera in front of vertices (V, 3) mm, far enough for any size, and the square that they fill in it."""
    low, high = np.quantile(vertices, [TRIM, 1 - TRIM], axis=0)
    distance = 6.0 * float(np.linalg.norm(high - low))
    middle = tuple(float(value) for value in (low + high) / 2)
    camera = Camera(0.0, distance, middle, distance, (255.5, 255.5), (512, 512))
    corners = np.quantile(camera.project(vertices), [TRIM, 1 - TRIM], axis=0)
    return camera, square_box(*corners)


def _around(box: Box) -> Box:
    x, y, side = box
    edge = side * (AROUND - 1) / 2
    return x - edge, y - edge, side * AROUND


def bulges(vertices: np.ndarray) -> bool:
    """Whether the middle of what is seen from the front lies nearer than the rim: a face does, its inside does not."""
    low, high = np.quantile(vertices, [TRIM, 1 - TRIM], axis=0)
    cells = ((vertices[:, :2] - low[:2]) / np.maximum(high[:2] - low[:2], 1e-6) * GRID).astype(int).clip(0, GRID - 1)
    depth = np.full((GRID, GRID), -np.inf)
    np.maximum.at(depth, (cells[:, 1], cells[:, 0]), vertices[:, 2])
    y, x = np.mgrid[:GRID, :GRID] + 0.5 - GRID / 2
    radius = np.hypot(x, y) / (GRID / 2)
    inner, outer = (depth[zone & np.isfinite(depth)] for zone in (radius < 0.5, radius > 0.75))
    return not len(inner) or not len(outer) or inner.mean() > outer.mean()


def face_vertices(textured: list[TexturedMesh], vertices: np.ndarray, renderer: str) -> np.ndarray | None:
    """Which vertices (V,) belong to the face, where that is a part of the mesh (a bust, a whole head); else None."""
    found = frontal_face(front(clay(textured, vertices), vertices, renderer))
    if found is None:
        found = frontal_face(front(textured, vertices, renderer))
    camera, box = front_camera(vertices)
    if found is None or found[2] / FRONT * AROUND >= HEAD:
        return None
    x, y, side = _around(box)
    left, top, width = (value * side / FRONT for value in found)
    places = (camera.project(vertices) - [x + left, y + top]) / width
    inside = (np.abs(places[:, 0] - 0.5) < 0.46) & (places[:, 1] > 0) & (places[:, 1] < 1.12)  # chins reach beyond
    near = vertices[inside, 2].max(initial=-np.inf) - width  # the back of a head lies farther than its face is wide
    return inside & (vertices[:, 2] > near)
