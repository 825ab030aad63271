"""Reads and writes the challenge's data root: sequences of meshes or composite images, and the tables.

```
<DATA>/train/<Id>/...   test/<Id>/...   train.csv   sample_submission.csv   [solution.csv]
```
A folder `<Id>/` holds one of three things, told apart by what lies in it:

- `clip.npz` and one composite image per frame beside it (kind "mesh"),
- one `.obj`, `.ply` or `.glb` mesh per frame, each with its texture (kind "mesh"),
- composite images only (kind "composite").

A composite is an image of two camera views side by side. Frames are ordered by the last number in the
file's stem. Everything that is wrong with the files is raised as `DataError`, naming the file and the
remedy.

Units and axes: vertices (V, 3) float32 in millimetres, x to the viewer's right, y up, z towards the viewer;
faces (F, 3) int32; uv (V, 2) float32 as in OBJ files, u right, v up from the lower left; textures (H, W, 3)
uint8 RGB.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from utils.artefacts import atomic_path

CLIP = "clip.npz"
MESH_SUFFIXES = (".obj", ".ply", ".glb")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
PHASE_COLUMNS = ("onset", "apex", "offset")
FPS = 60.0  # of 4DME, where the files do not say
MIN_FRAMES = 2  # a motion needs two frames

# A face measures 100 to 1000 mm across its bounding box. Mesh files carry no unit, so a first frame whose
# diagonal lies below the first number is taken for metres (as glTF prescribes) or centimetres, and scaled
# to millimetres.
UNITS = ((1.0, 1000.0), (60.0, 10.0))


class DataError(ValueError):
    """The data on disk is not what it should be; the message names the file and the remedy."""

    @classmethod
    def at(cls, where: object, fault: str, remedy: str) -> "DataError":
        """The error with its message in the one form that all of them have."""
        return cls(f"{where}: {fault}. Remedy: {remedy}.")


# Sequences ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """One moment of a sequence; the mesh is None where there are only composite images."""

    vertices: np.ndarray | None  # (V, 3) float32, millimetres
    faces: np.ndarray | None  # (F, 3) int32
    uv: np.ndarray | None  # (V, 2) float32, v up
    texture: np.ndarray  # (H, W, 3) uint8 RGB


Geometry = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


class Sequence:
    """The frames of one Id, read when asked for. `len(sequence)` is the number of frames.

    Textures are read anew each time, so that memory stays flat; meshes (100 times smaller) are kept after
    the first reading, until the sequence is let go.
    """

    kind: str  # "mesh" or "composite"
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
        """The texture, or the composite, of frame t: (H, W, 3) uint8 RGB."""
        raise NotImplementedError

    def vertices(self) -> np.ndarray:
        """All vertices, (T, V, 3) float32, millimetres. Raises DataError without constant topology."""
        if not self.constant_topology:
            raise DataError.at(self.folder, "the frames do not share one mesh", "use the frames one by one")
        return np.stack([self.geometry(t)[0] for t in range(len(self))])


class CompositeSequence(Sequence):
    """Composite images without a mesh, all of one size."""

    kind = "composite"
    constant_topology = False
    _size: tuple[int, int] | None = None  # height and width of the first frame read

    def geometry(self, t: int) -> Geometry:
        return None, None, None

    def texture(self, t: int) -> np.ndarray:
        image = read_image(self.files[t])
        check_composite(image, self.files[t])
        self._size = self._size or image.shape[:2]
        if image.shape[:2] != self._size:
            raise DataError.at(
                self.files[t],
                f"its size {image.shape[:2]} differs from {self._size}",
                "export all frames of a sequence at one size",
            )
        return image


class ClipSequence(CompositeSequence):
    """The compact form: the meshes of all frames in `clip.npz`, the composites beside it."""

    kind = "mesh"
    constant_topology = True

    def __init__(self, folder: Path, files: list[Path]):
        self._vertices, self._faces, self._uv, fps = _read_clip(folder / CLIP, len(files))
        super().__init__(folder, files, fps)

    def geometry(self, t: int) -> Geometry:
        return self._vertices[t], self._faces, self._uv if self._uv.ndim == 2 else self._uv[t]

    def vertices(self) -> np.ndarray:
        return self._vertices


class MeshSequence(Sequence):
    """One mesh file per frame, scaled to millimetres by the size of the first (see UNITS)."""

    kind = "mesh"

    def __init__(self, folder: Path, files: list[Path], fps: float):
        super().__init__(folder, files, fps)
        self._meshes: dict[int, Geometry] = {}

    def geometry(self, t: int) -> Geometry:
        t = range(len(self))[t]
        if t not in self._meshes:
            vertices, faces, uv = _read_mesh(self.files[t])
            if t == 0:
                self._scale = _scale_to_mm(vertices)
            elif np.array_equal(faces, self.geometry(0)[1]):
                faces = self.geometry(0)[1]  # one array for all frames
            self._meshes[t] = (vertices * self._scale).astype(np.float32), faces, uv.astype(np.float32)
        return self._meshes[t]

    def texture(self, t: int) -> np.ndarray:
        return _read_texture(self.files[t])

    @cached_property
    def constant_topology(self) -> bool:
        vertices, faces, _ = self.geometry(0)
        others = (self.geometry(t) for t in range(1, len(self)))
        return all(len(other[0]) == len(vertices) and np.array_equal(other[1], faces) for other in others)


def open_sequence(path: str | Path, fps: float = FPS) -> Sequence:
    """Open the folder of one Id; `fps` counts where the files do not say.

    Raises DataError for a folder that is missing, empty, mixes kinds, has one frame only, or frames without
    a number or with the same one. What is wrong with a single frame is raised when that frame is read.
    """
    folder = Path(path)
    files = _frame_files(folder)
    if len(files) < MIN_FRAMES:
        raise DataError.at(
            folder,
            f"it holds {len(files)} frame, and motion needs {MIN_FRAMES}",
            "deliver all frames of the sequence or drop this Id",
        )
    if files[0].suffix.lower() in MESH_SUFFIXES:
        return MeshSequence(folder, files, fps)
    if (folder / CLIP).exists():
        return ClipSequence(folder, files)
    return CompositeSequence(folder, files, fps)


def _frame_files(folder: Path) -> list[Path]:
    """The one file per frame that counts (mesh files, else images), in the order of their numbers."""
    if not folder.is_dir():
        raise DataError.at(folder, "there is no such folder", "put the frames of this Id there")
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    meshes = [file for file in files if file.suffix.lower() in MESH_SUFFIXES]
    kinds = {file.suffix.lower() for file in meshes} | {CLIP for file in files if file.name == CLIP}
    if len(kinds) > 1:
        raise DataError.at(folder, f"it mixes {' and '.join(sorted(kinds))}", "keep one form of the sequence")
    frames = meshes or [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not frames:
        raise DataError.at(
            folder, "it holds no meshes and no images", f"put {', '.join(MESH_SUFFIXES + IMAGE_SUFFIXES)} frames there"
        )
    return _in_order(frames)


def _in_order(files: list[Path]) -> list[Path]:
    """Sort by the last number in the stem: frame_2 comes before frame_10."""
    numbered: dict[int, Path] = {}
    for file in files:
        digits = re.findall(r"\d+", file.stem)
        if not digits:
            raise DataError.at(file, "its name carries no frame number", "name frames like frame_0001")
        twin = numbered.setdefault(int(digits[-1]), file)
        if twin != file:
            raise DataError.at(file, f"it has the frame number of {twin.name}", "keep one file per frame")
    return [numbered[number] for number in sorted(numbered)]


# Reading one file ---------------------------------------------------------------------------------


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB. Raises DataError if it is missing, cut off or no image.

    By Pillow, since OpenCV returns a grey remainder for half a JPEG and no error.
    """
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError.at(path, f"the image cannot be read ({error})", "deliver this file again") from error


