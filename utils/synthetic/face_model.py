"""The face model: geometry, 52 face units, identities. Everything synthetic draws from this one module.

Vertices are millimetres, y up, z towards the viewer, x to the viewer's right (the subject's left). Units are the
ARKit-style names of the CC0 face units; an offset is the displacement of each vertex at full contraction, about
ten times what a micro-expression uses. See `build_asset` for the source of the file.
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
    """The mesh of a face model, as it is painted (`utils.synthetic.skin`) and photographed."""

    template: np.ndarray  # (V, 3) float32, the mean face, mm
    faces: np.ndarray  # (F, 3) int32
    uv: np.ndarray  # (V, 2) float32 into the albedo texture, v up
    weld: np.ndarray  # (V,) int32, vertices at the same place share a number: the surface without texture seams

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Unit normals (..., V, 3) of the surface with vertices (..., V, 3), smooth across texture seams."""
        a, b, c = (vertices[..., self.faces[:, i], :] for i in range(3))
        of_faces = np.cross(b - a, c - a)  # length: twice the area, which is the weight
        flat = of_faces.reshape(-1, len(self.faces), 3)
        welded = np.stack([self._welded_incidence @ frame for frame in flat])[:, self.weld]
        welded /= np.linalg.norm(welded, axis=-1, keepdims=True) + 1e-9
        return welded.reshape(vertices.shape)

    @cached_property
    def _welded_incidence(self) -> sparse.csr_array:
        rows = self.weld[self.faces].ravel()
        columns = np.repeat(np.arange(len(self.faces)), 3)
        shape = (self.weld.max() + 1, len(self.faces))
        return sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)


@dataclass(frozen=True)
class FaceModel(Surface):
    island: np.ndarray  # (V,) uint8, the texture island of each vertex
    eyes: tuple[int, int]  # the islands of the eyeballs' front halves
    masks: dict[str, np.ndarray]  # name -> (V,) float32 in 0..1: lips, eyelids, ears, inside-mouth
    shapes: dict[str, np.ndarray]  # name -> (V, 3) float32
    macro: dict[str, np.ndarray]  # name -> (V, 3) float32, ancestry x sex x age and sex x age x weight
    local: dict[str, np.ndarray]  # name -> (V, 3) float32, local shape changes at full strength

    @property
    def shape_names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    @property
    def shape_index(self) -> dict[str, int]:
        """Position of each face unit among the 52."""
        return {name: i for i, name in enumerate(self.shapes)}


@dataclass(frozen=True)
class Identity:
    """One person: the neutral face, how far this person's units move, and the traits that made them."""

    vertices: np.ndarray  # (V, 3) float32, centred on the head
    shape_offsets: np.ndarray  # (52, V, 3) float32, in the order of `FaceModel.unit_names`
    traits: dict[str, float]  # african, asian, caucasian, male, age, weight: 0..1

    @property
    def shape_travel(self) -> np.ndarray:
        """How far each unit moves the vertex that it moves most, (52,) float32 mm at full contraction."""
        return np.linalg.norm(self.shape_offsets, axis=2).max(1)

    @property
    def moving(self) -> set[str]:
        """The names of the units that move anything: all of ours, of another model those that it has."""
        return moving_shapes(self.shape_offsets)


@lru_cache(maxsize=1)
def load_face_model() -> FaceModel:
    """The face model from the asset file in this package (0.6 MB, read once a process)."""
    with np.load(ASSET) as asset:
        uv_faces, faces = asset["uv_faces"].astype(np.int32), asset["faces"].astype(np.int32)
        weld = np.zeros(len(asset["uv"]), np.int32)
        weld[uv_faces.ravel()] = faces.ravel()

        def shapes(group: str) -> dict[str, np.ndarray]:
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
            shapes=shapes("unit"),
            macro=shapes("macro"),
            local=shapes("local"),
            weld=weld,
        )
    mean = with_macros(model, MEAN_TRAITS)
    template[:] = mean - mean.mean(0)
    return model


def with_macros(model: FaceModel, traits: dict[str, float]) -> np.ndarray:
    """The template with the macro targets of the traits added (V, 3): MakeHuman's product of linear interpolations.

    The loaded template has the macros of MEAN_TRAITS in it, so it is the difference of two results that means
    something.
    """
    sex = dict(zip(SEXES, (1 - traits["male"], traits["male"]), strict=True))
    age = dict(zip(AGES, (1 - traits["age"], traits["age"]), strict=True))
    heavy = 2 * traits["weight"] - 1
    weight = dict(zip(BODY_WEIGHTS, (max(-heavy, 0), 1 - abs(heavy), max(heavy, 0)), strict=True))
    shape = model.template.copy()
    for s in SEXES:
        for g in AGES:
            for a in ANCESTRIES:
                shape += traits[a] * sex[s] * age[g] * model.macro[f"{a}-{s}-{g}"]
            for w in BODY_WEIGHTS:
                shape += sex[s] * age[g] * weight[w] * model.macro[f"{s}-{g}-{w}"]
    return shape


def sample_identity(rng: np.random.Generator, diversity: float = 1.0) -> Identity:
    """A person drawn at random: ancestry, sex, age, weight, local shape (alike on both sides, then a little not).

    `diversity` scales the local shape changes and the person's own gain of each unit.
    """
    model = load_face_model()
    traits = dict(zip(ANCESTRIES, rng.dirichlet([0.5] * 3), strict=True))
    traits |= {"male": rng.beta(0.3, 0.3), "age": rng.uniform(0, 0.8), "weight": rng.beta(3, 3)}
    shape = model.template + with_macros(model, traits) - with_macros(model, MEAN_TRAITS)
    strength: dict[str, float] = {}
    for name in model.local:
        twin = name.removeprefix("l-").removeprefix("r-")
        spread = 0.1 if name.startswith("asym") else 0.16
        strength.setdefault(twin, abs(rng.normal(0, spread * diversity)))
        shape += strength[twin] * model.local[name]
    gain = sample_gains(rng, diversity)
    size = np.ptp(shape[:, 0]) / np.ptp(model.template[:, 0])
    offsets = np.stack(list(model.shapes.values())) * (size * gain[:, None, None])
    return Identity((shape - shape.mean(0)).astype(np.float32), offsets.astype(np.float32), traits)


def sample_gains(rng: np.random.Generator, diversity: float = 1.0) -> np.ndarray:
    """How far a person's units go, (52,) factors, nearly the same on both sides. diversity: of their logarithms."""
    pairs = [without_side(name) for name in load_face_model().shape_names]
    common = {pair: rng.normal(0, 0.2) for pair in pairs}
    return np.exp([diversity * (common[pair] + rng.normal(0, 0.1)) for pair in pairs])


def moving_shapes(offsets: np.ndarray) -> set[str]:
    """The names of the units whose offsets (52, V, 3) move anything."""
    return {name for name, offset in zip(load_face_model().shape_names, offsets, strict=True) if offset.any()}
