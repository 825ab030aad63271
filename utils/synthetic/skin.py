"""Procedural skin: an albedo texture per person, painted in the face model's texture space.

The position of every texel on the template is known, so brows, lids, cheeks and beard are placed in millimetres.
"""

from functools import lru_cache

import cv2
import numpy as np

from utils.synthetic.face_model import MOUTH_CAVITY, SKIN, SOCKETS, Identity, load_face_model

TEXELS = 1024  # texels a side; one covers about 0.3 mm of the face
# RGB albedo of the darkest and lightest skin, and the change of albedo by more blood
DARK, LIGHT, BLOOD = np.array([96, 62, 44.0]), np.array([236, 194, 168.0]), np.array([14, -12, -9.0])
EYE_FRONT_MM = 10.0  # from the centre of an eyeball to the mean of its front half


@lru_cache(maxsize=1)
def texel_surface() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Of every texel: position on the template (S, S, 3) mm, island (S, S) int (-1 outside), and the model's masks."""
    model = load_face_model()
    corners = np.stack([model.uv[:, 0], 1 - model.uv[:, 1]], -1) * TEXELS - 0.5
    triangle = np.full((TEXELS, TEXELS), -1, np.int32)
    for index, points in enumerate(np.rint(corners[model.faces] * 16).astype(np.int32)):
        cv2.fillConvexPoly(triangle, points, index, shift=4)
    inside = triangle >= 0
    a, b, c = np.moveaxis(corners[model.faces[triangle[inside]]], 1, 0)
    here = np.argwhere(inside)[:, ::-1]
    area = cross2(b - a, c - a)
    area[np.abs(area) < 1e-9] = 1e-9
    weights = np.stack([cross2(b - here, c - here), cross2(c - here, a - here), cross2(a - here, b - here)], -1)
    weights /= area[:, None]

    def interpolate(values: np.ndarray) -> np.ndarray:
        image = np.zeros((TEXELS, TEXELS, *values.shape[1:]), np.float32)
        image[inside] = np.einsum("nk,nk...->n...", weights, values[model.faces[triangle[inside]]])
        return image

    island = np.full((TEXELS, TEXELS), -1)
    island[inside] = model.island[model.faces[triangle[inside], 0]]
    return interpolate(model.template), island, {name: interpolate(mask) for name, mask in model.masks.items()}


