"""The flow method FaceFlow: its network on frames of any size, with DeepFlow where the network seems wrong."""

import ctypes
import json
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from utils.flow.classical import deepflow, fit_affine
from utils.paths import data_file

if TYPE_CHECKING:
    from utils.flow.faceflow_net import FlowNet

FLOW_WEIGHTS = data_file("weights/flow.safetensors")
FLOW_RECORD = data_file("weights/flow.json")  # the network's widths and training
SIZE = 256  # side in pixels of the network's input; a copy, because importing `faceflow_net` takes seconds
BATCH = 8  # pairs that the network sees at once, which is faster than one by one
WHOLE_PX = 3.0  # a shift of the whole picture by more pixels (at 256 px) is removed before the network sees it
# The score of a flow: the second frame is warped back by it, and the fine detail of both frames is correlated.
RESEMBLANCE = 0.8  # DeepFlow is run too if the network's score is lower
STILL = 0.003  # DeepFlow is run too if the score of zero flow exceeds the network's score by more than this
MARGIN = 0.01  # DeepFlow's score must exceed the network's by this, unless the network is worse than zero flow
BESIDE_SHIFT = 5e-4  # after a shift was removed, the network's score must exceed the score of zero flow by this
Motion = tuple[np.ndarray, np.ndarray]  # flow: the whole motion; nonrigid: the flow without the head's rigid motion


@lru_cache(maxsize=2)
def load_flow_net(weights: Path = FLOW_WEIGHTS) -> "FlowNet":
    """The network with these weights, on the GPU if there is one."""
    import torch  # takes seconds to load, and the classical methods do without it
    from safetensors.torch import load_file

    from utils.flow.faceflow_net import FlowNet, FlowNetConfig

    keep_memory()
    record = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    net = FlowNet(FlowNetConfig(**{name: tuple(widths) for name, widths in record["model"].items()}))
    net.load_state_dict(load_file(weights))
    return net.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def keep_memory() -> None:
    """Make glibc keep up to half a gigabyte of freed memory for the network's layers.

    Dask configures its workers to return freed memory to the system at once; FaceFlow then takes 2.5 times as long.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # constants of malloc.h
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 512 << 20)
        mallopt(top_pad, 64 << 20)


def faceflow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The flow of FaceFlow, whose network was trained on rendered faces with exact flow."""
    return face_motion(first, second)[0]


def face_motion(first: np.ndarray, second: np.ndarray) -> Motion:
    """`face_motions` of one pair of frames (H, W): flow and nonrigid, (H, W, 2) each."""
    flow, nonrigid = face_motions(first[None], second[None])
    return flow[0], nonrigid[0]


def face_motions(first: np.ndarray, second: np.ndarray, faces: Sequence[np.ndarray] | None = None) -> Motion:
    """Flow, and flow without the head's rigid motion, each (N, H, W, 2) float32 px, of grey frames (N, H, W) uint8.

    faces: N masks (H, W) bool over which the head's motion is fitted; the whole picture if None.
    Frames are scaled to the 256 px of the network, and its flow is scaled back. The network was not trained on shifts
    of the whole picture by more than WHOLE_PX: such a shift is removed first and added to the flow afterwards. If the
    network's flow explains the frames badly (RESEMBLANCE, STILL), DeepFlow replaces it where that explains them better.
    """
    height, width = first.shape[1:]
    faces = np.ones(first.shape, bool) if faces is None else faces
    motions = np.empty((2, len(first), height, width, 2), np.float32)
    for start in range(0, len(first), BATCH):
        batch = slice(start, start + BATCH)
        a, b = (np.stack([_resized(image, (SIZE, SIZE)) for image in frames[batch]]) for frames in (first, second))
        shifts = [whole_shift(*pair) for pair in zip(a, b, strict=True)]
        b = np.stack([_moved_back(image, shift) for image, shift in zip(b, shifts, strict=True)])
        masks = np.stack([_resized(np.uint8(face), (SIZE, SIZE)) > 0 for face in faces[batch]])
        for i, motion in enumerate(_network_motions(a, b, masks)):
            motion = _best_explained(a[i], b[i], motion, max(map(abs, shifts[i])), masks[i])
            motions[:, start + i] = [_resized(flow, (width, height)) for flow in motion]
            motions[0, start + i] += np.float32(shifts[i])
    motions *= np.float32([width / SIZE, height / SIZE])
    return motions[0], motions[1]


