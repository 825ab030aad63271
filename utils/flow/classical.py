"""Classical optical flow with settings for faces, and the affine motion of the head.

A flow is an array (H, W, 2) as `methods` defines it; frames are grey, (H, W) uint8. An expression moves the skin by
less than three pixels and changes its shading. Slow brightness is therefore removed before a flow is estimated, and the
flow is blurred a little afterwards.
"""

import cv2
import numpy as np


def high_pass(grey: np.ndarray) -> np.ndarray:
    """The fine detail of a grey image (H, W): uint8 around 128, with twice the contrast, without slow brightness."""
    image = grey.astype(np.float32)
    slow = cv2.GaussianBlur(image, (0, 0), image.shape[1] / 32)
    return np.clip(128.5 + 2 * (image - slow), 0, 255).astype(np.uint8)


def blurred(flow: np.ndarray, sigma_256: float) -> np.ndarray:
    """The flow after a Gaussian blur. sigma_256: its sigma in pixels of a frame that is 256 px wide."""
    return cv2.GaussianBlur(flow, (0, 0), sigma_256 * flow.shape[1] / 256)


def farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Farnebäck (2003) polynomial expansion, by OpenCV. Its result depends on the grey scale: 16-fold suits faces."""
    scaled = [high_pass(image).astype(np.float32) * 16 for image in (first, second)]
    window = max(5, round(15 * first.shape[1] / 256) | 1)
    flow = cv2.calcOpticalFlowFarneback(*scaled, None, 0.5, 1, window, 1, 5, 0.9, 0)
    return blurred(flow, 4.0)


def dis(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Dense inverse search (Kroeger et al. 2016) with variational refinement, at the finest scale."""
    large = first.shape[1] > 160
    solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    solver.setFinestScale(0)
    solver.setPatchSize(8)
    solver.setPatchStride(4)
    solver.setGradientDescentIterations(50 if large else 16)
    solver.setVariationalRefinementIterations(10 if large else 3)
    solver.setVariationalRefinementAlpha(20.0)
    solver.setVariationalRefinementDelta(0.0)
    solver.setVariationalRefinementGamma(12.0 if large else 10.0)
    solver.setUseSpatialPropagation(False)
    return blurred(solver.calc(high_pass(first), high_pass(second), None), 3.0)


def tvl1(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Duality-based TV-L1 (Zach, Pock, Bischof 2007), by OpenCV contrib; accurate and slow."""
    solver = cv2.optflow.DualTVL1OpticalFlow.create()
    return blurred(solver.calc(high_pass(first), high_pass(second), None), 2.0)


def deepflow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """DeepFlow (Weinzaepfel et al. 2013) without deep matching, by OpenCV contrib; the most accurate of this module."""
    return cv2.optflow.createOptFlow_DeepFlow().calc(first, second, None)


def fit_affine(flow: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The affine flow (H, W, 2) that most of the flow within `mask` (H, W) follows: the motion of the head.

    Iteratively reweighted least squares with Geman-McClure weights: a residual of 0.15 px reduces a weight to a
    quarter. A mask with fewer than 16 pixels gives zero flow.
    """
    height, width = mask.shape
    ys, xs = np.mgrid[:height, :width]
    basis = np.stack([np.ones_like(xs), xs / width - 0.5, ys / height - 0.5], -1).astype(np.float32)
    rows = np.flatnonzero(mask)[:: max(1, mask.sum() // 4096)]  # a few thousand pixels suffice for six numbers
    if len(rows) < 16:
        return np.zeros_like(flow)
    inputs, targets = basis.reshape(-1, 3)[rows], flow.reshape(-1, 2)[rows]
    weight = np.ones(len(rows), np.float32)
    for _ in range(6):
        weighted = inputs * weight[:, None]
        model = np.linalg.lstsq(weighted.T @ inputs, weighted.T @ targets, rcond=None)[0]
        residual = ((targets - inputs @ model) ** 2).sum(-1)
        weight = (1 / (1 + residual / 0.15**2) ** 2).astype(np.float32)
    return (basis @ model).astype(np.float32)
