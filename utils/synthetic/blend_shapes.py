"""Face models that a user brings: a face at rest and its blend shapes, brought into the place of ours.

A model is a folder of OBJ files of one topology, or a glTF file (`.glb`, `.gltf`) whose meshes have morph targets.
Blend shapes have ARKit's names in any case, with `Left`, `_L` or `.L` for a side and with or without the exporter's
prefix (browDownLeft.obj, browDown_L.obj, blendShape1.browDownLeft); what is missing does not move, and shapes of other
names are not read. In a folder the face at rest has `neutral` in its name. Where there are any, shapes named
identity000, identity001 and so on are other people at rest, which are taken for directions in which faces differ.
ICT-FaceKit (github.com/ICT-VGL/ICT-FaceKit, folder FaceXModel) is such a folder.

Its textures are not used: people are painted by `utils.synthetic.skin`, whose atlas is laid upon the mesh
(`utils.synthetic.registration`). Transparent parts are left out (lashes, the film on the eye), and so are those that
nothing moves (hair, glasses), except eyeballs and teeth.
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
from utils.synthetic.registration import Shapes, carry_over, lay_atlas, onto_ours

STRENGTH = 0.7  # of the directions in which faces differ
# Materials that one looks through, which would be drawn as skin
TRANSPARENT = re.compile(r"lash|lacrimal|cornea|tear|fluid|eye_?(blend|occlusion|shell|shadow)", re.IGNORECASE)
# Parts of the face by two shapes of which, at least, a model is laid upon ours, and an example of each
NEEDED = {"brow": "browDownLeft", "eye": "eyeBlinkLeft", "mouth": "mouthSmileLeft"}
FAINT = 5e-4  # of a model's size, below which a shape moves nothing but by rounding
PERSON = "identity"
AGAIN = "export the face model again"


@dataclass(frozen=True)
class BlendShapes(Surface):
    """A face model in the place of ours, with the uv of our skin's atlas.

    units (52, V, 3) mm in the order of `FaceModel.unit_names`; directions (I, V, 3) mm in which people differ, none
    where the model has one person: then people differ as ours do.
    """

    units: np.ndarray
    directions: np.ndarray

    def sample_identity(self, rng: np.random.Generator) -> Identity:
        """A person drawn at random."""
        ours = sample_identity(rng.spawn(1)[0])
        if len(self.directions):
            strengths = rng.normal(0, STRENGTH, len(self.directions)).astype(np.float32)
            shape = np.tensordot(strengths, self.directions, 1)
        else:
            shape = carry_over(ours.vertices - load_face_model().template, self.template)
        units = self.units * sample_gains(rng)[:, None, None]
        return Identity(self.template + shape - shape.mean(0), units.astype(np.float32), ours.traits)

    @property
    def moving(self) -> set[str]:
        """The names of the units that move anything."""
        return moving_shapes(self.units)

    def arrays(self) -> dict[str, np.ndarray]:
        """The parts by name, as an artefact keeps them; `load_blend_shapes` takes them back."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


@lru_cache(maxsize=1)
def load_blend_shapes(file: Path, changed: int) -> BlendShapes:
    """What `BlendShapes.arrays` gave, from the artefact that holds it; changed: its time, so that none is outdated."""
    return BlendShapes(**read_artefact(file))


# Reading ------------------------------------------------------------------------------------------------------------


def files_of(path: Path) -> list[Path]:
    """The folder or file of a face model, and what else its content lies in: buffers beside a `.gltf`."""
    return [path, *(sorted(path.parent.glob("*.bin")) if path.suffix.lower() == ".gltf" else [])]


def read_blend_shapes(path: Path) -> BlendShapes:
    """The face model of a folder or file, brought to the place, size and extent of ours.

    Raises DataError where a file cannot be read or has another topology, where the face at rest is missing, and for
    shapes by which the model cannot be laid upon ours.
    """
    with threadpool_limits(1):  # small matrices: on busy cores, threads would wait for one another for a minute
        return _blend_shapes(path)


def _blend_shapes(path: Path) -> BlendShapes:
    vertices, faces, named = _read_gltf(path) if path.suffix.lower() in GLTF_SUFFIXES else _read_folder(path)
    model = load_face_model()
    units, size = np.zeros((len(model.shapes), *vertices.shape), np.float32), np.linalg.norm(np.ptp(vertices, axis=0))
    for unit, name in zip(units, model.shape_names, strict=True):
        own, *halves = (plain_name(name + side) for side in ("", *SIDES))
        for shape in [own] if own in named else halves:
            unit += named.get(shape, 0)
        if np.abs(unit).max() < FAINT * size:
            unit[:] = 0
    _check_units(path, [name for name, unit in zip(model.shape_names, units, strict=True) if unit.any()], list(named))
    people = [named[name] for name in sorted(named) if name.startswith(PERSON)]
    directions = np.stack(people) if people else np.zeros((0, *vertices.shape), np.float32)
    shapes, bent = onto_ours(path, Shapes(vertices, faces, units, directions))
    source, uv, corners = lay_atlas(shapes.neutral, shapes.faces, bent)
    weld = np.unique(shapes.neutral, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)
    units, directions = shapes.units[:, source], shapes.directions[:, source]
    return BlendShapes(shapes.neutral[source], corners, uv, weld[source], units, directions)


