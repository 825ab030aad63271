"""The face model: the mesh of a face, its 52 blend shapes, and people drawn at random.

Vertices are in millimetres: x to the viewer's right (the subject's left), y up, z towards the viewer. Blend shapes have
ARKit's names and come from CC0 sources (see `utils.lab.build_face_model`). The offset of a blend shape is the
displacement of each vertex at full contraction, about ten times as much as in a micro-expression.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import sparse

from utils.paths import data_file
from utils.synthetic.expressions import without_side

ASSET = data_file("assets/face_model.npz")
QUANTUM = 0.01  # millimetres per step of the stored int16 offsets
ANCESTRIES, SEXES, AGES = ("african", "asian", "caucasian"), ("female", "male"), ("young", "old")
BODY_WEIGHTS = ("minweight", "averageweight", "maxweight")
MEAN_TRAITS = dict.fromkeys(ANCESTRIES, 1 / 3) | {"male": 0.5, "age": 0.3, "weight": 0.5}
SKIN, MOUTH_CAVITY, SOCKETS = 0, 1, (2, 3)  # texture islands


@dataclass(frozen=True)
class Surface:
    """The mesh of a face model, ready to be painted (`utils.synthetic.skin`) and photographed."""

    template: np.ndarray  # (V, 3) float32, the mean face, mm
    faces: np.ndarray  # (F, 3) int32
    uv: np.ndarray  # (V, 2) float32 into the albedo texture, v up
    weld: np.ndarray  # (V,) int32, the same number for vertices at the same place: the surface without texture seams

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Normals (..., V, 3) of length 1 at vertices (..., V, 3), smooth across texture seams."""
        a, b, c = (vertices[..., self.faces[:, i], :] for i in range(3))
        of_faces = np.cross(b - a, c - a)  # the length is twice the area, so large faces count more
        flat = of_faces.reshape(-1, len(self.faces), 3)
        welded = np.stack([self._welded_incidence @ frame for frame in flat])[:, self.weld]
        welded /= np.linalg.norm(welded, axis=-1, keepdims=True) + 1e-9
        return welded.reshape(vertices.shape)

    @cached_property
    def _welded_incidence(self) -> sparse.csr_array:
        """Matrix (welded vertices, F) that adds up the faces at each welded vertex."""
        rows = self.weld[self.faces].ravel()
        columns = np.repeat(np.arange(len(self.faces)), 3)
        shape = (self.weld.max() + 1, len(self.faces))
        return sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)


@dataclass(frozen=True)
class FaceModel(Surface):
    """Our face model; the offsets of its dictionaries are (V, 3) float32 mm."""

    island: np.ndarray  # (V,) uint8, the texture island of each vertex
    eyes: tuple[int, int]  # the islands of the eyeballs' front halves
    masks: dict[str, np.ndarray]  # name -> (V,) float32 in 0..1: lips, eyelids, ears, inside-mouth
    shapes: dict[str, np.ndarray]  # blend shape -> offsets
    macro: dict[str, np.ndarray]  # ancestry-sex-age or sex-age-weight -> offsets
    local: dict[str, np.ndarray]  # local change of the face's form -> offsets at full strength

    @property
    def shape_names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    @property
    def shape_index(self) -> dict[str, int]:
        """Position of each blend shape among the 52."""
        return {name: i for i, name in enumerate(self.shapes)}


@dataclass(frozen=True)
class Identity:
    """One person: the neutral face, how far the person's blend shapes move it, and the person's traits."""

    vertices: np.ndarray  # (V, 3) float32 mm, centred on the head
    shape_offsets: np.ndarray  # (52, V, 3) float32 mm, in the order of `FaceModel.shape_names`
    traits: dict[str, float]  # african, asian, caucasian, male, age, weight: 0..1

    @property
    def shape_travel(self) -> np.ndarray:
        """The largest displacement of any vertex by each blend shape at full contraction, (52,) float32 mm."""
        return np.linalg.norm(self.shape_offsets, axis=2).max(1)

    @property
    def moving(self) -> set[str]:
        """The names of the blend shapes that move this face; a user's face model may lack some of the 52."""
        return moving_shapes(self.shape_offsets)


