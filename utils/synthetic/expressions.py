"""How the face moves: action units (AUs), the expressions that emotions draw from, and their course in time.

An expression is a set of unit contractions; a unit is one of the face model's 52, an AU one to four of them. Every
emotion has several AU combinations, some of them shared with other emotions, so that classes overlap as they do in life
and no single unit gives a class away. There are two repertoires: what the classifiers' teacher knows, and what the
synthetic challenge shows, so that a score there does not rest on a table learnt by heart.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from utils.synthetic.action_units import ACTION_UNITS, SIDES, sides_of

BLINK, GAZE = ("eyeBlinkLeft", "eyeBlinkRight"), ("In", "Out", "Up", "Down")


@dataclass(frozen=True)
class Repertoire:
    """How emotions show: which AUs contract, how strongly, and how alike on both sides."""

    # Emotion -> its AU combinations with how often each is drawn (relative frequencies, ours).
    combinations: dict[str, tuple[tuple[float, tuple[str, ...]], ...]]
    one_sided: dict[str, float]  # share of the clips in which nearly one side alone moves, by AU,
    one_sided_else: float  # and of the others
    intensity: tuple[float, float]  # of an AU, uniform between
    distracted: float  # share of the clips with another AU beside,
    distractor: tuple[float, float]  # of this intensity
    distractors: tuple[str, ...] = tuple(ACTION_UNITS)  # and these are drawn from


# What the teacher of the classifiers knows: after Ekman and Friesen's EMFACS.
EMFACS = Repertoire(
    combinations={
        "Negative": (
            (3, ("AU4", "AU7")),
            (2, ("AU4",)),
            (2, ("AU9", "AU4")),
            (2, ("AU10", "AU4")),
            (2, ("AU1", "AU4")),
            (1.5, ("AU15", "AU17")),
            (1.5, ("AU4", "AU5", "AU7")),
            (1, ("AU20", "AU1", "AU4")),
            (1, ("AU10",)),
            (1, ("AU15",)),
            (1, ("AU14",)),
            (0.5, ("AU7",)),
        ),
        "Positive": (
            (4, ("AU12",)),
            (4, ("AU6", "AU12")),
            (1.5, ("AU6", "AU7", "AU12")),
            (1, ("AU12", "AU26")),
            (1, ("AU12", "AU10")),
            (1, ("AU6",)),
            (0.7, ("AU14", "AU12")),
        ),
        "Repression": (
            (3, ("AU14",)),
            (3, ("AU17", "AU24")),
            (2, ("AU12", "AU15")),
            (2, ("AU12", "AU24")),
            (1.5, ("AU23", "AU24")),
            (1, ("AU17",)),
        ),
        "Surprise": (
            (4, ("AU1", "AU2")),
            (3, ("AU1", "AU2", "AU5")),
            (1.5, ("AU2",)),
            (1.5, ("AU1", "AU2", "AU26")),
            (1, ("AU5", "AU26")),
            (0.7, ("AU5",)),
        ),
        "Others": (
            (1.5, ("AU14",)),
            (1.5, ("AU17",)),
            (1.5, ("AU18",)),
            (1, ("AU28",)),
            (1, ("AU7",)),
            (1, ("AU2",)),
            (1, ("AU26",)),
            (0.8, ("AU4",)),
            (0.7, ("AU20",)),
            (0.5, ("AU9",)),
            (0.5, ("AU16",)),
        ),
    },
    one_sided={"AU12": 0.3, "AU14": 0.5, "AU10": 0.35, "AU2": 0.3, "AU15": 0.2, "AU20": 0.2, "AU9": 0.15, "AU24": 0.2},
    one_sided_else=0.05,
    intensity=(0.45, 1.0),
    distracted=0.5,
    distractor=(0.2, 0.6),
)
# What the synthetic challenge shows, a table of its own, of which by odds less than half is the teacher's too (three
# quarters of Positive and Surprise): how micro-expressions were coded. Positive, Surprise and
# Negative (its anger, disgust, sadness and fear) after the objective classes of CASME II and SAMM (Davison, Merghani,
# Yap 2018, "Objective classes for micro-facial expression recognition"), as far as the face model has their AUs;
# Repression after CASME II (Yan et al. 2014: AU15 and AU17, alone or together, and smiles held down); Others is what
# coders call none of these.
LITERATURE = Repertoire(
    combinations={
        "Negative": (
            (4, ("AU4",)),
            (3, ("AU4", "AU7")),
            (2, ("AU4", "AU9")),
            (1.5, ("AU4", "AU7", "AU9")),
            (1.5, ("AU7", "AU10")),
            (1, ("AU9",)),
            (1, ("AU4", "AU7", "AU10")),
            (1, ("AU4", "AU9", "AU17")),
            (1, ("AU4", "AU6", "AU7")),
            (1, ("AU6", "AU15")),
            (1, ("AU1", "AU2", "AU4")),
            (0.7, ("AU23",)),
            (0.7, ("AU17", "AU24")),
            (0.7, ("AU14",)),
            (0.7, ("AU20",)),
            (0.5, ("AU1",)),
        ),
        "Positive": (
            (4, ("AU12",)),
            (2.5, ("AU6", "AU12")),
            (1.5, ("AU7", "AU12")),
            (1, ("AU6", "AU7", "AU12")),
            (1, ("AU6", "AU12", "AU26")),
        ),
        "Repression": (
            (2, ("AU15",)),
            (2, ("AU17",)),
            (2, ("AU15", "AU17")),
            (1, ("AU12", "AU17")),
            (1, ("AU12", "AU14")),
            (0.7, ("AU12", "AU23")),
        ),
        "Surprise": (
            (4, ("AU1", "AU2")),
            (1.5, ("AU5",)),
            (1, ("AU2",)),
            (1, ("AU5", "AU24")),
            (1, ("AU1", "AU2", "AU5", "AU26")),
        ),
        "Others": (
            (2, ("AU14",)),
            (1.5, ("AU4", "AU14")),
            (1.5, ("AU10", "AU14")),
            (1.5, ("AU14", "AU17")),
            (1, ("AU17", "AU18")),
            (1, ("AU16", "AU20")),
            (1, ("AU23", "AU28")),
            (1, ("AU7", "AU26")),
        ),
    },
    one_sided={"AU12": 0.2, "AU14": 0.6, "AU10": 0.25, "AU2": 0.15},
    one_sided_else=0.1,
    intensity=(0.3, 1.0),
    distracted=0.35,
    distractor=(0.1, 0.5),
)
REPERTOIRES = {"literature": LITERATURE, "emfacs": EMFACS}


@dataclass(frozen=True)
class Course:
    """When an expression rises and falls, in frames: onset < apex < offset (positions from 0)."""

    onset: int
    apex: int
    offset: int
    n_frames: int

    @property
    def moments(self) -> list[int]:
        return [self.onset, self.apex, self.offset]


def without_side(unit: str) -> str:
    """A face unit's name without the side that it ends with, if it has one."""
    return unit.removesuffix(SIDES[0]).removesuffix(SIDES[1])


