"""Make the views of a sequence: `frames (T, V, S, S, 3) uint8` and a face mask for each view.

`views="render"` removes the head's rigid motion in 3D and draws the textured mesh from two virtual cameras, at yaw
-theta and +theta. `views="split"` cuts each composite into its two halves. `views="single"` takes the pictures of one
camera. Each view has one square crop for all frames of a sequence, so that the crop never moves against the face.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from utils.dataset.geometry import TRIM, Box, is_box
from utils.dataset.readers import open_sequence
from utils.dataset.sequence import Sequence, Span
from utils.errors import DataError
from utils.render.axes import AXES, face_vertices, find_axes
from utils.render.camera import Camera, camera_at
from utils.render.crops import crop_image, ellipse_mask, frontal_mask, mesh_box
from utils.render.faces import has_contrast
from utils.render.pictures import find_boxes, silhouette, strips
from utils.render.renderer import TexturedMesh, get_renderer
from utils.render.view_set import N_VIEWS, Views

DISTANCE_MM = 1000.0  # from a virtual camera to the middle of the mesh: 1 px per mm before the crop
NEAREST_MM = 100.0  # least distance from a virtual camera to the mesh
MIN_SEEN = 0.01  # least share of a view that the mesh must fill; a face in its crop fills half
Boxes = Collection[Box] | None  # a crop for each view; None: they are found
Times = Collection[int] | None  # positions of the frames that are made; None: all frames


def make_views(
    sequence: Sequence,
    views: str = "render",
    size: int = 256,
    yaw_deg: float = 25.0,
    stabilise: bool = True,
    renderer: str = "auto",
    boxes: Boxes = None,
    axes: str = "y-up",
    times: Times = None,
) -> Views:
    """The views of a sequence.

    size: side of a view in pixels; yaw_deg: angle of each virtual camera to the frontal axis; stabilise: whether to
    remove the head's rigid motion; axes: of a rendered mesh, a key of `utils.render.axes.AXES` or "auto".
    Raises ValueError for an unknown value of `views`. Raises DataError if the sequence does not suit `views`, if a view
    is empty or without contrast, and if a mesh or box has an impossible size.
    """
    if views == "render":
        return render_views(sequence, size, yaw_deg, stabilise, renderer, boxes, times, axes)
    if views in N_VIEWS:
        return cut_views(sequence, size, N_VIEWS[views], boxes, times)
    raise ValueError(f"views={views!r} is unknown. Remedy: choose from {', '.join(N_VIEWS)}.")


def views_of(folder: Path, span: Span | None = None, **parameters) -> dict[str, np.ndarray]:
    """Stage 01 for one folder: the arrays of `make_views` with these parameters."""
    return make_views(open_sequence(folder, span=span), **parameters).arrays()


def _check_boxes(sequence: Sequence, boxes: Boxes) -> None:
    """Raise DataError for a box without an extent, and for a box that lies outside any image."""
    for view, box in enumerate(boxes):
        if not is_box(box):
            words = ", ".join(f"{number:.4g}" for number in box)
            fault = f"the face in view {view} has the box (x, y, side) = {words} pixels"
            raise DataError.at(sequence.folder, fault, "export it in millimetres, or give its box in boxes.csv")


def _check_contrast(sequence: Sequence, pictures: np.ndarray, masks: np.ndarray) -> None:
    """Raise DataError if a view (V, S, S, 3) of the first frame shows a single grey within its mask (V, S, S)."""
    for view, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
        if not has_contrast(picture, mask):
            fault = f"view {view} is one grey ({picture[mask].mean():.0f} of 255), in which no motion can be seen"
            raise DataError.at(sequence.files[0], fault, "look at this picture, its exposure and its texture")


# Rendering ----------------------------------------------------------------------------------------------------------


def render_views(
    sequence: Sequence, size: int, yaw_deg: float, stabilise: bool, renderer: str, boxes: Boxes, times: Times, axes: str
) -> Views:
    """`make_views` for views="render": the crops of both virtual cameras are drawn directly."""
    if sequence.kind != "mesh":
        remedy = "set views to 'split' for pictures of two cameras side by side, to 'single' for one camera's"
        raise DataError.at(sequence.folder, "it has no mesh to render", remedy)
    constant = sequence.constant_topology  # read even if not needed, because reading it finds incomplete frames
    stabilised = stabilise and constant
    axes, warning = find_axes(sequence, textured_meshes(sequence, 0), renderer) if axes == "auto" else (axes, "")
    turn = AXES[axes].T.astype(np.float32)
    stable = stable_vertices(sequence) @ turn if stabilised else None

    def vertices(t: int) -> np.ndarray:
        return stable[t] if stabilised else sequence.geometry(t)[0] @ turn

    first, source = vertices(0), "override"
    _check_depth(sequence, first, yaw_deg)
    if boxes is None:
        face = face_vertices(textured_meshes(sequence, 0, first), first, renderer)
        source = "mesh" if face is None else "face"
        boxes = [mesh_box(first if face is None else first[face], camera) for camera in wide_cameras(first, yaw_deg)]
    _check_boxes(sequence, boxes)
    cameras = view_cameras(first, size, yaw_deg, boxes)
    times = range(len(sequence)) if times is None else times
    frames = np.empty((len(times), len(cameras), size, size, 3), np.uint8)
    masks = None
    for frame, t in zip(frames, times, strict=True):
        pictures = get_renderer(renderer).render(textured_meshes(sequence, t, vertices(t)), cameras)
        if min(picture.mask.mean() for picture in pictures) < MIN_SEEN:
            fault = "a view shows hardly anything of its mesh"
            remedy = "export a face that looks along z, with one scale and place in all frames, or correct its box"
            raise DataError.at(sequence.files[t], fault, remedy)
        frame[:] = [picture.rgb for picture in pictures]
        if masks is None:
            masks = np.stack([picture.mask for picture in pictures])
            _check_contrast(sequence, frame, masks)
    warnings = [*sequence.warnings(), *([warning] if warning else [])]
    if stabilise and not constant:
        fault = "its frames do not share one mesh, so the head's motion stays in the views"
        warnings.append(f"{fault}. Remedy: export the tracked mesh, if there is one.")
    warnings = tuple(f"{sequence.id}: {warning}" for warning in warnings)
    return Views(frames, masks, np.array(boxes), source, stabilised, axes, warnings)


def textured_meshes(sequence: Sequence, t: int, vertices: np.ndarray | None = None) -> list[TexturedMesh]:
    """The meshes to draw for frame t, one for each texture; `vertices` (V, 3) mm, if given, replace the frame's."""
    shape, _, uv = sequence.geometry(t)
    shape = shape if vertices is None else vertices
    return [TexturedMesh(shape, part.faces, uv, part.texture, part.tint, part.clamp) for part in sequence.surfaces(t)]