@lru_cache(maxsize=1)
def load_face_model() -> FaceModel:
    """The face model from the asset file of this package (0.6 MB). Each process reads it once."""
    with np.load(ASSET) as asset:
        uv_faces, faces = asset["uv_faces"].astype(np.int32), asset["faces"].astype(np.int32)
        weld = np.zeros(len(asset["uv"]), np.int32)
        weld[uv_faces.ravel()] = faces.ravel()

        def offsets_of(group: str) -> dict[str, np.ndarray]:
            offsets = asset[f"{group}_offsets"].astype(np.float32) * QUANTUM
            return dict(zip(asset[f"{group}_names"].tolist(), offsets[:, weld], strict=True))

        template = asset["template"][weld]
        model = FaceModel(
            template=template,
            faces=uv_faces,
            uv=asset["uv"],
            island=asset["uv_island"],
            eyes=tuple(asset["eye_islands"].tolist()),
            masks=dict(zip(asset["mask_names"].tolist(), asset["uv_masks"] / np.float32(255), strict=True)),
            shapes=offsets_of("unit"),
            macro=offsets_of("macro"),
            local=offsets_of("local"),
            weld=weld,
        )
    mean = with_macros(model, MEAN_TRAITS)
    template[:] = mean - mean.mean(0)
    return model


def with_macros(model: FaceModel, traits: dict[str, float]) -> np.ndarray:
    """The template (V, 3) with the macro offsets of these traits added: MakeHuman's products of linear interpolations.

    The loaded template already contains the offsets of MEAN_TRAITS, so use the difference of two results.
    """
    sex = dict(zip(SEXES, (1 - traits["male"], traits["male"]), strict=True))
    age = dict(zip(AGES, (1 - traits["age"], traits["age"]), strict=True))
    heavy = 2 * traits["weight"] - 1
    weight = dict(zip(BODY_WEIGHTS, (max(-heavy, 0), 1 - abs(heavy), max(heavy, 0)), strict=True))
    face = model.template.copy()
    for s in SEXES:
        for g in AGES:
            for a in ANCESTRIES:
                face += traits[a] * sex[s] * age[g] * model.macro[f"{a}-{s}-{g}"]
            for w in BODY_WEIGHTS:
                face += sex[s] * age[g] * weight[w] * model.macro[f"{s}-{g}-{w}"]
    return face


def sample_identity(rng: np.random.Generator) -> Identity:
    """A person drawn at random: traits, then local changes of the face, which are nearly symmetric."""
    model = load_face_model()
    traits = dict(zip(ANCESTRIES, rng.dirichlet([0.5] * 3), strict=True))
    traits |= {"male": rng.beta(0.3, 0.3), "age": rng.uniform(0, 0.8), "weight": rng.beta(3, 3)}
    face = model.template + with_macros(model, traits) - with_macros(model, MEAN_TRAITS)
    strength: dict[str, float] = {}
    for name in model.local:
        pair = name.removeprefix("l-").removeprefix("r-")
        spread = 0.1 if name.startswith("asym") else 0.16
        strength.setdefault(pair, abs(rng.normal(0, spread)))
        face += strength[pair] * model.local[name]
    gains = sample_gains(rng)
    size = np.ptp(face[:, 0]) / np.ptp(model.template[:, 0])
    offsets = np.stack(list(model.shapes.values())) * (size * gains[:, None, None])
    return Identity((face - face.mean(0)).astype(np.float32), offsets.astype(np.float32), traits)


def sample_gains(rng: np.random.Generator) -> np.ndarray:
    """A person's factor (52,) for the offsets of each blend shape, nearly the same on both sides."""
    pairs = [without_side(name) for name in load_face_model().shape_names]
    common = {pair: rng.normal(0, 0.2) for pair in pairs}
    return np.exp([common[pair] + rng.normal(0, 0.1) for pair in pairs])


def moving_shapes(offsets: np.ndarray) -> set[str]:
    """The names of the blend shapes whose offsets (52, V, 3) are not all zero."""
    return {name for name, offset in zip(load_face_model().shape_names, offsets, strict=True) if offset.any()}