def check_composite(image: np.ndarray, path: str | Path) -> None:
    """Raise DataError if the image (H, W, 3) cannot be cut into two halves of one width."""
    if image.shape[1] % 2:
        raise DataError.at(
            path, f"a composite has two halves, and its width {image.shape[1]} is odd", "export both views at one width"
        )


def _read_clip(path: Path, n_images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            vertices, faces, uv = arrays["vertices"], arrays["faces"], arrays["uv"]
            fps = float(arrays["fps"]) if "fps" in arrays else FPS
    except Exception as error:  # zip, header and key errors differ by the damage
        raise DataError.at(path, f"the clip cannot be read ({error})", "write it again with write_clip") from error
    shapes = f"vertices {vertices.shape}, faces {faces.shape}, uv {uv.shape}"
    if vertices.ndim != 3 or uv.ndim not in (2, 3) or (uv.ndim == 3 and len(uv) != len(vertices)):
        raise DataError.at(path, f"the arrays have the shapes {shapes}", "write vertices (T, V, 3) and uv (V, 2)")
    if len(vertices) != n_images:
        raise DataError.at(
            path,
            f"it has {len(vertices)} frames, and {n_images} images lie beside it",
            "put one composite per frame there",
        )
    vertices, uv = vertices.astype(np.float32, copy=False), uv.astype(np.float32, copy=False)
    _check_mesh(path, vertices[0], faces, uv if uv.ndim == 2 else uv[0])
    if not (np.isfinite(vertices).all() and np.isfinite(uv).all()):
        raise DataError.at(path, "vertices or uv are not finite in some frame", "repair or drop this sequence")
    return vertices, faces.astype(np.int32, copy=False), uv, fps


def _read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces and uv of a mesh file; a vertex with several uv is doubled, so that each has one.

    Several parts in one file are joined. Vertices keep the file's order, so that they correspond over the
    frames as long as the files do.
    """
    import trimesh

    try:
        scene = trimesh.load_scene(path, process=False, skip_materials=path.suffix.lower() != ".glb")
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh)]
    except Exception as error:  # the loaders raise whatever the damage leads to
        raise DataError.at(path, f"the mesh cannot be read ({error})", "export this frame again") from error
    if not parts:
        raise DataError.at(path, "the mesh is empty", "export this frame again")
    if any(getattr(part.visual, "uv", None) is None for part in parts):
        raise DataError.at(path, "the mesh has no texture coordinates", "export it with UVs")
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    uv = np.concatenate([part.visual.uv for part in parts])[:, :2]
    _check_mesh(path, vertices, faces, uv)
    return vertices, faces.astype(np.int32), uv


def _check_mesh(path: Path, vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> None:
    if len(vertices) == 0 or len(faces) == 0:
        raise DataError.at(path, "the mesh is empty", "export this frame again")
    if vertices.shape[1:] != (3,) or faces.shape[1:] != (3,) or uv.shape != (len(vertices), 2):
        shapes = f"vertices {vertices.shape}, faces {faces.shape}, uv {uv.shape}"
        raise DataError.at(path, f"the arrays have the shapes {shapes}", "export triangles with one uv per vertex")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise DataError.at(path, f"its faces name vertices beyond the {len(vertices)} there are", "export it again")
    bad = ~np.isfinite(vertices).all(axis=1)
    if bad.any():
        raise DataError.at(
            path, f"{bad.sum()} vertices are NaN or infinite, the first is {bad.argmax()}", "repair or drop this frame"
        )
    if not np.isfinite(uv).all():
        raise DataError.at(path, "some texture coordinates are NaN or infinite", "repair or drop this frame")


def _scale_to_mm(vertices: np.ndarray) -> float:
    diagonal = np.linalg.norm(np.ptp(vertices, axis=0))
    return next((factor for limit, factor in UNITS if diagonal < limit), 1.0)


def _read_texture(path: Path) -> np.ndarray:
    """The texture of a mesh file: what it embeds or names, else the image of the same stem beside it."""
    if path.suffix.lower() == ".glb":
        embedded = _embedded_image(path)
        if embedded is not None:
            return embedded
    named = _named_images(path)
    if len(named) > 1:
        raise DataError.at(path, f"it uses several textures ({', '.join(named)})", "bake them into one image")
    # Scanners write absolute paths of their own machine into the material: the file's name is what counts.
    candidates = [path.parent / name for name in named]
    candidates += [path.parent / PureWindowsPath(name).name for name in named]
    candidates += [path.with_suffix(suffix) for suffix in IMAGE_SUFFIXES]
    for candidate in candidates:
        if candidate.is_file():
            return read_image(candidate)
    missing = f" (the file names {named[0]})" if named else ""
    raise DataError.at(
        path,
        f"its texture is missing{missing}",
        f"put the image beside it, as {named[0] if named else path.stem + '.png'}",
    )


def _named_images(path: Path) -> list[str]:
    """Names of the images that an OBJ's material library or a PLY's header give."""
    if path.suffix.lower() == ".ply":
        header = path.read_bytes().split(b"end_header", 1)[0].decode("utf-8", "replace")
        return _named(header, r"comment\s+texturefile")
    if path.suffix.lower() == ".obj":
        libraries = _named(path.read_text(encoding="utf-8", errors="replace"), "mtllib")
        files = [path.parent / PureWindowsPath(name).name for name in libraries]
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
        return _named("\n".join(texts), "map_kd")
    return []


def _named(text: str, keyword: str) -> list[str]:
    """What stands after a keyword that begins a line, without repetitions."""
    names = re.findall(rf"^\s*{keyword}\s+(.+?)\s*$", text, flags=re.MULTILINE | re.IGNORECASE)
    return list(dict.fromkeys(names))


def _embedded_image(path: Path) -> np.ndarray | None:
    import trimesh

    try:
        parts = trimesh.load_scene(path, process=False).geometry.values()
        materials = [getattr(part.visual, "material", None) for part in parts]
        images = [getattr(material, "baseColorTexture", None) for material in materials]
        return next((np.array(image.convert("RGB")) for image in images if image is not None), None)
    except Exception as error:  # as for meshes: the loaders raise whatever the damage leads to
        raise DataError.at(path, f"its texture cannot be read ({error})", "export this frame again") from error


# Writing ------------------------------------------------------------------------------------------


def write_clip(
    folder: str | Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray,
    fps: float,
    textures: Iterable[np.ndarray],
    suffix: str = ".png",
) -> Path:
    """Write a sequence in the compact form; an existing folder is replaced when the new one is complete.

    vertices (T, V, 3) millimetres; faces (F, 3); uv (V, 2) or (T, V, 2); textures: T composites (H, W, 3)
    uint8 RGB, an iterator will do; suffix: image format, ".jpg" (quality 95) loses what 2 grey levels of
    noise would hide.
    """
    folder = Path(folder)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        np.savez(
            temporary / CLIP,
            allow_pickle=False,
            vertices=np.asarray(vertices, np.float32),
            faces=np.asarray(faces, np.int32),
            uv=np.asarray(uv, np.float32),
            fps=np.float32(fps),
        )
        for t, texture in enumerate(textures):
            write_image(temporary / f"frame_{t:04d}{suffix}", texture)
        open_sequence(temporary)  # what cannot be read again is not worth keeping
    return folder


def write_obj_sequence(sequence: Sequence, folder: str | Path) -> Path:
    """Write a mesh sequence as OBJ, MTL and PNG per frame; a complete folder then replaces an existing one.

    Nine significant digits hold float32 exactly, so that what is read again renders the same pixels.
    """
    folder = Path(folder)
    if sequence.kind != "mesh":
        raise DataError.at(sequence.folder, "it has no meshes to write", "choose a mesh sequence")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for t, frame in enumerate(sequence):
            _write_obj(temporary / f"frame_{t:04d}.obj", frame)
    return folder


def _write_obj(path: Path, frame: Frame) -> None:
    texture, material = path.with_suffix(".png"), path.with_suffix(".mtl")
    write_image(texture, frame.texture)
    material.write_text(f"newmtl skin\nKd 1 1 1\nmap_Kd {texture.name}\n", encoding="utf-8")
    corners = np.repeat(frame.faces + 1, 2, axis=1)  # vertex and uv share one number
    with path.open("w", encoding="utf-8") as handle:
        handle.write(f"mtllib {material.name}\n")
        np.savetxt(handle, frame.vertices, "v %.9g %.9g %.9g")
        np.savetxt(handle, frame.uv, "vt %.9g %.9g")
        handle.write("usemtl skin\n")
        np.savetxt(handle, corners, "f %d/%d %d/%d %d/%d")


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the suffix: PNG packed for speed, JPEG at quality 95.

    Sensor noise does not compress: without the search for repetitions a PNG is written in half the time, and smaller.
    """
    packing = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    is_jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if is_jpeg else packing if Path(path).suffix.lower() == ".png" else []
    if not cv2.imwrite(str(path), cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR), options):
        raise DataError.at(path, "the image cannot be written", "check the folder and the space on the disk")


