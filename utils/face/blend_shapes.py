"""Face models that a user brings: a face at rest and its blend shapes, brought into the place of ours.

A model is a folder of OBJ files of one topology, or a glTF file (`.glb`, `.gltf`) whose mesh has morph targets. Blend
shapes have ARKit's names in any case, with `Left`, `_L` or `_left` for a side and with or without the exporter's prefix
(browDownLeft.obj, browDown_L.obj, blendShape1.browDownLeft); what is missing does not move. In a folder the face at
rest has `neutral` in its name. Where there are any, shapes named identity000, identity001 and so on are other people at
rest, which are taken for directions in which faces differ. ICT-FaceKit (github.com/ICT-VGL/ICT-FaceKit, folder
FaceXModel) is such a folder.

Its textures are not used: people are painted by `utils.face.skin`, whose atlas is laid upon the mesh
(`utils.face.registration`).
"""

import re
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np

from utils.artefacts import read_artefact
from utils.dataset.gltf import MorphTargets, read_morph_targets
from utils.dataset.meshes import GLTF_SUFFIXES
from utils.dataset.reading import DataError, reading
from utils.dataset.wavefront import read_obj
from utils.face.expressions import SIDES
from utils.face.model import Identity, Surface, load_face_model, sample_identity
from utils.face.registration import NEEDED, carry_over, lay_atlas, onto_ours

STRENGTH, GAIN = 0.7, 0.25  # of the directions in which faces differ; log of how far a person's unit goes
# Parts that one looks through, which would be drawn as skin
TRANSPARENT = re.compile(r"lash|lacrimal|occlusion|cornea|eye_?blend|tear|fluid", re.IGNORECASE)
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
        gain = np.exp(rng.normal(0, GAIN, len(self.units))).astype(np.float32)
        return Identity(self.template + shape - shape.mean(0), self.units * gain[:, None, None], ours.traits)

    def arrays(self) -> dict[str, np.ndarray]:
        """The parts by name, as an artefact keeps them; `load_blend_shapes` takes them back."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


@lru_cache(maxsize=1)
def load_blend_shapes(file: Path) -> BlendShapes:
    """What `BlendShapes.arrays` gave, from the artefact that holds it."""
    return BlendShapes(**read_artefact(file))


# Reading ------------------------------------------------------------------------------------------------------------


def read_blend_shapes(path: Path) -> BlendShapes:
    """The face model of a folder or file, brought to the place, size and extent of ours.

    Raises DataError where a file cannot be read or has another topology, where the face at rest is missing, and where
    too few shapes move the parts of NEEDED.
    """
    rest = _read_gltf(path) if path.suffix.lower() in GLTF_SUFFIXES else _read_folder(path)
    targets = {plain_name(name): offset for name, offset in rest.targets.items()}
    model = load_face_model()
    units = np.zeros((len(model.units), *rest.vertices.shape), np.float32)
    for unit, name in zip(units, model.unit_names, strict=True):
        for spelt in _spelt(name, targets):
            unit += targets[spelt]
    moving = [name for name, unit in zip(model.unit_names, units, strict=True) if unit.any()]
    for part, example in NEEDED.items():
        if sum(name.startswith(part) for name in moving) < 2:
            fault = f"fewer than two shapes {part}... move anything, by which it is laid upon our face"
            raise DataError.at(path, fault, f"name its shapes as ARKit does, such as {example}")
    people = [offset for name, offset in sorted(targets.items()) if name.startswith("identity")]
    directions = np.stack(people) if people else np.zeros((0, *rest.vertices.shape), np.float32)
    neutral, kept, units, directions, bent = onto_ours(rest.vertices, rest.faces, units, directions)
    source, uv, faces = lay_atlas(neutral, kept, bent)
    weld = np.unique(neutral, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)
    return BlendShapes(neutral[source], faces, uv, weld[source], units[:, source], directions[:, source])


def plain_name(shape: str) -> str:
    """A blend shape's name as all of its spellings have it: small letters, no prefix, the side in full."""
    name = re.split(r"[.:|]", shape)[-1].lower()
    for side in SIDES:
        if name.endswith(f"_{side[0].lower()}"):
            name = name[:-1] + side.lower()
    return name.replace("_", "").replace(" ", "")


def _spelt(unit: str, shapes: dict[str, np.ndarray]) -> list[str]:
    """The shapes of a unit: its own, else those of its two halves."""
    own, *halves = (plain_name(unit + side) for side in ("", *SIDES))
    return [own] if own in shapes else [name for name in halves if name in shapes]


def _read_folder(folder: Path) -> MorphTargets:
    """The OBJ files of a folder as one mesh, all its materials together, and its targets by name."""
    files = {file.stem.lower(): file for file in sorted(folder.glob("*")) if file.suffix.lower() == ".obj"}
    neutral = next((name for name in files if "neutral" in name), None)
    if neutral is None:
        raise DataError.at(folder, "no OBJ file has neutral in its name", "name the face at rest neutral.obj")
    vertices, faces = _read_obj(files[neutral])
    targets = {}
    for name, file in files.items():
        if name != neutral:
            moved, own_faces = _read_obj(file)
            if moved.shape != vertices.shape or not np.array_equal(own_faces, faces):
                fault = f"its faces are not those of {files[neutral].name}"
                raise DataError.at(file, fault, "export all shapes of one mesh")
            targets[name] = moved - vertices
    return MorphTargets(folder.name, vertices, faces, targets)


def _read_obj(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (F, 3) of an OBJ file, without what is transparent."""
    with reading(file, "the mesh", AGAIN):
        pieces = [piece for piece in read_obj(file)[0] if not TRANSPARENT.search(piece.name)]
    if not pieces:
        raise DataError.at(file, "the mesh is empty", "export it as OBJ again")
    return _joined([piece.vertices for piece in pieces], [piece.faces for piece in pieces])


def _read_gltf(file: Path) -> MorphTargets:
    """All meshes of a glTF file as one; a target that several have moves them together."""
    with reading(file, "the face model", AGAIN):
        pieces = [piece for piece in read_morph_targets(file) if not TRANSPARENT.search(piece.name)]
    if not any(piece.targets for piece in pieces):
        fault = "no mesh in it has morph targets with names"
        raise DataError.at(file, fault, "export the shape keys with their names (mesh.extras.targetNames)")
    still = [np.zeros_like(piece.vertices) for piece in pieces]
    targets = {
        name: np.concatenate([piece.targets.get(name, zero) for piece, zero in zip(pieces, still, strict=True)])
        for name in sorted({name for piece in pieces for name in piece.targets})
    }
    vertices, faces = _joined([piece.vertices for piece in pieces], [piece.faces for piece in pieces])
    return MorphTargets(file.stem, vertices, faces, targets)


def _joined(vertices: list[np.ndarray], faces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Meshes as one: vertices (V, 3) float32, faces (F, 3)."""
    starts = np.cumsum([0, *(len(own) for own in vertices[:-1])])
    together = np.concatenate([own + start for own, start in zip(faces, starts, strict=True)])
    return np.concatenate(vertices).astype(np.float32), together.astype(np.int32)