def opposite_side(unit: str) -> str:
    """The same face unit of the other half of the face; a unit without side is its own opposite."""
    stem = without_side(unit)
    return unit if unit == stem else stem + SIDES[unit.endswith(SIDES[0])]


def gaze_shapes(direction: str) -> tuple[str, str]:
    """The face units that turn the left and the right eye when the left one turns to `direction` of GAZE."""
    opposite = {"In": "Out", "Out": "In"}.get(direction, direction)
    return f"eyeLook{direction}Left", f"eyeLook{opposite}Right"


def within_reach(repertoire: Repertoire, units: Collection[str]) -> Repertoire:
    """The repertoire as far as a face can show it that has these units: combinations whose AUs all move something.

    Raises ValueError for an emotion of which none is left.
    """
    lacking = [au for au, own in ACTION_UNITS.items() if not any(side in units for u in own for side in sides_of(u))]
    if not lacking:
        return repertoire
    combinations = {
        emotion: tuple((odds, aus) for odds, aus in known if not set(aus) & set(lacking))
        for emotion, known in repertoire.combinations.items()
    }
    for emotion, known in combinations.items():
        if not known:
            least = min((set(aus) & set(lacking) for _, aus in repertoire.combinations[emotion]), key=len)
            names = ", ".join(f"{unit} ({au})" for au in ACTION_UNITS if au in least for unit in ACTION_UNITS[au])
            raise ValueError(f"it cannot show {emotion}. Remedy: add at least the blend shapes {names}.")
    moving = tuple(au for au in repertoire.distractors if au not in lacking)
    return replace(repertoire, combinations=combinations, distractors=moving)


