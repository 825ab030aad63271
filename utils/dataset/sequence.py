"""What a sequence is, whatever form it has on disk: frames that are read when they are asked for.

Units and axes: see `utils.dataset.geometry`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import DataError

Span = tuple[int, int]  # numbers of the first and the last frame of a clip within a recording


@dataclass(frozen=True)
class Frame:
    """One moment of a sequence; the mesh is None where there are only composite images."""

    vertices: np.ndarray | None  # (V, 3) float32, millimetres
    faces: np.ndarray | None  # (F, 3) int32
    uv: np.ndarray | None  # (V, 2) float32, v up
    texture: np.ndarray  # (H, W, 3) uint8 RGB, of several that of the most faces


class Surface(NamedTuple):
    """Faces of a frame that share one texture; the frame's vertices and uv are those of all its surfaces."""

    faces: np.ndarray  # (F, 3) int32
    texture: np.ndarray  # (H, W, 3) uint8 RGB
    tint: np.ndarray | None = None  # (V, 3) float in 0..1, multiplies the texture: colours of the vertices
    clamp: bool = True  # whether the texture ends at its border, rather than repeats


WHITE = np.full((1, 1, 3), 255, np.uint8)  # texture of a mesh that has colours at its vertices instead

Geometry = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


class Sequence:
    """The frames of one Id, read when asked for. `len(sequence)` is the number of frames.

    Textures are read anew each time, so that memory stays flat; meshes (100 times smaller) are kept after
    the first reading, until the sequence is let go.
    """

    kind: str  # "mesh" or "images"
    constant_topology: bool  # all frames share one list of faces, so that vertex i is one point of the skin

    def __init__(self, folder: Path, files: list[Path], fps: float):
        self.folder, self.files, self.fps = folder, files, float(fps)

    @property
    def id(self) -> str:
        return self.folder.name

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(t) for t in range(len(self)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {len(self)} frames at {self.fps:g} fps>"

    def frame(self, t: int) -> Frame:
        """Mesh and texture of frame t."""
        return Frame(*self.geometry(t), self.texture(t))

    def geometry(self, t: int) -> Geometry:
        """Vertices, faces and uv of frame t, without reading its texture."""
        raise NotImplementedError

    def texture(self, t: int) -> np.ndarray:
        """The texture, or the composite, of frame t: (H, W, 3) uint8 RGB; of several that of the most faces."""
        raise NotImplementedError

    def surfaces(self, t: int) -> list[Surface]:
        """What is drawn of the mesh of frame t, a surface per texture."""
        return [Surface(self.geometry(t)[1], self.texture(t))]

    def warnings(self) -> tuple[str, ...]:
        """What a reader of the views should know of the frames read so far."""
        return ()

    def vertices(self) -> np.ndarray:
        """All vertices, (T, V, 3) float32, millimetres. Raises DataError without constant topology."""
        if not self.constant_topology:
            raise DataError.at(self.folder, "the frames do not share one mesh", "use the frames one by one")
        return np.stack([self.geometry(t)[0] for t in range(len(self))])