# Tables -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataRoot:
    """A checked data root: the training table, the test Ids, and where the sequences lie."""

    root: Path
    classes: tuple[str, ...]
    train: pd.DataFrame  # Id, subject, one column per class, and onset, apex, offset where known
    sample_submission: pd.DataFrame
    warnings: tuple[str, ...]  # test clips without a folder; they get the training prior

    @property
    def test_ids(self) -> list[str]:
        return self.sample_submission["Id"].tolist()

    @property
    def solution(self) -> Path | None:
        """`solution.csv`, which comes with synthetic data only, for the local leaderboard alone."""
        path = self.root / "solution.csv"
        return path if path.exists() else None

    def folder(self, split: str, id: str) -> Path:
        """Folder of an Id in the split "train" or "test"."""
        return self.root / split / id

    def sequence(self, split: str, id: str) -> Sequence:
        """Open one Id of the split "train" or "test"."""
        return open_sequence(self.folder(split, id))


def open_data(data_root: str | Path, classes: Iterable[str], subject_pattern: str | None = None) -> DataRoot:
    """Read and check the tables of a data root against its folders.

    Raises DataError for what `load_labels` and `load_sample_submission` refuse, for a training Id without
    folder, a folder without row, phases beyond a sequence's end, and a test split without any folder. A
    single test Id without folder is a warning, because its row of the submission can still be filled with
    the training prior.
    """
    root, classes = Path(data_root), tuple(classes)
    train = load_labels(root, classes, subject_pattern)
    sample = load_sample_submission(root, classes)
    missing = _match_folders(root / "train", train["Id"], root / "train.csv")
    if missing:
        raise DataError.at(
            root / "train.csv",
            f"Id {missing[0]} has no folder {root / 'train' / missing[0]}",
            "deliver the sequence or remove the row",
        )
    missing = _match_folders(root / "test", sample["Id"], root / "sample_submission.csv")
    if len(missing) == len(sample):
        raise DataError.at(root / "test", "no test Id has a folder here", "check the data root")
    _check_phase_range(root, train)
    warnings = tuple(f"test/{id}: there is no such folder, so it gets the training prior." for id in missing)
    return DataRoot(root, classes, train, sample, warnings)


