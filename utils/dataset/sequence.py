"""The interface of a sequence, which is the same for all forms on disk. Frames are read when they are asked for.

Scale and axes: see `utils.dataset.geometry`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import DataError

Span = tuple[int, int]  # numbers of the first and the last frame of a clip within a recording
Geometry = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]  # vertices, faces and uv of a `Frame`
WHITE = np.full((1, 1, 3), 255, np.uint8)  # texture of a mesh that has colours at its vertices instead


@dataclass(frozen=True)
class Frame:
    """One frame of a sequence. It has no mesh if the sequence consists of images alone."""

    vertices: np.ndarray | None  # (V, 3) float32, millimetres
    faces: np.ndarray | None  # (F, 3) int32
    uv: np.ndarray | None  # (V, 2) float32, v up
    texture: np.ndarray  # (H, W, 3) uint8 RGB; of several textures, the one with the most faces


class Surface(NamedTuple):
    """Faces of a frame that share one texture. Its vertices and uv belong to the frame."""

    faces: np.ndarray  # (F, 3) int32
    texture: np.ndarray  # (H, W, 3) uint8 RGB
    tint: np.ndarray | None = None  # (V, 3) float in 0..1, colours of the vertices that multiply the texture
    clamp: bool = True  # whether the texture ends at its border instead of repeating


class Sequence:
    """The frames of one Id, without a mesh in this base class. `len(sequence)` is the number of frames.

    Textures are read anew at each call, so that memory stays flat. Meshes, which are 100 times smaller, are kept after
    the first reading.
    """

    kind: str = "images"  # or "mesh"
    constant_topology: bool = False  # whether all frames share one list of faces, so that vertex i is one skin point

    def __init__(self, folder: Path, files: list[Path], fps: float):
        self.folder, self.files, self.fps = folder, files, float(fps)

    @property
    def id(self) -> str:
        return self.folder.name

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(t) for t in range(len(self)))

    def frame(self, t: int) -> Frame:
        """Mesh and texture of frame t."""
        return Frame(*self.geometry(t), self.texture(t))

    def geometry(self, t: int) -> Geometry:
        """Vertices, faces and uv of frame t. Its texture is not read."""
        return None, None, None

    def texture(self, t: int) -> np.ndarray:
        """The texture or composite of frame t, (H, W, 3) uint8 RGB; of several, the one with the most faces."""
        raise NotImplementedError

    def surfaces(self, t: int) -> list[Surface]:
        """The mesh of frame t as it is drawn: one surface per texture."""
        return [Surface(self.geometry(t)[1], self.texture(t))]

    def warnings(self) -> tuple[str, ...]:
        """Warnings about the frames that were read so far."""
        return ()

    def vertices(self) -> np.ndarray:
        """All vertices, (T, V, 3) float32, millimetres. Raises DataError without constant topology."""
        if not self.constant_topology:
            raise DataError.at(self.folder, "the frames do not share one mesh", "use the frames one by one")
        return np.stack([self.geometry(t)[0] for t in range(len(self))])
