"""A video as a sequence of pictures: MP4 and AVI, read by OpenCV's FFmpeg, one frame after the other.

The first bytes are looked at before a decoder sees the file, since FFmpeg follows what playlists and scripts by the
name of a video say; sizes are bounded before the first picture is decoded.
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
MAX_FRAMES = 2_000_000  # nine hours at 60 a second
LEAST_SHARE = 0.9  # of the frames that the header counts, which must be there: some headers count a few too many
AGAIN = "copy or export this video again, as MP4 or AVI"
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what FFmpeg has to say comes as a DataError


class VideoSequence(Sequence):
    """The frames of a video, or those of a span of it, counted from 0; `files` names the video for each of them."""

    kind = "images"
    constant_topology = False

    def __init__(self, path: Path, folder: Path, span: Span | None = None):
        with reading(path, "the video", AGAIN):
            check_regular(path, MAX_VIDEO)
            _check_container(path)
            declared, fps, self._size = _header(path)
            count = _count_frames(path)
        if count < LEAST_SHARE * declared:
            raise DataError.at(path, f"it ends after {count} of {declared} frames: it is cut off", AGAIN)
        first, last = span or (0, count - 1)
        if not 0 <= first <= last < count:
            raise DataError.at(path, f"it has {count} frames, and not {first} to {last}", "correct its table")
        self._path, self._first = path, first
        self._capture: cv2.VideoCapture | None = None
        self._next = 0
        super().__init__(folder, [path] * (last - first + 1), fps)

    @property
    def id(self) -> str:
        return self.folder.stem if self.folder == self._path else self.folder.name

    def geometry(self, t: int) -> tuple[None, None, None]:
        return None, None, None

    def texture(self, t: int) -> np.ndarray:
        """Frame t; going on is one step, going back begins anew."""
        number = self._first + range(len(self))[t]
        with reading(self._path, f"frame {number} of the video", AGAIN):
            if self._capture is None or number < self._next:
                self._capture, self._next = _opened(self._path), 0
            while self._next < number:
                if not self._capture.grab():
                    raise OSError(f"it ends after {self._next} frames")
                self._next += 1
            read, picture = self._capture.read()
            if not read:
                raise OSError(f"it ends after {self._next} frames")
            self._next += 1
            if sorted(picture.shape[:2]) != sorted(self._size):
                raise OSError(f"its size {picture.shape[:2]} differs from {self._size}")
            return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _check_container(path: Path) -> None:
    """Raise DataError for what is neither an MP4 nor an AVI, whatever its name says."""
    with path.open("rb") as handle:
        head = handle.read(12)
    if head[4:8] != b"ftyp" and not (head[:4] == b"RIFF" and head[8:] == b"AVI "):
        raise DataError.at(path, "it is neither an MP4 nor an AVI, whatever its name says", AGAIN)


def _opened(path: Path) -> cv2.VideoCapture:
    """FFmpeg on one thread: never a reader of numbered images, which other backends take a name with % for."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise OSError("no stream in it can be decoded")
    return capture


def _header(path: Path) -> tuple[int, float, tuple[int, int]]:
    """Frames as the header counts them, frames a second, height and width."""
    capture = _opened(path)
    count, fps, width, height = (
        capture.get(name)
        for name in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    if not 0 < fps <= MAX_FPS:
        raise OSError(f"it says that it has {fps:g} frames a second")
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise OSError(f"its frames are {width:g} x {height:g} pixels, and may be {MAX_SIDE} a side")
    return int(np.clip(count, 0, MAX_FRAMES)), float(fps), (int(height), int(width))


def _count_frames(path: Path) -> int:
    """How many frames can really be had: headers err."""
    capture, count = _opened(path), 0
    while count < MAX_FRAMES and capture.grab():
        count += 1
    if count == 0:
        raise OSError("it holds no picture")
    return count
