"""Artefacts: the files that a stage leaves for the next one.

A small sidecar `<name>.key` beside each artefact records its key, a hash of everything it was made from
(`artefact_key`), and a checksum of its content. Artefacts are written atomically, reused while their key is current,
and made again when they are damaged.

The checksum of a file above 1 MB covers its size and 16 blocks of 4 kB, since a run without changes must not read
gigabytes. It shows cut, emptied and replaced files. It does not show a flipped bit between the blocks.

Two processes may write one artefact at the same time. Each writes to its own temporary name, and the sidecar holds the
checksum of its own writer's content, so a sidecar never confirms the content of the other writer.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from utils.code_hash import Code, code_hash

WHOLE_CHECKSUM = 1 << 20  # bytes; the checksum covers all of a file up to this size
CONTENT_HASH = 1 << 16  # bytes; an input up to this size enters a key by content, a larger one by size and time
BLOCKS, BLOCK = 16, 1 << 12  # number and bytes of the blocks in the checksum of a larger file
FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk, a used up quota
NEARLY_FULL = 1 << 16  # bytes; if fewer are free, a failed write counts as a full disk, since some writers hide why
TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}(\.\w+)*")  # the names of `atomic_path`; the group is the process


class DamagedError(ValueError):
    """The content of an artefact is not what was written."""


class DiskFullError(OSError):
    """The disk has no room for an artefact. The message names the file and the remedy."""


# Atomic writing -----------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: str | Path):
    """Yield a temporary path beside `path`, with the same suffix, and rename it to `path` on success.

    The caller writes a file or a folder there. Readers see the old content or the new, never half of it; an old folder
    is absent for the moment between its removal and the renaming. Raises DiskFullError if the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and path.exists():
            remove(path)
        os.replace(temporary, path)
    except DiskFullError:
        raise
    except Exception as error:
        if not _disk_is_full(path.parent, error):
            raise
        remedy = "free space there, or put data, WORK and OUT on another disk, and give the same command again"
        raise DiskFullError(f"{path}: it cannot be written, the disk is full. Remedy: {remedy}.") from error
    finally:
        remove(temporary)


@contextmanager
def temporary_folder(folder: str | Path, name: str):
    """Yield a new folder inside `folder`, and remove it at the end. `remove_leftovers` removes it after a kill."""
    path = Path(folder) / f".{name}.{os.getpid()}-{secrets.token_hex(4)}"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        remove(path)


def _disk_is_full(folder: Path, error: Exception) -> bool:
    """Whether a write failed because the disk is full."""
    reported = getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error)
    return reported or (folder.exists() and shutil.disk_usage(folder).free < NEARLY_FULL)


def remove_leftovers(folder: str | Path) -> None:
    """Remove the unfinished files of killed processes below a folder, and keep those of living processes."""
    for path in list(Path(folder).rglob(".*")):
        name = TEMPORARY.fullmatch(path.name)
        if name and path.exists() and not alive(int(name[1]), path.stat().st_mtime):
            remove(path)


def alive(process: int, written: float) -> bool:
    """Whether the process with this number lives and is as old as the file; a younger one took the number over."""
    try:
        return psutil.Process(process).create_time() <= written + 1
    except psutil.NoSuchProcess:
        return False


def remove(path: str | Path) -> None:
    """Remove a file or a folder, if it exists."""
    path = Path(path)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_artefact(path: str | Path, value: Any, key: str | None = None) -> None:
    """Write `value` atomically in the format of the suffix, and a sidecar if there is a key.

    | suffix         | value                                                    |
    |----------------|----------------------------------------------------------|
    | `.npy`         | array                                                    |
    | `.npz`         | mapping of names to arrays, stored uncompressed          |
    | `.csv`         | DataFrame, written without its index                     |
    | `.json`        | mappings, lists, numbers, texts; NaN becomes null        |
    | `.safetensors` | mapping of names to torch tensors                        |

    Raises ValueError for another suffix, and for arrays of Python objects, since those need pickles.
    """
    write, _ = _format(path)
    with atomic_path(path) as temporary:
        write(temporary, value)
        written = key and checksum(temporary)
    if key is not None:
        _write_sidecar(path, key, written)


def read_artefact(path: str | Path) -> Any:
    """Read an artefact; `.npz` becomes a dictionary. Raises FileNotFoundError, or DamagedError if it is not whole."""
    _, read = _format(path)
    try:
        return read(Path(path))
    except FileNotFoundError:
        raise
    except Exception as error:  # the type depends on the damage: zip, header, parser or decoder
        raise DamagedError(f"{path}: not a whole artefact ({error}). Remedy: run its stage again.") from error


