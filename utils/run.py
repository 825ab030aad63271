"""Runs the notebooks of a run: those that are not current, in their order, one process of a name at a time.

    python -m utils.run submit [--profile demo] [--data DIR] [--set "seed=1 views=split"] [--jobs 2] [--name NAME]
    python -m utils.run all [--profile demo] --face-model MODEL
    python -m utils.run check --data DIR [--sample 48]
    python -m utils.run validate --file submission.csv [--data DIR]
    python -m utils.run report --name NAME

What a stage was made from is its key: the notebook, the parameters, the code that its imports reach, and the names,
sizes and times of all files of the data root. A stage is current while its key is, and all that it left is as it left
it. A notebook is executed under a temporary name, and renamed when it succeeds; one that fails stays beside it as
`.failed`. A run that has scored its network ends in a page, `report.html` (`utils.report.page`).
"""

import argparse
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout

from utils.artefacts import (
    DiskFullError,
    artefact_key,
    atomic_path,
    checksum,
    is_current,
    read_artefact,
    remove,
    remove_leftovers,
    temporary_folder,
    write_artefact,
)
from utils.code_hash import imported_names
from utils.config import Config, load_config
from utils.dataset.folders import walk
from utils.make_data import make_data
from utils.parallel import remove_leftovers_of_workers
from utils.paths import ROOT
from utils.progress import HEADLESS, say

NOTEBOOKS, ARTEFACTS, SUBMISSIONS = ROOT / "notebooks", ROOT / "artefacts", ROOT / "submissions"
STAGES = {
    "render": ("01_render",),
    "flow": ("01_render", "02_flow_apex"),
    "train": ("01_render", "02_flow_apex", "03_train"),
    "ablation": ("01_render", "02_flow_apex", "03_train", "04_ablation"),
    "submit": ("01_render", "02_flow_apex", "03_train", "05_submit"),
    "all": ("01_render", "02_flow_apex", "03_train", "05_submit", "04_ablation"),
}
FACE_MODEL_MARK = ".face_model"  # in a data root: the path of the face model of which its people are
PAGE = "report.html"  # that a run ends in, beside its submission
# Two workers with two threads each are slower on two cores than with one each. The hash seed is for repeatable runs.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1", HEADLESS: "1"}
KERNEL = {"JUPYTER_PATH": "", "JUPYTER_PREFER_ENV_PATH": "1"}  # of this Python, whatever kernels the user has elsewhere


class RunError(RuntimeError):
    """A run cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class Run:
    """A named run: its parameters, as its notebooks take them, and its places."""

    name: str
    config: Config
    settings: str  # single parameters, "name=value name=value"
    face_model: Path | None = None  # face model of which the people of its synthetic data are, rather than of ours

    @property
    def synthetic(self) -> bool:
        """Whether the run makes its data itself."""
        return bool(self.face_model) or not self.config.data

    @property
    def books(self) -> Path:
        return self.config.work_root / "notebooks"

    def parameters(self, stage: str) -> dict[str, str | int]:
        """The parameters cell of a stage's notebook."""
        config = self.config
        values = {"PROFILE": config.profile, "DATA": config.data, "WORK": config.work, "SET": self.settings}
        return values | {"JOBS": config.jobs} | ({"OUT": config.out} if stage == "05_submit" else {})


def open_run(profile: str, data: str, settings: str, jobs: int, name: str = "", face_model: str = "") -> Run:
    """The run of these options. Raises ValueError for a parameter, RunError for a data root, a face model or a name."""
    if data and face_model:
        raise RunError(
            "DATA and FACE_MODEL are given: FACE_MODEL makes data, DATA are there. Remedy: leave one of them out."
        )
    if data and not Path(data).is_dir():
        raise RunError(f"DATA={data}: there is no such folder. Remedy: name the data root, which holds train.csv.")
    model = Path(os.path.abspath(face_model)) if face_model else None
    if model and "axes=" not in settings:
        settings = f"{settings} axes=y-up".lstrip()  # known, since they are made here; a made-up face may show none
    data = place_of_data(profile, data, face_model)
    name = name or free_name(profile, data)
    check_name(name)
    config = load_config(
        profile, settings, data=data, work=str(ARTEFACTS / name), out=str(SUBMISSIONS / name), jobs=jobs
    )
    return Run(name, config, settings, model)


def check_name(name: str) -> None:
    """RunError for a name that is no name of one folder."""
    if not name or name.startswith(".") or re.search(r"[/\\\0]", name):
        raise RunError(f"RUN={name!r} is no name. Remedy: choose a word without slashes that begins with no dot.")


def place_of_data(profile: str, data: str, face_model: str) -> str:
    """The data root of these options, absolute; empty for the synthetic faces of the profile.

    Another face model of the same name, whose data are already there, is told apart by a hash of its path.
    """
    if face_model:
        model = Path(os.path.abspath(face_model))
        root = (
            ROOT
            / "data"
            / "face_models"
            / load_config(profile).dataset
            / (model.name if model.is_dir() else model.stem)
        )
        if (root / FACE_MODEL_MARK).exists() and (root / FACE_MODEL_MARK).read_text(encoding="utf-8") != str(model):
            return f"{root}-{hashlib.sha256(str(model).encode()).hexdigest()[:6]}"
        return str(root)
    return os.path.abspath(data) if data else ""


