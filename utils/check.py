"""Check a data root before a run: what it holds, whether its parts fit together, and what the network will see.

    python -m utils.run check --data DIR [--set "views=split"] [--sample 48]

The check reads all tables and folders, and the file names of every clip. It opens the pictures and meshes of a sample
only, spread over the root; their first frames become a contact sheet.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from utils.artefacts import atomic_path
from utils.config import Config
from utils.dataset.clip_file import CLIP
from utils.dataset.labels import MOMENT_COLUMNS
from utils.dataset.layout import LAYOUT
from utils.dataset.readers import MeshSequence, frame_files, video_of
from utils.dataset.sequence import Sequence
from utils.dataset.tables import DataRoot, open_data
from utils.errors import DataError
from utils.evaluate.held_out import Plan, outer_folds
from utils.parallel import parallel_map
from utils.pipeline import Job, jobs_of, samples_of
from utils.render.views import make_views
from utils.report.figures.common import save_figure
from utils.report.figures.render import contact_sheet
from utils.train.samples import CLASSES

SAMPLE = 48  # clips that are opened
SHEET_SIZE = 128  # pixels of a view on the contact sheet
SHOWN = 5  # faults of one kind that are printed; problems.txt has all of them
FEW = 5  # a class with fewer training clips gets a note


@dataclass
class Check:
    """The result of a check."""

    root: Path
    facts: list[tuple[str, str]] = field(default_factory=list)  # label and text
    notes: list[str] = field(default_factory=list)  # for the owner; a run can go on
    problems: list[str] = field(default_factory=list)  # they stop a run, or leave a test clip unanswered
    clips: pd.DataFrame = field(default_factory=pd.DataFrame)  # Id, split, kind, frames; more of the sample
    pictures: list[tuple[str, np.ndarray]] = field(
        default_factory=list
    )  # title, views (S, V * S, 3) of each clip of the sample

    def fact(self, label: str, text: str) -> None:
        self.facts.append((label, text))

    def refuse(self, error: Exception) -> None:
        self.problems.append(str(error))


def check_root(config: Config, sample: int = SAMPLE) -> Check:
    """Check a data root as a run with this configuration would read it, and open `sample` of its clips."""
    check = Check(config.data_root)
    try:
        data = open_data(config.data_root, CLASSES, config.subject_pattern or None, check.refuse)
    except DataError as error:
        check.refuse(error)
        return check
    check.notes += data.warnings
    if data.train.empty:
        return check
    _check_tables(check, config, data)
    jobs = _tried(check, lambda: jobs_of(config, data)) or []
    present = [job for job in jobs if job.folder.exists()]
    rows = {job.id: _listed(check, job) for job in present}
    chosen = _spread([job for job in present if not rows[job.id]["problem"]], sample)
    looks = parallel_map(_look, chosen, config.jobs, description="clips looked at")
    for job, look in zip(chosen, looks, strict=True):
        check.pictures.append((_title(job, look), look.pop("picture")))
        rows[job.id] |= look
    check.clips = pd.DataFrame(rows.values())
    _describe_files(check)
    _describe_sample(check, looks)
    return check


def _tried(check: Check, ask: Callable):
    """The value of `ask()`, or None after an error, which becomes a problem."""
    try:
        return ask()
    except ValueError as error:  # a DataError is one
        check.refuse(error)
        return None


def _counted(values: Iterable) -> str:
    """The values with their counts, the most frequent first."""
    counts = Counter(values).most_common()
    words = [f"{value} ({count})" for value, count in counts[:6]]
    return ", ".join(words + ([f"and {len(counts) - 6} others"] if len(counts) > 6 else []))


# Tables -------------------------------------------------------------------------------------------------------------


def _check_tables(check: Check, config: Config, data: DataRoot) -> None:
    """Labels, subjects, moments and action units, and whether the folds of the configuration can be made."""
    train = data.train
    has_layout = (data.root / LAYOUT).exists()
    check.fact("data", f"{data.root}" + (f", as its {LAYOUT} says" if has_layout else ""))
    sizes = train["subject"].value_counts()
    span = f"{sizes.min()} to {sizes.max()}" if len(set(sizes)) > 1 else f"{sizes.max()}"
    check.fact("training", f"{len(train)} clips of {len(sizes)} subjects, {span} clips each")
    check.fact("test", f"{len(data.test_ids)} clips" if data.test_ids else "no test split: 05 has nothing to submit")
    labels = train[list(CLASSES)].to_numpy(bool)
    check.fact("labels", ", ".join(f"{name} {count}" for name, count in zip(CLASSES, labels.sum(0), strict=True)))
    together = ["+".join(np.array(CLASSES)[row]) for row in labels if row.sum() > 1]
    check.fact("pairs", _counted(together) if together else "none")
    moments = [name for name in MOMENT_COLUMNS if name in train]
    counts = ", ".join(f"{name} of {train[name].notna().sum()}" for name in moments)
    check.fact("moments", f"{counts} clips" if counts else "none given: the apex is found")
    if "units" in train:
        check.fact("AUs", f"given for {(train['units'] != '').sum()} clips")
    if unlabelled := int((~labels.any(1)).sum()):
        check.notes.append(f"{unlabelled} training clips have no class.")
    if few := [name for name, count in zip(CLASSES, labels.sum(0), strict=True) if count < FEW]:
        check.notes.append(f"Fewer than {FEW} training clips are {', '.join(few)}: their scores will be chance.")
    _tried(check, lambda: _make_folds(check, config, data))


def _make_folds(check: Check, config: Config, data: DataRoot) -> None:
    """Make the outer folds. Raises ValueError if that fails, or leaves one subject to train on."""
    features = np.zeros((config.n_views, 2, 3, 1, 1), np.float32)
    samples = samples_of(data, "train", [(id, features) for id in data.train["Id"]])
    folds = outer_folds(Plan.of(config), samples)
    fewest = min(len(np.unique(samples.subjects[train])) for train, _ in folds)
    if fewest < 2:
        raise ValueError("a fold has 1 subject to train on. Remedy: deliver clips of at least three subjects.")
    check.fact("split", f"{len(folds)} folds by subject, each with {fewest} subjects or more to train on")


# Files --------------------------------------------------------------------------------------------------------------


def _listed(check: Check, job: Job) -> dict:
    """The kind of a clip and its number of frames, from its file names; the number is unknown for a video."""
    row = {"Id": job.id, "split": job.split, "kind": "", "frames": 0, "problem": ""}
    try:
        if video := video_of(job.folder):
            return row | {"kind": video.suffix.lower(), "frames": pd.NA}
        files = frame_files(*job.clip)
    except DataError as error:
        check.refuse(error)
        return row | {"problem": str(error)}
    kind = CLIP if (job.folder / CLIP).exists() else files[0].suffix.lower()
    return row | {"kind": kind, "frames": len(files)}


def _describe_files(check: Check) -> None:
    table = check.clips
    if table.empty:
        return
    check.fact("files", _counted(table["kind"][table["kind"] != ""]))
    frames = table["frames"].dropna()
    frames = frames[frames > 0].astype(int)
    if len(frames):
        check.fact("frames", f"{frames.min()} to {frames.max()}, half of the clips below {frames.median():g}")


# Pictures -----------------------------------------------------------------------------------------------------------


def _spread(jobs: list[Job], count: int) -> list[Job]:
    """At most `count` jobs, at equal steps from the first to the last."""
    places = np.unique(np.linspace(0, len(jobs) - 1, min(count, len(jobs))).round().astype(int))
    return [jobs[place] for place in places] if jobs else []


def _look(job: Job) -> dict:
    """The first frame of a clip as the network will see it, and the properties of its files."""
    blank = np.full((SHEET_SIZE, SHEET_SIZE * job.config.n_views, 3), 128, np.uint8)
    try:
        sequence = job.sequence()
        look = {"frames": len(sequence)}
        sequence = _thinned(sequence)
        parameters = {name: value for name, value in job.view_parameters.items() if name != "span"}
        views = make_views(sequence, **(parameters | {"size": SHEET_SIZE, "times": [0]}))
        look |= _content(sequence)
    except DataError as error:
        return {"picture": blank, "problem": str(error)}
    shown = np.where(views.masks[..., None], views.frames[0], views.frames[0] // 2 + 64)
    look |= {"axes": views.axes if sequence.kind == "mesh" else "", "crop": views.source}
    return look | {"warning": " ".join(views.warnings), "picture": np.concatenate(list(shown), axis=1)}


def _thinned(sequence: Sequence) -> Sequence:
    """A sequence of mesh files with its first and last frame only, since reading all of them takes long."""
    if isinstance(sequence, MeshSequence):
        return MeshSequence(sequence.folder, [sequence.files[0], sequence.files[-1]], sequence.fps)
    return sequence


def _content(sequence: Sequence) -> dict:
    """The sizes of pictures and meshes."""
    height, width = sequence.texture(0).shape[:2]
    content = {"picture size": f"{width} x {height}"}
    if sequence.kind == "mesh":
        vertices, faces, _ = sequence.geometry(0)
        content |= {"vertices": len(vertices), "faces": len(faces), "parts": len(sequence.surfaces(0))}
        topology = "one mesh over the frames" if sequence.constant_topology else "a mesh of its own per frame"
        content |= {"topology": topology, "extent mm": round(float(np.ptp(vertices, axis=0).max()))}
        content |= {"mm per length unit": sequence.mm_per_unit if isinstance(sequence, MeshSequence) else 1.0}
    return content


def _describe_sample(check: Check, looks: list[dict]) -> None:
    table = pd.DataFrame(looks)
    if table.empty:
        return
    check.fact("opened", f"{len(table)} clips, spread over the root")
    for column, word in (
        ("picture size", "pictures"),
        ("vertices", "vertices"),
        ("parts", "textures"),
        ("topology", "topology"),
        ("mm per length unit", "mm per length unit"),
        ("axes", "axes"),
        ("crop", "crops"),
    ):
        values = table[column].replace("", pd.NA).dropna() if column in table else ()
        if len(values):
            check.fact(word, _counted(values))
    axes = {look["axes"] for look in looks if look.get("axes")}
    if len(axes) > 1:
        fault = f"its clips seem to have different axes ({', '.join(sorted(axes))})"
        remedy = 'set SET="axes=..." if one is right for all, else export them alike'
        check.notes.append(str(DataError.at(check.root, fault, remedy)))
    for look in looks:
        check.problems += [look["problem"]] if look.get("problem") else []
        check.notes += [look["warning"]] if look.get("warning") else []


def _title(job: Job, look: dict) -> str:
    if look.get("problem"):
        return f"{job.id}\ncannot be read"
    return f"{job.id}\n" + ", ".join(word for word in (look["axes"], look["crop"]) if word)


# Words --------------------------------------------------------------------------------------------------------------


def grouped(texts: Iterable[str]) -> list[str]:
    """The texts, grouped by remedy: the first few of each group, and the number of the others."""
    groups: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        groups.setdefault(text.rpartition("Remedy: ")[2] or text, []).append(text)
    lines = []
    for group in groups.values():
        more = len(group) - SHOWN
        lines += group[:SHOWN] + ([f"... and {more} more like these"] if more > 0 else [])
    return lines


def words_of(check: Check) -> str:
    """The check as a text. The last line is "ready", or gives the number of problems."""
    lines = [f"{word:<10} {text}" for word, text in check.facts]
    for title, texts in (("notes", check.notes), ("problems", check.problems)):
        lines += ["", title, *(f"- {text}" for text in grouped(texts))] if texts else []
    count = len(set(check.problems))
    return "\n".join([*lines, "", f"not ready: {count} problem{'s' * (count > 1)}" if count else "ready"])


def write_check(check: Check, folder: Path) -> None:
    """Write problems.txt, clips.csv with a row per clip, and contact_sheet.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "problems.txt") as path:
        path.write_text("".join(f"{text}\n" for text in dict.fromkeys(check.problems)), encoding="utf-8")
    with atomic_path(folder / "clips.csv") as path:
        check.clips.to_csv(path, index=False)
    if check.pictures:
        titles, pictures = zip(*check.pictures, strict=True)
        save_figure(
            contact_sheet(pictures, titles, columns=8 * SHEET_SIZE // pictures[0].shape[1]),
            folder / "contact_sheet.png",
        )
