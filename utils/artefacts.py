"""Files that a stage leaves for the next one: written atomically, kept under a key, made again when damaged.

An artefact is one file and a small sidecar beside it, `<name>.key`, that records

- the key: a hash of everything the artefact was made from (`artefact_key`), and
- a checksum of what was written, so that a truncated or overwritten artefact is noticed.

Files up to 1 MB are checksummed whole. Of larger ones, 16 blocks of 4 kB spread from the first byte to the
last are read besides the size, since re-running an unchanged pipeline must not read gigabytes: cut, emptied
and replaced files are found at once, a flipped bit between the blocks when the file is read. What cannot be read
is a `DamagedError`; `cached` makes it again.

Two processes may write one artefact at once: each writes under a name of its own, and the sidecar holds the
checksum of what its writer wrote, so that content and key of two writers never pass for one.
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

WHOLE_CHECKSUM = 1 << 20  # bytes, files up to this size are checksummed whole
CONTENT_HASH = 1 << 16  # bytes, inputs up to this size enter a key by content, larger ones by size and time
BLOCKS, BLOCK = 16, 1 << 12  # blocks of so many bytes that stand for a large file
FULL = (errno.ENOSPC, errno.EDQUOT)  # what the system says of a full disk and of a used up quota
NEARLY_FULL = 1 << 16  # bytes free, below which a failed write is taken for a full disk: not all writers say why
TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}(\.\w+)*")  # names that `atomic_path` gives, with the process


class DamagedError(ValueError):
    """An artefact on disk is not what was written there."""


class DiskFullError(OSError):
    """An artefact does not fit on its disk; the message names it and the remedy."""


# Atomic writing -----------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: str | Path):
    """Yield a temporary name beside `path`, of the same suffix, that becomes `path` on success.

    Works for a file and for a folder. A reader sees the old artefact or the new one, never half of one; a
    folder that exists already is absent for the moment between its removal and the renaming. Raises DiskFullError where
    the disk is full.
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
    """Yield a new folder inside another, gone at the end; what a killed process left of it `remove_leftovers` knows."""
    path = Path(folder) / f".{name}.{os.getpid()}-{secrets.token_hex(4)}"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        remove(path)


def _disk_is_full(folder: Path, error: Exception) -> bool:
    """Whether a write failed for want of space."""
    said = getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error)
    return said or (folder.exists() and shutil.disk_usage(folder).free < NEARLY_FULL)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what killed processes left half-written below a folder. What a living one is writing stays."""
    for path in list(Path(folder).rglob(".*")):
        found = TEMPORARY.fullmatch(path.name)
        if found and path.exists() and not alive(int(found[1]), path.stat().st_mtime):
            remove(path)


def alive(process: int, written: float) -> bool:
    """Whether the process that wrote at that time lives; another one may have its number by now."""
    try:
        return psutil.Process(process).create_time() <= written + 1
    except psutil.NoSuchProcess:
        return False


def remove(path: str | Path) -> None:
    """Remove a file or a folder, if it is there."""
    path = Path(path)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_artefact(path: str | Path, value: Any, key: str | None = None) -> None:
    """Write `value` atomically, in the format of the suffix, and its sidecar if a key is given.

    | suffix         | value                                                    |
    |----------------|----------------------------------------------------------|
    | `.npy`         | array                                                    |
    | `.npz`         | mapping of names to arrays, stored uncompressed          |
    | `.csv`         | DataFrame, written without its index                     |
    | `.json`        | mappings, lists, numbers, texts; NaN becomes null        |
    | `.safetensors` | mapping of names to torch tensors                        |

    Raises ValueError for another suffix, and for arrays of Python objects (they would need pickles).
    """
    write, _ = _format(path)
    with atomic_path(path) as temporary:
        write(temporary, value)
        written = key and checksum(temporary)
    if key is not None:
        _write_sidecar(path, key, written)


def read_artefact(path: str | Path) -> Any:
    """Read what `write_artefact` wrote; `.npz` comes back as a dictionary.

    Raises FileNotFoundError where there is none, DamagedError where it is not whole.
    """
    _, read = _format(path)
    try:
        return read(Path(path))
    except FileNotFoundError:
        raise
    except Exception as error:  # zip, header, parser and decoder errors differ by the damage
        raise DamagedError(f"{path}: not a whole artefact ({error}). Remedy: run its stage again.") from error


def plain(value: Any) -> Any:
    """Turn dataclasses, numpy values, tuples and NaN into what JSON knows; TypeError for anything else."""
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
    raise TypeError(f"{value!r} ({type(value).__name__}) is not for JSON. Remedy: pass numbers or texts.")


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
    """Ids and subjects stay texts ("007"), numbers come back exactly, only an empty cell is missing."""
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
    """Hash what an artefact is made from: input files, parameters and code. 32 hexadecimal digits.

    inputs: files or folders (read recursively, hidden files left out). A file enters with its name
        (relative to the folder that holds the input, so that a moved data root keeps its keys) and, in this
        order: the key in its sidecar and its checksum, if it is an artefact itself; its content, up to
        64 kB; else its size and time of change.
    params: anything `plain` accepts; the order of dictionary entries does not matter.
    code: the function that makes it, or several, or modules by name: see `utils.code_hash`.

    Raises FileNotFoundError for a missing input, ModuleNotFoundError for code that is not of this package.
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
    """The hash of the code as this process knows it: what is edited while it runs, it does not run."""
    return code_hash(code) if code else ""


def _files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder."""
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
    """The artefact at `path` if it is current and whole, else `make()`, written there under `key`."""
    if is_current(path, key):
        try:
            return read_artefact(path)
        except (DamagedError, FileNotFoundError):
            pass
    value = make()
    write_artefact(path, value, key)
    return value


def is_current(path: str | Path, key: str) -> bool:
    """True if the artefact is there, was made under this key, and is as it was written."""
    path = Path(path)
    recorded = _read_sidecar(path)
    if not recorded or recorded["key"] != key or not path.exists():
        return False
    try:
        return recorded["checksum"] == checksum(path)
    except FileNotFoundError:  # another process replaces it at this moment
        return False


def _write_sidecar(path: str | Path, key: str, content: str) -> None:
    with atomic_path(_sidecar(path)) as temporary:
        temporary.write_text(json.dumps({"key": key, "checksum": content}) + "\n", encoding="utf-8")


def checksum(path: str | Path) -> str:
    """Checksum of a file, whole, or sampled beyond 1 MB."""
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
    """The sidecar's record, or None where there is none or it is damaged itself."""
    try:
        recorded = json.loads(_sidecar(path).read_text(encoding="utf-8"))
        return recorded if {"key", "checksum"} <= recorded.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
