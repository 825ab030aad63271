"""Where results come from: the commit of the code, the versions of the packages, the digest of the data."""

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from utils.dataset.folders import walk
from utils.errors import MAX_BYTES
from utils.paths import ROOT

TABLES = (".csv", ".toml", ".xlsx", ".xlsm")  # of a data root, whose content goes into its digest


# What numbers depend on; the versions of these go into the record of a run.
PACKAGES = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "torch",
    "opencv-contrib-python-headless",
    "trimesh",
    "pyrender2",
    "pillow",
    "joblib",
)


def packages() -> dict[str, str]:
    """The versions of PACKAGES that are installed."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def versions() -> dict[str, str]:
    """The version of this Python and of what numbers depend on, by name."""
    return {"python": platform.python_version(), **packages()}


def data_digest(root: Path) -> str:
    """Hash of a data root that is the same wherever it lies: names and sizes of its files, and its tables whole."""
    digest = hashlib.sha256()
    for folder, files in walk(root):
        for path in files:
            size = path.stat().st_size if path.exists() else 0  # a link may lead nowhere
            digest.update(f"{path.relative_to(root).as_posix()} {size}\n".encode())
            if folder == root and path.suffix.lower() in TABLES and 0 < size <= MAX_BYTES:
                digest.update(path.read_bytes())
    return digest.hexdigest()


def commit() -> str:
    """The commit that this code is, "-dirty" where files were changed since, "unknown" outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
