"""A git repository with one commit, for tests."""

import subprocess
from pathlib import Path

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")


def commit_all(folder: Path, monkeypatch) -> str:
    """Make the folder a repository, and commit all of its files; returns the hash of the commit."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # git sets them for hooks, and they name another folder
        monkeypatch.delenv(name, raising=False)
    for words in (["init", "-q"], ["add", "."], [*IDENTITY, "commit", "-q", "-m", "first"], ["rev-parse", "HEAD"]):
        answer = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    return answer.stdout.strip()