def free_name(profile: str, data: str) -> str:
    """The profile's name, with the base name of the data root where one is given.

    Another root of the same base name, whose run already has that name, is told apart by a hash of its path.
    """
    if not data:
        return profile
    name = f"{profile}-{Path(data).name}"
    owner = ARTEFACTS / name / "data_root.json"
    if owner.exists() and read_artefact(owner)["data"] != data:
        return f"{name}-{hashlib.sha256(data.encode()).hexdigest()[:6]}"
    return name


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the name of a run; another process that wants it waits, and says so."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(ARTEFACTS / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"run {name}: another process works on it, waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def run_stages(run: Run, stages: Sequence[str]) -> None:
    """Bring stages up to date, after the synthetic data where no others are given."""
    with locked(run.name):
        remove_all_leftovers(run)
        write_artefact(run.config.work_root / "data_root.json", {"data": run.config.data})
        if run.synthetic:
            make_own_data(run)
        data = data_fingerprint(run.config.data_root)
        for stage in stages:
            run_stage(run, stage, data)
        remove_all_leftovers(run)  # those of a kernel that outlived its killed run for a moment, too


def make_own_data(run: Run) -> None:
    """Make the synthetic data of a run, as far as they are not current. RunError for a face model that is not there."""
    if run.face_model and not run.face_model.exists():
        fault = f"FACE_MODEL={run.face_model}: it is not there"
        raise RunError(f"{fault}. Remedy: name a folder of OBJ blend shapes, or a .glb file.")
    make_data(run.config, run.face_model)
    if run.face_model:
        (run.config.data_root / FACE_MODEL_MARK).write_text(str(run.face_model), encoding="utf-8")


def remove_all_leftovers(run: Run) -> None:
    """Remove what killed processes left half-written in all places to which a run writes."""
    for folder in (*places(run).values(), *([run.config.data_root] if run.synthetic else [])):
        remove_leftovers(folder)
    remove_leftovers_of_workers()


def run_stage(run: Run, stage: str, data: str) -> None:
    """Execute a stage's notebook unless all that it left is current. RunError with the cell's error where it fails."""
    key = stage_key(run, stage, data)
    outputs = run.books / f"{stage}.outputs.json"
    if is_current(outputs, key) and intact(run, read_artefact(outputs)):
        say(f"{stage}: current")
        return
    say(f"{stage}: running")
    start = time.time()
    execute(run, stage)
    write_artefact(outputs, outputs_since(run, start), key)
    say(f"{stage}: done in {time.time() - start:.0f} s")


def stage_key(run: Run, stage: str, data: str) -> str:
    """What a stage is made from: notebook, parameters, code and data. Workers and places do not count."""
    book = NOTEBOOKS / f"{stage}.ipynb"
    cells = nbformat.read(book, as_version=4).cells
    sources = [cell.source for cell in cells]
    code = tuple(imported_names("\n".join(cell.source for cell in cells if cell.cell_type == "code")))
    parameters = run.config.result_parameters | {"profile": run.config.profile}
    return artefact_key((), {"sources": sources, "parameters": parameters, "data": data}, code)


def data_fingerprint(root: Path) -> str:
    """Hash of the names, sizes and times of all files of a data root but the card; hidden files do not count."""
    digest = hashlib.sha256()
    for folder, files in walk(root):
        digest.update(f"{os.path.relpath(folder, root)}\n".encode())
        for path in files:
            status = os.stat(path, follow_symlinks=path.exists())  # a link may lead nowhere
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def execute(run: Run, stage: str) -> None:
    """Execute a notebook with papermill; what it prints goes on to this process's output."""
    import papermill
    from traitlets.config import Config as Traits

    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    os.environ.update({**KERNEL, "PYTHONPATH": path})
    book, failed = run.books / f"{stage}.ipynb", run.books / f"{stage}.failed.ipynb"
    with atomic_path(book) as temporary, temporary_folder(run.books, "kernel") as folder:
        try:
            papermill.execute_notebook(
                NOTEBOOKS / book.name,
                temporary,
                parameters=run.parameters(stage),
                kernel_name="python3",
                cwd=NOTEBOOKS,
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                # How the kernel is reached, else in the system's temporary folder, where a killed run would leave it.
                config=Traits(KernelManager={"connection_file": str(folder / "connection.json")}),
                extra_arguments=["--log-level=50"],  # the kernel tells of its transport and of its end, nothing else
            )
        except papermill.PapermillExecutionError as error:
            os.replace(temporary, failed)
            fault = f"{stage}, cell {error.cell_index}: {error.ename}: {error.evalue}"
            raise RunError(f"{fault}\nThe notebook as far as it came: {failed}") from None
    remove(failed)


