"""From a sequence to its views: `frames (T, V, S, S, 3) uint8` with a face mask, cropped once per sequence.

`views="render"` draws the textured mesh from two virtual cameras at yaw -theta and +theta, after the head's
rigid motion was removed in 3D; `views="split"` cuts the composite into its halves; `views="single"` has one view,
the pictures of one camera. The crop is one square box per view and sequence, fixed over the frames, so that it never
moves against the face.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from utils.dataset.geometry import TRIM, Box, is_box
from utils.dataset.readers import open_sequence
from utils.dataset.sequence import Sequence, Span
from utils.errors import DataError
from utils.render.axes import AXES, face_vertices, find_axes
from utils.render.camera import Camera
from utils.render.crops import crop_image, ellipse_mask, frontal_mask, square_box
from utils.render.faces import has_contrast
from utils.render.pictures import find_boxes, silhouette, strips
from utils.render.renderer import TexturedMesh, get_renderer
from utils.render.view_set import N_VIEWS, Views

DISTANCE_MM = 1000.0  # of the virtual cameras: about life size at arm's length, 1 px a mm before the crop
NEAREST_MM = 100.0  # from a virtual camera, of any part of the mesh
SET_VIEWS = "set views to 'split' for pictures of two cameras side by side, to 'single' for one camera's"
MIN_SEEN = 0.01  # share of a view that the mesh must fill: a face in its crop fills half


def make_views(
    sequence: Sequence,
    views: str = "render",
    size: int = 256,
    yaw_deg: float = 25.0,
    stabilise: bool = True,
    renderer: str = "auto",
    boxes: Iterable[Box] | None = None,
    axes: str = "y-up",
    times: Iterable[int] | None = None,
) -> Views:
    """The views of a sequence, of its frames `times` where they are given.

    axes: of a mesh that is rendered, or "auto" for those under which it shows a face (`utils.render.axes`); size:
    pixels of a view's side; yaw_deg: each virtual camera off the frontal axis; boxes: an explicit crop per view.
    Raises DataError for a sequence without mesh when views="render", for views that show no face where one should be,
    two where one should be or nothing at all, ValueError for another word.
    """
    if views == "render":
        return render_views(sequence, size, yaw_deg, stabilise, renderer, boxes, times, axes)
    if views in N_VIEWS:
        return cut_views(sequence, size, N_VIEWS[views], boxes, times)
    raise ValueError(f"views={views!r} is unknown. Remedy: choose from {', '.join(N_VIEWS)}.")


def views_of(folder: Path, span: Span | None = None, **parameters) -> dict[str, np.ndarray]:
    """What stage 01 makes of the sequence in a folder: `make_views` with these parameters, as an artefact keeps it."""
    return make_views(open_sequence(folder, span=span), **parameters).arrays()


# Rendering ----------------------------------------------------------------------------------------------------------


def render_views(
    sequence: Sequence,
    size: int,
    yaw_deg: float,
    stabilise: bool,
    renderer: str,
    boxes: Iterable[Box] | None = None,
    times: Iterable[int] | None = None,
    axes: str = "y-up",
) -> Views:
    """Draw the frames `times` (all without it) of a mesh sequence from both virtual cameras, straight into the crop."""
    if sequence.kind != "mesh":
        raise DataError.at(sequence.folder, "it has no mesh to render", SET_VIEWS)
    constant = sequence.constant_topology  # asked for in any case, since it finds frames that are not whole
    stabilised = stabilise and constant
    axes, words = find_axes(sequence, textured_meshes(sequence, 0), renderer) if axes == "auto" else (axes, "")
    turn = AXES[axes].T.astype(np.float32)
    vertices = stable_vertices(sequence) @ turn if stabilised else None
    first = vertices[0] if stabilised else sequence.geometry(0)[0] @ turn
    _check_depth(sequence, first, yaw_deg)
    source = "override"
    if boxes is None:
        boxes, source = mesh_boxes(sequence, first, yaw_deg, renderer)
    boxes = list(boxes)
    _check_boxes(sequence, boxes)
    cameras = view_cameras(first, size, yaw_deg, boxes)
    times = range(len(sequence)) if times is None else list(times)
    frames = np.empty((len(times), len(cameras), size, size, 3), np.uint8)
    masks = None
    for frame, t in zip(frames, times, strict=True):
        meshes = textured_meshes(sequence, t, vertices[t] if stabilised else sequence.geometry(t)[0] @ turn)
        pictures = get_renderer(renderer).render(meshes, cameras)
        if min(picture.mask.mean() for picture in pictures) < MIN_SEEN:
            raise _unseen(sequence, t)
        frame[:] = [picture.rgb for picture in pictures]
        if masks is None:
            masks = np.stack([picture.mask for picture in pictures])
            check_contrast(sequence, frame, masks)
    warnings = [f"{sequence.id}: {warning}" for warning in (*sequence.warnings(), *([words] if words else []))]
    if stabilise and not constant:
        warnings.append(
            f"{sequence.id}: its frames do not share one mesh, so that the head's motion stays in the views. "
            "Remedy: export the tracked mesh, if there is one."
        )
    return Views(frames, masks, np.array(boxes), source, stabilised, axes, tuple(warnings))


def mesh_boxes(sequence: Sequence, vertices: np.ndarray, yaw_deg: float, renderer: str) -> tuple[list[Box], str]:
    """A box per view about the first frame's mesh, or about the face where that is but a part of it; and which."""
    face = face_vertices(textured_meshes(sequence, 0, vertices), vertices, renderer)
    shown = vertices if face is None else vertices[face]
    boxes = [mesh_box(shown, camera) for camera in wide_cameras(vertices, yaw_deg)]
    return boxes, "mesh" if face is None else "face"


