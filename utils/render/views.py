"""From a sequence to its two views: `frames (T, V=2, S, S, 3) uint8` with a face mask, cropped once per sequence.

`views="render"` draws the textured mesh from two virtual cameras at yaw -theta and +theta, after the head's
rigid motion was removed in 3D; `views="split"` cuts the composite into its halves. The crop is one square box
per view and sequence, fixed over the frames, so that it never moves against the face.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from utils.dataset.geometry import TRIM
from utils.dataset.reading import DataError
from utils.dataset.sequences import Sequence, check_composite, open_sequence
from utils.dataset.tables import read_table
from utils.render.camera import Camera
from utils.render.renderer import TexturedMesh, get_renderer

N_VIEWS = 2
MARGIN = 1.04  # side of the crop over the face's larger extent
DISTANCE_MM = 1000.0  # of the virtual cameras: about life size at arm's length, 1 px a mm before the crop
NEAREST_MM = 100.0  # from a virtual camera, of any part of the mesh
BOX_SIDES = (4.0, 32766.0)  # pixels of the uncropped view: a face of 4 mm, and the end of OpenCV's warps
FAR = 100  # sides of a crop: a mesh's corner beyond is drawn there
MIN_SEEN = 0.01  # share of a view that the mesh must fill: a face in its crop fills half
DETECTOR_FRAMES = 5  # frames that the face detector sees

Box = tuple[float, float, float]  # x, y of the first pixel and side, in pixels of the uncropped view


@dataclass(frozen=True)
class Views:
    """What `01_render` leaves for the stages after it."""

    frames: np.ndarray  # (T, V, S, S, 3) uint8 RGB
    masks: np.ndarray  # (V, S, S) bool, the face in the first frame
    boxes: np.ndarray  # (V, 3) float, x, y, side of each view's crop in pixels of the uncropped view
    source: str  # how the crop was found: "override", "mesh", "detector" or "centred"
    stabilised: bool  # whether the head's rigid motion was removed in 3D
    warnings: tuple[str, ...] = field(default=())

    def arrays(self) -> dict[str, np.ndarray]:
        """The parts by name, as an artefact keeps them; `from_arrays` takes them back."""
        return {name: np.asarray(value) for name, value in vars(self).items() if name != "warnings"} | {
            "warnings": np.array(self.warnings, dtype=str)
        }

    @classmethod
    def from_arrays(cls, parts: Mapping[str, np.ndarray]) -> "Views":
        """What `arrays` gave."""
        simple = {"source": str(parts["source"]), "stabilised": bool(parts["stabilised"])}
        return cls(**{**parts, **simple, "warnings": tuple(parts["warnings"].tolist())})


def make_views(
    sequence: Sequence,
    views: str = "render",
    size: int = 256,
    yaw_deg: float = 25.0,
    stabilise: bool = True,
    renderer: str = "auto",
    boxes: list[Box] | None = None,
) -> Views:
    """The two views of a sequence.

    size: pixels of a view's side; yaw_deg: each virtual camera off the frontal axis; boxes: an explicit crop per view.
    Raises DataError for a sequence without mesh when views="render", ValueError for another word.
    """
    if views == "render":
        return render_views(sequence, size, yaw_deg, stabilise, renderer, boxes)
    if views == "split":
        return split_views(sequence, size, boxes)
    raise ValueError(f"views={views!r} is unknown. Remedy: choose 'render' or 'split'.")


def views_of(folder: Path, **parameters) -> dict[str, np.ndarray]:
    """What stage 01 makes of the sequence in a folder: `make_views` with these parameters, as an artefact keeps it."""
    return make_views(open_sequence(folder), **parameters).arrays()


def read_boxes(root: Path) -> dict[str, list[Box]]:
    """Explicit crops by Id from `<DATA>/boxes.csv`, empty without that table; Ids that it lacks are cropped as usual.

    Columns Id, left_x, left_y, left_side, right_x, right_y, right_side: first pixel and side of each view's square,
    in pixels of the composite's half (views="split") or of the uncropped 512 px view (views="render").
    Raises DataError for a number that cannot be read, and what is no box in pixels of an image.
    """
    path = root / "boxes.csv"
    if not path.exists():
        return {}
    columns = [f"{view}_{part}" for view in ("left", "right") for part in ("x", "y", "side")]
    table = read_table(path, ["Id", *columns]).set_index("Id")
    numbers = table[columns].apply(pd.to_numeric, errors="coerce")
    wrong = ~numbers.apply(lambda row: is_box(row[:3]) and is_box(row[3:]), axis=1)
    if wrong.any():
        fault = f"the box of Id {wrong.idxmax()} is not six numbers with sides of {BOX_SIDES[0]:g} pixels and more"
        raise DataError.at(path, fault, "correct it")
    return {
        id: [tuple(row[:3]), tuple(row[3:])] for id, row in zip(numbers.index, numbers.to_numpy().tolist(), strict=True)
    }


# Rendering ----------------------------------------------------------------------------------------------------------


def render_views(
    sequence: Sequence,
    size: int,
    yaw_deg: float,
    stabilise: bool,
    renderer: str,
    boxes: list[Box] | None = None,
    times: Iterable[int] | None = None,
) -> Views:
    """Draw the frames `times` (all without it) of a mesh sequence from both virtual cameras, straight into the crop."""
    if sequence.kind != "mesh":
        raise DataError.at(sequence.folder, "it has no mesh to render", "set views to 'split' for composites")
    constant = sequence.constant_topology  # asked for in any case, since it finds frames that are not whole
    stabilised = stabilise and constant
    vertices = stable_vertices(sequence) if stabilised else None
    first = vertices[0] if stabilised else sequence.geometry(0)[0]
    source = "override" if boxes else "mesh"
    _check_depth(sequence, first, yaw_deg)
    boxes = boxes or [mesh_box(first, camera) for camera in wide_cameras(first, yaw_deg)]
    _check_boxes(sequence, boxes)
    cameras = view_cameras(first, size, yaw_deg, boxes)
    times = range(len(sequence)) if times is None else list(times)
    frames = np.empty((len(times), N_VIEWS, size, size, 3), np.uint8)
    masks = None
    for frame, t in zip(frames, times, strict=True):
        meshes = textured_meshes(sequence, t, vertices[t] if stabilised else None)
        pictures = get_renderer(renderer).render(meshes, cameras)
        if min(picture.mask.mean() for picture in pictures) < MIN_SEEN:
            raise _unseen(sequence, t)
        frame[:] = [picture.rgb for picture in pictures]
        if masks is None:
            masks = np.stack([picture.mask for picture in pictures])
    warnings = [f"{sequence.id}: {warning}" for warning in sequence.warnings()]
    if stabilise and not constant:
        warnings.append(
            f"{sequence.id}: its frames do not share one mesh, so that the head's motion stays in the views. "
            "Remedy: export the tracked mesh, if there is one."
        )
    return Views(frames, masks, np.array(boxes), source, stabilised, tuple(warnings))


def textured_meshes(sequence: Sequence, t: int, vertices: np.ndarray | None = None) -> list[TexturedMesh]:
    """What is drawn of frame t, one mesh per texture, with other vertices (V, 3) mm than its own where given."""
    shape, _, uv = sequence.geometry(t)
    shape = shape if vertices is None else vertices
    return [
        TexturedMesh(shape, surface.faces, uv, surface.texture, surface.tint, surface.clamp)
        for surface in sequence.surfaces(t)
    ]


def _unseen(sequence: Sequence, t: int) -> DataError:
    """A picture without a mesh says nothing by itself, so it must not pass for a face."""
    fault = "hardly anything of its mesh is seen in a view"
    remedy = "export a face that looks along z, in one unit and place in all frames; correct its box if it has one"
    return DataError.at(sequence.files[t], fault, remedy)


def wide_cameras(vertices: np.ndarray, yaw_deg: float) -> list[Camera]:
    """The virtual cameras before cropping: 512 px, about 1 px a mm, looking at the middle of the mesh."""
    low, high = np.quantile(vertices, [TRIM, 1 - TRIM], axis=0)
    target = tuple(float(c) for c in (low + high) / 2)
    return [Camera(yaw, DISTANCE_MM, target, DISTANCE_MM, (255.5, 255.5), (512, 512)) for yaw in (-yaw_deg, yaw_deg)]


def view_cameras(vertices: np.ndarray, size: int, yaw_deg: float, boxes: list[Box] | None = None) -> list[Camera]:
    """The two cropped virtual cameras for a sequence whose first frame has these vertices (V, 3) mm."""
    cameras = wide_cameras(vertices, yaw_deg)
    boxes = boxes or [mesh_box(vertices, camera) for camera in cameras]
    return [camera.cropped(box, size) for camera, box in zip(cameras, boxes, strict=True)]


def mesh_box(vertices: np.ndarray, camera: Camera) -> Box:
    """The square that holds the projected mesh, with a margin; stray points do not count."""
    low, high = np.quantile(camera.project(vertices), [TRIM, 1 - TRIM], axis=0)
    return square_box(low, high)


def square_box(low: np.ndarray, high: np.ndarray) -> Box:
    """The square of MARGIN times the larger extent about the middle of the pixels `low` to `high`, each (x, y)."""
    side = float((high - low).max()) * MARGIN
    x, y = (low + high + 1 - side) / 2
    return float(x), float(y), side


def is_box(box: Iterable[float]) -> bool:
    """Whether a square can be cut out of an image of any size that is read."""
    x, y, side = box
    return BOX_SIDES[0] <= side <= BOX_SIDES[1] and max(abs(x), abs(y)) <= BOX_SIDES[1]  # False for NaN


def _check_boxes(sequence: Sequence, boxes: list[Box]) -> None:
    """Raise DataError for a face without an extent, and for one beyond all images."""
    for view, box in enumerate(boxes):
        if not is_box(box):
            words = ", ".join(f"{number:.4g}" for number in box)
            fault = f"the face in view {view} has the box (x, y, side) = {words} pixels"
            raise DataError.at(sequence.folder, fault, "export it in millimetres, or give its box in boxes.csv")


def _check_depth(sequence: Sequence, vertices: np.ndarray, yaw_deg: float) -> None:
    """Raise DataError for a mesh that reaches up to the cameras, or behind them: they would stand within it."""
    for camera in wide_cameras(vertices, yaw_deg):
        depth = DISTANCE_MM - (vertices - np.asarray(camera.target)) @ camera.axes[2]
        if np.quantile(depth, TRIM) < NEAREST_MM:
            extent = np.ptp(np.quantile(vertices, [TRIM, 1 - TRIM], axis=0), axis=0).max()
            fault = f"its mesh measures {extent:.4g} mm, and reaches up to the virtual cameras at {DISTANCE_MM:g} mm"
            raise DataError.at(sequence.files[0], fault, "export a face alone, in millimetres")


def stable_vertices(sequence: Sequence) -> np.ndarray:
    """Vertices (T, V, 3) of all frames, moved rigidly onto the first one. Needs constant topology."""
    vertices = sequence.vertices()
    return np.stack([align_rigidly(frame, vertices[0]) for frame in vertices])


def align_rigidly(moving: np.ndarray, fixed: np.ndarray, iterations: int = 8) -> np.ndarray:
    """Move vertices (V, 3) rigidly onto `fixed` by what did not deform between the two.

    Kabsch (1976) on reweighted vertices: a vertex counts the less the farther it stays from its partner
    compared with the median (Geman-McClure), so that the parts that an expression or a blink moves lose their
    weight.
    """
    weight = np.ones(len(fixed))
    # One row a coordinate, (3, V): half the time of one row a vertex.
    moved, start, goal = (np.array(vertices.T, float, order="C") for vertices in (moving, moving, fixed))
    for _ in range(iterations):
        share = weight / weight.sum()
        centre_from, centre_to = (start @ share)[:, None], (goal @ share)[:, None]
        u, _, vt = np.linalg.svd(((start - centre_from) * share) @ (goal - centre_to).T)
        flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
        moved = (u @ flip @ vt).T @ (start - centre_from) + centre_to
        residual = np.square(moved - goal).sum(0)
        weight = 1 / (1 + residual / (np.median(residual) + 1e-12)) ** 2
    return moved.T.astype(np.float32)


# Splitting ----------------------------------------------------------------------------------------------------------


def split_views(sequence: Sequence, size: int, boxes: list[Box] | None = None) -> Views:
    """Cut every composite into its halves and crop them. Raises DataError for a mesh with several textures."""
    surfaces = sequence.surfaces(0) if sequence.kind == "mesh" else []
    if len(surfaces) > 1 or any(surface.tint is not None for surface in surfaces):
        fault = "it has several textures, or colours at its vertices, and no composite"
        raise DataError.at(sequence.files[0], fault, "set views to 'render'")
    check_composite(sequence.texture(0), sequence.files[0])
    half = sequence.texture(0).shape[1] // 2
    source, warnings = "override", ()
    if boxes is None:
        boxes, source = find_boxes(sequence, half)
    _check_boxes(sequence, boxes)
    if source == "centred":
        warnings = (
            f"{sequence.id}: no face was found; the crop is the centre of each half. "
            "Remedy: give boxes for this sequence.",
        )
    frames = np.empty((len(sequence), N_VIEWS, size, size, 3), np.uint8)
    for t in range(len(sequence)):
        composite = sequence.texture(t)
        for v in range(N_VIEWS):
            frames[t, v] = crop_image(composite[:, v * half : (v + 1) * half], boxes[v], size)
    masks = [
        silhouette(sequence, v, boxes[v], size) if sequence.kind == "mesh" else ellipse_mask(size)
        for v in range(N_VIEWS)
    ]
    return Views(frames, np.stack(masks), np.array(boxes), source, False, warnings)


def crop_image(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """The square box of an image as (size, size, 3); what lies outside repeats the edge."""
    x, y, side = box
    scale = size / side
    shift = np.array([[scale, 0, (0.5 - x) * scale - 0.5], [0, scale, (0.5 - y) * scale - 0.5]])
    smaller = cv2.GaussianBlur(image, (0, 0), 0.4 / scale) if scale < 0.7 else image  # against aliasing
    return cv2.warpAffine(smaller, shift, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def find_boxes(sequence: Sequence, half: int) -> tuple[list[Box], str]:
    """A box per half, and how it was found: the mesh's UVs there, else a face detector, else the centre."""
    if sequence.kind == "mesh":
        points = [half_projection(sequence, v) for v in range(N_VIEWS)]
        if all(found is not None for found in points):
            return [square_box(*np.quantile(found, [TRIM, 1 - TRIM], axis=0)) for found in points], "mesh"
    boxes = [detect_box(sequence, v, half) for v in range(N_VIEWS)]
    if all(boxes):
        return boxes, "detector"
    side = float(min(sequence.texture(0).shape[0], half))
    return [((half - side) / 2, (sequence.texture(0).shape[0] - side) / 2, side)] * N_VIEWS, "centred"


