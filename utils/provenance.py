"""Where results come from: the commit of the code, the versions of the packages, the digest of the data."""

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from utils.dataset.folders import walk
from utils.errors import MAX_BYTES
from utils.paths import ROOT

TABLES = (".csv", ".toml", ".xlsx", ".xlsm")  # files of a data root that enter its digest by content


# The packages that results depend on. The record of a run holds their versions.
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
    """The versions of the installed PACKAGES, by name."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def versions() -> dict[str, str]:
    """The versions of Python and of PACKAGES, by name."""
    return {"python": platform.python_version(), **packages()}


def data_digest(root: Path) -> str:
    """Hash of a data root: the names and sizes of its files, and the content of its tables. Its path does not count."""
    digest = hashlib.sha256()
    for folder, files in walk(root):
        for path in files:
            size = path.stat().st_size if path.exists() else 0  # 0 for a broken link
            digest.update(f"{path.relative_to(root).as_posix()} {size}\n".encode())
            if folder == root and path.suffix.lower() in TABLES and 0 < size <= MAX_BYTES:
                digest.update(path.read_bytes())
    return digest.hexdigest()


def commit() -> str:
    """The commit of this code, with "-dirty" if files have changed since; "unknown" outside git."""
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
