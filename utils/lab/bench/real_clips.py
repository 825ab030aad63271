"""Flow methods on real clips, where the true flow is unknown: how far a method disagrees with itself."""

from collections.abc import Iterable

import cv2
import numpy as np
import pandas as pd

from utils.dataset.folders import entries
from utils.dataset.readers import open_sequence
from utils.dataset.sequence import Sequence
from utils.errors import DataError
from utils.flow.methods import FlowMethod
from utils.lab.bench.photographs import PIXELS, SIZE
from utils.lab.bench.setting import Setting, row
from utils.render.crops import crop_image, frontal_mask
from utils.render.pictures import detect_box

STEP = 5  # frames between the three frames of a triple
TRIPLES = 4  # per clip


def clip_rows(setting: Setting, methods: dict[str, FlowMethod]) -> list[dict]:
    """Rows of the self-disagreement of methods on the clips of a folder: mean px over the face, averaged over clips.

    Raises DataError if no clip shows a face.
    """
    tables = []
    for clip, path in entries(setting.clips).items():
        for triple in face_triples(open_sequence(path)):
            tables += [{"clip": clip, "method": name, **disagreement(*triple, m)} for name, m in methods.items()]
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


def face_triples(sequence: Sequence) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Triples of grey frames (SIZE, SIZE), from the start to the end of a clip; none if it is too short."""
    last = len(sequence) - 1 - 2 * STEP
    starts = np.unique(np.linspace(0, last, TRIPLES).round().astype(int)) if last >= 0 else np.zeros(0, int)
    frames = grey_frames(sequence, (starts[:, None] + STEP * np.arange(3)).ravel().tolist())
    return zip(frames[::3], frames[1::3], frames[2::3], strict=True)


def grey_frames(sequence: Sequence, times: Iterable[int]) -> list[np.ndarray]:
    """Frames (SIZE, SIZE) in grey, all in one crop of the face; none if the clip shows no face."""
    if (box := detect_box(sequence, 0, 1)) is None:
        return []
    return [cv2.cvtColor(crop_image(sequence.texture(t), box, SIZE), cv2.COLOR_RGB2GRAY) for t in times]


def disagreement(first: np.ndarray, middle: np.ndarray, last: np.ndarray, method: FlowMethod) -> dict[str, float]:
    """Mean distance px over the face: between no motion and the flow forward and back, and between the flow from the
    first to the last frame and the sum of its two halves."""
    there, on, whole = method(first, middle), method(middle, last), method(first, last)
    back = method(middle, first)

    def mean_length(flow: np.ndarray) -> float:
        return float(np.linalg.norm(flow, axis=-1)[frontal_mask(SIZE)].mean())

    def moved(flow: np.ndarray) -> np.ndarray:
        return cv2.remap(flow, PIXELS + there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    return {
        "forward and backward": mean_length(there + moved(back)),
        "10 frames and 5 + 5": mean_length(whole - there - moved(on)),
    }