def load_labels(
    data_root: str | Path, classes: Iterable[str], subject_pattern: str | None = None, file_name: str = "train.csv"
) -> pd.DataFrame:
    """Read `train.csv`: Id, subject (texts), classes (int8, 0/1), and onset, apex, offset (Int64) if known.

    `solution.csv` of synthetic data has the same form, and is read by `file_name="solution.csv"`.

    subject_pattern: a regular expression with one group, searched in the Id, that gives the subject where
        the table does not, such as `r"^(s\\d+)_"`.

    Raises DataError for missing columns, repeated Ids, labels other than 0/1, no subject, phases out of
    order.
    """
    path, classes = Path(data_root) / file_name, list(classes)
    table = read_table(path, ["Id", *classes])
    _fill_subjects(path, table, subject_pattern)
    for name in classes:
        table[name] = as_binary(path, table, name)
    phases = [name for name in PHASE_COLUMNS if name in table]
    for name in phases:
        table[name] = _as_position(path, table, name)
    for first, second in combinations(phases, 2):  # any of the three may be unknown
        wrong = (table[first] > table[second]).fillna(False)
        if wrong.any():
            raise DataError.at(
                path, f"Id {_first_id(table, wrong)} has its {first} after its {second}", "correct the frame positions"
            )
    return table[["Id", "subject", *classes, *phases]]


