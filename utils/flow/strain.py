"""Optical strain, the third channel of the flow images that other authors publish."""

import numpy as np


def optical_strain(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Strain (..., H, W) of the flow u, v: sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2) (Shreve et al. 2011)."""
    (u_y, u_x), (v_y, v_x) = np.gradient(u, axis=(-2, -1)), np.gradient(v, axis=(-2, -1))
    return np.sqrt(u_x**2 + v_y**2 + (u_y + v_x) ** 2 / 2)
