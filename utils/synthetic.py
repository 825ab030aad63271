"""The synthetic 4D faces: a data root in the layout of the real one, from one seed.

Each clip is a person of the face model who makes a micro-expression, blinks, looks about and moves the head,
photographed by two stereo cameras under flickering light with a noisy sensor. As from a real scanner, a frame
is a mesh whose UVs point into the composite of the two photographs. What really happened lies in
`<DATA>/truth`, which no stage but the measurements of the notebooks reads.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from utils.artefacts import artefact_key, is_current, write_artefact
from utils.config import CLASSES, Config, load_config
from utils.dataset.sequences import open_sequence, write_clip, write_obj_sequence
from utils.face.expressions import (
    ACTION_UNITS,
    BLINK,
    GAZE,
    Course,
    envelope,
    rotation,
    sample_blink,
    sample_course,
    sample_drift,
    sample_expression,
    sides_of,
)
from utils.face.model import Identity, load_face_model, sample_identity, vertex_normals
from utils.face.skin import paint_skin
from utils.parallel import parallel_map
from utils.render.camera import Camera
from utils.render.renderer import TexturedMesh, get_renderer

FPS = 60.0
# Label sets of 4DME and their counts (design.md, section 3): 267 clips of 24 subjects.
LABEL_SETS = {
    ("Negative",): 127,
    ("Positive",): 34,
    ("Surprise",): 30,
    ("Repression",): 6,
    ("Others",): 31,
    ("Positive", "Surprise"): 13,
    ("Negative", "Surprise"): 8,
    ("Repression", "Surprise"): 3,
    ("Positive", "Repression"): 8,
    ("Negative", "Repression"): 7,
}
SMOKE_LABEL_SETS = {
    ("Negative",): 7,
    ("Positive",): 4,
    ("Surprise",): 4,
    ("Repression",): 3,
    ("Others",): 4,
    ("Positive", "Surprise"): 2,
}
MAX_DEALS = 10_000  # a possible plan was found within a few hundred
PHOTO = 320  # pixels a side of each stereo photograph
STEREO = tuple(
    Camera(yaw, 1100.0, (0.0, 0.0, 0.0), PHOTO * 4.7, ((PHOTO - 1) / 2,) * 2, (PHOTO, PHOTO)) for yaw in (-18.0, 18.0)
)
BACKGROUND = np.array([34, 33, 38], np.float32)
PIXELS_PER_MM = 1.2  # of a face in a 256 px crop, about
SENSOR_BLUR, SENSOR_NOISE = 0.6, 1.5  # pixels; grey levels at mid grey
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


def plan_clips(config: Config) -> pd.DataFrame:
    """The clips of the set: Id, subject, split and the five labels, the same for the same seed.

    Label sets are dealt to subjects at random; of many deals the first is taken in which the test subjects hold
    a fair share (0.7 to 1.5 of the expected) of every class. Raises ValueError where no such deal is found.
    """
    sets = LABEL_SETS if config.clip_table == "4dme" else SMOKE_LABEL_SETS
    labels = [names for names, count in sets.items() for _ in range(count)]
    indicator = np.array([[name in names for name in CLASSES] for names in labels], int)
    rng = np.random.default_rng([config.data_seed, 1])
    n_test = config.n_test_subjects
    for _ in range(MAX_DEALS):
        share = rng.dirichlet(np.full(config.n_subjects, 6.0))
        subject = rng.permutation(
            np.repeat(
                np.arange(config.n_subjects),
                np.diff(np.rint(np.concatenate([[0], np.cumsum(share)]) * len(labels)).astype(int)),
            )
        )
        in_test = subject >= config.n_subjects - n_test
        held = indicator[in_test].sum(0) / indicator.sum(0) / (n_test / config.n_subjects)
        if np.bincount(subject, minlength=config.n_subjects).min() >= 3 and ((held > 0.7) & (held < 1.5)).all():
            break
    else:
        raise ValueError(
            f"{len(labels)} clips cannot be dealt fairly to {config.n_subjects} subjects with {n_test} for the "
            "test. Remedy: choose fewer subjects, or about a quarter of them for the test."
        )
    order = rng.permutation(len(labels))
    order = order[np.argsort(subject[order], kind="stable")]
    table = pd.DataFrame(indicator[order], columns=list(CLASSES))
    table.insert(0, "split", np.where(in_test[order], "test", "train"))
    table.insert(0, "subject", [f"S{s + 1:02d}" for s in subject[order]])
    table.insert(0, "Id", [f"{s}_{i + 1:03d}" for i, s in enumerate(table["subject"])])
    return table


def perform(identity: Identity, emotions: list[str], rng: np.random.Generator, strength: float = 1.0) -> Performance:
    """One person's clip of the given emotions, with confounders. `strength` scales the peak motion."""
    model = load_face_model()
    index = {name: i for i, name in enumerate(model.unit_names)}
    course = sample_course(rng)
    expression = np.zeros((course.n_frames, len(index)), np.float32)
    travel = np.linalg.norm(identity.unit_offsets, axis=2).max(1)
    lag = {au: rng.integers(2**31) for au in ACTION_UNITS}  # both sides and all units of an AU move together
    for unit, intensity in sample_expression(emotions, rng).items():
        au = next(au for au, units in ACTION_UNITS.items() if any(unit in sides_of(u) for u in units))
        shape = envelope(course, np.random.default_rng(lag[au]))
        expression[:, index[unit]] = intensity / travel[index[unit]] * shape
    peak_px = np.clip(rng.lognormal(np.log(0.9), 0.45), 0.3, 2.5) * strength
    displacement = np.einsum("u,uvc->vc", expression[course.apex], identity.unit_offsets)
    expression *= peak_px / PIXELS_PER_MM / np.linalg.norm(displacement[:, :2], axis=1).max()

    contraction = expression.copy()
    confounders = {
        name: bool(rng.random() < odds)
        for name, odds in {"blink": 0.35, "gaze": 0.3, "drift": 0.5, "flicker": 0.5}.items()
    }
    if confounders["blink"]:
        lids = sample_blink(course.n_frames, rng)
        for name in BLINK:
            contraction[:, index[name]] += lids
    if confounders["gaze"]:
        way = rng.choice(GAZE)
        turn = rng.uniform(0.1, 0.5) * ease_step(course.n_frames, rng)
        for side, other in (("Left", way), ("Right", {"In": "Out", "Out": "In"}.get(way, way))):
            contraction[:, index[f"eyeLook{other}{side}"]] += turn
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
    return identity.vertices + np.einsum("tu,uvc->tvc", contraction[:, active], identity.unit_offsets[active])