def load_sample_submission(data_root: str | Path, classes: Iterable[str]) -> pd.DataFrame:
    """Read `sample_submission.csv`, Id as text, columns and rows in the order of the file.

    Raises DataError if its columns are not exactly Id and the classes, or if an Id stands there twice.
    """
    path, expected = Path(data_root) / "sample_submission.csv", ["Id", *classes]
    table = read_table(path, expected)
    extra = [name for name in table if name not in expected]
    if extra:
        raise DataError.at(path, f"its column {extra[0]} is not a class", f"keep the columns {', '.join(expected)}")
    return table


def read_table(path: Path, required: list[str]) -> pd.DataFrame:
    """A CSV as texts, with its required columns present and its Ids unique and fit for folder names."""
    if not path.is_file():
        raise DataError.at(path, "there is no such table", "put it there, or correct the path of the data root")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError.at(
            path, f"the table cannot be read ({error})", "deliver it as comma-separated UTF-8"
        ) from error
    table.columns = table.columns.str.strip()
    missing = [name for name in required if name not in table]
    if missing:
        raise DataError.at(
            path, f"the column {', '.join(missing)} is missing", f"give the columns {', '.join(required)}"
        )
    if table.empty:
        raise DataError.at(path, "the table has no rows", "give one row per Id")
    table["Id"] = table["Id"].str.strip()
    repeated = table["Id"].duplicated()
    if repeated.any():
        raise DataError.at(path, f"Id {_first_id(table, repeated)} stands there twice", "keep one row per Id")
    unfit = ~table["Id"].str.fullmatch(r"[^/\\]+") | table["Id"].isin([".", ".."])
    if unfit.any():
        raise DataError.at(path, f"Id {_first_id(table, unfit)!r} is not the name of a folder", "correct the Id")
    return table