def plain(value: Any) -> Any:
    """Turn dataclasses, numpy values, tuples and NaN into JSON types. Raises TypeError for other values."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{value!r} ({type(value).__name__}) has no place in JSON. Remedy: pass numbers or texts.")


def _write_npy(path: Path, array: np.ndarray) -> None:
    np.save(path, array, allow_pickle=False)


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False, lineterminator="\n")


def _read_csv(path: Path) -> pd.DataFrame:
    """Ids and subjects stay texts ("007"). Only an empty cell is missing, so the text "NA" is a text."""
    return pd.read_csv(path, dtype={"Id": str, "subject": str}, keep_default_na=False, na_values=[""])


def _write_json(path: Path, record: Any) -> None:
    path.write_text(json.dumps(plain(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_safetensors(path: Path, tensors: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)


FORMATS: dict[str, tuple[Callable, Callable]] = {
    ".npy": (_write_npy, lambda path: np.load(path, allow_pickle=False)),
    ".npz": (_write_npz, _read_npz),
    ".csv": (_write_csv, _read_csv),
    ".json": (_write_json, lambda path: json.loads(path.read_text(encoding="utf-8"))),
    ".safetensors": (_write_safetensors, _read_safetensors),
}


def _format(path: str | Path) -> tuple[Callable, Callable]:
    try:
        return FORMATS[Path(path).suffix]
    except KeyError:
        raise ValueError(f"{path}: no format has this suffix. Remedy: use {', '.join(FORMATS)}.") from None


# Keys ---------------------------------------------------------------------------------------------


def artefact_key(inputs: Iterable[str | Path] = (), params: Any = None, code: Code | tuple[Code, ...] = ()) -> str:
    """The key of an artefact, 32 hexadecimal digits: a hash of its input files, its parameters and its code.

    inputs: files or folders; folders are read recursively, without hidden files. A file enters the hash with its name,
        relative to the parent of the input, so that a moved data root keeps its keys; and with the key and checksum of
        its sidecar if it is an artefact, else its content up to 64 kB, else its size and time of change.
    params: whatever `plain` accepts; the order of dictionary entries does not matter.
    code: the function that makes the artefact, or a module's name, or several: see `utils.code_hash`.

    Raises FileNotFoundError for a missing input, ModuleNotFoundError for code of another package.
    """
    paths = [Path(path) for path in inputs]
    parts = {
        "inputs": sorted(_fingerprint(file, path.parent) for path in paths for file in _files(path)),
        "params": plain(params),
        "code": _code_part(code),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@lru_cache(maxsize=256)
def _code_part(code: Code | tuple[Code, ...]) -> str:
    """The hash of the code that this process runs: files that are edited meanwhile do not change it."""
    return code_hash(code) if code else ""


def _files(path: Path) -> list[Path]:
    """All files of a folder, or the file itself."""
    if not path.is_dir():
        return [path]
    files = (file for file in path.rglob("*") if file.is_file())
    return [file for file in files if not file.name.startswith(".") and file.suffix != ".key"]


def _fingerprint(path: Path, root: Path) -> list[str]:
    name = path.relative_to(root).as_posix()
    recorded = _read_sidecar(path)
    if recorded:
        return [name, "key", recorded["key"], checksum(path)]
    status = path.stat()
    if status.st_size <= CONTENT_HASH:
        return [name, "content", hashlib.sha256(path.read_bytes()).hexdigest()]
    return [name, "time", str(status.st_size), str(status.st_mtime_ns)]


# Reuse --------------------------------------------------------------------------------------------


def cached(path: str | Path, key: str, make: Callable[[], Any]) -> Any:
    """The artefact at `path` if it is current and whole; else the value of `make()`, which is written there."""
    if is_current(path, key):
        try:
            return read_artefact(path)
        except (DamagedError, FileNotFoundError):
            pass
    value = make()
    write_artefact(path, value, key)
    return value


def is_current(path: str | Path, key: str) -> bool:
    """Whether the artefact exists, has this key, and has the content that was written."""
    path = Path(path)
    recorded = _read_sidecar(path)
    if not recorded or recorded["key"] != key or not path.exists():
        return False
    try:
        return recorded["checksum"] == checksum(path)
    except FileNotFoundError:  # another process is replacing it
        return False


def _write_sidecar(path: str | Path, key: str, content: str) -> None:
    with atomic_path(_sidecar(path)) as temporary:
        temporary.write_text(json.dumps({"key": key, "checksum": content}) + "\n", encoding="utf-8")


def checksum(path: str | Path) -> str:
    """Checksum of a file: of all bytes up to 1 MB, of its size and some blocks beyond."""
    path = Path(path)
    digest = hashlib.sha256()
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as handle:
        if size <= WHOLE_CHECKSUM:
            digest.update(handle.read())
        else:
            for position in range(BLOCKS):
                handle.seek((size - BLOCK) * position // (BLOCKS - 1))
                digest.update(handle.read(BLOCK))
    return digest.hexdigest()[:32]


def _sidecar(path: str | Path) -> Path:
    path = Path(path)
    return path.with_name(path.name + ".key")


def _read_sidecar(path: Path) -> dict[str, str] | None:
    """The content of the sidecar, or None if it is missing or damaged."""
    try:
        recorded = json.loads(_sidecar(path).read_text(encoding="utf-8"))
        return recorded if {"key", "checksum"} <= recorded.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