def sample_expression(
    emotions: list[str], rng: np.random.Generator, repertoire: Repertoire = LITERATURE
) -> dict[str, float]:
    """Contractions in 0..1 of AU intensity per face unit for one clip of the given emotions.

    One AU combination per emotion; each AU has its own intensity; a sided AU may be one-sided or uneven; some clips
    carry a distractor AU of any kind at lower intensity.
    """
    contraction: dict[str, float] = {}

    def contract(au: str, intensity: float) -> None:
        weak_side = rng.integers(2)
        one_sided = rng.random() < repertoire.one_sided.get(au, repertoire.one_sided_else)
        weaker = rng.uniform(0, 0.15) if one_sided else rng.uniform(0.65, 1)
        for unit in ACTION_UNITS[au]:
            for i, side in enumerate(sides_of(unit)):
                value = intensity * (weaker if len(sides_of(unit)) == 2 and i == weak_side else 1)
                contraction[side] = max(contraction.get(side, 0.0), value)

    for emotion in emotions:
        odds, combinations = zip(*repertoire.combinations[emotion], strict=True)
        for au in combinations[rng.choice(len(odds), p=np.array(odds) / sum(odds))]:
            contract(au, rng.uniform(*repertoire.intensity))
    if rng.random() < repertoire.distracted:
        contract(str(rng.choice(repertoire.distractors)), rng.uniform(*repertoire.distractor))
    return contraction


def sample_course(rng: np.random.Generator) -> Course:
    """8 to 30 frames at 60 fps, about 18 on average; mostly a faster rise than fall; an apex off the middle."""
    duration = int(np.clip(round(rng.gamma(9, 1.7)), 7, 25))
    before, after = rng.integers(0, 3, 2)
    share = rng.uniform(0.28, 0.45) if rng.random() < 0.75 else rng.uniform(0.55, 0.7)
    apex = int(np.clip(round(duration * share), 2, duration - 2))
    return Course(int(before), int(before + apex), int(before + duration), int(before + duration + after + 1))


def envelope(course: Course, rng: np.random.Generator | None = None) -> np.ndarray:
    """Contraction over time (n_frames,) in 0..1: a smooth rise to the apex and a smooth fall, back to at most 0.15.

    With `rng`, the unit has its own small lag (up to a sixth of the clip's rise) and steepness.
    """
    lag = 0.0 if rng is None else rng.uniform(-1, 1) * (course.apex - course.onset) / 6
    power = 1.0 if rng is None else rng.uniform(0.8, 1.3)
    left = 0.0 if rng is None else rng.uniform(0, 0.15)
    t = np.arange(course.n_frames)
    peak = course.apex + lag
    rise = np.clip((t - course.onset) / (peak - course.onset), 0, 1)
    fall = np.clip((t - peak) / (course.offset - peak), 0, 1)
    shape = np.where(t <= peak, ease(rise) ** power, left + (1 - left) * (1 - ease(fall)) ** power)
    return shape.astype(np.float32)


def ease(x: np.ndarray) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(np.pi * x)


def sample_peak_px(rng: np.random.Generator, size: int | None = None) -> np.ndarray:
    """Peak motion of an expression in pixels of a 256 px face, one number or (size,): 0.3 to 2.5, median 0.9."""
    return np.clip(rng.lognormal(np.log(0.9), 0.45, size), 0.3, 2.5)


def sample_blink(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Lid closure over time (n_frames,): closes in about 3 frames, opens in about 5, may be cut by the clip's ends."""
    centre, depth = rng.uniform(-1, n_frames), rng.uniform(0.4, 1)
    t = np.arange(n_frames) - centre
    return (depth * np.where(t < 0, np.exp(-0.5 * (t / 1.3) ** 2), np.exp(-0.5 * (t / 2.2) ** 2))).astype(np.float32)


def sample_drift(n_frames: int, amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """A slow wander (n_frames,) that starts at 0: a slope plus half a swing."""
    t = np.arange(n_frames) / max(n_frames - 1, 1)
    swing = np.sin(np.pi * (rng.uniform(0.5, 1.6) * t + rng.uniform(0, 2)))
    path = rng.normal() * t + 0.7 * rng.normal() * swing
    return (amplitude * (path - path[0])).astype(np.float32)


def rotation(degrees_xyz: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) from angles (..., 3) in degrees about x, y and z, applied in that order."""
    a, b, c = np.moveaxis(np.deg2rad(degrees_xyz), -1, 0)
    one, zero = np.ones_like(a), np.zeros_like(a)

    def matrix(*rows):
        return np.stack([np.stack(row, -1) for row in rows], -2)

    about_x = matrix((one, zero, zero), (zero, np.cos(a), -np.sin(a)), (zero, np.sin(a), np.cos(a)))
    about_y = matrix((np.cos(b), zero, np.sin(b)), (zero, one, zero), (-np.sin(b), zero, np.cos(b)))
    about_z = matrix((np.cos(c), -np.sin(c), zero), (np.sin(c), np.cos(c), zero), (zero, zero, one))
    return about_z @ about_y @ about_x
