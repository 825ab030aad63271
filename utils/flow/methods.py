"""Optical flow between two frames: all methods by name, and the phase flows of a clip.

A flow is an array (H, W, 2) float32 in pixels: for each pixel of the first frame, how far its point has moved in the
second frame, u to the right and v down. `02_flow_apex` and `make bench` compare the methods with the exact flow.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from utils.flow.classical import deepflow, dis, farneback, fit_affine, tvl1
from utils.flow.faceflow import face_motions, faceflow

FlowMethod = Callable[[np.ndarray, np.ndarray], np.ndarray]

FLOW_METHODS: dict[str, FlowMethod] = {
    "faceflow": faceflow,
    "farneback": farneback,
    "dis": dis,
    "tvl1": tvl1,
    "deepflow": deepflow,
}


def estimate_flow(first: np.ndarray, second: np.ndarray, method: str = "faceflow") -> np.ndarray:
    """Flow (H, W, 2) float32 in pixels from `first` to `second`, both (H, W, 3) RGB or (H, W) grey, uint8.

    Raises ValueError for an unknown method, and for frames of different sizes or smaller than 32 pixels.
    """
    return estimate_flows([(first, second)], method)[0]


def estimate_flows(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], method: str = "faceflow", faces: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """The flows (N, H, W, 2) of N pairs of frames of one size. FaceFlow is faster on many pairs at once.

    faces: N masks (H, W) bool, or None. If given, the head's motion is subtracted: FaceFlow estimates it by its
    network, for the other methods it is an affine fit within the mask.
    Raises ValueError as `estimate_flow` does, and for no pairs or a wrong number or size of masks.
    """
    grey = [_checked(*pair, method) for pair in pairs]
    sizes = {first.shape for first, _ in grey}
    if len(sizes) != 1 or (faces is not None and [face.shape for face in faces] != [*sizes] * len(pairs)):
        raise ValueError(
            f"flow of {len(pairs)} pairs of sizes {sorted(sizes)}, faces {faces and [face.shape for face in faces]}. "
            "Remedy: give one pair or more, all of one size, and a face mask of this size for each pair or for none."
        )
    if FLOW_METHODS[method] is faceflow:
        return face_motions(*map(np.stack, zip(*grey, strict=True)), faces)[0 if faces is None else 1]
    flows = np.stack([FLOW_METHODS[method](*pair) for pair in grey])
    if faces is not None:
        flows -= np.stack([fit_affine(flow, face) for flow, face in zip(flows, faces, strict=True)])
    return flows


def _checked(first: np.ndarray, second: np.ndarray, method: str) -> list[np.ndarray]:
    """Check the method and both frames, and return the frames in grey."""
    if method not in FLOW_METHODS:
        raise ValueError(f"flow method {method!r} is unknown. Remedy: choose one of {', '.join(FLOW_METHODS)}.")
    if first.shape != second.shape or first.dtype != np.uint8 or second.dtype != np.uint8:
        raise ValueError(
            f"flow needs two uint8 frames of one size, got {first.dtype} {first.shape} and "
            f"{second.dtype} {second.shape}. Remedy: crop both frames to the same box."
        )
    if min(first.shape[:2]) < 32:
        raise ValueError(f"frames of {first.shape[:2]} pixels are too small for flow. Remedy: use at least 32 x 32.")
    return [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image for image in (first, second)]


def phase_flows(
    frames: np.ndarray, moments: tuple[int, int, int], method: str = "faceflow", masks: np.ndarray | None = None
) -> np.ndarray:
    """Flows (V, P=2, H, W, 2) of the two phases, onset -> apex and apex -> offset, in every view.

    frames (T, V, H, W, 3) uint8; moments: positions of onset, apex and offset in them; masks (V, H, W) bool or None.
    With masks the head's motion is subtracted, see `estimate_flows`; needed if it was not removed in 3D.
    """
    views, phases = range(frames.shape[1]), list(zip(moments[:-1], moments[1:], strict=True))
    pairs = [(frames[a, v], frames[b, v]) for v in views for a, b in phases]
    faces = None if masks is None else [masks[v] for v in views for _ in phases]
    return estimate_flows(pairs, method, faces).reshape(len(views), len(phases), *frames.shape[2:4], 2)