def wide_cameras(vertices: np.ndarray, yaw_deg: float) -> list[Camera]:
    """The two virtual cameras before cropping, looking at the middle of vertices (V, 3) mm."""
    return [camera_at(vertices, yaw, DISTANCE_MM) for yaw in (-yaw_deg, yaw_deg)]


def view_cameras(vertices: np.ndarray, size: int, yaw_deg: float, boxes: Boxes = None) -> list[Camera]:
    """The two cropped virtual cameras for a sequence whose first frame has these vertices (V, 3) mm."""
    cameras = wide_cameras(vertices, yaw_deg)
    boxes = [mesh_box(vertices, camera) for camera in cameras] if boxes is None else boxes
    return [camera.cropped(box, size) for camera, box in zip(cameras, boxes, strict=True)]


def _check_depth(sequence: Sequence, vertices: np.ndarray, yaw_deg: float) -> None:
    """Raise DataError for a mesh that reaches as far as the cameras, or behind them."""
    for camera in wide_cameras(vertices, yaw_deg):
        depth = DISTANCE_MM - (vertices - np.asarray(camera.target)) @ camera.axes[2]
        if np.quantile(depth, TRIM) < NEAREST_MM:
            extent = np.ptp(np.quantile(vertices, [TRIM, 1 - TRIM], axis=0), axis=0).max()
            fault = f"its mesh measures {extent:.4g} mm, and reaches up to the virtual cameras at {DISTANCE_MM:g} mm"
            raise DataError.at(sequence.files[0], fault, "export only the face, in millimetres")


