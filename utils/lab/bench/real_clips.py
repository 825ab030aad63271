"""Flow methods on real clips, whose true flow nobody knows: whether a method agrees with itself."""

from collections.abc import Iterator

import cv2
import numpy as np
import pandas as pd

from utils.dataset.folders import entries
from utils.dataset.geometry import Box
from utils.dataset.readers import open_sequence
from utils.dataset.sequence import Sequence
from utils.errors import DataError
from utils.flow.methods import FlowMethod
from utils.lab.bench.photographs import SIZE
from utils.lab.bench.setting import Setting, row
from utils.render.crops import crop_image, frontal_mask
from utils.render.pictures import detect_box

STEP = 5  # frames to the middle of three, and again to the last
TRIPLES = 4  # of one clip
PIXELS = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1).astype(np.float32)


def clip_rows(setting: Setting, methods: dict[str, FlowMethod]) -> list[dict]:
    """Rows of how far methods disagree with themselves on the clips of a folder: a flow with the one backwards, and the
    flow over ten frames with the two over five that it is made of. Mean px within the face, over clips.

    Raises DataError where no clip shows a face throughout.
    """
    tables = []
    for name, path in entries(setting.clips).items():
        for triple in face_triples(open_sequence(path)):
            tables += [{"clip": name, "method": word, **disagreement(*triple, m)} for word, m in methods.items()]
    if not tables:
        fault = f"no clip of {2 * STEP + 1} frames shows a face"
        raise DataError.at(setting.clips, fault, "give folders of frames, or videos, of one frontal face each")
    table = pd.DataFrame(tables)
    clips = table["clip"].nunique()
    means = table.groupby(["method", "clip"], sort=False).mean().groupby("method", sort=False).mean()
    first = means.iloc[0]
    return [
        row(f"clips, {measure}: {method}", value, "px", value / first[measure], clips)
        for measure in means
        for method, value in means[measure].items()
    ]


def face_triples(sequence: Sequence) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Grey frames (SIZE, SIZE) of three moments, all in one crop, from the start of a clip to its end; none of a clip
    that is too short, or shows no face."""
    last = len(sequence) - 1 - 2 * STEP
    box = detect_box(sequence, 0, 1) if last >= 0 else None
    for start in np.unique(np.linspace(0, last, TRIPLES).round().astype(int)) if box else ():
        yield tuple(_grey(sequence.texture(int(start) + STEP * step), box) for step in range(3))


def _grey(picture: np.ndarray, box: Box) -> np.ndarray:
    return cv2.cvtColor(crop_image(picture, box, SIZE), cv2.COLOR_RGB2GRAY)


def disagreement(first: np.ndarray, middle: np.ndarray, last: np.ndarray, method: FlowMethod) -> dict[str, float]:
    """Mean distances px within the face: of the flow there and back from none, and of two ways to the last frame."""
    there, on, whole = method(first, middle), method(middle, last), method(first, last)
    back = method(middle, first)
    face = frontal_mask(SIZE)
    return {
        "forward and backward": _mean_length(there + _at(back, there), face),
        "10 frames and 5 + 5": _mean_length(whole - there - _at(on, there), face),
    }


def _at(flow: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """A flow (S, S, 2) where the pixels went by `moved`."""
    return cv2.remap(flow, PIXELS + moved, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _mean_length(flow: np.ndarray, face: np.ndarray) -> float:
    return float(np.linalg.norm(flow, axis=-1)[face].mean())