def _fill_subjects(path: Path, table: pd.DataFrame, pattern: str | None) -> None:
    if "subject" not in table:
        table["subject"] = ""
    table["subject"] = table["subject"].str.strip()
    empty = table["subject"] == ""
    if empty.any() and pattern:
        _check_pattern(pattern)
        table.loc[empty, "subject"] = table.loc[empty, "Id"].str.extract(pattern, expand=False).fillna("")
        empty = table["subject"] == ""
    if empty.any():
        raise DataError.at(
            path,
            f"Id {_first_id(table, empty)} has no subject, and splits are by subject",
            "add a subject column, or a subject pattern that fits every Id",
        )


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise DataError.at(
            f"subject pattern {pattern!r}", f"it is no regular expression ({error})", "correct it"
        ) from error
    if groups != 1:
        raise DataError.at(f"subject pattern {pattern!r}", f"it has {groups} groups", "put one pair of brackets in it")


def as_binary(path: Path, table: pd.DataFrame, name: str) -> pd.Series:
    numbers = pd.to_numeric(table[name], errors="coerce")
    wrong = ~numbers.isin([0, 1])
    if wrong.any():
        raise DataError.at(
            path, f"Id {_first_id(table, wrong)} has {name} = {table[name][wrong].iloc[0]!r}", "labels are 0 or 1"
        )
    return numbers.astype(np.int8)


def _as_position(path: Path, table: pd.DataFrame, name: str) -> pd.Series:
    """Frame positions as nullable integers; an empty cell is an unknown position."""
    text = table[name].str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    wrong = (text != "") & ~((numbers >= 0) & (numbers % 1 == 0))
    if wrong.any():
        raise DataError.at(
            path,
            f"Id {_first_id(table, wrong)} has {name} = {text[wrong].iloc[0]!r}",
            "give frame positions from 0, or leave the cell empty",
        )
    return numbers.astype("Int64")


def _first_id(table: pd.DataFrame, where: pd.Series) -> str:
    return table["Id"][where].iloc[0]


def _match_folders(folder: Path, ids: pd.Series, table: Path) -> list[str]:
    """The Ids without a folder. Raises DataError for a folder without Id."""
    present = {entry.name for entry in folder.iterdir() if entry.is_dir()} if folder.is_dir() else set()
    unknown = sorted(name for name in present - set(ids) if not name.startswith("."))
    if unknown:
        raise DataError.at(folder / unknown[0], f"{table.name} has no row for it", "add the row or remove the folder")
    return [id for id in ids if id not in present]


def _check_phase_range(root: Path, train: pd.DataFrame) -> None:
    phases = [name for name in PHASE_COLUMNS if name in train]
    if not phases:
        return
    last = train[phases].max(axis=1)
    for id, position in zip(train["Id"], last, strict=True):
        if not pd.isna(position) and position >= (frames := len(_frame_files(root / "train" / id))):
            raise DataError.at(
                root / "train.csv",
                f"Id {id} names frame {position} of {frames}",
                "count frame positions from 0 within the sequence",
            )