def detect_box(sequence: Sequence, view: int, half: int) -> Box | None:
    """The median of the largest faces that OpenCV's Haar cascade finds; None if in fewer than half."""
    detector = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"))
    found = []
    times = np.unique(np.linspace(0, len(sequence) - 1, DETECTOR_FRAMES).round().astype(int))
    for t in times:
        image = sequence.texture(t)[:, view * half : (view + 1) * half]
        faces = detector.detectMultiScale(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 1.05, 4, minSize=(half // 5,) * 2)
        if len(faces):
            found.append(max(faces, key=lambda face: face[2]))
    if len(found) * 2 < len(times):
        return None
    x, y, width, height = np.median(found, axis=0)
    return square_box(np.array([x, y]), np.array([x + width, y + height]))


def ellipse_mask(size: int) -> np.ndarray:
    """(size, size) bool: the upright ellipse that a face fills in its box, where no mesh tells better."""
    ys, xs = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    return (xs / 0.42) ** 2 + (ys / 0.49) ** 2 < 1


def half_projection(sequence: Sequence, view: int) -> np.ndarray | None:
    """Where all vertices of the first frame stand in one half of its composite: pixels (V, 2) of that half.

    A scanner's UVs tell it only of the vertices that take their texture from this half. The affine camera that
    fits those (least squares) carries the others over. None where fewer than 100 vertices lie there.
    """
    vertices, _, uv = sequence.geometry(0)
    rows, columns = sequence.texture(0).shape[:2]
    own = (uv[:, 0] >= 0.5) == bool(view)
    if own.sum() < 100:
        return None
    pixels = np.stack([uv[:, 0] * columns - view * columns / 2 - 0.5, (1 - uv[:, 1]) * rows - 0.5], -1)
    points = np.column_stack([vertices, np.ones(len(vertices))])
    camera = np.linalg.lstsq(points[own], pixels[own], rcond=None)[0]
    return points @ camera


def silhouette(sequence: Sequence, view: int, box: Box, size: int) -> np.ndarray:
    """(size, size) bool: the first frame's mesh as this half of the composite sees it, in the crop."""
    points = half_projection(sequence, view)
    if points is None:
        return ellipse_mask(size)
    x, y, side = box
    corners = (points - [x, y] + 0.5) * size / side - 0.5
    corners = corners.clip(-FAR * size, FAR * size)  # OpenCV draws with whole numbers of 32 bits
    canvas = np.zeros((size, size), np.uint8)
    for triangle in np.rint(corners[sequence.geometry(0)[1]] * 16).astype(np.int32):
        cv2.fillConvexPoly(canvas, triangle, 1, shift=4)
    return canvas.astype(bool)
