"""Lessons for the flow network: rendered pairs of frames of synthetic faces, with their exact flow.

A moment moves a few of the 52 blend shapes at random. No expression of `utils.synthetic.expressions` is used, and the
people are drawn from other seeds, so the flow network is measured on motions and people that it has never seen. The
pairs are made once and kept under artefacts/flow_lessons.
"""

from typing import NamedTuple

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
CLIPS_EACH, MOMENTS = 4, 4  # clips of a person, moments of a clip


class Lessons(NamedTuple):
    """N pairs of frames, with the truth at the resolution of the network's flow."""

    first: np.ndarray  # (N, SIZE, SIZE) uint8 grey
    second: np.ndarray
    flow: np.ndarray  # (N, 2, OUT, OUT) float16, pixels of the SIZE px picture
    nonrigid: np.ndarray  # the same without the head's rigid motion
    visible: np.ndarray  # (N, OUT, OUT) bool


def make_lessons(people: int, seed: int, jobs: int) -> Lessons:
    """The pairs of all people. Stored pairs are read; the others are rendered by `jobs` workers, and stored."""

    def stored_pairs(person: int) -> dict[str, np.ndarray]:
        parameters = {"seed": seed, "person": person, "clips": CLIPS_EACH, "moments": MOMENTS}
        key = artefact_key((), parameters, pairs_of_person)
        return cached(LESSONS / f"{seed}-{person:04d}.npz", key, lambda: pairs_of_person(seed, person))

    parts = parallel_map(stored_pairs, range(people), jobs, description="people for the flow network")
    return Lessons(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def pairs_of_person(seed: int, person: int) -> dict[str, np.ndarray]:
    """The arrays of `Lessons` for one person: the neighbouring moments of CLIPS_EACH clips in both views."""
    rng = np.random.default_rng([seed, 60, person])
    identity = sample_identity(rng)
    albedo, light = paint_skin(identity, rng), int(rng.integers(2**31))
    clips = []
    for number in range(CLIPS_EACH):
        act = random_act(identity, rng)
        yaw = rng.uniform(0, YAW_DEG) if number % 2 else YAW_DEG  # every other clip is seen more from the front
        # Without noise, which `flow_degradation` adds after it has warped the pictures
        conditions = Conditions(SIZE, 0.0, bool(rng.random() < 0.5), stabilised=number // 2 == 0, yaw_deg=yaw)
        clip = record_clip(act, albedo, light, rng, conditions, truth_size=OUT)
        grey = clip.grey().swapaxes(0, 1)  # (V, T, S, S)
        flow, nonrigid = (np.moveaxis(maps, -1, 2).astype(np.float16) for maps in (clip.flow, clip.nonrigid))
        clips.append((grey[:, :-1], grey[:, 1:], flow, nonrigid, clip.visible))
    joined = (np.concatenate([maps.reshape(-1, *maps.shape[2:]) for maps in part]) for part in zip(*clips, strict=True))
    return dict(zip(Lessons._fields, joined, strict=True))


def random_act(identity: Identity, rng: np.random.Generator) -> Performed:
    """MOMENTS moments of a face: a few blend shapes at random strength, sometimes a blink or a glance, and a head that
    drifts by about half a degree and half a millimetre."""
    index = load_face_model().shape_index
    names = list(index)
    contraction = np.zeros((MOMENTS, len(names)), np.float32)
    chosen = rng.choice(len(names), rng.integers(1, 9), replace=False)
    travel = identity.shape_travel + 1e-6
    for shape in chosen:
        opposite = opposite_side(names[shape])
        level = rng.random(MOMENTS) * rng.uniform(0.2, 1) / travel[shape]
        contraction[:, shape] += level
        if opposite != names[shape] and rng.random() < 0.6:
            contraction[:, index[opposite]] += level * rng.uniform(0.5, 1)
    moved = np.einsum("tu,uvc->tvc", contraction, identity.shape_offsets)
    peak = np.linalg.norm(np.diff(moved, axis=0)[..., :2], axis=2).max()
    contraction *= np.clip(rng.lognormal(np.log(1.2), 0.6), 0.05, 4) / PIXELS_PER_MM / max(peak, 1e-6)
    if rng.random() < 0.4:
        closure = rng.random((MOMENTS, 1)) ** 2 * (rng.random((MOMENTS, 1)) < 0.6) * rng.uniform(0.8, 1.2, 2)
        contraction[:, [index[lid] for lid in BLINK]] += closure.clip(max=1)
    if rng.random() < 0.3:
        turned, start = gaze_shapes(rng.choice(GAZE)), rng.integers(1, MOMENTS)
        for name in turned:
            contraction[start:, index[name]] += rng.uniform(0.05, 0.5)
    rest = rng.normal(0, [2.5, 3, 1.5])
    drift = rng.normal(0, 0.25 * np.exp(rng.normal()), (2, MOMENTS, 3)).cumsum(1).astype(np.float32)
    return Performed(face_shapes(identity, contraction), drift[0] + rest.astype(np.float32), drift[1])
