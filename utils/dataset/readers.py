"""Opens the frames of one Id as a sequence, in each form that they may have on disk.

A folder `<Id>/` holds one of four forms, which its files tell apart:

- `clip.npz` and one composite image per frame (kind "mesh"),
- one `.obj`, `.ply`, `.glb` or `.gltf` mesh per frame, with its texture or textures (kind "mesh"),
- images alone (kind "images"): composites, or pictures of one camera,
- one video (kind "images"), which may also take the place of the folder.

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
from utils.dataset.mesh_parts import Mesh
from utils.dataset.meshes import MESH_SUFFIXES, check_size, lacks_last_newline, read_mesh, read_texture, scale_to_mm
from utils.dataset.numbering import numbered
from utils.dataset.sequence import WHITE, Geometry, Sequence, Span, Surface
from utils.dataset.videos import VIDEO_SUFFIXES, VideoSequence
from utils.errors import DataError, reading

MIN_FRAMES = 2  # a motion needs two frames
MAX_CLIP = 5000  # frames: 25 seconds at 200 frames per second, 2 GB of views


class ImageSequence(Sequence):
    """Upright images of one size, without a mesh. If they have more than 8 bits, all are scaled to 8 bits alike."""

    _size: tuple[int, int] | None = None  # height and width of the first image that was read

    def texture(self, t: int) -> np.ndarray:
        pixels = read_pixels(self.files[t], upright=True)
        image = pixels if pixels.dtype == np.uint8 else to_8_bits(pixels, self._bits)
        self._size = self._size or image.shape[:2]
        if image.shape[:2] != self._size:
            fault = f"its size {image.shape[:2]} differs from {self._size}"
            raise DataError.at(self.files[t], fault, "export all frames of a sequence at one size")
        return image

    @cached_property
    def _bits(self) -> int:
        """Significant bits of all frames: if each frame had its own scale, the brightness would flicker."""
        return max(significant_bits(read_pixels(file)) for file in self.files)


class ClipSequence(ImageSequence):
    """The compact form: the meshes of all frames in `clip.npz`, with one composite per frame beside it."""

    kind = "mesh"
    constant_topology = True

    def __init__(self, folder: Path, files: list[Path]):
        self._vertices, self._faces, self._uv, fps = read_clip(folder / CLIP, len(files))
        super().__init__(folder, files, fps)

    def geometry(self, t: int) -> Geometry:
        return self._vertices[t], self._faces, self._uv if self._uv.ndim == 2 else self._uv[t]


class MeshSequence(Sequence):
    """One mesh file per frame. The first file gives the scale to millimetres for all (see `scale_to_mm`)."""

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
        """Millimetres per length unit of the files."""
        self._mesh(0)
        return self._scale

    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(warning for mesh in self._meshes.values() for warning in mesh.warnings))

    @cached_property
    def constant_topology(self) -> bool:
        """Whether all frames share one list of faces. Raises DataError for a frame that lacks a part."""
        meshes = [self._mesh(t) for t in range(len(self))]
        counts = [mesh.counts or (len(mesh.vertices), len(mesh.faces)) for mesh in meshes]
        common, n_common = Counter(counts).most_common(1)[0]
        for t, count in enumerate(counts):
            is_less = count != common and all(n <= m for n, m in zip(count, common, strict=True))
            if is_less and n_common * 2 > len(counts):
                majority = f"{n_common} others {common[0]} and {common[-1]}"
                raise self._incomplete(t, f"it has {count[0]} vertices and {count[-1]} faces, {majority}")
        faces, count = meshes[0].faces, len(meshes[0].vertices)
        return all(len(mesh.vertices) == count and np.array_equal(mesh.faces, faces) for mesh in meshes[1:])

    def _mesh(self, t: int) -> Mesh:
        """The mesh of frame t in millimetres, checked against the first frame."""
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
            if first and mesh.counts and mesh.counts[:2] == first.counts[:2] and mesh.counts[2] != first.counts[2]:
                fewer, more = sorted((mesh.counts[2], first.counts[2]))
                fault = f"it has {fewer} faces, and {more} another frame of as many vertices"
                raise self._incomplete(t if mesh.counts[2] == fewer else 0, fault)
            parts = mesh.parts
            if first and len(parts) == len(first.parts):  # frames share equal arrays of faces, which saves memory
                parts = tuple(
                    replace(part, faces=twin.faces) if np.array_equal(part.faces, twin.faces) else part
                    for part, twin in zip(parts, first.parts, strict=True)
                )
            self._meshes[t] = replace(mesh, vertices=vertices, parts=parts)
        return self._meshes[t]

    @cached_property
    def _cut_off(self) -> set[int]:
        """Frames whose text ends within a line, if the text of other frames ends with a whole line."""
        lacking = {t for t, file in enumerate(self.files) if lacks_last_newline(file)}
        return lacking if len(lacking) < len(self) else set()

    def _incomplete(self, t: int, fault: str) -> DataError:
        return DataError.at(self.files[t], f"{fault}: it is not whole", "export or copy this frame again")


def open_sequence(path: str | Path, span: Span | None = None) -> Sequence:
    """Open the frames of one Id: a folder of frames, a folder with one video, or a video.

    span: numbers of the first and the last frame, if the folder or the video is a longer recording. Files that do not
    give their frame rate get FPS.
    Raises DataError for a folder that does not exist, is empty, mixes forms or has one frame only, and for frames
    without a number or with the same number. A fault of a single frame is raised when that frame is read.
    """
    folder = Path(path)
    video = video_of(folder)
    sequence = VideoSequence(video, folder, span) if video else None
    files = sequence.files if sequence else frame_files(folder, span)
    count = len(files)
    if count < MIN_FRAMES:
        fault = f"it holds {count} frame, and motion needs {MIN_FRAMES}"
        raise DataError.at(folder, fault, "deliver all frames of the sequence or drop this Id")
    if count > MAX_CLIP:
        fault = f"it holds {count} frames, and a clip may have {MAX_CLIP}"
        raise DataError.at(folder, fault, "cut the expression out of the recording: cut = true in layout.toml does")
    if sequence:
        return sequence
    if files[0].suffix.lower() in MESH_SUFFIXES:
        return MeshSequence(folder, files, FPS)
    return ClipSequence(folder, files) if (folder / CLIP).exists() else ImageSequence(folder, files, FPS)


def frame_files(folder: Path, span: Span | None = None) -> list[Path]:
    """One file per frame (meshes; images if there are no meshes) in the order of their numbers, within a span."""
    files = numbered_files(folder)
    if span is None:
        return list(files.values())
    if lacking := [number for number in span if number not in files]:
        raise DataError.at(folder, f"it has no frame {lacking[0]}", "correct its table, or deliver this frame")
    return [file for number, file in files.items() if span[0] <= number <= span[1]]


def numbered_files(folder: Path) -> dict[int, Path]:
    """One file per frame (meshes; images if there are no meshes) by its number, in ascending order."""
    files = _files(folder)
    meshes = [file for file in files if file.suffix.lower() in MESH_SUFFIXES]
    forms = {file.suffix.lower() for file in meshes} | {CLIP for file in files if file.name == CLIP}
    if len(forms) > 1:
        raise DataError.at(folder, f"it mixes {' and '.join(sorted(forms))}", "keep one form of the sequence")
    frames = meshes or [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not frames:
        suffixes = ", ".join(MESH_SUFFIXES + IMAGE_SUFFIXES)
        raise DataError.at(folder, "it holds no meshes and no images", f"put {suffixes} frames there, or one video")
    return numbered(frames)


def video_of(path: Path) -> Path | None:
    """The path itself if it is a video, or the one video in a folder; None for a folder without a video."""
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        return path
    files = _files(path)
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    if not videos:
        return None
    frames = [file for file in files if file.suffix.lower() in MESH_SUFFIXES + IMAGE_SUFFIXES or file.name == CLIP]
    if len(videos) + len(frames) > 1:
        twin = (videos[1:] + frames)[0].name
        raise DataError.at(path, f"it holds {videos[0].name} and {twin}", "keep one form of the sequence")
    return videos[0]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError.at(folder, "there is no such folder", "put the frames of this Id there")
    with reading(folder, "the folder", "make it readable"):
        return [file for file in folder.iterdir() if not file.name.startswith(".")]
