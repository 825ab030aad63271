"""What the person of a clip does: the expression, blinks, glances and the head's motion over time."""

from dataclasses import dataclass

import numpy as np

from utils.synthetic.action_units import ACTION_UNITS, sides_of
from utils.synthetic.expressions import (
    BLINK,
    GAZE,
    LITERATURE,
    Course,
    Repertoire,
    envelope,
    gaze_shapes,
    rotation,
    sample_blink,
    sample_course,
    sample_drift,
    sample_expression,
    sample_peak_px,
    within_reach,
)
from utils.synthetic.face_model import Identity, load_face_model
from utils.synthetic.truth import CONFOUNDERS

PIXELS_PER_MM = 1.2  # of a face in a 256 px crop, about
PIVOT = np.array([0, -80, -70], np.float32)  # the head turns about the top of the neck, mm


@dataclass(frozen=True)
class Performance:
    """What one clip's person does: the true motion, apart from how it is photographed."""

    contraction: np.ndarray  # (T, 52) float32, all units, expression and confounders
    expression: np.ndarray  # (T, 52) float32, the expression alone
    angles: np.ndarray  # (T, 3) float32, degrees about x, y, z
    shift: np.ndarray  # (T, 3) float32, mm
    course: Course
    confounders: dict[str, bool]


def perform(
    identity: Identity,
    emotions: list[str],
    rng: np.random.Generator,
    strength: float = 1.0,
    repertoire: Repertoire = LITERATURE,
) -> Performance:
    """One person's clip of the given emotions, with confounders. `strength` scales the peak motion.

    What of the repertoire the person's face model cannot show is left out: ValueError where that is all of an emotion.
    """
    index = load_face_model().shape_index
    course = sample_course(rng)
    expression = np.zeros((course.n_frames, len(index)), np.float32)
    travel = identity.shape_travel
    lag = {au: rng.integers(2**31) for au in ACTION_UNITS}  # both sides and all units of an AU move together
    for unit, intensity in sample_expression(emotions, rng, within_reach(repertoire, identity.moving)).items():
        au = next(au for au, units in ACTION_UNITS.items() if any(unit in sides_of(u) for u in units))
        shape = envelope(course, np.random.default_rng(lag[au]))
        if travel[index[unit]] > 0:  # a half that another face model lacks does not move
            expression[:, index[unit]] = intensity / travel[index[unit]] * shape
    peak_px = sample_peak_px(rng) * strength
    displacement = np.einsum("u,uvc->vc", expression[course.apex], identity.shape_offsets)
    expression *= peak_px / PIXELS_PER_MM / np.linalg.norm(displacement[:, :2], axis=1).max()

    contraction = expression.copy()
    confounders = {name: bool(rng.random() < share) for name, share in CONFOUNDERS.items()}
    if confounders["blink"]:
        lids = sample_blink(course.n_frames, rng)
        for name in BLINK:
            contraction[:, index[name]] += lids
    if confounders["gaze"]:
        units = gaze_shapes(rng.choice(GAZE))
        turn = rng.uniform(0.1, 0.5) * ease_step(course.n_frames, rng)
        for name in units:
            contraction[:, index[name]] += turn
    drift = 1.0 if confounders["drift"] else 0.05
    angles = np.stack([sample_drift(course.n_frames, 0.8 * drift, rng) for _ in range(3)], -1)
    shift = np.stack([sample_drift(course.n_frames, 0.8 * drift, rng) for _ in range(3)], -1)
    rest = rng.normal(0, [2.5, 3, 1.5]).astype(np.float32)
    return Performance(contraction, expression, angles + rest, shift, course, confounders)


def ease_step(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """A saccade: from 0 to 1 within two frames, at a random time."""
    return 1 / (1 + np.exp(-2.5 * (np.arange(n_frames) - rng.uniform(2, n_frames))))


def pose_vertices(identity: Identity, contraction: np.ndarray, angles: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Vertices (T, V, 3) float32 mm of the face under unit contractions (T, 52) and rigid motion (T, 3), (T, 3)."""
    return move_head(face_shapes(identity, contraction), angles, shift)


def face_shapes(identity: Identity, contraction: np.ndarray) -> np.ndarray:
    """Vertices (T, V, 3) float32 mm of the face under unit contractions (T, 52), the head at rest."""
    active = np.abs(contraction).max(0) > 0
    return identity.vertices + np.einsum("tu,uvc->tvc", contraction[:, active], identity.shape_offsets[active])


def move_head(shapes: np.ndarray, angles: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Vertices (T, V, 3) mm of faces (T, V, 3) turned about the neck by angles (T, 3) degrees, shifted (T, 3) mm."""
    turn = rotation(angles).astype(np.float32)
    return np.einsum("tij,tvj->tvi", turn, shapes - PIVOT) + PIVOT + shift[:, None]


def true_motion_curve(identity: Identity, expression: np.ndarray) -> np.ndarray:
    """True expression motion against frame 0: root mean square displacement of the surface (T,), mm."""
    change = expression - expression[0]
    active = np.abs(change).max(0) > 0
    moved = np.einsum("tu,uvc->tvc", change[:, active], identity.shape_offsets[active])
    return np.sqrt((moved**2).sum(-1).mean(-1))


def au_intensities(contraction: np.ndarray) -> dict[str, float]:
    """Peak intensity of each AU, mean and difference (left minus right) of its sides, from contractions (52,)."""
    value = dict(zip(load_face_model().shape_names, contraction.tolist(), strict=True))
    result = {}
    for au, units in ACTION_UNITS.items():
        sides = [value[side] for unit in units for side in sides_of(unit)]
        result[au] = float(np.mean(sides))
        if len(sides) == 2:
            result[f"{au}_side"] = sides[0] - sides[1]
    return result