def outputs_since(run: Run, start: float) -> dict[str, str]:
    """Checksums by place of what a stage left since `start`: all files of the run that have no key of their own, but
    the page, which is written after all stages.
    """
    found = {}
    for name, root in places(run).items():
        for file in sorted(root.rglob("*")):
            own_key = file.suffix == ".key" or file.with_name(file.name + ".key").exists() or file.name == PAGE
            if file.is_file() and not own_key and not file.name.startswith(".") and file.stat().st_mtime >= start - 1:
                found[f"{name}/{file.relative_to(root).as_posix()}"] = checksum(file)
    return found


def intact(run: Run, outputs: dict[str, str]) -> bool:
    """Whether all files are there as they were left."""
    for place, content in outputs.items():
        name, _, rest = place.partition("/")
        file = places(run)[name] / rest
        if not file.is_file() or checksum(file) != content:
            return False
    return True


def places(run: Run) -> dict[str, Path]:
    """Where a run leaves its files."""
    return {"work": run.config.work_root, "out": run.config.out_root}


def check(run: Run, sample: int) -> int:
    """Look at the data root of a run, and say what was found; 1 where there are problems, else 0."""
    from utils.check import check_root, words_of, write_check

    with locked(run.name):
        if run.synthetic:
            make_own_data(run)
        found = check_root(run.config, sample)
        folder = run.config.work_root / "check"
        write_check(found, folder)
    say(words_of(found))
    say(f"first frames, every clip, all problems: {folder.relative_to(ROOT)}")
    return int(bool(found.problems))


def validate(run: Run, file: Path | None) -> int:
    """Say all that is wrong with a submission to the data root of a run; 1 where something is, else 0."""
    from utils.check import grouped
    from utils.dataset.tables import load_sample_submission
    from utils.errors import DataError
    from utils.report.submission import validate_submission
    from utils.train.samples import CLASSES

    file = file or run.config.out_root / "submission.csv"
    faults: list[DataError] = []
    try:
        table = validate_submission(file, load_sample_submission(run.config.data_root, CLASSES), faults.append)
    except DataError as error:  # a table that cannot be read
        faults.append(error)
    for line in grouped(map(str, faults)):
        say(f"- {line}")
    say(f"{file}: {len(faults)} faults" if faults else f"{file}: valid, {len(table)} rows")
    return int(bool(faults))


def report(name: str) -> Path:
    """Write the page of a run from what it left; returns where it lies. ValueError where it has left nothing yet."""
    from utils.report.page import write_page

    check_name(name)
    path = SUBMISSIONS / name / PAGE
    with locked(name):
        write_page(path, name, ARTEFACTS / name)
    return path


def clean(name: str) -> None:
    """Remove the artefacts of one run. Submissions and data stay."""
    check_name(name)
    with locked(name):
        remove(ARTEFACTS / name)
    say(f"removed artefacts/{name}")


def clean_data(run: Run) -> None:
    """Remove the synthetic data of a run, or of its profile. Data roots given by DATA are never touched."""
    root = run.config.data_root if run.synthetic else ROOT / "data" / run.config.dataset
    remove(root)
    say(f"removed {shown(root)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["check", "validate", "report", "data", *STAGES, "clean", "clean-data"])
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--data", default="", help="data root (default: the synthetic faces of the profile)")
    parser.add_argument("--face-model", default="", help="face model of which the people of the synthetic data are")
    parser.add_argument("--set", default="", help="single parameters: name=value name=value")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--name", default="", help="of the run (default: profile, and base name of the data root)")
    parser.add_argument("--sample", type=int, default=48, help="clips whose pictures `check` looks at")
    parser.add_argument("--file", type=Path, help="submission that `validate` holds against the data's sample")
    options = parser.parse_args()
    try:
        data = place_of_data(options.profile, options.data, options.face_model)
        name = options.name or free_name(options.profile, data)
        if options.what == "clean":
            clean(name)
            return
        if options.what == "report":
            say(f"report: {shown(report(name))}")
            return
        run = open_run(options.profile, options.data, options.set, options.jobs, options.name, options.face_model)
        if options.what == "check":
            raise SystemExit(check(run, options.sample))
        if options.what == "validate":
            raise SystemExit(validate(run, options.file))
        if options.what == "clean-data":
            clean_data(run)
        elif options.what == "data":
            if options.data:
                raise RunError("make data writes the synthetic faces of the profile. Remedy: leave DATA out.")
            make_own_data(run)
            say(f"synthetic 4D faces: {run.config.data_root}")
        else:
            run_stages(run, STAGES[options.what])
            say_results(run, options.what)
    except (RunError, ValueError, DiskFullError) as error:
        raise SystemExit(f"{error}") from None


def say_results(run: Run, what: str) -> None:
    """Where the results lie, the page among them, which is written from them."""
    results = {"figures": run.config.work_root / "figures", "notebooks": run.books}
    submission = run.config.out_root / "submission.csv"
    if what in ("submit", "all") and submission.exists():  # data without a test split have none
        results = {"submission": submission} | results
    if "03_train" in STAGES[what]:
        results |= {"report": report(run.name)}
    say("   ".join(f"{name}: {shown(path)}" for name, path in results.items()))


def shown(path: Path) -> Path:
    """A path as it is told: from the repository."""
    return path.relative_to(ROOT)


if __name__ == "__main__":
    main()
