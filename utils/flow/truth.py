"""Exact flow of a mesh sequence with constant topology: where each visible point of the surface goes."""

import numpy as np

from utils.render.camera import Camera, surface_points


def exact_flow(
    before: np.ndarray, after: np.ndarray, faces: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """Flow (H, W, 2) float32 px of the surface visible in the first moment, and where it is defined, (H, W) bool.

    before, after (V, 3) mm; faces (F, 3). Each pixel's ray meets a triangle at barycentric weights; the same
    weights give the point's place afterwards, projected by the same camera.
    """
    flows, visible = exact_flows(before, after[None], faces, camera)
    return flows[0], visible


def exact_flows(
    before: np.ndarray, afters: np.ndarray, faces: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """`exact_flow` from one moment to several, afters (A, V, 3) mm: flows (A, H, W, 2), visible (H, W)."""
    triangle, weights = surface_points(before, faces, camera)
    visible = triangle >= 0
    corners = faces[triangle[visible]]

    def pixels(shape: np.ndarray) -> np.ndarray:
        return camera.project(np.einsum("nk,nkc->nc", weights[visible], shape[corners].astype(float)))

    here = pixels(before)
    flows = np.zeros((len(afters), *triangle.shape, 2), np.float32)
    for flow, after in zip(flows, afters, strict=True):
        flow[visible] = pixels(after) - here
    return flows, visible


def flow_errors(flow: np.ndarray, truth: np.ndarray, mask: np.ndarray, moving_px: float = 0.3) -> dict[str, float]:
    """End-point error and others of a flow against the truth, both (H, W, 2) px, over `mask` (H, W) bool.

    epe: mean end-point error, px. direction_deg: mean angle where the truth exceeds `moving_px` (NaN if nowhere).
    magnitude_ratio: length of the estimate along the truth over the truth's, there too. zero_epe: error of no motion.
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
