"""The one boundary between files and this code: bounded reads, and every fault of a loader as a `DataError`.

Whatever a third-party loader raises of a damaged file (a zip, struct, codec or index error, a MemoryError of an absurd
size) becomes a `DataError` that names the file and the remedy, since a stage goes on without a test clip for that error
alone. Only loaders and the parsers of `meshes` stand within `reading`, so that a mistake in other code still surfaces
as what it is.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_BYTES = 2**28  # of a file read whole: 8192 x 8192 pixels of three bytes, uncompressed, and a little
MAX_REASON = 200  # characters of a loader's own words in a message


class DataError(ValueError):
    """The data on disk is not what it should be; the message names the file and the remedy."""

    @classmethod
    def at(cls, where: object, fault: str, remedy: str) -> "DataError":
        """The error with its message in the one form that all of them have."""
        return cls(f"{where}: {fault}. Remedy: {remedy}.")


Refuse = Callable[[DataError], None]  # what is done with a fault after which the rest can still be looked at


def raise_it(error: DataError) -> None:
    """The usual `Refuse`: the first fault is raised."""
    raise error


@contextmanager
def reading(where: object, what: str, remedy: str = "deliver this file again") -> Iterator[None]:
    """Within it, whatever is raised becomes a DataError: "<where>: <what> cannot be read (<why>). Remedy: ..."."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # loaders raise whatever the damage leads to
        raise DataError.at(where, f"{what} cannot be read ({reason(error)})", remedy) from error


def reason(error: Exception) -> str:
    """The words of an error in one line, or its class where it has none."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= MAX_REASON else words[:MAX_REASON] + " ..."


def read_bytes(path: str | Path, what: str = "the file", limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises DataError for anything else."""
    with reading(path, what):
        check_regular(path, limit)
        with open(path, "rb") as handle:
            content = handle.read(limit + 1)
        if len(content) > limit:
            raise OSError(f"it has more than {limit} bytes")
    return content


def check_regular(path: str | Path, limit: int) -> None:
    """Raise OSError for what is no regular file, or larger.

    Anything else would wait for ever (a pipe) or fill the memory (a device, a file of another kind by that name).
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    if status.st_size > limit:
        raise OSError(f"it has {status.st_size} bytes, more than {limit}")
