"""FaceFlow at work: its network on frames of any size, helped by DeepFlow where it is unsure."""

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

FLOW_WEIGHTS, FLOW_RECORD = data_file("weights/flow.safetensors"), data_file("weights/flow.json")
SIZE = 256  # pixels a side, what the network sees: as in `faceflow_net`, which takes seconds to import
WHOLE_PX = 3.0  # of 256: a shift of the whole picture beyond this is taken out before the network sees it
RESEMBLANCE = 0.8  # correlation of the fine detail below which DeepFlow is run too
MARGIN = 0.01  # by which DeepFlow must be better to be believed
STILL = 0.003  # by which no motion may resemble more than the network's before DeepFlow is run too
BESIDE_SHIFT = 5e-4  # by which a motion beside the whole picture's must be better than none to be believed
Motion = tuple[np.ndarray, np.ndarray]  # flow, nonrigid: all motion, and without the head's rigid motion
BATCH = 8  # pairs that the network sees at once, which takes it less time than one by one


@lru_cache(maxsize=2)
def load_flow_net(weights: Path = FLOW_WEIGHTS) -> "FlowNet":
    """The network with these weights, on the GPU where there is one."""
    import torch  # takes seconds to load, and the classical methods need none
    from safetensors.torch import load_file

    from utils.flow.faceflow_net import FlowNet, FlowNetConfig

    keep_memory()
    record = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    net = FlowNet(FlowNetConfig(**record["model"]))
    net.load_state_dict(load_file(weights))
    return net.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def keep_memory() -> None:
    """Have glibc keep what the network's layers free, up to half a gigabyte. Dask tells its workers to give everything
    back to the system at once, which makes FaceFlow take 2.5 times as long."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # of malloc.h
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 512 << 20)
        mallopt(top_pad, 64 << 20)


def faceflow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Our network for faces, taught by rendered ones with exact truth."""
    return face_motion(first, second)[0]


def face_motion(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`face_motions` of one pair: (H, W) uint8 -> flow, nonrigid, (H, W, 2) float32 each."""
    flow, nonrigid = face_motions(first[None], second[None])
    return flow[0], nonrigid[0]


def face_motions(
    first: np.ndarray, second: np.ndarray, faces: Sequence[np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Flow, and flow without the head's rigid motion, each (N, H, W, 2) float32 px, of grey frames (N, H, W) uint8.

    The network takes 256 px: other sizes are scaled to it and the flow back. A motion of the whole picture by more
    than WHOLE_PX, which it never met, is taken out first, and is all there is if it explains the frames as well.
    Where the second frame, warped back by the flow, does not resemble the first (RESEMBLANCE), or less than it does
    unmoved (STILL), DeepFlow is run too, and the flow by which it does so more is taken. What is the head's is fitted
    over `faces`, N times (H, W) bool, or without them over the picture.
    """
    height, width = first.shape[1:]
    found = np.empty((2, len(first), height, width, 2), np.float32)
    for start in range(0, len(first), BATCH):
        some = slice(start, start + BATCH)
        a, b = (np.stack([_resized(one, (SIZE, SIZE)) for one in part[some]]) for part in (first, second))
        shifts = [whole_shift(*pair) for pair in zip(a, b, strict=True)]
        b = np.stack([_moved_back(image, shift) for image, shift in zip(b, shifts, strict=True)])
        whole = np.ones((len(a), SIZE, SIZE), bool)
        masks = whole if faces is None else [_resized(np.uint8(face), (SIZE, SIZE)) > 0 for face in faces[some]]
        for i, motion in enumerate(_network_motions(a, b, np.stack(masks))):
            motion = _best_explained(a[i], b[i], motion, max(map(abs, shifts[i])), masks[i])
            for into, part in zip(found[:, start + i], motion, strict=True):
                into[:] = _resized(part, (width, height))
            found[0, start + i] += np.float32(shifts[i])
    if (width, height) != (SIZE, SIZE):
        found *= np.float32([width / SIZE, height / SIZE])
    return found[0], found[1]


def _best_explained(first: np.ndarray, second: np.ndarray, motion: Motion, border: int, face: np.ndarray) -> Motion:
    """Flow and nonrigid (SIZE, SIZE, 2) of a pair that was shifted by up to `border` px, by what warps the second frame
    back best: no motion, if there was a shift, the network, or where neither does well DeepFlow."""
    border = min(border, SIZE // 4)
    inner = np.s_[border : SIZE - border, border : SIZE - border]  # the border is not of this picture

    details = fine_detail(first[inner]), fine_detail(second[inner])

    def explained(flow: np.ndarray) -> float:
        return resemblance(*details, flow[inner])

    by_network, unmoved = explained(motion[0]), correlation(*details)
    if border and unmoved > by_network - BESIDE_SHIFT:
        return np.zeros_like(motion[0]), np.zeros_like(motion[1])
    doubted = unmoved > by_network + STILL
    if doubted or by_network < RESEMBLANCE:
        other = deepflow(first, second)
        if explained(other) > by_network + (0 if doubted else MARGIN):
            return other, other - fit_affine(other, face)
    return motion


def _network_motions(first: np.ndarray, second: np.ndarray, faces: np.ndarray) -> list[Motion]:
    """Flow and nonrigid (SIZE, SIZE, 2) of each pair of grey frames (N, SIZE, SIZE), by the network."""
    import torch

    net = load_flow_net()
    device = next(net.parameters()).device
    with torch.inference_mode():
        maps = (torch.from_numpy(image)[:, None].to(device).float() for image in (first, second, faces))
        flow, nonrigid, _ = net(*maps)
        maps = torch.stack([flow, nonrigid], 1).permute(0, 1, 3, 4, 2).contiguous().cpu().numpy()
    return [tuple(_resized(part, (SIZE, SIZE)) for part in one) for one in maps]


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image or a flow at width, height = size."""
    if image.shape[1::-1] == size:
        return image
    smaller = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def whole_shift(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """The shift (x, y) of the whole picture in whole pixels, by phase correlation; (0, 0) up to WHOLE_PX."""
    a, b = (cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for image in (first, second))
    window = cv2.createHanningWindow(a.shape[::-1], cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(a.astype(np.float32), b.astype(np.float32), window)
    shift = round(2 * x), round(2 * y)
    if np.hypot(*shift) <= WHOLE_PX:
        return 0, 0
    unmoved, moved = (cv2.absdiff(first, image).mean() for image in (second, _moved_back(second, shift)))
    return shift if moved < 0.8 * unmoved else (0, 0)


def _moved_back(image: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    if not any(shift):
        return image
    move = np.float32([[1, 0, -shift[0]], [0, 1, -shift[1]]])
    return cv2.warpAffine(image, move, image.shape[::-1], borderMode=cv2.BORDER_REPLICATE)


def fine_detail(image: np.ndarray) -> np.ndarray:
    """A grey image (H, W) at half its size, without what is slower than a blur of 3 px there, float32."""
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float32)
    return half - cv2.GaussianBlur(half, (0, 0), 3)


def resemblance(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> float:
    """Correlation of `fine_detail` (h, w) of a frame with that of a second one, warped back by a flow (2h, 2w, 2)."""
    height, width = first.shape
    at = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    at += cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / 2
    return correlation(first, cv2.remap(second, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two images without slow brightness."""
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-6))
