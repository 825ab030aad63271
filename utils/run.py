"""Run the notebooks that are not current, in order. Only one process works on a run of one name at a time.

    python -m utils.run submit [--profile demo] [--data DIR] [--set "seed=1 views=split"] [--jobs 2] [--name NAME]
    python -m utils.run all [--profile demo] --face-model MODEL
    python -m utils.run check --data DIR [--sample 48]
    python -m utils.run validate --file submission.csv [--data DIR]
    python -m utils.run report --name NAME

The key of a stage is a hash of its notebook, its parameters, the code that its imports reach, and the names, sizes and
times of all files of the data root. A stage is current while its key is the same and its outputs are unchanged. A
notebook is executed under a temporary name and renamed on success; after a failure it stays as `.failed.ipynb`. A run
that has trained its network ends with a page, `report.html` (`utils.report.page`).
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
FACE_MODEL_MARK = ".face_model"  # in a data root: a file with the path of the face model whose people it shows
PAGE = "report.html"  # of a run, beside its submission
# One thread per worker, since more are slower on as many cores as workers. The hash seed makes runs repeatable.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1", HEADLESS: "1"}
# The kernel of this Python, not one that the user installed elsewhere.
KERNEL = {"JUPYTER_PATH": "", "JUPYTER_PREFER_ENV_PATH": "1"}


class RunError(RuntimeError):
    """A run cannot start or continue. The message says why, and what to do."""


@dataclass(frozen=True)
class Run:
    """A named run: the parameters of its notebooks, and its folders."""

    name: str
    config: Config
    settings: str  # single parameters, "name=value name=value"
    face_model: Path | None = None  # the user's face model for the synthetic data; None for ours

    @property
    def synthetic(self) -> bool:
        """Whether the run generates its data."""
        return bool(self.face_model) or not self.config.data

    @property
    def books(self) -> Path:
        return self.config.work_root / "notebooks"

    def parameters(self, stage: str) -> dict[str, str | int]:
        """The values of the parameters cell of a stage's notebook."""
        config = self.config
        values = {"PROFILE": config.profile, "DATA": config.data, "WORK": config.work, "SET": self.settings}
        return values | {"JOBS": config.jobs} | ({"OUT": config.out} if stage == "05_submit" else {})


def open_run(profile: str, data: str, settings: str, jobs: int, name: str = "", face_model: str = "") -> Run:
    """The run of these options. Raises ValueError for a wrong parameter, RunError for a wrong path or name."""
    if data and face_model:
        raise RunError("DATA and FACE_MODEL are both given, and FACE_MODEL generates data. Remedy: leave one out.")
    if data and not Path(data).is_dir():
        raise RunError(f"DATA={data}: there is no such folder. Remedy: name the data root, which holds train.csv.")
    model = Path(os.path.abspath(face_model)) if face_model else None
    if model and "axes=" not in settings:
        settings = f"{settings} axes=y-up".lstrip()  # known, since the data are generated here
    data = place_of_data(profile, data, face_model)
    name = name or free_name(profile, data)
    check_name(name)
    places = {"data": data, "work": str(ARTEFACTS / name), "out": str(SUBMISSIONS / name)}
    return Run(name, load_config(profile, settings, **places, jobs=jobs), settings, model)


def check_name(name: str) -> None:
    """Raise RunError for a name that cannot be the name of one folder."""
    if not name or name.startswith(".") or re.search(r"[/\\\0]", name):
        raise RunError(f"RUN={name!r} is not a valid name. Remedy: choose a word without slashes and leading dot.")


def place_of_data(profile: str, data: str, face_model: str) -> str:
    """The absolute data root of these options; empty for the synthetic faces of the profile.

    If another face model of the same name already has data, a hash of the path makes the folder's name unique.
    """
    if face_model:
        model = Path(os.path.abspath(face_model))
        name = model.name if model.is_dir() else model.stem
        root = ROOT / "data" / "face_models" / load_config(profile).dataset / name
        if (root / FACE_MODEL_MARK).exists() and (root / FACE_MODEL_MARK).read_text(encoding="utf-8") != str(model):
            return f"{root}-{hashlib.sha256(str(model).encode()).hexdigest()[:6]}"
        return str(root)
    return os.path.abspath(data) if data else ""


def free_name(profile: str, data: str) -> str:
    """The default name of a run: the profile, and the base name of the data root if there is one.

    If another root of the same base name already has a run, a hash of the path makes the name unique.
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
    """Lock the name of a run. Another process that needs it says so and waits."""
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
    """Bring the synthetic data, if the run has them, and then the stages up to date."""
    with locked(run.name):
        remove_all_leftovers(run)
        write_artefact(run.config.work_root / "data_root.json", {"data": run.config.data})
        if run.synthetic:
            make_own_data(run)
        data = data_fingerprint(run.config.data_root)
        for stage in stages:
            run_stage(run, stage, data)
        remove_all_leftovers(run)  # also those of a kernel that outlived a killed run


def make_own_data(run: Run) -> None:
    """Generate the synthetic data of a run if they are not current. Raises RunError for a missing face model."""
    if run.face_model and not run.face_model.exists():
        fault = f"FACE_MODEL={run.face_model}: it is not there"
        raise RunError(f"{fault}. Remedy: name a folder of OBJ blend shapes, or a .glb file.")
    make_data(run.config, run.face_model)
    if run.face_model:
        (run.config.data_root / FACE_MODEL_MARK).write_text(str(run.face_model), encoding="utf-8")


def remove_all_leftovers(run: Run) -> None:
    """Remove the unfinished files of killed processes from all folders that a run writes to."""
    for folder in (*places(run).values(), *([run.config.data_root] if run.synthetic else [])):
        remove_leftovers(folder)
    remove_leftovers_of_workers()


def run_stage(run: Run, stage: str, data: str) -> None:
    """Execute the notebook of a stage unless it is current. Raises RunError with the error of the cell that fails."""
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
    """Hash of a stage's notebook, parameters, code and data. The number of workers and the folders do not count."""
    book = NOTEBOOKS / f"{stage}.ipynb"
    cells = nbformat.read(book, as_version=4).cells
    sources = [cell.source for cell in cells]
    code = tuple(imported_names("\n".join(cell.source for cell in cells if cell.cell_type == "code")))
    parameters = run.config.result_parameters | {"profile": run.config.profile}
    return artefact_key((), {"sources": sources, "parameters": parameters, "data": data}, code)


