"""The exact flow of a mesh sequence with constant topology, and the errors of estimated flows."""

import numpy as np

from utils.render.camera import Camera, surface_points


def exact_flow(
    before: np.ndarray, after: np.ndarray, faces: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """`exact_flows` to one later mesh `after` (V, 3) mm: flow (H, W, 2), visible (H, W)."""
    flows, visible = exact_flows(before, after[None], faces, camera)
    return flows[0], visible


def exact_flows(
    before: np.ndarray, afters: np.ndarray, faces: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """Exact flows from a mesh `before` (V, 3) mm to later meshes `afters` (A, V, 3) mm with the same faces (F, 3).

    Returns flows (A, H, W, 2) float32 px, and where the mesh is visible before, (H, W) bool. A ray through each pixel
    meets a triangle at barycentric weights; the same weights give the point afterwards, which the camera projects.
    """
    triangle, weights = surface_points(before, faces, camera)
    visible = triangle >= 0
    corners = faces[triangle[visible]]

    def pixels(shape: np.ndarray) -> np.ndarray:
        return camera.project(np.einsum("nk,nkc->nc", weights[visible], shape[corners].astype(float)))

    start = pixels(before)
    flows = np.zeros((len(afters), *triangle.shape, 2), np.float32)
    for flow, after in zip(flows, afters, strict=True):
        flow[visible] = pixels(after) - start
    return flows, visible


def flow_errors(flow: np.ndarray, truth: np.ndarray, mask: np.ndarray, moving_px: float = 0.3) -> dict[str, float]:
    """Errors of a flow against the exact one, both (H, W, 2) px, within `mask` (H, W) bool.

    epe: mean end-point error, px; zero_epe: the same error for zero flow. Where the exact flow exceeds `moving_px`:
    direction_deg, the mean angle between both flows, and magnitude_ratio, the factor that fits the exact flow to the
    flow (least squares). Both are NaN if it exceeds `moving_px` nowhere.
    """
    estimate, true = flow[mask].astype(float), truth[mask].astype(float)
    size = np.linalg.norm(true, axis=1)
    moving = size > moving_px
    a, b = estimate[moving], true[moving]
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * size[moving] + 1e-12)
    return {
        "epe": float(np.linalg.norm(estimate - true, axis=1).mean()),
        "zero_epe": float(size.mean()),
        "direction_deg": float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()) if moving.any() else float("nan"),
        "magnitude_ratio": float((a * b).sum() / (b * b).sum()) if moving.any() else float("nan"),
    }
