"""Which way a mesh looks: axes by name, and those under which it shows a face.

The project's own: x to the viewer's right, y up, z towards the viewer. Every other turns a mesh rigidly into these.
"""

from dataclasses import replace

import cv2
import numpy as np

from utils.dataset.geometry import TRIM
from utils.dataset.reading import DataError
from utils.dataset.sequence import Sequence
from utils.render.camera import Camera
from utils.render.crops import Box, square_box
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
    if _sureness(textured, vertices, renderer) > 0:
        return "y-up", ""
    sure = {name: _sureness(textured, vertices @ turn.T.astype(np.float32), renderer) for name, turn in AXES.items()}
    best = max(sure, key=sure.get)
    if sure[best] <= 0:
        if bulges(vertices) and frontal_face(front(textured, vertices, renderer)) is not None:
            return "y-up", ""  # to the more generous of two detectors
        fault = "its mesh shows no face, in these axes or in any other usual ones"
        remedy = (
            "export the textured face alone, in millimetres, y up and facing z; or, if it is a face all the same, "
            'say which axes it has: SET="axes=y-up" takes it as it is'
        )
        raise DataError.at(sequence.files[0], fault, remedy)
    return best, f'its mesh shows a face only as "{best}", and was turned so. Remedy: SET="axes={best}" if it is right.'


def _sureness(textured: list[TexturedMesh], vertices: np.ndarray, renderer: str) -> float:
    """How surely the mesh shows a face from the front; a mask seen from behind, which is hollow, shows none."""
    if not bulges(vertices):
        return 0.0
    return sureness(cv2.cvtColor(front(textured, vertices, renderer), cv2.COLOR_RGB2GRAY), FRONT // 8)


def front(textured: list[TexturedMesh], vertices: np.ndarray, renderer: str) -> np.ndarray:
    """The mesh from the front before grey, (FRONT, FRONT, 3) uint8."""
    camera, box = front_camera(vertices)
    meshes = [replace(mesh, vertices=vertices) for mesh in textured]
    picture = get_renderer(renderer).render(meshes, [camera.cropped(_around(box), FRONT)])[0]
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
