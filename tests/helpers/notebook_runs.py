"""Run all notebooks on a data root: as `make` does with papermill, and as a user of Kaggle does."""

import os
from pathlib import Path

import nbformat
import papermill
from nbclient import NotebookClient

from utils.paths import ROOT

BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run_notebooks(folder: Path, settings: str = "") -> Path:
    """Run all notebooks in the smoke profile on the data root `folder/data`; returns the submission's folder."""
    values = {"PROFILE": "smoke", "DATA": str(folder / "data"), "WORK": str(folder / "work"), "JOBS": 1}
    for book in BOOKS:
        parameters = values | {"SET": settings} | ({"OUT": str(folder / "out")} if book.stem == "05_submit" else {})
        papermill.execute_notebook(
            book, folder / book.name, parameters=parameters, kernel_name="python3", cwd=folder, progress_bar=False
        )
    return folder / "out"


def run_as_on_kaggle(code: Path, data: Path, working: Path, **environment: str) -> Path:
    """Run all notebooks as the README tells a user of Kaggle.

    Each notebook gets a first cell that puts the code on the path, and other values in its parameters cell. Returns the
    submission's folder, which is `working` itself.
    """
    values = {"PROFILE": "smoke", "DATA": str(data), "WORK": str(working / "artefacts"), "JOBS": 1, "OUT": str(working)}
    for book in sorted((code / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(book, as_version=4)
        cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        names = (line.partition(" = ")[0] for line in cell.source.splitlines())  # with their types, "JOBS: int"
        cell.source = "\n".join(f"{name} = {values.get(name.partition(':')[0], '')!r}" for name in names)
        first = f"import sys\n\nsys.path.insert(0, {str(code)!r})"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
        client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(working)}})
        client.execute(env=os.environ | environment)
    return working