def _check_units(path: Path, moving: list[str], known: list[str]) -> None:
    """DataError unless the moving units are enough to lay the model upon ours."""
    lacking = [part for part in NEEDED if sum(name.startswith(part) for name in moving) < 2]
    lacking += [side for side in SIDES if not any(name.endswith(side) for name in moving)]
    if lacking:
        fault = f"fewer than two shapes of the {lacking[0]} move anything, by which it would be laid upon our face"
        if lacking[0] in SIDES:
            fault = f"no shape of the {lacking[0].lower()} side moves anything"
        seen = f"; known by name are {', '.join(known[:6])}" if known else ", and no shape has a name of ARKit's"
        raise DataError.at(path, fault + seen, f"name the shapes as ARKit does, such as {', '.join(NEEDED.values())}")


def plain_name(shape: str) -> str:
    """A blend shape's name as all its spellings have it: small letters, no prefix, no number, the side in full."""
    name = re.sub(r"\.\d+$", "", shape.strip())
    side = re.search(r"(?i:[._ -]?(left|right)|[._ -]([lr]))$|(?<=[a-z])([LR])$", name)
    stem = re.split(r"[.:|]", name[: side.start()] if side else name)[-1]
    full = SIDES["lr".index(side[0].lstrip("._ -")[0].lower())] if side else ""
    return re.sub(r"[_ -]", "", stem + full).lower()


@lru_cache(maxsize=1)
def _known_names() -> list[str]:
    """The plain names of all units, and of the halves of those without side; the longest first."""
    names = {plain_name(name + side) for name in load_face_model().shape_names for side in ("", *SIDES)}
    return sorted(names, key=len, reverse=True)


def known_name(shape: str) -> str | None:
    """The plain name of a unit, of its half or of another person that a shape's name ends with; None for another."""
    plain = plain_name(shape)
    if plain.startswith(PERSON):
        return plain
    return next((name for name in _known_names() if plain.endswith(name)), None)


# Folders ------------------------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The OBJ files of a folder as one mesh: vertices (V, 3), faces (F, 3), and the offsets (V, 3) of known shapes."""
    if not folder.is_dir():
        fault = "it is neither a folder of OBJ files nor a .glb or .gltf file"
        raise DataError.at(folder, fault, "name the face model's folder, or its glTF file")
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".obj" and file.name[0] != "."]
    neutral = _at_rest(folder, files)
    vertices, faces = _read_obj(neutral)
    named: dict[str, np.ndarray] = {}
    for file in files:
        name = known_name(file.stem)
        if file == neutral or name is None:
            continue
        moved, own_faces = _read_obj(file)
        if moved.shape != vertices.shape or not np.array_equal(own_faces, faces):
            raise DataError.at(file, f"its faces are not those of {neutral.name}", "export all shapes of one mesh")
        _add(file, named, name, moved - vertices)
    return vertices, faces, named


def _at_rest(folder: Path, files: list[Path]) -> Path:
    """The file of the face at rest."""
    found = [file for file in files if "neutral" in file.stem.lower() and known_name(file.stem) is None]
    exact = [file for file in found if file.stem.lower() == "neutral"] or found
    if not exact:
        raise DataError.at(folder, "no OBJ file has neutral in its name", "name the face at rest neutral.obj")
    if len(exact) > 1:
        names = " and ".join(file.name for file in exact[:2])
        raise DataError.at(folder, f"{names} both have neutral in their names", "name the face at rest neutral.obj")
    return exact[0]


def _read_obj(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (F, 3) of an OBJ file, without what is transparent."""
    with reading(file, "the mesh", AGAIN):
        vertices, faces, material = read_obj_surface(file)
    kept = np.array([not TRANSPARENT.search(name) for name in material], bool)
    if not kept.any():
        raise DataError.at(file, "the mesh is empty", "export it as OBJ again")
    _check_finite(file, vertices)
    return vertices.astype(np.float32), faces[kept].astype(np.int32)


def _add(file: Path, named: dict[str, np.ndarray], name: str, offset: np.ndarray) -> None:
    """Note the offset of a shape. DataError where there is one of that name and both move something."""
    if name in named and named[name].any() and offset.any():
        raise DataError.at(file, f"two shapes are a {name}", "leave one of them")
    if name not in named or offset.any():
        named[name] = offset


def _check_finite(file: Path, numbers: np.ndarray) -> None:
    if not np.isfinite(numbers).all():
        raise DataError.at(file, "a coordinate is no finite number", AGAIN)


# glTF ---------------------------------------------------------------------------------------------------------------


def _read_gltf(file: Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """All meshes of a glTF file as one, as `_read_folder` gives it; a target that several have moves them together."""
    with reading(file, "the face model", AGAIN):
        pieces = read_morph_targets(file)
    if not any(piece.targets for piece in pieces):
        fault = "no mesh in it has morph targets with names"
        raise DataError.at(file, fault, "export the shape keys with their names (mesh.extras.targetNames)")
    pieces = [piece for piece in pieces if not TRANSPARENT.search(piece.name)]
    if not pieces:
        raise DataError.at(file, "all its materials are transparent", "name the face's material skin")
    each: list[dict[str, np.ndarray]] = []
    for piece in pieces:
        each.append({})
        for shape, offset in piece.targets.items():
            if name := known_name(shape):
                _add(file, each[-1], name, offset)
        _check_finite(file, np.concatenate([piece.vertices, *each[-1].values()]))
    still = [np.zeros_like(piece.vertices) for piece in pieces]
    named = {
        name: np.concatenate([own.get(name, zero) for own, zero in zip(each, still, strict=True)]).astype(np.float32)
        for name in sorted({name for own in each for name in own})
    }
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces[:-1])])
    faces = np.concatenate([piece.faces + start for piece, start in zip(pieces, starts, strict=True)])
    vertices = np.concatenate([piece.vertices for piece in pieces])
    return vertices.astype(np.float32), faces.astype(np.int32), named
