"""Where things lie: the repository, and the files that ship with the package."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "utils" / "assets"
WEIGHTS = ROOT / "utils" / "weights"
