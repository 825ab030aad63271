"""From a sequence's views to the network's input: x (V=2, P=2, C=3, S, S) float32, channels u, v, magnitude."""

import cv2
import numpy as np

from utils.flow.methods import phase_flows


def flow_maps(flows: np.ndarray, masks: np.ndarray, size: int) -> np.ndarray:
    """Maps (V, P, C=3, size, size) float32 px from flows (V, P, H, W, 2) and face masks (V, H, W).

    Motion outside the face is zero; each map pixel is the mean of the area it covers. The magnitude is taken before the
    averaging, so that motion in opposite directions within an area does not cancel.
    """
    magnitude = np.linalg.norm(flows, axis=-1, keepdims=True)
    planes = np.concatenate([flows, magnitude], -1) * masks[:, None, :, :, None]
    small = [[cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA) for plane in view] for view in planes]
    return np.moveaxis(np.array(small, np.float32), -1, 2)


def clip_features(
    frames: np.ndarray,
    masks: np.ndarray,
    moments: tuple[int, int, int],
    size: int = 28,
    method: str = "faceflow",
    subtract_head: bool = False,
) -> np.ndarray:
    """The network's input of one clip: frames (T, V, S, S, 3) uint8, masks (V, S, S), moments onset, apex, offset.

    subtract_head: take out the head's own motion, for views that were not stabilised in 3D.
    """
    flows = phase_flows(frames, moments, method, masks if subtract_head else None)
    return flow_maps(flows, masks, size)
