"""Lessons for the flow network: rendered pairs of frames of synthetic faces, with their exact flow.

No expression of `utils.synthetic.expressions` is among them: a moment contracts a few of the 52 face units at random,
so that the expressions which the flow is used and measured on are of a kind that the network has never seen. Neither
are the people, whose generators start from other seeds. The pairs are kept under artefacts/flow_lessons; they are made
once.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.artefacts import artefact_key, cached
from utils.flow.faceflow_net import OUT, SIZE
from utils.lab.teachers.flow_clips import YAW_DEG, Conditions, Performed, record_clip
from utils.parallel import parallel_map
from utils.paths import ROOT
from utils.synthetic.expressions import BLINK, GAZE, gaze_shapes, opposite_side
from utils.synthetic.face_model import Identity, load_face_model, sample_identity
from utils.synthetic.performance import PIXELS_PER_MM, face_shapes
from utils.synthetic.skin import paint_skin

LESSONS = ROOT / "artefacts" / "flow_lessons"
CLIPS_EACH, MOMENTS = 4, 4  # of one person


@dataclass(frozen=True)
class Lessons:
    """N pairs of frames with the truth at the size of the network's flow."""

    first: np.ndarray  # (N, SIZE, SIZE) uint8 grey
    second: np.ndarray
    flow: np.ndarray  # (N, 2, OUT, OUT) float16, pixels of the SIZE px picture
    nonrigid: np.ndarray  # the same without the head's rigid motion
    visible: np.ndarray  # (N, OUT, OUT) bool


def make_lessons(people: int, seed: int, jobs: int, folder: Path = LESSONS) -> Lessons:
    """All pairs of `people` people, rendered where they are not yet kept."""
    tasks = [(seed, person, folder) for person in range(people)]
    parts = parallel_map(_person, tasks, jobs, description="people for the flow network")
    return Lessons(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _person(task: tuple[int, int, Path]) -> dict[str, np.ndarray]:
    seed, person, folder = task
    parameters = {"seed": seed, "person": person, "clips": CLIPS_EACH, "moments": MOMENTS}
    key = artefact_key((), parameters, pairs_of_person)
    return cached(folder / f"{seed}-{person:04d}.npz", key, lambda: pairs_of_person(seed, person))


def pairs_of_person(seed: int, person: int) -> dict[str, np.ndarray]:
    """The fields of `Lessons` for one person: CLIPS_EACH clips, both views, neighbouring moments."""
    rng = np.random.default_rng([seed, 60, person])
    identity = sample_identity(rng)
    albedo, light = paint_skin(identity, rng), int(rng.integers(2**31))
    parts = []
    for clip in range(CLIPS_EACH):
        act = random_act(identity, rng)
        yaw = rng.uniform(0, YAW_DEG) if clip % 2 else YAW_DEG  # some as one camera in front sees a face
        # Noise comes with `flow_degradation`: what is drawn here can be moved without a trace of it.
        conditions = Conditions(SIZE, 0.0, bool(rng.random() < 0.5), stabilised=clip // 2 == 0, yaw_deg=yaw)
        recorded = record_clip(identity, act, albedo, light, rng, conditions, truth_size=OUT)
        grey = recorded.grey().swapaxes(0, 1)  # (V, T, S, S)
        flow, nonrigid = (np.moveaxis(part, -1, 2).astype(np.float16) for part in (recorded.flow, recorded.nonrigid))
        parts.append((grey[:, :-1], grey[:, 1:], flow, nonrigid, recorded.visible))
    names = ("first", "second", "flow", "nonrigid", "visible")
    joined = (np.concatenate([p.reshape(-1, *p.shape[2:]) for p in part]) for part in zip(*parts, strict=True))
    return dict(zip(names, joined, strict=True))


def random_act(identity: Identity, rng: np.random.Generator) -> Performed:
    """MOMENTS moments of a face with a few units contracted at random, a blink or a glance now and then, and a head
    that drifts by about half a degree and half a millimetre."""
    index = load_face_model().shape_index
    names = list(index)
    contraction = np.zeros((MOMENTS, len(names)), np.float32)
    chosen = rng.choice(len(names), rng.integers(1, 9), replace=False)
    travel = identity.shape_travel + 1e-6
    for unit in chosen:
        twin = opposite_side(names[unit])
        level = rng.random(MOMENTS) * rng.uniform(0.2, 1) / travel[unit]
        contraction[:, unit] += level
        if twin != names[unit] and rng.random() < 0.6:
            contraction[:, index[twin]] += level * rng.uniform(0.5, 1)
    shapes = np.einsum("tu,uvc->tvc", contraction, identity.shape_offsets)
    peak = np.linalg.norm(np.diff(shapes, axis=0)[..., :2], axis=2).max()
    contraction *= np.clip(rng.lognormal(np.log(1.2), 0.6), 0.05, 4) / PIXELS_PER_MM / max(peak, 1e-6)
    if rng.random() < 0.4:
        closed = rng.random((MOMENTS, 1)) ** 2 * (rng.random((MOMENTS, 1)) < 0.6) * rng.uniform(0.8, 1.2, 2)
        contraction[:, [index[lid] for lid in BLINK]] += closed.clip(max=1)
    if rng.random() < 0.3:
        units, since = gaze_shapes(rng.choice(GAZE)), rng.integers(1, MOMENTS)
        for name in units:
            contraction[since:, index[name]] += rng.uniform(0.05, 0.5)
    rest = rng.normal(0, [2.5, 3, 1.5])
    drift = rng.normal(0, 0.25 * np.exp(rng.normal()), (2, MOMENTS, 3)).cumsum(1).astype(np.float32)
    return Performed(face_shapes(identity, contraction), drift[0] + rest.astype(np.float32), drift[1])
