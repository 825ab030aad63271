"""Which way a mesh looks: axes by name, and the search for the axes under which a mesh shows a face.

The project's own axes are "y-up": x to the viewer's right, y up, z towards the viewer. Each matrix of AXES is the
rotation that takes a mesh from a file's axes to the project's.
"""

from dataclasses import replace

import cv2
import numpy as np

from utils.dataset.geometry import TRIM, Box, size_of
from utils.dataset.sequence import Sequence
from utils.errors import DataError
from utils.render.camera import Camera, camera_at
from utils.render.crops import mesh_box
from utils.render.faces import face_confidence, frontal_face
from utils.render.renderer import TexturedMesh, get_renderer

# Rows: the directions of the project's x, y and z in the file's axes.
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
CLAY, LIGHT = np.full((2, 2, 3), 200, np.uint8), np.array([0, 0.57, 0.82])  # grey texture; direction of the light
GROUND = 128  # grey of the background: on black, the detector can take an outline alone for a face
FRONT = 320  # side in pixels of the picture that is searched for a face
AROUND = 1.2  # side of that picture, as a multiple of the side of the mesh's box
GRID = 12  # cells per side of the grid over which the depth of the mesh is compared
WHOLE = 0.6  # least size of a face that is the whole mesh, share of the mesh's box; faces alone have 0.75 to 1


def find_axes(sequence: Sequence, textured: list[TexturedMesh], renderer: str) -> tuple[str, str]:
    """The axes under which the first frame shows a face, and a warning (else "") if they are not the project's own.

    textured: the meshes of the first frame, in the file's axes. Raises DataError if no axes show a face.
    """
    vertices = textured[0].vertices
    if all(_confidences(textured, vertices, renderer)):  # in one picture alone, a profile or a chin may pass for a face
        return "y-up", ""
    turned = {name: vertices @ turn.T.astype(np.float32) for name, turn in AXES.items()}
    confidence = {name: sum(_confidences(textured, shape, renderer)) for name, shape in turned.items()}
    best = max(confidence, key=confidence.get)  # the first of equals, so that "y-up" is preferred
    if confidence[best] <= 0:
        fault = "its mesh shows no face, neither in its own axes nor in any others that are known here"
        remedy = (
            "export only the textured face, in millimetres, with y up and looking along z; if the mesh does show a "
            'face, name its axes: SET="axes=y-up" leaves it as it is'
        )
        raise DataError.at(sequence.files[0], fault, remedy)
    if best == "y-up":
        return best, ""
    return best, f'its mesh shows a face only with axes={best} and was turned. Remedy: confirm it by SET="axes={best}".'


def _confidences(textured: list[TexturedMesh], vertices: np.ndarray, renderer: str) -> tuple[float, float]:
    """The detector's confidence that the mesh with these vertices shows a face from the front: in clay, in its colours.

    Both are 0 for a hollow mesh: a mask that is seen from behind.
    """
    if not bulges(vertices):
        return 0.0, 0.0
    pictures = [front_picture(meshes, vertices, renderer) for meshes in (clay(textured, vertices), textured)]
    return tuple(face_confidence(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), FRONT // 8) for picture in pictures)


def clay(textured: list[TexturedMesh], vertices: np.ndarray) -> list[TexturedMesh]:
    """The meshes in grey, lit from above the viewer. Faces of flat colours are detected far more often in this form."""
    faces = np.concatenate([mesh.faces for mesh in textured])
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    of_faces = np.cross(b - a, c - a)
    normals = np.stack([np.bincount(faces.ravel(), np.repeat(part, 3), len(vertices)) for part in of_faces.T], axis=-1)
    normals *= np.sign(normals[:, 2:]) / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    shade = 0.35 + 0.65 * np.clip(normals @ LIGHT, 0, 1)
    tint = np.repeat(shade[:, None], 3, axis=1).astype(np.float32)
    return [replace(mesh, texture=CLAY, tint=tint) for mesh in textured]


def front_picture(meshes: list[TexturedMesh], vertices: np.ndarray, renderer: str) -> np.ndarray:
    """The meshes with these vertices, seen from the front on a grey background, (FRONT, FRONT, 3) uint8."""
    camera, box = front_camera(vertices)
    placed = [replace(mesh, vertices=vertices) for mesh in meshes]
    picture = get_renderer(renderer).render(placed, [camera.cropped(box, FRONT)])[0]
    return np.where(picture.mask[..., None], picture.rgb, np.uint8(GROUND))


def front_camera(vertices: np.ndarray) -> tuple[Camera, Box]:
    """A camera in front of vertices (V, 3) of any size, and a square around them in its picture."""
    camera = camera_at(vertices, 0.0, 6.0 * size_of(vertices))
    x, y, side = mesh_box(vertices, camera)
    edge = side * (AROUND - 1) / 2
    return camera, (x - edge, y - edge, side * AROUND)


def bulges(vertices: np.ndarray) -> bool:
    """Whether the mesh is nearer in its middle than at its rim, seen from the front. The inside of a face is not."""
    low, high = np.quantile(vertices, [TRIM, 1 - TRIM], axis=0)
    cells = ((vertices[:, :2] - low[:2]) / np.maximum(high[:2] - low[:2], 1e-6) * GRID).astype(int).clip(0, GRID - 1)
    depth = np.full((GRID, GRID), -np.inf)
    np.maximum.at(depth, (cells[:, 1], cells[:, 0]), vertices[:, 2])
    y, x = np.mgrid[:GRID, :GRID] + 0.5 - GRID / 2
    radius = np.hypot(x, y) / (GRID / 2)
    inner, outer = (depth[zone & np.isfinite(depth)] for zone in (radius < 0.5, radius > 0.75))
    return not len(inner) or not len(outer) or inner.mean() > outer.mean()


def face_vertices(textured: list[TexturedMesh], vertices: np.ndarray, renderer: str) -> np.ndarray | None:
    """Which vertices (V,) belong to the face if it is only a part of the mesh (a bust, a whole head), else None."""
    face = frontal_face(front_picture(clay(textured, vertices), vertices, renderer))
    if face is None:
        face = frontal_face(front_picture(textured, vertices, renderer))
    if face is None or face[2] / FRONT * AROUND >= WHOLE:
        return None
    camera, (x, y, side) = front_camera(vertices)
    left, top, width = (value * side / FRONT for value in face)
    places = (camera.project(vertices) - [x + left, y + top]) / width
    inside = (np.abs(places[:, 0] - 0.5) < 0.46) & (places[:, 1] > 0) & (places[:, 1] < 1.12)  # the chin reaches below
    near = vertices[inside, 2].max(initial=-np.inf) - width  # the back of a head is farther away than a face is wide
    return inside & (vertices[:, 2] > near)
