"""The sequence of one Id: its frames, read when asked for, whatever form they have on disk.

A folder `<Id>/` holds one of four things, told apart by what lies in it:

- `clip.npz` and one composite image per frame beside it (kind "mesh"),
- one `.obj`, `.ply`, `.glb` or `.gltf` mesh per frame, each with its texture or textures (kind "mesh"),
- images only (kind "images"): composites, or pictures of one camera,
- one video (kind "images"), which may also stand in the place of the folder.

A composite is an image of two camera views side by side. Frames are in the order of their numbers (`numbering`).
"""

from collections import Counter
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from utils.dataset.clip_file import CLIP, FPS, read_clip
from utils.dataset.geometry import size_of
from utils.dataset.images import IMAGE_SUFFIXES, read_pixels, significant_bits, to_8_bits
from utils.dataset.mesh_parts import Mesh, Part
from utils.dataset.meshes import MESH_SUFFIXES, check_size, lacks_last_newline, read_mesh, read_texture, scale_to_mm
from utils.dataset.numbering import numbered
from utils.dataset.sequence import WHITE, Geometry, Sequence, Span, Surface
from utils.dataset.videos import VIDEO_SUFFIXES, VideoSequence
from utils.errors import DataError, reading

MIN_FRAMES = 2  # a motion needs two frames
MAX_CLIP = 5000  # frames: 25 seconds at 200 a second, 2 GB of views


class ImageSequence(Sequence):
    """Images without a mesh, all of one size, upright; over 8 bits, all are scaled to 8 alike."""

    kind = "images"
    constant_topology = False
    _size: tuple[int, int] | None = None  # height and width of the first frame read

    def geometry(self, t: int) -> Geometry:
        return None, None, None

    def texture(self, t: int) -> np.ndarray:
        pixels = read_pixels(self.files[t], upright=True)
        image = pixels if pixels.dtype == np.uint8 else to_8_bits(pixels, self._bits)
        self._size = self._size or image.shape[:2]
        if image.shape[:2] != self._size:
            raise DataError.at(
                self.files[t],
                f"its size {image.shape[:2]} differs from {self._size}",
                "export all frames of a sequence at one size",
            )
        return image

    @cached_property
    def _bits(self) -> int:
        """Bits that hold the largest value of all frames: a scale of each frame's own would make them flicker."""
        return max(significant_bits(read_pixels(file)) for file in self.files)


class ClipSequence(ImageSequence):
    """The compact form: the meshes of all frames in `clip.npz`, the composites beside it."""

    kind = "mesh"
    constant_topology = True

    def __init__(self, folder: Path, files: list[Path]):
        self._vertices, self._faces, self._uv, fps = read_clip(folder / CLIP, len(files))
        super().__init__(folder, files, fps)

    def geometry(self, t: int) -> Geometry:
        return self._vertices[t], self._faces, self._uv if self._uv.ndim == 2 else self._uv[t]

    def vertices(self) -> np.ndarray:
        return self._vertices


class MeshSequence(Sequence):
    """One mesh file per frame, scaled to millimetres by the first (see `scale_to_mm`)."""

    kind = "mesh"

    def __init__(self, folder: Path, files: list[Path], fps: float):
        super().__init__(folder, files, fps)
        self._meshes: dict[int, Mesh] = {}
        self._scale = self._size = 0.0

    def geometry(self, t: int) -> Geometry:
        mesh = self._mesh(t)
        return mesh.vertices, mesh.faces, mesh.uv

    def texture(self, t: int) -> np.ndarray:
        image = max(self._mesh(t).parts, key=lambda part: len(part.faces)).image
        return WHITE if image is None else read_texture(image)

    def surfaces(self, t: int) -> list[Surface]:
        mesh = self._mesh(t)
        if mesh.colours is not None:
            return [Surface(mesh.faces, WHITE, mesh.colours)]
        return [Surface(part.faces, read_texture(part.image), None, part.clamp) for part in mesh.parts]

    @property
    def mm_per_unit(self) -> float:
        """Millimetres of one unit of its files, as the first frame's size tells."""
        self._mesh(0)
        return self._scale

    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(warning for mesh in self._meshes.values() for warning in mesh.warnings))

    @cached_property
    def constant_topology(self) -> bool:
        """Whether all frames share one list of faces. Raises DataError for a frame that has less than most others."""
        first = self._mesh(0)
        others = [self._mesh(t) for t in range(1, len(self))]
        self._check_majority([first, *others])
        faces, count = first.faces, len(first.vertices)
        return all(len(other.vertices) == count and np.array_equal(other.faces, faces) for other in others)

    def _mesh(self, t: int) -> Mesh:
        """The mesh of frame t in millimetres, checked against the first."""
        t = range(len(self))[t]
        if t not in self._meshes:
            if t in self._cut_off:
                raise self._incomplete(t, "it ends within a line, other frames do not")
            mesh = read_mesh(self.files[t])
            if t == 0:
                self._scale = scale_to_mm(self.files[0], mesh.vertices)
                self._size = size_of(mesh.vertices) * self._scale
            first = self._mesh(0) if t else None
            vertices = mesh.vertices * np.float32(self._scale)
            check_size(self.files[t], vertices, first.vertices if first else vertices, self._size)
            if first:
                self._check_faces(t, mesh, first)
            parts = _shared_faces(mesh.parts, first.parts if first else ())
            self._meshes[t] = replace(mesh, vertices=vertices, parts=parts)
        return self._meshes[t]

    @cached_property
    def _cut_off(self) -> set[int]:
        """Frames whose text ends within a line, where others, of the same exporter, end with one."""
        lacking = {t for t, file in enumerate(self.files) if lacks_last_newline(file)}
        return lacking if len(lacking) < len(self) else set()

    def _check_faces(self, t: int, mesh: Mesh, first: Mesh) -> None:
        """Raise DataError if two OBJ files have as many vertices and uv, and one of them fewer faces."""
        if mesh.counts and mesh.counts[:2] == first.counts[:2] and mesh.counts[2] != first.counts[2]:
            fewer = t if mesh.counts[2] < first.counts[2] else 0
            found = sorted((mesh.counts[2], first.counts[2]))
            raise self._incomplete(fewer, f"it has {found[0]} faces, and {found[1]} another frame of as many vertices")

    def _check_majority(self, meshes: list[Mesh]) -> None:
        """Raise DataError for a frame that has less than the frames of one and the same size, if those are most."""
        counts = [mesh.counts or (len(mesh.vertices), len(mesh.faces)) for mesh in meshes]
        usual, share = Counter(counts).most_common(1)[0]
        for t, own in enumerate(counts):
            if share * 2 > len(counts) and own != usual and all(n <= m for n, m in zip(own, usual, strict=True)):
                raise self._incomplete(
                    t, f"it has {own[0]} vertices and {own[-1]} faces, {share} others {usual[0]} and {usual[-1]}"
                )

    def _incomplete(self, t: int, fault: str) -> DataError:
        return DataError.at(self.files[t], f"{fault}: it is not whole", "export or copy this frame again")