def _best_explained(first: np.ndarray, second: np.ndarray, motion: Motion, border: int, face: np.ndarray) -> Motion:
    """The motion that explains two frames (SIZE, SIZE) best: the network's `motion`, zero flow, or that of DeepFlow.

    border: the shift in pixels that was removed from the second frame. Zero flow is chosen only after such a shift.
    face: (SIZE, SIZE) bool, where the head's part of DeepFlow's flow is fitted.
    """
    border = min(border, SIZE // 4)
    inner = np.s_[border : SIZE - border, border : SIZE - border]  # the shift left the border without a picture
    details = fine_detail(first[inner]), fine_detail(second[inner])
    score, score_of_zero = resemblance(*details, motion[0][inner]), correlation(*details)
    if border and score_of_zero > score - BESIDE_SHIFT:
        return np.zeros_like(motion[0]), np.zeros_like(motion[1])
    worse_than_zero = score_of_zero > score + STILL
    if worse_than_zero or score < RESEMBLANCE:
        flow = deepflow(first, second)
        if resemblance(*details, flow[inner]) > score + (0 if worse_than_zero else MARGIN):
            return flow, flow - fit_affine(flow, face)
    return motion


def _network_motions(first: np.ndarray, second: np.ndarray, faces: np.ndarray) -> list[Motion]:
    """Flow and nonrigid (SIZE, SIZE, 2) of each pair of grey frames (N, SIZE, SIZE), by the network alone."""
    import torch

    net = load_flow_net()
    device = next(net.parameters()).device
    with torch.inference_mode():
        inputs = (torch.from_numpy(maps)[:, None].to(device).float() for maps in (first, second, faces))
        flow, nonrigid, _ = net(*inputs)
        motions = torch.stack([flow, nonrigid], 1).permute(0, 1, 3, 4, 2).contiguous().cpu().numpy()
    return [tuple(_resized(flow, (SIZE, SIZE)) for flow in motion) for motion in motions]


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image or a flow at size = (width, height)."""
    if image.shape[1::-1] == size:
        return image
    smaller = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def whole_shift(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """The shift (x, y) of the whole picture in whole pixels, by phase correlation; (0, 0) if at most WHOLE_PX."""
    a, b = (cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for image in (first, second))
    window = cv2.createHanningWindow(a.shape[::-1], cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(a.astype(np.float32), b.astype(np.float32), window)
    shift = round(2 * x), round(2 * y)
    if np.hypot(*shift) <= WHOLE_PX:
        return 0, 0
    unmoved, moved = (cv2.absdiff(first, image).mean() for image in (second, _moved_back(second, shift)))
    return shift if moved < 0.8 * unmoved else (0, 0)


def _moved_back(image: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """The image after the shift (x, y) was undone; its edge is repeated."""
    if not any(shift):
        return image
    move = np.float32([[1, 0, -shift[0]], [0, 1, -shift[1]]])
    return cv2.warpAffine(image, move, image.shape[::-1], borderMode=cv2.BORDER_REPLICATE)


def fine_detail(image: np.ndarray) -> np.ndarray:
    """A grey image (H, W) at half its size minus its blur with a sigma of 3 px, float32."""
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float32)
    return half - cv2.GaussianBlur(half, (0, 0), 3)


def resemblance(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> float:
    """Correlation of the `fine_detail` (h, w) of two frames, the second one warped back by `flow` (2h, 2w, 2)."""
    height, width = first.shape
    at = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    at += cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / 2
    return correlation(first, cv2.remap(second, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of two images whose mean is about zero, as that of `fine_detail`."""
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-6))