def data_fingerprint(root: Path) -> str:
    """Hash of the names, sizes and times of the files of a data root, without the card and hidden files."""
    digest = hashlib.sha256()
    for folder, files in walk(root):
        digest.update(f"{os.path.relpath(folder, root)}\n".encode())
        for path in files:
            status = os.stat(path, follow_symlinks=path.exists())  # a link may lead nowhere
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def execute(run: Run, stage: str) -> None:
    """Execute a notebook with papermill. This process prints what the notebook prints."""
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
                # The default place is the system's temporary folder, where a killed run would leave the file.
                config=Traits(KernelManager={"connection_file": str(folder / "connection.json")}),
                extra_arguments=["--log-level=50"],  # no messages about transport and shutdown
            )
        except papermill.PapermillExecutionError as error:
            os.replace(temporary, failed)
            fault = f"{stage}, cell {error.cell_index}: {error.ename}: {error.evalue}"
            raise RunError(f"{fault}\nThe notebook up to this cell: {failed}") from None
    remove(failed)


def outputs_since(run: Run, start: float) -> dict[str, str]:
    """Checksums, by path, of the files that a stage wrote since `start`, except files with a key of their own and the
    page, which is written after all stages."""
    checksums = {}
    for name, root in places(run).items():
        for file in sorted(root.rglob("*")):
            own_key = file.suffix == ".key" or file.with_name(file.name + ".key").exists() or file.name == PAGE
            if file.is_file() and not own_key and not file.name.startswith(".") and file.stat().st_mtime >= start - 1:
                checksums[f"{name}/{file.relative_to(root).as_posix()}"] = checksum(file)
    return checksums


def intact(run: Run, outputs: dict[str, str]) -> bool:
    """Whether all outputs of a stage exist and are unchanged."""
    for place, content in outputs.items():
        name, _, rest = place.partition("/")
        file = places(run)[name] / rest
        if not file.is_file() or checksum(file) != content:
            return False
    return True


def places(run: Run) -> dict[str, Path]:
    """The folders that a run writes to."""
    return {"work": run.config.work_root, "out": run.config.out_root}


def check(run: Run, sample: int) -> int:
    """Check the data root of a run and print a summary. Returns 1 if there are problems, else 0."""
    from utils.check import check_root, words_of, write_check

    with locked(run.name):
        if run.synthetic:
            make_own_data(run)
        result = check_root(run.config, sample)
        folder = run.config.work_root / "check"
        write_check(result, folder)
    say(words_of(result))
    say(f"first frames, every clip, all problems: {folder.relative_to(ROOT)}")
    return int(bool(result.problems))


def validate(run: Run, file: Path | None) -> int:
    """Print all faults of a submission to the data root of a run. Returns 1 if there are any, else 0."""
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
    """Write the page of a run from its results; returns its path. Raises ValueError for a run without results."""
    from utils.report.page import write_page

    check_name(name)
    path = SUBMISSIONS / name / PAGE
    with locked(name):
        write_page(path, name, ARTEFACTS / name)
    return path


def clean(name: str) -> None:
    """Remove the artefacts of one run, but not its submission and not its data."""
    check_name(name)
    with locked(name):
        remove(ARTEFACTS / name)
    say(f"removed artefacts/{name}")


def clean_data(run: Run) -> None:
    """Remove the synthetic data of a run or of its profile. The data of DATA are never removed."""
    root = run.config.data_root if run.synthetic else ROOT / "data" / run.config.dataset
    remove(root)
    say(f"removed {shown(root)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["check", "validate", "report", "data", *STAGES, "clean", "clean-data"])
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--data", default="", help="data root (default: the synthetic faces of the profile)")
    parser.add_argument("--face-model", default="", help="face model for the synthetic data (default: ours)")
    parser.add_argument("--set", default="", help="single parameters: name=value name=value")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--name", default="", help="name of the run (default: profile and base name of the data root)")
    parser.add_argument("--sample", type=int, default=48, help="number of clips whose pictures `check` opens")
    parser.add_argument("--file", type=Path, help="submission for `validate`")
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
                raise RunError("make data generates the synthetic faces of the profile. Remedy: leave DATA out.")
            make_own_data(run)
            say(f"synthetic 4D faces: {run.config.data_root}")
        else:
            run_stages(run, STAGES[options.what])
            say_results(run, options.what)
    except (RunError, ValueError, DiskFullError) as error:
        raise SystemExit(f"{error}") from None


def say_results(run: Run, what: str) -> None:
    """Write the page of the run, and print the paths of all results."""
    results = {"figures": run.config.work_root / "figures", "notebooks": run.books}
    submission = run.config.out_root / "submission.csv"
    if what in ("submit", "all") and submission.exists():  # data without a test split have none
        results = {"submission": submission} | results
    if "03_train" in STAGES[what]:
        results |= {"report": report(run.name)}
    say("   ".join(f"{name}: {shown(path)}" for name, path in results.items()))


def shown(path: Path) -> Path:
    """A path relative to the repository, for messages."""
    return path.relative_to(ROOT)


if __name__ == "__main__":
    main()
