"""A user's own face model: a neutral face with blend shapes, read and registered with our face model.

The model is a folder of OBJ files of one topology, or a glTF file (`.glb`, `.gltf`) with morph targets. Blend shapes
have ARKit's names in upper or lower case, with `Left`, `_L` or `.L` for a side, and with or without the exporter's
prefix (browDownLeft.obj, browDown_L.obj, blendShape1.browDownLeft). Blend shapes may be missing; other names are
ignored. In a folder, the file of the neutral face has `neutral` in its name. Files or targets named identity000,
identity001 and so on are neutral faces of other people and show how people differ. ICT-FaceKit
(github.com/ICT-VGL/ICT-FaceKit, folder FaceXModel) is such a folder.

The mesh gets the texture of our skin (`utils.synthetic.registration`), not the model's own. Transparent parts (lashes,
the film on the eye) and parts that no blend shape moves (hair, glasses) are left out, except eyeballs and teeth.
"""

import re
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from utils.artefacts import read_artefact
from utils.dataset.gltf import read_morph_targets
from utils.dataset.meshes import GLTF_SUFFIXES
from utils.dataset.wavefront import read_obj_surface
from utils.errors import DataError, reading
from utils.synthetic.action_units import SIDES
from utils.synthetic.face_model import Identity, Surface, load_face_model, moving_shapes, sample_gains, sample_identity
from utils.synthetic.registration import Shapes, assign_uv, register, transfer, weld

STRENGTH = 0.7  # how strongly a person follows each direction, standard deviation
# Names of transparent materials
TRANSPARENT = re.compile(r"lash|lacrimal|cornea|tear|fluid|eye_?(blend|occlusion|shell|shadow)", re.IGNORECASE)
# Parts of the face, with an example of a blend shape; registration needs two blend shapes of each part
NEEDED = {"brow": "browDownLeft", "eye": "eyeBlinkLeft", "mouth": "mouthSmileLeft"}
FAINT = 5e-4  # of the model's size; a blend shape that moves less moves by rounding errors alone
PERSON = "identity"
AGAIN = "export the face model again"

# Vertices (V, 3), faces (F, 3), and the offsets (V, 3) of each blend shape and person by their plain names
Mesh = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]


@dataclass(frozen=True)
class BlendShapes(Surface):
    """A user's face model in the place and size of ours, with uv into the texture of our skin."""

    offsets: np.ndarray  # (52, V, 3) mm in the order of `FaceModel.shape_names`
    directions: np.ndarray  # (I, V, 3) mm in which people differ; without any, they differ as our people do

    def sample_identity(self, rng: np.random.Generator) -> Identity:
        """A person drawn at random."""
        ours = sample_identity(rng.spawn(1)[0])
        if len(self.directions):
            strengths = rng.normal(0, STRENGTH, len(self.directions)).astype(np.float32)
            change = np.tensordot(strengths, self.directions, 1)
        else:
            change = transfer(ours.vertices - load_face_model().template, self.template)
        offsets = self.offsets * sample_gains(rng)[:, None, None]
        return Identity(self.template + change - change.mean(0), offsets.astype(np.float32), ours.traits)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays as `load_blend_shapes` reads them from an artefact, where the offsets are named `units`."""
        surface = {field.name: getattr(self, field.name) for field in fields(Surface)}
        return surface | {"units": self.offsets, "directions": self.directions}


@lru_cache(maxsize=1)
def load_blend_shapes(file: Path, modified_ns: int) -> BlendShapes:
    """The model of an artefact; modified_ns: the file's time of modification, so that a changed file is read again."""
    arrays = read_artefact(file)
    return BlendShapes(offsets=arrays.pop("units"), **arrays)


def files_of(path: Path) -> list[Path]:
    """The folder or file of a face model, and, for a `.gltf` file, the buffers beside it."""
    return [path, *(sorted(path.parent.glob("*.bin")) if path.suffix.lower() == ".gltf" else [])]


@threadpool_limits.wrap(limits=1)  # the matrices are small: with more threads on busy cores it takes a minute longer
def read_blend_shapes(path: Path) -> BlendShapes:
    """Read the face model of a folder or a glTF file, and register it with ours.

    Raises DataError if a file cannot be read or has another topology, if the neutral face is missing, or if the blend
    shapes do not suffice to register the model.
    """
    vertices, faces, named = _read_gltf(path) if path.suffix.lower() in GLTF_SUFFIXES else _read_folder(path)
    names = load_face_model().shape_names
    offsets, size = np.zeros((len(names), *vertices.shape), np.float32), np.linalg.norm(np.ptp(vertices, axis=0))
    for offset, name in zip(offsets, names, strict=True):
        whole, *halves = (plain_name(name + side) for side in ("", *SIDES))
        for shape in [whole] if whole in named else halves:
            offset += named.get(shape, 0)
        if np.abs(offset).max() < FAINT * size:
            offset[:] = 0
    _check_moving(path, moving_shapes(offsets), list(named))
    people = [named[name] for name in sorted(named) if name.startswith(PERSON)]
    directions = np.stack(people) if people else np.zeros((0, *vertices.shape), np.float32)
    (neutral, faces, offsets, directions), bent = register(path, Shapes(vertices, faces, offsets, directions))
    source, uv, faces = assign_uv(neutral, faces, bent)
    welded = weld(neutral).astype(np.int32)[source]
    return BlendShapes(neutral[source], faces, uv, welded, offsets[:, source], directions[:, source])


