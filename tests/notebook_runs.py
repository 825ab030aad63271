"""All five notebooks on a data root, as papermill runs them."""

from pathlib import Path

import papermill

from utils.paths import ROOT

BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run_notebooks(folder: Path, settings: str = "") -> Path:
    """Run all of them under the smoke profile on the data root `folder/data`; returns the submission's folder."""
    for book in BOOKS:
        parameters = {"PROFILE": "smoke", "DATA": str(folder / "data"), "WORK": str(folder / "work"), "JOBS": 1}
        parameters |= {"SET": settings} | ({"OUT": str(folder / "out")} if book.stem == "05_submit" else {})
        papermill.execute_notebook(
            book, folder / book.name, parameters=parameters, kernel_name="python3", cwd=folder, progress_bar=False
        )
    return folder / "out"