def _shared_faces(parts: tuple[Part, ...], first: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts with the arrays of the first frame's where they are equal: one array for all frames."""
    if len(parts) != len(first):
        return parts
    return tuple(
        replace(part, faces=other.faces) if np.array_equal(part.faces, other.faces) else part
        for part, other in zip(parts, first, strict=True)
    )


def open_sequence(path: str | Path, fps: float = FPS, span: Span | None = None) -> Sequence:
    """Open the frames of one Id: a folder of them, a folder with one video, or a video.

    fps counts where the files do not say; span: the numbers of the first and the last frame, where the folder or the
    video is a longer recording. Raises DataError for a folder that is missing, empty, mixes kinds, has one frame only,
    or frames without a number or with the same one. What is wrong with a single frame is raised when it is read.
    """
    folder = Path(path)
    video = video_of(folder)
    if video:
        sequence = VideoSequence(video, folder, span)
        _check_count(folder, len(sequence))
        return sequence
    files = frame_files(folder, span)
    _check_count(folder, len(files))
    if files[0].suffix.lower() in MESH_SUFFIXES:
        return MeshSequence(folder, files, fps)
    if (folder / CLIP).exists():
        return ClipSequence(folder, files)
    return ImageSequence(folder, files, fps)


def _check_count(folder: Path, count: int) -> None:
    if count < MIN_FRAMES:
        fault = f"it holds {count} frame, and motion needs {MIN_FRAMES}"
        raise DataError.at(folder, fault, "deliver all frames of the sequence or drop this Id")
    if count > MAX_CLIP:
        fault = f"it holds {count} frames, and a clip may have {MAX_CLIP}"
        raise DataError.at(folder, fault, "cut the expression out of the recording: cut = true in layout.toml does")


def frame_files(folder: Path, span: Span | None = None) -> list[Path]:
    """The one file per frame that counts (mesh files, else images), in the order of their numbers, within a span."""
    files = numbered_files(folder)
    if span is None:
        return list(files.values())
    if lacking := [number for number in span if number not in files]:
        raise DataError.at(folder, f"it has no frame {lacking[0]}", "correct its table, or deliver this frame")
    return [file for number, file in files.items() if span[0] <= number <= span[1]]


def numbered_files(folder: Path) -> dict[int, Path]:
    """The one file per frame that counts by its number, ascending."""
    files = _files(folder)
    meshes = [file for file in files if file.suffix.lower() in MESH_SUFFIXES]
    kinds = {file.suffix.lower() for file in meshes} | {CLIP for file in files if file.name == CLIP}
    if len(kinds) > 1:
        raise DataError.at(folder, f"it mixes {' and '.join(sorted(kinds))}", "keep one form of the sequence")
    frames = meshes or [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not frames:
        suffixes = ", ".join(MESH_SUFFIXES + IMAGE_SUFFIXES)
        raise DataError.at(folder, "it holds no meshes and no images", f"put {suffixes} frames there, or one video")
    return numbered(frames)


def video_of(path: Path) -> Path | None:
    """The video that a path is, or that lies alone in a folder; None for a folder without one."""
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        return path
    files = _files(path)
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    if not videos:
        return None
    others = [file for file in files if file.suffix.lower() in MESH_SUFFIXES + IMAGE_SUFFIXES or file.name == CLIP]
    if len(videos) + len(others) > 1:
        twin = (videos[1:] + others)[0].name
        raise DataError.at(path, f"it holds {videos[0].name} and {twin}", "keep one form of the sequence")
    return videos[0]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError.at(folder, "there is no such folder", "put the frames of this Id there")
    with reading(folder, "the folder", "make it readable"):
        return [file for file in folder.iterdir() if not file.name.startswith(".")]


# Writing ------------------------------------------------------------------------------------------
