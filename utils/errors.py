"""Errors of the data on disk, and reads with a size limit.

Third-party loaders raise many kinds of errors for a damaged file. `reading` turns them all into a `DataError`, which
names the file and the remedy: a run can go on without a test clip for a `DataError`, and for no other error. Only code
that parses files runs inside `reading`, so an error of other code is not hidden.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_BYTES = 2**28  # of a file that is read whole; an uncompressed image of 8192 x 8192 pixels has fewer
MAX_REASON = 200  # characters of a loader's message that ours repeats


class DataError(ValueError):
    """The data on disk are not as required. The message names the file and the remedy."""

    @classmethod
    def at(cls, where: object, fault: str, remedy: str) -> "DataError":
        """The error with the message "<where>: <fault>. Remedy: <remedy>."."""
        return cls(f"{where}: {fault}. Remedy: {remedy}.")


Refuse = Callable[[DataError], None]  # handles a fault; it may return, and then the rest is checked too


def raise_it(error: DataError) -> None:
    """The default `Refuse`: raise the first fault."""
    raise error


@contextmanager
def reading(where: object, what: str, remedy: str = "deliver this file again") -> Iterator[None]:
    """Turn every exception of the block into a DataError: "<where>: <what> cannot be read (<why>). Remedy: ..."."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # its type depends on the loader and on the damage
        raise DataError.at(where, f"{what} cannot be read ({reason(error)})", remedy) from error


def reason(error: Exception) -> str:
    """The message of an error in one line, or the name of its class if it has no message."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= MAX_REASON else words[:MAX_REASON] + " ..."


def read_bytes(path: str | Path, what: str = "the file", limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file. Raises DataError for other kinds of files, and for more than `limit` bytes."""
    with reading(path, what):
        check_regular(path, limit)
        with open(path, "rb") as handle:
            content = handle.read(limit + 1)
        if len(content) > limit:
            raise OSError(f"it has more than {limit} bytes")
    return content


def check_regular(path: str | Path, limit: int) -> None:
    """Raise OSError unless the path is a regular file of at most `limit` bytes.

    Reading a pipe would wait for ever, and reading a device would fill the memory.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    if status.st_size > limit:
        raise OSError(f"it has {status.st_size} bytes, more than {limit}")
