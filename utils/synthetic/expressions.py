"""How the face moves: the action units (AUs) of each emotion, and the course of an expression over time.

Every emotion has several AU combinations and shares some of them with other emotions. Classes therefore overlap, as in
life, and no single AU reveals a class. There are two repertoires: EMFACS teaches the pretrained classifiers, and
LITERATURE makes the synthetic challenge, so that a good score there does not come from a table learnt by heart.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from utils.synthetic.action_units import ACTION_UNITS, SIDES, shapes_of

BLINK, GAZE = ("eyeBlinkLeft", "eyeBlinkRight"), ("In", "Out", "Up", "Down")


@dataclass(frozen=True)
class Repertoire:
    """How emotions show: which AUs contract, how strongly, and how symmetrically."""

    # Emotion -> its AU combinations, each with its relative frequency (our choice).
    combinations: dict[str, tuple[tuple[float, tuple[str, ...]], ...]]
    one_sided: dict[str, float]  # AU -> share of the clips in which it moves nearly one side alone
    one_sided_else: float  # the same share for all other AUs
    intensity: tuple[float, float]  # least and greatest of an AU of the emotion, drawn uniformly
    distracted: float  # share of the clips with a distractor, one more AU of any emotion
    distractor: tuple[float, float]  # least and greatest intensity of a distractor
    distractors: tuple[str, ...] = tuple(ACTION_UNITS)  # the AUs that may be distractors


# The repertoire of the pretrained classifiers' teacher, after Ekman and Friesen's EMFACS.
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
# The repertoire of the synthetic challenge: how the literature codes micro-expressions. Positive, Surprise and Negative
# (anger, disgust, sadness and fear) follow the objective classes of CASME II and SAMM (Davison, Merghani, Yap 2018,
# "Objective classes for micro-facial expression recognition"), as far as the face model has their AUs. Repression
# follows CASME II (Yan et al. 2014): AU15 and AU17, alone or together, and suppressed smiles. Others are combinations
# outside these classes. EMFACS also has three quarters of Positive and Surprise; on average, less than half of a class.
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
    """When an expression rises and falls, in frames counted from 0: onset < apex < offset."""

    onset: int
    apex: int
    offset: int
    n_frames: int

    @property
    def moments(self) -> list[int]:
        return [self.onset, self.apex, self.offset]


def without_side(shape: str) -> str:
    """A blend shape's name without `Left` or `Right` at its end."""
    return shape.removesuffix(SIDES[0]).removesuffix(SIDES[1])


def opposite_side(shape: str) -> str:
    """The same blend shape of the other half of the face; a blend shape without sides is its own opposite."""
    stem = without_side(shape)
    return shape if shape == stem else stem + SIDES[shape.endswith(SIDES[0])]


def gaze_shapes(direction: str) -> tuple[str, str]:
    """The blend shapes that turn both eyes together, the left eye's first; it turns to `direction` (of GAZE)."""
    opposite = {"In": "Out", "Out": "In"}.get(direction, direction)
    return f"eyeLook{direction}Left", f"eyeLook{opposite}Right"


def within_reach(repertoire: Repertoire, shapes: Collection[str]) -> Repertoire:
    """The part of a repertoire that a face can show if only these blend shapes move it.

    Raises ValueError if no combination of an emotion is left.
    """
    lacking = {au for au in ACTION_UNITS if not any(shape in shapes for shape in shapes_of(au))}
    combinations = {
        emotion: tuple((odds, aus) for odds, aus in rows if lacking.isdisjoint(aus))
        for emotion, rows in repertoire.combinations.items()
    }
    for emotion, rows in combinations.items():
        if not rows:
            fewest = min((lacking.intersection(aus) for _, aus in repertoire.combinations[emotion]), key=len)
            names = ", ".join(f"{name} ({au})" for au in ACTION_UNITS if au in fewest for name in ACTION_UNITS[au])
            raise ValueError(f"it cannot show {emotion}. Remedy: add at least the blend shapes {names}.")
    distractors = tuple(au for au in repertoire.distractors if au not in lacking)
    return replace(repertoire, combinations=combinations, distractors=distractors)


