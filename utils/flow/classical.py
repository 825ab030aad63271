"""Classical optical flow with settings for faces, and the head's affine motion.

A flow is (H, W, 2) float32: u to the right, v down, in pixels, from each pixel of the first frame to where that point
stands in the second; frames are grey, (H, W) uint8. Expressions move the skin by less than three pixels and change its
shading, so slow brightness is removed first and the flow is blurred a little.
"""

import cv2
import numpy as np


def high_pass(grey: np.ndarray) -> np.ndarray:
    """Fine detail of a grey image (H, W) as uint8 about 128, twice its contrast; slow brightness is gone."""
    image = grey.astype(np.float32)
    slow = cv2.GaussianBlur(image, (0, 0), image.shape[1] / 32)
    return np.clip(128.5 + 2 * (image - slow), 0, 255).astype(np.uint8)


def blurred(flow: np.ndarray, sigma_256: float) -> np.ndarray:
    """The flow under a Gaussian whose sigma is given in pixels of a 256 px wide frame."""
    return cv2.GaussianBlur(flow, (0, 0), sigma_256 * flow.shape[1] / 256)


def farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Farnebäck (2003) polynomial expansion, by OpenCV. It depends on the grey scale: x 16 suits faces."""
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
    """Duality-based TV-L1 (Zach, Pock, Bischof 2007), OpenCV contrib; accurate and slow."""
    solver = cv2.optflow.DualTVL1OpticalFlow.create()
    return blurred(solver.calc(high_pass(first), high_pass(second), None), 2.0)


def deepflow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """DeepFlow (Weinzaepfel et al. 2013) without deep matching, OpenCV contrib; the best of the classical ones here."""
    return cv2.optflow.createOptFlow_DeepFlow().calc(first, second, None)


def fit_affine(flow: np.ndarray, mask: np.ndarray, iterations: int = 6, inlier_px: float = 0.15) -> np.ndarray:
    """The affine flow (H, W, 2) that most of the masked flow follows: the head's motion under an expression.

    Iteratively reweighted least squares with Geman-McClure weights; `inlier_px` is the residual in pixels that
    halves a pixel's weight. `mask` (H, W) bool; with fewer than 16 pixels the result is zero.
    """
    height, width = mask.shape
    ys, xs = np.mgrid[:height, :width]
    basis = np.stack([np.ones_like(xs), xs / width - 0.5, ys / height - 0.5], -1).astype(np.float32)
    rows = np.flatnonzero(mask)[:: max(1, mask.sum() // 4096)]  # a few thousand pixels settle six numbers
    if len(rows) < 16:
        return np.zeros_like(flow)
    inputs, targets = basis.reshape(-1, 3)[rows], flow.reshape(-1, 2)[rows]
    weight = np.ones(len(rows), np.float32)
    for _ in range(iterations):
        weighted = inputs * weight[:, None]
        model = np.linalg.lstsq(weighted.T @ inputs, weighted.T @ targets, rcond=None)[0]
        residual = ((targets - inputs @ model) ** 2).sum(-1)
        weight = (1 / (1 + residual / inlier_px**2) ** 2).astype(np.float32)
    return (basis @ model).astype(np.float32)