def cross2(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cross products (N,) of vectors (N, 2)."""
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Smooth noise (TEXELS, TEXELS) with a standard deviation of 1 and details about `sigma` texels wide."""
    step = max(1, int(sigma / 2))
    coarse = rng.standard_normal((TEXELS // step + 2, TEXELS // step + 2)).astype(np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), max(sigma / step, 0.3))
    field = cv2.resize(coarse, (TEXELS, TEXELS), interpolation=cv2.INTER_CUBIC)
    return field / field.std()


def bump(distance_mm: np.ndarray, width_mm: float) -> np.ndarray:
    """A Gaussian of height 1."""
    return np.exp(-0.5 * (distance_mm / width_mm) ** 2)


@lru_cache(maxsize=1)
def landmarks() -> dict[str, np.ndarray]:
    """Places (3,) on the template, mm, of the subject's left side: mostly where a blend shape moves the face most."""
    model = load_face_model()

    def peak(shape: str) -> np.ndarray:
        travel = np.linalg.norm(model.shapes[shape], axis=1)
        most = travel > 0.7 * travel.max()
        return np.average(model.template[most], axis=0, weights=travel[most])

    eye = model.template[model.island == model.eyes[0]].mean(0)
    if eye[0] < 0:
        eye = eye * [-1, 1, 1]
    return {
        "eye": eye,
        "brow": peak("browDownLeft"),
        "cheek": peak("cheekSquintLeft"),
        "jaw": peak("mouthShrugLower"),
        "nose": model.template[model.template[:, 2].argmax()],
    }


def paint_skin(identity: Identity, rng: np.random.Generator) -> np.ndarray:
    """The person's albedo texture (TEXELS, TEXELS, 3) uint8 RGB; `rng` decides what the traits leave open."""
    island, traits = texel_surface()[1], identity.traits
    melanin = np.clip(
        0.85 * traits["african"] + 0.3 * traits["asian"] + 0.12 * traits["caucasian"] + rng.normal(0, 0.08), 0.02, 0.95
    )
    colour = np.tile(LIGHT + (DARK - LIGHT) * melanin, (TEXELS, TEXELS, 1))
    paint_complexion(colour, rng, melanin)
    paint_beard_lids_lips(colour, rng, melanin, traits["male"])
    paint_brows(colour, rng, melanin, traits["age"])
    colour[np.isin(island, (MOUTH_CAVITY, *SOCKETS))] = [62, 22, 22]
    paint_eyes(colour, rng, melanin)
    colour[island < 0] = LIGHT + (DARK - LIGHT) * melanin
    return np.clip(colour, 0, 255).astype(np.uint8)


def near(landmark: str, width: float, height: float) -> np.ndarray:
    """1 at a landmark of either side, falling off over `width` and `height` mm, (TEXELS, TEXELS)."""
    (x, y), place = upright_mm(), landmarks()[landmark]
    return bump((x - abs(place[0])) / width, 1.0) * bump((y - place[1]) / height, 1.0)


def upright_mm() -> tuple[np.ndarray, np.ndarray]:
    """The distance of every texel from the middle of the face, and its height on the template, mm."""
    position = texel_surface()[0]
    return np.abs(position[..., 0]), position[..., 1]


def paint_complexion(colour: np.ndarray, rng: np.random.Generator, melanin: float) -> None:
    """Paint blood, uneven tone, pores and spots, in place."""
    flush = 0.5 * near("cheek", 16, 14) + 0.6 * near("nose", 9, 9) + 0.16 * noise(rng, 40) + 0.12 * noise(rng, 14)
    colour += (rng.uniform(0.5, 1.3) * (1 - 0.5 * melanin) * flush)[..., None] * BLOOD
    tone = 1 + 0.02 * noise(rng, 60) + 0.022 * noise(rng, 12) + 0.024 * noise(rng, 4) + 0.022 * noise(rng, 1.6)
    pores = (noise(rng, 1.1) > 2.0) * 0.1 * (0.3 + near("nose", 30, 25))
    colour *= (tone - cv2.GaussianBlur(pores.astype(np.float32), (0, 0), 0.8))[..., None]
    spots = np.clip(noise(rng, 3) - 2.4, 0, 0.8) * rng.choice([0, 0.25, 0.7])
    colour *= 1 - spots[..., None] * [0.25, 0.4, 0.5]


def paint_beard_lids_lips(colour: np.ndarray, rng: np.random.Generator, melanin: float, male: float) -> None:
    """Paint the shadow of a beard, darker lids and red lips, in place."""
    masks = texel_surface()[2]
    beard = male * rng.uniform(0, 0.3) * bump(np.maximum(upright_mm()[1] - landmarks()["jaw"][1] - 6, 0), 9)
    colour *= 1 - (beard * (0.7 + 0.3 * np.clip(noise(rng, 1.2), -1, 1)))[..., None] * [1, 0.95, 0.85]
    lids = masks["eyelids"] * 0.5 + 0.35 * near("eye", 17, 9)
    colour *= 1 - lids[..., None] * rng.uniform(0.1, 0.3) * np.array([0.8, 1, 1])
    lips = cv2.GaussianBlur(masks["lips"], (0, 0), 3) * (1 + 0.08 * noise(rng, 5) + 0.1 * noise(rng, 1.5))
    colour += (rng.uniform(0.5, 1.0) * lips)[..., None] * (np.array([176, 88, 84]) - colour) * (1 - 0.4 * melanin)


def paint_brows(colour: np.ndarray, rng: np.random.Generator, melanin: float, age: float) -> None:
    """Paint the brows, in place: an arch of strokes, grey in old age."""
    (x, y), marks, island = upright_mm(), landmarks(), texel_surface()[1]
    hair = np.array([70, 50, 36]) * (1 - 0.7 * np.clip(melanin + rng.uniform(0, 0.6), 0, 1))
    if age > 0.65:
        hair = hair * 0.5 + [84, 76, 70]
    inner, tail = abs(marks["eye"][0]) - 20, abs(marks["eye"][0]) + 21
    along = np.clip((x - inner) / (tail - inner), 0, 1)
    arch = marks["brow"][1] + rng.uniform(-1.5, 1.5) + rng.uniform(3, 7) * np.sin(np.pi * np.clip(along * 0.75, 0, 1))
    thick = rng.uniform(2.2, 4.2) * (1 - 0.65 * along**2)
    brow = bump(y - arch, thick) * (1 / (1 + np.exp(-(x - inner) * 0.8))) / (1 + np.exp((x - tail) * 0.6))
    strokes = np.clip(0.75 + 0.35 * cv2.GaussianBlur(noise(rng, 1.0), (1, 9), 3) + 0.15 * noise(rng, 2), 0, 1)
    colour += (np.clip(1.25 * brow * strokes, 0, 0.95) * (island == SKIN))[..., None] * (hair - colour)


def paint_eyes(colour: np.ndarray, rng: np.random.Generator, melanin: float) -> None:
    """Paint sclera, iris and pupil of both eyes, in place."""
    position, island, _ = texel_surface()
    irises = np.array([[92, 60, 36], [62, 40, 26], [110, 118, 90], [86, 120, 150]], float)
    iris = irises[rng.choice(4, p=[0.4, 0.4, 0.1, 0.1])] * (1 - 0.4 * melanin)
    grain = noise(rng, 2)
    model = load_face_model()
    for number in model.eyes:
        ball = island == number
        centre = model.template[model.island == number].mean(0) - [0, 0, EYE_FRONT_MM]
        forward = position[ball] - centre
        angle = np.degrees(np.arctan2(np.hypot(forward[:, 0], forward[:, 1]), forward[:, 2]))
        eye = np.array([222, 214, 206]) - 0.8 * np.clip(angle - 30, 0, 40)[:, None] * [0.3, 1, 1]
        ring = angle < 25
        eye[ring] = iris * (1 + 0.15 * grain[ball][ring, None] - 0.5 * (angle[ring, None] > 22))
        eye[angle < 10] = 12  # the pupil
        colour[ball] = eye
