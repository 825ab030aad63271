"""Where things lie: the repository, and the files that ship with the package."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "utils" / "weights"
USER_FACE_MODEL = Path("truth") / "face_model.npz"  # in a data root of which the user gave the face model


def data_file(name: str) -> Path:
    """A file that ships with the package, by its path in `utils`.

    The module that reads a file calls this once, with the path as a literal: `utils.code_hash` reads these calls, so
    that the file's content is part of every key whose code reaches the module.
    """
    return ROOT / "utils" / name
