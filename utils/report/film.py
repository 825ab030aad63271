"""Films: H.264 in MP4, and a clip's views with the flow since the onset in colour over the face."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from utils.flow.features import Moments
from utils.flow.methods import estimate_flows
from utils.render.view_set import Views
from utils.report.figures.flow import flow_on_face

CHUNK = 8  # frames whose flows are held at once


def write_film(target: Path | BinaryIO, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames (H, W, 3) uint8 of one size as MP4 (x264, crf 23); of an odd side the last pixel is left out."""
    with av.open(target, "w", format="mp4") as out:
        stream = None
        for frame in frames:
            height, width = (side // 2 * 2 for side in frame.shape[:2])
            if stream is None:
                stream = out.add_stream("libx264", Fraction(fps).limit_denominator(1001), options={"crf": "23"})
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            picture = np.ascontiguousarray(frame[:height, :width])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())


def flow_overlay(views: Views, moments: Moments, method: str, largest: float) -> Iterator[np.ndarray]:
    """Every frame of a clip (S, V * S, 3) uint8, the views side by side, with the flow since the onset over the face.

    From onset to offset alone, less the head's own motion; `largest` px and more are in full colour.
    """
    onset, _, offset = moments
    for start in range(0, len(views.frames), CHUNK):
        times = range(start, min(start + CHUNK, len(views.frames)))
        pairs = [(t, v) for t in times if onset < t <= offset for v in range(len(views.masks))]
        flows = dict(zip(pairs, _flows_since(views, onset, pairs, method), strict=True))
        for t in times:
            shown = [
                flow_on_face(picture, flows[t, v] * views.masks[v][..., None], largest) if (t, v) in flows else picture
                for v, picture in enumerate(views.frames[t])
            ]
            yield np.concatenate(shown, axis=1)


def _flows_since(views: Views, onset: int, pairs: list[tuple[int, int]], method: str) -> Iterable[np.ndarray]:
    """Flow (S, S, 2) from the onset to each (frame, view)."""
    if not pairs:
        return ()
    faces = None if views.stabilised else [views.masks[v] for _, v in pairs]
    return estimate_flows([(views.frames[onset, v], views.frames[t, v]) for t, v in pairs], method, faces)