def _check_moving(path: Path, moving: set[str], recognised: list[str]) -> None:
    """DataError unless enough blend shapes move to register the model."""
    lacking = [part for part in NEEDED if sum(name.startswith(part) for name in moving) < 2]
    lacking += [side for side in SIDES if not any(name.endswith(side) for name in moving)]
    if lacking:
        fault = f"fewer than two blend shapes of the {lacking[0]} move anything, too few to align it with our face"
        if lacking[0] in SIDES:
            fault = f"no blend shape of the {lacking[0].lower()} side moves anything"
        seen = f"; recognised names are {', '.join(recognised[:6])}" if recognised else "; no name is one of ARKit's"
        remedy = f"name the blend shapes as ARKit does, for example {', '.join(NEEDED.values())}"
        raise DataError.at(path, fault + seen, remedy)


def plain_name(shape: str) -> str:
    """A blend shape's name in one spelling: lower case, without prefix and number, with `left` or `right` in full."""
    name = re.sub(r"\.\d+$", "", shape.strip())
    side = re.search(r"(?i:[._ -]?(left|right)|[._ -]([lr]))$|(?<=[a-z])([LR])$", name)
    stem = re.split(r"[.:|]", name[: side.start()] if side else name)[-1]
    full = SIDES["lr".index(side[0].lstrip("._ -")[0].lower())] if side else ""
    return re.sub(r"[_ -]", "", stem + full).lower()


def known_name(shape: str) -> str | None:
    """The plain name of the blend shape, or of its half, that a name ends with; a person's name; None for any other."""
    plain = plain_name(shape)
    if plain.startswith(PERSON):
        return plain
    names = (plain_name(name + side) for name in load_face_model().shape_names for side in ("", *SIDES))
    return next((name for name in names if plain.endswith(name)), None)


def _add(file: Path, named: dict[str, np.ndarray], name: str, offset: np.ndarray) -> None:
    """Add the offset of a blend shape. DataError if there already is one of this name, and both move something."""
    if name in named and named[name].any() and offset.any():
        raise DataError.at(file, f"two blend shapes are a {name}", "leave one of them")
    if name not in named or offset.any():
        named[name] = offset


def _read_folder(folder: Path) -> Mesh:
    """The OBJ files of a folder as one mesh with offsets."""
    if not folder.is_dir():
        fault = "it is neither a folder of OBJ files nor a .glb or .gltf file"
        raise DataError.at(folder, fault, "give the face model's folder, or its glTF file")
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".obj" and file.name[0] != "."]
    neutral = _neutral_of(folder, files)
    vertices, faces = _read_obj(neutral)
    named: dict[str, np.ndarray] = {}
    for file in files:
        name = known_name(file.stem)
        if file == neutral or name is None:
            continue
        moved, moved_faces = _read_obj(file)
        if moved.shape != vertices.shape or not np.array_equal(moved_faces, faces):
            raise DataError.at(file, f"its faces are not those of {neutral.name}", "export all shapes of one mesh")
        _add(file, named, name, moved - vertices)
    return vertices, faces, named


def _neutral_of(folder: Path, files: list[Path]) -> Path:
    """The file of the neutral face: neutral.obj, or else the only one with `neutral` in its name."""
    candidates = [file for file in files if "neutral" in file.stem.lower() and known_name(file.stem) is None]
    candidates = [file for file in candidates if file.stem.lower() == "neutral"] or candidates
    if len(candidates) == 1:
        return candidates[0]
    fault = "no OBJ file has neutral in its name"
    if candidates:
        fault = f"{' and '.join(file.name for file in candidates[:2])} both have neutral in their names"
    raise DataError.at(folder, fault, "name the file of the neutral face neutral.obj")


def _read_obj(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (F, 3) of an OBJ file, without its transparent parts."""
    with reading(file, "the mesh", AGAIN):
        vertices, faces, material = read_obj_surface(file)
    kept = np.array([not TRANSPARENT.search(name) for name in material], bool)
    if not kept.any():
        raise DataError.at(file, "the mesh is empty", "export it as OBJ again")
    if not np.isfinite(vertices).all():
        raise DataError.at(file, "a coordinate is no finite number", AGAIN)
    return vertices.astype(np.float32), faces[kept].astype(np.int32)


def _read_gltf(file: Path) -> Mesh:
    """All meshes of a glTF file as one mesh with offsets; morph targets of one name move their meshes together."""
    with reading(file, "the face model", AGAIN):
        pieces = read_morph_targets(file)
    if not any(piece.targets for piece in pieces):
        fault = "no mesh in it has morph targets with names"
        raise DataError.at(file, fault, "export the shape keys with their names (mesh.extras.targetNames)")
    pieces = [piece for piece in pieces if not TRANSPARENT.search(piece.name)]
    if not pieces:
        raise DataError.at(file, "all its materials are transparent", "name the face's material skin")
    vertices = np.concatenate([piece.vertices for piece in pieces]).astype(np.float32)
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces[:-1])])
    faces = np.concatenate([piece.faces + start for piece, start in zip(pieces, starts, strict=True)])
    named: dict[str, np.ndarray] = {}
    for piece, start in zip(pieces, starts, strict=True):
        of_piece: dict[str, np.ndarray] = {}
        for shape, offset in piece.targets.items():
            if name := known_name(shape):
                _add(file, of_piece, name, offset)
        for name, offset in of_piece.items():
            named.setdefault(name, np.zeros_like(vertices))[start : start + len(offset)] = offset
    if not all(np.isfinite(numbers).all() for numbers in (vertices, *named.values())):
        raise DataError.at(file, "a coordinate is no finite number", AGAIN)
    return vertices, faces.astype(np.int32), named
