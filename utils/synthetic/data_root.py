"""The synthetic challenge: a data root with the layout of the real one, made from one seed.

In each clip, a person of a face model makes a micro-expression, blinks, looks about and moves the head. Two stereo
cameras with noisy sensors photograph it under flickering light. A frame is a mesh, as from a real scanner: its uv point
into the composite of both photographs. `<DATA>/truth` holds what truly happens in the clips; only the measurements of
the notebooks read it.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from utils.artefacts import artefact_key, is_current, read_artefact, remove, remove_leftovers, write_artefact
from utils.dataset.clip_file import FPS
from utils.dataset.readers import open_sequence
from utils.dataset.writers import write_clip, write_obj_sequence
from utils.errors import DataError
from utils.parallel import parallel_map
from utils.paths import USER_FACE_MODEL
from utils.synthetic.blend_shapes import BlendShapes, files_of, load_blend_shapes, read_blend_shapes
from utils.synthetic.expressions import REPERTOIRES, within_reach
from utils.synthetic.face_model import Identity, moving_shapes, sample_identity
from utils.synthetic.performance import perform, pose_vertices, true_motion_curve, truth_row
from utils.synthetic.photography import photograph, scanner_surface, scanner_uv
from utils.synthetic.skin import paint_skin
from utils.synthetic.truth import TRUTH
from utils.train.samples import CLASSES

# How many clips of 4DME have each set of labels: 267 clips of 24 subjects.
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
UNFINISHED = ".unfinished-synthetic"  # folder of the finished subjects' truth, while other subjects are being written
PLAN = ["Id", "subject", "split", *CLASSES]  # columns of `plan_clips`
MAX_DEALS = 10_000  # if a fair plan exists, a few hundred deals find it


def plan_clips(clip_table: str, n_subjects: int, n_test: int, seed: int) -> pd.DataFrame:
    """The clips of a table ("4dme" or "smoke"): Id, subject, split and the five labels, from one seed.

    Label sets are dealt to the subjects at random until the test subjects hold a fair share of every class: 0.7 to 1.5
    times what is expected. Raises ValueError if no deal is fair.
    """
    sets = LABEL_SETS if clip_table == "4dme" else SMOKE_LABEL_SETS
    labels = [names for names, count in sets.items() for _ in range(count)]
    indicator = np.array([[name in names for name in CLASSES] for names in labels], int)
    rng = np.random.default_rng([seed, 1])
    for _ in range(MAX_DEALS):
        share = rng.dirichlet(np.full(n_subjects, 6.0))
        counts = np.diff(np.rint(np.concatenate([[0], np.cumsum(share)]) * len(labels)).astype(int))
        subject = rng.permutation(np.repeat(np.arange(n_subjects), counts))
        in_test = subject >= n_subjects - n_test
        held = indicator[in_test].sum(0) / indicator.sum(0) / (n_test / n_subjects)
        if np.bincount(subject, minlength=n_subjects).min() >= 3 and ((held > 0.7) & (held < 1.5)).all():
            break
    else:
        raise ValueError(
            f"{len(labels)} clips cannot be dealt fairly to {n_subjects} subjects with {n_test} for the "
            "test. Remedy: choose fewer subjects, or about a quarter of them for the test."
        )
    order = rng.permutation(len(labels))
    order = order[np.argsort(subject[order], kind="stable")]
    table = pd.DataFrame(indicator[order], columns=list(CLASSES))
    table.insert(0, "split", np.where(in_test[order], "test", "train"))
    table.insert(0, "subject", [f"S{s + 1:02d}" for s in subject[order]])
    table.insert(0, "Id", [f"{s}_{i + 1:03d}" for i, s in enumerate(table["subject"])])
    return table


def make_identity(
    seed: int, subject: str, face_model: BlendShapes | None = None
) -> tuple[Identity, np.random.Generator]:
    """The person of a subject, and the random generator for what else belongs to the person: skin and light.

    face_model: the user's own; ours by default.
    """
    rng = np.random.default_rng([seed, 2, int(subject[1:])])
    return (face_model.sample_identity if face_model else sample_identity)(rng), rng


def make_subject(
    root: Path, subject: str, clips: list[dict], seed: int, obj_frames: bool, expressions: str, face_model: bool = False
) -> list[dict]:
    """Write all clips of one subject and their truth, and return the rows of the table of the truth.

    face_model: draw the person from the user's face model in USER_FACE_MODEL instead of ours.
    """
    file = root / USER_FACE_MODEL
    model = load_blend_shapes(file, file.stat().st_mtime_ns) if face_model else None
    identity, rng_person = make_identity(seed, subject, model)
    albedo = paint_skin(identity, rng_person)
    light_seed = int(rng_person.integers(2**31))
    source, camera, faces = scanner_surface(model)
    rows = []
    for clip in clips:
        rng = np.random.default_rng([seed, 3, int(clip["Id"].split("_")[1])])
        emotions = [name for name in CLASSES if clip[name]]
        act = perform(identity, emotions, rng, REPERTOIRES[expressions])
        vertices = pose_vertices(identity, act.contraction, act.angles, act.shift)
        light = np.random.default_rng(light_seed)
        photos = photograph(vertices, albedo, light, rng, act.confounders["flicker"], model=model)
        folder = root / clip["split"] / clip["Id"]
        write_clip(folder, vertices[:, source], faces, scanner_uv(vertices, source, camera), FPS, photos)
        if obj_frames:
            write_obj_sequence(open_sequence(folder), folder)
        curve = true_motion_curve(identity, act.expression)
        arrays = {name: getattr(act, name) for name in ("contraction", "expression", "angles", "shift")}
        write_artefact(root / "truth" / f"{clip['Id']}.npz", arrays | {"motion": curve.astype(np.float32)})
        rows.append(clip | truth_row(identity, act, int(curve.argmax())))
    return rows


def make_dataset(
    root: Path,
    clip_table: str,
    n_subjects: int,
    n_test_subjects: int,
    data_seed: int,
    obj_frames: bool,
    expressions: str,
    jobs: int = 1,
    face_model: Path | None = None,
) -> Path:
    """Write the parts of a synthetic data root that are missing or were made from other parameters or code; return it.

    face_model: the user's own (see `utils.synthetic.blend_shapes`); ours by default.

    If an earlier process was killed, the subjects that it finished are kept. If single clips are missing, their
    subjects are written again. A second process that makes the same root waits. Raises DataError for a folder that
    holds other data, and for a face model that cannot be read or cannot show an emotion.
    """
    parameters = (clip_table, n_subjects, n_test_subjects, data_seed)
    key = artefact_key(files_of(face_model) if face_model else (), [*parameters, obj_frames, expressions], make_subject)
    model = None
    if face_model and not is_current(root / USER_FACE_MODEL, key):  # an unfit one is refused before any file changes
        model = read_blend_shapes(face_model)
        try:
            within_reach(REPERTOIRES[expressions], moving_shapes(model.offsets))
        except ValueError as error:
            raise DataError(f"{face_model}: {error}") from None
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        remove_leftovers(root)
        complete = is_current(root / TRUTH, key)
        plan = read_artefact(root / TRUTH) if complete else plan_clips(*parameters)
        truths = {subject: root / UNFINISHED / f"{subject}.csv" for subject in plan["subject"].unique()}
        finished = [subject for subject, truth in truths.items() if is_current(truth, key)]
        if not complete and not finished:
            _clear(root)
        if face_model and not is_current(root / USER_FACE_MODEL, key):
            write_artefact(root / USER_FACE_MODEL, (model or read_blend_shapes(face_model)).arrays(), key)
        missing = np.array([not (root / row.split / row.Id).is_dir() for row in plan.itertuples()])
        if not complete:
            missing |= ~plan["subject"].isin(finished).to_numpy()
        clips = {subject: rows.to_dict("records") for subject, rows in plan[PLAN].groupby("subject")}
        tasks = [
            (truths[subject], key, root, subject, clips[subject], data_seed, obj_frames, expressions, bool(face_model))
            for subject in plan.loc[missing, "subject"].value_counts().index  # the most clips first, for even loads
        ]
        if tasks:
            parallel_map(_write_subject, tasks, jobs, description="synthetic subjects")
        if not complete:
            rows = pd.concat([read_artefact(truth) for truth in truths.values()])
            _write_tables(root, rows.sort_values("Id", ignore_index=True), key)
        remove(root / UNFINISHED)
    return root


def _write_subject(task: tuple) -> None:
    """Write a subject's clips and, last, its truth."""
    truth, key, *arguments = task
    write_artefact(truth, pd.DataFrame(make_subject(*arguments)), key)