def stable_vertices(sequence: Sequence) -> np.ndarray:
    """Vertices (T, V, 3) mm of all frames, each aligned rigidly to the first frame. Needs constant topology."""
    vertices = sequence.vertices()
    return np.stack([align_rigidly(frame, vertices[0]) for frame in vertices])


def align_rigidly(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Move vertices (V, 3) rigidly onto `fixed` (V, 3), guided by the parts that do not deform between the two.

    Kabsch (1976) with iteratively reweighted vertices (Geman-McClure): the farther a vertex stays from its partner,
    compared with the median, the less it counts. The parts that an expression or a blink moves lose their weight.
    """
    weight = np.ones(len(fixed))
    # One row per coordinate, (3, V), takes half the time of one row per vertex.
    moved, start, goal = (np.array(vertices.T, float, order="C") for vertices in (moving, moving, fixed))
    for _ in range(8):
        share = weight / weight.sum()
        centre_from, centre_to = (start @ share)[:, None], (goal @ share)[:, None]
        u, _, vt = np.linalg.svd(((start - centre_from) * share) @ (goal - centre_to).T)
        flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
        moved = (u @ flip @ vt).T @ (start - centre_from) + centre_to
        residual = np.square(moved - goal).sum(0)
        weight = 1 / (1 + residual / (np.median(residual) + 1e-12)) ** 2
    return moved.T.astype(np.float32)


# Cutting pictures ---------------------------------------------------------------------------------------------------


def cut_views(sequence: Sequence, size: int, n_views: int, boxes: Boxes, times: Times) -> Views:
    """`make_views` for views="split" and "single": crop the `n_views` pictures that lie side by side in each frame."""
    _check_pictures(sequence, n_views)
    source, warnings = "override", ()
    if boxes is None:
        boxes, source = find_boxes(sequence, n_views)
    _check_boxes(sequence, boxes)
    if source == "centred":
        fault = f"no face was found; the crop is the centre of {'the picture' if n_views == 1 else 'each half'}"
        warnings = (f"{sequence.id}: {fault}. Remedy: give its boxes in boxes.csv.",)
    times = range(len(sequence)) if times is None else times
    frames = np.empty((len(times), n_views, size, size, 3), np.uint8)
    for frame, t in zip(frames, times, strict=True):
        frame[:] = [crop_image(*pair, size) for pair in zip(strips(sequence, t, n_views), boxes, strict=True)]
    if n_views == 1:
        masks = [frontal_mask(size)]
    elif sequence.kind == "mesh":
        masks = [silhouette(sequence, v, box, size) for v, box in enumerate(boxes)]
    else:
        masks = [ellipse_mask(size)] * n_views
    masks = np.stack(masks)
    _check_contrast(sequence, frames[0], masks)
    return Views(frames, masks, np.array(boxes), source, stabilised=False, warnings=warnings)


def _check_pictures(sequence: Sequence, n_views: int) -> None:
    """Raise DataError for a mesh whose texture cannot be a composite, and for a mesh where one view is expected."""
    if sequence.kind == "mesh":
        surfaces = sequence.surfaces(0)
        if len(surfaces) > 1 or surfaces[0].tint is not None:
            fault = "it has several textures, or colours at its vertices, and no composite"
            raise DataError.at(sequence.files[0], fault, "set views to 'render'")
        if n_views == 1:
            raise DataError.at(sequence.files[0], "it is a mesh, not one camera's picture", "set views to 'render'")
