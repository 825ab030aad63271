"""Where things lie: the repository, and the files that ship with the package."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "utils" / "assets"
WEIGHTS = ROOT / "utils" / "weights"
FACE_MODEL = Path("truth") / "face_model.npz"  # in a data root whose people are of another face model than ours