def sample_expression(emotions: list[str], rng: np.random.Generator, repertoire: Repertoire) -> dict[str, float]:
    """The expression of one clip with the given emotions: blend shape -> AU intensity in 0..1.

    It has one AU combination per emotion, and in some clips a weaker distractor. Each AU has its own intensity, and may
    be one-sided or uneven.
    """
    contraction: dict[str, float] = {}

    def contract(au: str, intensity: float) -> None:
        weak_side = rng.integers(2)
        one_sided = rng.random() < repertoire.one_sided.get(au, repertoire.one_sided_else)
        weaker = rng.uniform(0, 0.15) if one_sided else rng.uniform(0.65, 1)
        shapes = shapes_of(au)
        for i, shape in enumerate(shapes):
            value = intensity * (weaker if len(shapes) == 2 and i == weak_side else 1)
            contraction[shape] = max(contraction.get(shape, 0.0), value)

    for emotion in emotions:
        odds, combinations = zip(*repertoire.combinations[emotion], strict=True)
        for au in combinations[rng.choice(len(odds), p=np.array(odds) / sum(odds))]:
            contract(au, rng.uniform(*repertoire.intensity))
    if rng.random() < repertoire.distracted:
        contract(str(rng.choice(repertoire.distractors)), rng.uniform(*repertoire.distractor))
    return contraction


def sample_course(rng: np.random.Generator) -> Course:
    """8 to 30 frames at 60 fps, about 18 on average. The apex is off the middle, mostly before it."""
    duration = int(np.clip(round(rng.gamma(9, 1.7)), 7, 25))
    before, after = rng.integers(0, 3, 2)
    share = rng.uniform(0.28, 0.45) if rng.random() < 0.75 else rng.uniform(0.55, 0.7)
    apex = int(np.clip(round(duration * share), 2, duration - 2))
    return Course(int(before), int(before + apex), int(before + duration), int(before + duration + after + 1))


def envelope(course: Course, rng: np.random.Generator) -> np.ndarray:
    """Contraction of an AU over time, (n_frames,) in 0..1: a smooth rise, then a smooth fall to at most 0.15.

    Each AU has its own steepness, and its own lag of up to a sixth of the rise.
    """
    lag = rng.uniform(-1, 1) * (course.apex - course.onset) / 6
    power = rng.uniform(0.8, 1.3)
    rest = rng.uniform(0, 0.15)
    t = np.arange(course.n_frames)
    peak = course.apex + lag
    rise = 0.5 - 0.5 * np.cos(np.pi * np.clip((t - course.onset) / (peak - course.onset), 0, 1))
    fall = 0.5 - 0.5 * np.cos(np.pi * np.clip((t - peak) / (course.offset - peak), 0, 1))
    return np.where(t <= peak, rise**power, rest + (1 - rest) * (1 - fall) ** power).astype(np.float32)


def sample_peak_px(rng: np.random.Generator, size: int | None = None) -> np.ndarray:
    """Peak motion of an expression in pixels of a 256 px face, one number or (size,): 0.3 to 2.5, median 0.9."""
    return np.clip(rng.lognormal(np.log(0.9), 0.45, size), 0.3, 2.5)


def sample_blink(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Lid closure over time (n_frames,): about 3 frames to close and 5 to open; the clip may cut the blink off."""
    centre, depth = rng.uniform(-1, n_frames), rng.uniform(0.4, 1)
    t = np.arange(n_frames) - centre
    return (depth * np.where(t < 0, np.exp(-0.5 * (t / 1.3) ** 2), np.exp(-0.5 * (t / 2.2) ** 2))).astype(np.float32)


def sample_drift(n_frames: int, amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """A slow wander (n_frames,) that starts at 0: a slope plus about half an oscillation."""
    t = np.arange(n_frames) / max(n_frames - 1, 1)
    swing = np.sin(np.pi * (rng.uniform(0.5, 1.6) * t + rng.uniform(0, 2)))
    path = rng.normal() * t + 0.7 * rng.normal() * swing
    return (amplitude * (path - path[0])).astype(np.float32)


def rotation(degrees_xyz: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) from angles (..., 3) in degrees about x, y and z, applied in that order."""
    a, b, c = np.moveaxis(np.deg2rad(degrees_xyz), -1, 0)
    ones, zeros = np.ones_like(a), np.zeros_like(a)

    def matrix(*rows):
        return np.stack([np.stack(row, -1) for row in rows], -2)

    about_x = matrix((ones, zeros, zeros), (zeros, np.cos(a), -np.sin(a)), (zeros, np.sin(a), np.cos(a)))
    about_y = matrix((np.cos(b), zeros, np.sin(b)), (zeros, ones, zeros), (-np.sin(b), zeros, np.cos(b)))
    about_z = matrix((np.cos(c), -np.sin(c), zeros), (np.sin(c), np.cos(c), zeros), (zeros, zeros, ones))
    return about_z @ about_y @ about_x