def move_head(shapes: np.ndarray, angles: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Vertices (T, V, 3) mm of faces (T, V, 3) turned about the neck by angles (T, 3) degrees, shifted (T, 3) mm."""
    turn = rotation(angles).astype(np.float32)
    return np.einsum("tij,tvj->tvi", turn, shapes - PIVOT) + PIVOT + shift[:, None]


def motion_curve(identity: Identity, expression: np.ndarray) -> np.ndarray:
    """True expression motion against frame 0: root mean square displacement of the surface (T,), mm."""
    change = expression - expression[0]
    active = np.abs(change).max(0) > 0
    moved = np.einsum("tu,uvc->tvc", change[:, active], identity.unit_offsets[active])
    return np.sqrt((moved**2).sum(-1).mean(-1))


# Photography --------------------------------------------------------------------------------------------------------


def scanner_surface() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mesh as the scanner delivers it: which model vertex each vertex is (W,), its camera (W,), faces (F, 3).

    A face takes its texture from the camera on its side; vertices on the border stand once for each camera.
    """
    model = load_face_model()
    camera_of_face = (model.template[model.faces, 0].mean(1) > 0).astype(int)
    keys = model.faces + len(model.template) * camera_of_face[:, None]
    kept, faces = np.unique(keys, return_inverse=True)
    return kept % len(model.template), kept // len(model.template), faces.reshape(-1, 3).astype(np.int32)


def light_face(vertices: np.ndarray, rng_light: np.random.Generator) -> np.ndarray:
    """Baked light (T, V, 3) in 0..1: ambient, a key and a fill light, the same for all frames of a person."""
    key = rng_light.normal([0, 0.55, 0.8], [0.35, 0.15, 0.1])
    fill = rng_light.normal([0, 0.1, 0.9], [0.6, 0.2, 0.1])
    lights = np.stack([key, fill]) / np.linalg.norm([key, fill], axis=1, keepdims=True)
    lit = np.clip(vertex_normals(vertices) @ lights.T.astype(np.float32), 0, None)
    warmth = 1 + rng_light.normal(0, 0.02, 3)
    return np.clip((0.38 + 0.42 * lit[..., :1] + 0.2 * lit[..., 1:]) * warmth, 0, 1)


def photograph(
    vertices: np.ndarray,
    albedo: np.ndarray,
    rng_light: np.random.Generator,
    rng: np.random.Generator,
    flicker: bool,
    noise: float = SENSOR_NOISE,
):
    """Yield the composite (PHOTO, 2 PHOTO, 3) uint8 of every frame: stereo pictures, flicker, blur and noise.

    noise: deviation of the sensor's noise at mid grey, grey levels.
    """
    model, renderer = load_face_model(), get_renderer()
    tints = light_face(vertices, rng_light)
    frames = np.arange(len(vertices))
    gain = 1 + flicker * 0.01 * np.sin(2 * np.pi * (rng.uniform(0.05, 0.4) * frames + rng.random()))
    gain = gain * (1 + rng.normal(0, 0.003, len(frames)))
    for t in frames:
        mesh = TexturedMesh(vertices[t], model.faces, model.uv, albedo, tints[t])
        halves = [np.where(p.mask[..., None], p.rgb, BACKGROUND) for p in renderer.render(mesh, list(STEREO))]
        photo = cv2.GaussianBlur(np.hstack(halves).astype(np.float32), (0, 0), SENSOR_BLUR) * gain[t]
        grain = rng.standard_normal(photo.shape, np.float32) * noise
        yield np.clip(np.rint(photo + grain * np.sqrt(0.25 + 0.75 * photo / 128)), 0, 255).astype(np.uint8)


def scanner_uv(vertices: np.ndarray, source: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """UVs (T, W, 2) of the scanner's vertices in the composite: where each stood in its camera's photograph."""
    pixels = np.stack([c.project(vertices[:, source]) for c in STEREO])
    own = np.where(camera[:, None] == 0, pixels[0], pixels[1] + [PHOTO, 0])
    return np.stack([(own[..., 0] + 0.5) / (2 * PHOTO), 1 - (own[..., 1] + 0.5) / PHOTO], -1).astype(np.float32)


# The data root ------------------------------------------------------------------------------------------------------


def make_identity(config: Config, subject: str) -> tuple[Identity, np.random.Generator]:
    """The subject's person and the generator of everything else that stays with the person (skin, light)."""
    rng = np.random.default_rng([config.data_seed, 2, int(subject[1:])])
    return sample_identity(rng), rng


def make_subject(config: Config, root: Path, subject: str, clips: list[dict]) -> list[dict]:
    """Write all clips of one subject and their truth; returns the truth's rows."""
    identity, rng_person = make_identity(config, subject)
    albedo = paint_skin(identity, rng_person)
    light_seed = int(rng_person.integers(2**31))
    source, camera, faces = scanner_surface()
    rows = []
    for clip in clips:
        rng = np.random.default_rng([config.data_seed, 3, int(clip["Id"].split("_")[1])])
        emotions = [name for name in CLASSES if clip[name]]
        act = perform(identity, emotions, rng)
        vertices = pose_vertices(identity, act.contraction, act.angles, act.shift)
        photos = photograph(vertices, albedo, np.random.default_rng(light_seed), rng, act.confounders["flicker"])
        folder = root / clip["split"] / clip["Id"]
        write_clip(folder, vertices[:, source], faces, scanner_uv(vertices, source, camera), FPS, photos)
        if config.obj_frames:
            write_obj_sequence(open_sequence(folder), folder)
        curve = motion_curve(identity, act.expression)
        write_artefact(
            root / "truth" / f"{clip['Id']}.npz",
            {
                "contraction": act.contraction,
                "expression": act.expression,
                "angles": act.angles,
                "shift": act.shift,
                "motion": curve.astype(np.float32),
            },
        )
        moved = np.einsum("u,uvc->vc", act.expression[curve.argmax()] - act.expression[0], identity.unit_offsets)
        rows.append(
            {
                **clip,
                "onset": act.course.onset,
                "apex": int(curve.argmax()),
                "offset": act.course.offset,
                "n_frames": act.course.n_frames,
                "peak_px": float(np.linalg.norm(moved[:, :2], axis=1).max() * PIXELS_PER_MM),
                **act.confounders,
                **au_intensities(act.expression[curve.argmax()]),
            }
        )
    return rows


def au_intensities(contraction: np.ndarray) -> dict[str, float]:
    """Peak intensity of each AU, mean and difference (left minus right) of its sides, from contractions (52,)."""
    value = dict(zip(load_face_model().unit_names, contraction.tolist(), strict=True))
    result = {}
    for au, units in ACTION_UNITS.items():
        sides = [value[side] for unit in units for side in sides_of(unit)]
        result[au] = float(np.mean(sides))
        if len(sides) == 2:
            result[f"{au}_side"] = sides[0] - sides[1]
    return result


def make_dataset(config: Config, n_jobs: int | None = None) -> Path:
    """Write the data root of the profile, unless it is there already under the same seed, parameters and code."""
    root = config.data_root
    parameters = {
        name: getattr(config, name)
        for name in ("clip_table", "n_subjects", "n_test_subjects", "data_seed", "obj_frames")
    }
    key = artefact_key((), parameters, make_subject)
    if is_current(root / "truth" / "clips.csv", key):
        return root
    plan = plan_clips(config)
    jobs = [(config, root, subject, rows.to_dict("records")) for subject, rows in plan.groupby("subject")]
    done = parallel_map(_make_subject, jobs, n_jobs or config.jobs, description="synthetic subjects")
    truth = pd.DataFrame([row for rows in done for row in rows])
    train, test = (truth[truth["split"] == split] for split in ("train", "test"))
    write_artefact(root / "train.csv", train[["Id", "subject", *CLASSES, "onset", "apex", "offset"]])
    write_artefact(root / "sample_submission.csv", test[["Id", *CLASSES]].assign(**dict.fromkeys(CLASSES, 0)))
    write_artefact(root / "solution.csv", test[["Id", "subject", *CLASSES]])
    write_artefact(root / "truth" / "clips.csv", truth, key)
    return root


def _make_subject(job: tuple) -> list[dict]:
    return make_subject(*job)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the synthetic data root of a profile.")
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--data", default="", help="folder to write (default: the profile's)")
    parser.add_argument("--obj", action="store_true", help="OBJ, MTL and texture per frame instead of compact clips")
    parser.add_argument("--jobs", type=int, default=0)
    arguments = parser.parse_args()
    changes = {"obj_frames": arguments.obj, "data": arguments.data, "jobs": arguments.jobs}
    config = load_config(arguments.profile, **{name: value for name, value in changes.items() if value})
    print(f"synthetic 4D faces: {make_dataset(config)}")


if __name__ == "__main__":
    main()