def _clear(root: Path) -> None:
    """Empty a data root of synthetic clips. DataError for a folder that holds anything else."""
    unfinished = root / UNFINISHED  # created first: as long as it is there, the other files count as synthetic
    in_use = any(not path.name.startswith(".") for path in root.iterdir())
    if in_use and not ((root / TRUTH).exists() or unfinished.exists()):
        raise DataError.at(root, "it holds data that are not synthetic", "choose another folder for the synthetic data")
    unfinished.mkdir(parents=True, exist_ok=True)
    for path in unfinished.iterdir():
        remove(path)
    for name in (TRUTH, "train", "test", "truth", "card", "train.csv", "sample_submission.csv", "solution.csv"):
        remove(root / name)  # the table of the truth first: without it the root counts as unfinished


def _write_tables(root: Path, truth: pd.DataFrame, key: str) -> None:
    """Write the tables of the challenge and, last, the truth, whose key marks the root as complete."""
    train, test = (truth[truth["split"] == split] for split in ("train", "test"))
    write_artefact(root / "train.csv", train[["Id", "subject", *CLASSES, "onset", "apex", "offset"]])
    write_artefact(root / "sample_submission.csv", test[["Id", *CLASSES]].assign(**dict.fromkeys(CLASSES, 0)))
    write_artefact(root / "solution.csv", test[["Id", "subject", *CLASSES]])
    write_artefact(root / TRUTH, truth, key)