def check_contrast(sequence: Sequence, pictures: np.ndarray, masks: np.ndarray) -> None:
    """Raise DataError for views (V, S, S, 3) of a first frame that are one grey where the face is."""
    for view, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
        if not has_contrast(picture, mask):
            fault = f"view {view} is one grey ({picture[mask].mean():.0f} of 255), so that no motion can be seen in it"
            raise DataError.at(sequence.files[0], fault, "look at this picture, its exposure and its texture")


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


# Cutting pictures ---------------------------------------------------------------------------------------------------


def cut_views(
    sequence: Sequence,
    size: int,
    n_views: int,
    boxes: Iterable[Box] | None = None,
    times: Iterable[int] | None = None,
) -> Views:
    """Crop the pictures of a sequence, cut into the views that stand in them side by side where there are several.

    Raises DataError for a mesh with several textures, or none that holds these views.
    """
    _check_pictures(sequence, n_views)
    source, warnings = "override", ()
    if boxes is None:
        boxes, source = find_boxes(sequence, n_views)
    boxes = list(boxes)
    _check_boxes(sequence, boxes)
    if source == "centred":
        where = "the picture" if n_views == 1 else "each half"
        fault = f"no face was found; the crop is the centre of {where}"
        warnings = (f"{sequence.id}: {fault}. Remedy: give boxes for this sequence.",)
    times = range(len(sequence)) if times is None else list(times)
    frames = np.empty((len(times), n_views, size, size, 3), np.uint8)
    for frame, t in zip(frames, times, strict=True):
        for v, picture in enumerate(strips(sequence, t, n_views)):
            frame[v] = crop_image(picture, boxes[v], size)
    if n_views == 1:
        masks = [frontal_mask(size)]
    elif sequence.kind == "mesh":
        masks = [silhouette(sequence, v, box, size) for v, box in enumerate(boxes)]
    else:
        masks = [ellipse_mask(size)] * n_views
    check_contrast(sequence, frames[0], np.stack(masks))
    return Views(frames, np.stack(masks), np.array(boxes), source, False, warnings=warnings)


def _check_pictures(sequence: Sequence, n_views: int) -> None:
    if sequence.kind == "mesh":
        surfaces = sequence.surfaces(0)
        if len(surfaces) > 1 or surfaces[0].tint is not None:
            fault = "it has several textures, or colours at its vertices, and no composite"
            raise DataError.at(sequence.files[0], fault, "set views to 'render'")
        if n_views == 1:
            raise DataError.at(sequence.files[0], "it is a mesh, not one camera's picture", "set views to 'render'")
