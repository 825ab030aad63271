"""What the person of a clip does: the expression, blinks, glances and the head's motion over time."""

from dataclasses import dataclass

import numpy as np

from utils.synthetic.action_units import ACTION_UNITS, shapes_of
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
PIVOT = np.array([0, -80, -70], np.float32)  # mm, the top of the neck, about which the head turns


@dataclass(frozen=True)
class Performance:
    """What the person of one clip does, before it is photographed."""

    contraction: np.ndarray  # (T, 52) float32 of all blend shapes: expression, blinks and glances
    expression: np.ndarray  # (T, 52) float32 of the expression alone
    angles: np.ndarray  # (T, 3) float32, degrees about x, y, z
    shift: np.ndarray  # (T, 3) float32, mm
    course: Course
    confounders: dict[str, bool]


def perform(
    identity: Identity, emotions: list[str], rng: np.random.Generator, repertoire: Repertoire = LITERATURE
) -> Performance:
    """One person's clip of the given emotions, with confounders.

    The person shows the part of the repertoire that the face model can show. Raises ValueError if it cannot show one of
    the emotions of the repertoire at all.
    """
    index = load_face_model().shape_index
    course = sample_course(rng)
    expression = np.zeros((course.n_frames, len(index)), np.float32)
    travel = identity.shape_travel
    seeds = {au: rng.integers(2**31) for au in ACTION_UNITS}  # both sides of an AU follow the same envelope
    au_of = {shape: au for au in ACTION_UNITS for shape in shapes_of(au)}
    for shape, intensity in sample_expression(emotions, rng, within_reach(repertoire, identity.moving)).items():
        curve = envelope(course, np.random.default_rng(seeds[au_of[shape]]))
        if travel[index[shape]] > 0:  # a user's face model may lack one side
            expression[:, index[shape]] = intensity / travel[index[shape]] * curve
    peak_px = sample_peak_px(rng)
    displacement = np.einsum("u,uvc->vc", expression[course.apex], identity.shape_offsets)
    expression *= peak_px / PIXELS_PER_MM / np.linalg.norm(displacement[:, :2], axis=1).max()

    contraction = expression.copy()
    confounders = {name: bool(rng.random() < share) for name, share in CONFOUNDERS.items()}
    if confounders["blink"]:
        lids = sample_blink(course.n_frames, rng)
        for name in BLINK:
            contraction[:, index[name]] += lids
    if confounders["gaze"]:
        names = gaze_shapes(rng.choice(GAZE))
        size, start = rng.uniform(0.1, 0.5), rng.uniform(2, course.n_frames)
        turn = size * (1 / (1 + np.exp(-2.5 * (np.arange(course.n_frames) - start))))  # a saccade of about two frames
        for name in names:
            contraction[:, index[name]] += turn
    amplitude = 0.8 * (1.0 if confounders["drift"] else 0.05)  # degrees, mm
    angles = np.stack([sample_drift(course.n_frames, amplitude, rng) for _ in range(3)], -1)
    shift = np.stack([sample_drift(course.n_frames, amplitude, rng) for _ in range(3)], -1)
    pose = rng.normal(0, [2.5, 3, 1.5]).astype(np.float32)
    return Performance(contraction, expression, angles + pose, shift, course, confounders)


def pose_vertices(identity: Identity, contraction: np.ndarray, angles: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Vertices (T, V, 3) float32 mm of a face: contractions (T, 52), head angles (T, 3) degrees, shift (T, 3) mm."""
    return move_head(face_shapes(identity, contraction), angles, shift)


def face_shapes(identity: Identity, contraction: np.ndarray) -> np.ndarray:
    """Vertices (T, V, 3) float32 mm of the face under contractions (T, 52) of its blend shapes, the head at rest."""
    return identity.vertices + _displacement(identity, contraction)


def _displacement(identity: Identity, contraction: np.ndarray) -> np.ndarray:
    """Displacements (T, V, 3) mm of the vertices under contractions (T, 52)."""
    active = np.abs(contraction).max(0) > 0
    return np.einsum("tu,uvc->tvc", contraction[:, active], identity.shape_offsets[active])


def move_head(vertices: np.ndarray, angles: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Vertices (T, V, 3) mm turned about the neck by angles (T, 3) degrees and shifted by (T, 3) mm."""
    turn = rotation(angles).astype(np.float32)
    return np.einsum("tij,tvj->tvi", turn, vertices - PIVOT) + PIVOT + shift[:, None]


def true_motion_curve(identity: Identity, expression: np.ndarray) -> np.ndarray:
    """Motion of the expression since frame 0: root mean square displacement of the vertices (T,), mm."""
    moved = _displacement(identity, expression - expression[0])
    return np.sqrt((moved**2).sum(-1).mean(-1))


def truth_row(identity: Identity, act: Performance, apex: int) -> dict[str, float]:
    """A clip's row in the table of the truth, without its labels. apex: the frame of the largest true motion.

    Each AU has the mean contraction of its blend shapes at the apex; `<AU>_side` is the left one minus the right one.
    """
    moved = np.einsum("u,uvc->vc", act.expression[apex] - act.expression[0], identity.shape_offsets)
    row = {
        "onset": act.course.onset,
        "apex": apex,
        "offset": act.course.offset,
        "n_frames": act.course.n_frames,
        "peak_px": float(np.linalg.norm(moved[:, :2], axis=1).max() * PIXELS_PER_MM),
        **act.confounders,
    }
    contraction = dict(zip(load_face_model().shape_names, act.expression[apex].tolist(), strict=True))
    for au in ACTION_UNITS:
        sides = [contraction[shape] for shape in shapes_of(au)]
        row[au] = float(np.mean(sides))
        if len(sides) == 2:
            row[f"{au}_side"] = sides[0] - sides[1]
    return row
