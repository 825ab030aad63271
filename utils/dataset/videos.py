"""Reads a video as a sequence of pictures: MP4 and AVI, with the FFmpeg of OpenCV, one frame after the other.

The first bytes are checked before a decoder opens the file, because FFmpeg follows playlists and scripts that have
the name of a video. Sizes are bounded before the first picture is decoded.
"""

import os
from pathlib import Path

import cv2
import numpy as np

from utils.dataset.clip_file import MAX_FPS
from utils.dataset.sequence import Sequence, Span
from utils.errors import DataError, check_regular, reading

VIDEO_SUFFIXES = (".mp4", ".avi")
MAX_VIDEO = 2**34  # bytes
MAX_SIDE = 8192  # pixels of a frame's width and height
MAX_FRAMES = 2_000_000  # nine hours at 60 frames per second
MIN_SHARE = 0.9  # of the frames that the header counts; some headers count a few frames too many
AGAIN = "copy or export this video again, as MP4 or AVI"
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent: its faults become DataErrors


class VideoSequence(Sequence):
    """The frames of a video, or of a span of it, counted from 0. `files` names the video once per frame."""

    def __init__(self, path: Path, folder: Path, span: Span | None = None):
        with reading(path, "the video", AGAIN):
            check_regular(path, MAX_VIDEO)
            with path.open("rb") as handle:
                head = handle.read(12)
            if head[4:8] != b"ftyp" and not (head[:4] == b"RIFF" and head[8:] == b"AVI "):
                raise DataError.at(path, "it is neither an MP4 nor an AVI, whatever its name says", AGAIN)
            declared, count, fps, self._size = _properties(path)
        if count < MIN_SHARE * declared:
            raise DataError.at(path, f"it ends after {count} of {declared} frames: it is cut off", AGAIN)
        first, last = span or (0, count - 1)
        if not 0 <= first <= last < count:
            raise DataError.at(path, f"it has {count} frames, and not {first} to {last}", "correct its table")
        self._path, self._first = path, first
        self._capture: cv2.VideoCapture | None = None
        self._next = 0  # number of the frame that the capture reads next
        super().__init__(folder, [path] * (last - first + 1), fps)

    @property
    def id(self) -> str:
        return self.folder.stem if self.folder == self._path else self.folder.name

    def texture(self, t: int) -> np.ndarray:
        """Frame t. The next frame costs one step; an earlier frame restarts the video."""
        number = self._first + range(len(self))[t]
        with reading(self._path, f"frame {number} of the video", AGAIN):
            if self._capture is None or number < self._next:
                self._capture, self._next = _opened(self._path), 0
            while self._next <= number:
                if not self._capture.grab():
                    raise OSError(f"it ends after {self._next} frames")
                self._next += 1
            _, picture = self._capture.retrieve()
            if sorted(picture.shape[:2]) != sorted(self._size):
                raise OSError(f"its size {picture.shape[:2]} differs from {self._size}")
            return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _opened(path: Path) -> cv2.VideoCapture:
    """The video, opened by FFmpeg alone: for other backends a name with % stands for numbered images."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise OSError("no stream in it can be decoded")
    return capture


def _properties(path: Path) -> tuple[int, int, float, tuple[int, int]]:
    """Number of frames in the header and number that can be decoded, frames per second, (height, width)."""
    capture = _opened(path)
    names = cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
    declared, fps, width, height = (capture.get(name) for name in names)
    if not 0 < fps <= MAX_FPS:
        raise OSError(f"it declares {fps:g} frames per second")
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise OSError(f"its frames are {width:g} x {height:g} pixels, and may have {MAX_SIDE} a side")
    count = 0
    while count < MAX_FRAMES and capture.grab():
        count += 1
    if count == 0:
        raise OSError("it holds no picture")
    return int(np.clip(declared, 0, MAX_FRAMES)), count, float(fps), (int(height), int(width))
