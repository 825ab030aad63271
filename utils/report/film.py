"""Films: any frames as H.264 in MP4, and the views of a clip with its flow in colour over the face."""

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

CHUNK = 8  # frames whose flows are estimated together and held in memory


def write_film(target: Path | BinaryIO, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames (H, W, 3) uint8 of one size as MP4 (x264, crf 23); an odd last row or column is cut off."""
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
    """Yield every frame of a clip as (S, V * S, 3) uint8: its views side by side, with the flow since the onset.

    The flow excludes the head's own motion and is drawn from onset to offset only. Motion of `largest` px or more has
    full colour.
    """
    onset, _, offset = moments
    for start in range(0, len(views.frames), CHUNK):
        times = range(start, min(start + CHUNK, len(views.frames)))
        places = [(t, v) for t in times if onset < t <= offset for v in range(len(views.masks))]
        pairs = [(views.frames[onset, v], views.frames[t, v]) for t, v in places]
        faces = None if views.stabilised else [views.masks[v] for _, v in places]
        flows = dict(zip(places, estimate_flows(pairs, method, faces) if pairs else (), strict=True))
        for t in times:
            shown = [
                flow_on_face(picture, flows[t, v] * views.masks[v][..., None], largest) if (t, v) in flows else picture
                for v, picture in enumerate(views.frames[t])
            ]
            yield np.concatenate(shown, axis=1)
