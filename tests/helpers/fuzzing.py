"""A harness that damages files by chance and holds a reader to its two endings: a result, or a DataError.

    cases = mutations([good, another_good], seed=0, count=200)
    assert_survives(read, ".png", cases, tmp_path)  # read(path) returns or raises DataError

All cases run in one process of their own, with a bound on its memory and on the time of each case, in an empty folder
that is looked at afterwards. `repaired=` mends a checksum after the damage, so that what lies behind it is reached too.
"""

import multiprocessing
import os
import re
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from utils.errors import DataError

SECONDS = 5  # that one case may take
MEMORY = 2**30  # bytes beyond what the process has at the start
ABSURD = [
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00" * 4,
    b"\x80\x00\x00\x00",
    b"\xff" * 8,
    b"\x00\x00",
]
WORDS = [
    b"9" * 20,
    b"-1",
    b"1e300",
    b"nan",
    b"inf",
    b"0",
    b"",
    b"\xc3",
    b'"',
    b"\0",
    b";",
    b"x" * 300,
    b"4294967296",
    b"\r",
]

Damage = Callable[[bytes, np.random.Generator], bytes]


class TooLongError(BaseException):
    """A case that took more than its time; no Exception, since readers turn those into DataErrors."""


# Damage ---------------------------------------------------------------------------------------------


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for place in rng.integers(0, len(out), rng.integers(1, 9)):
        out[place] ^= 1 << int(rng.integers(8))
    return bytes(out)


def flip_head(data: bytes, rng: np.random.Generator) -> bytes:
    """Bits among the first bytes, where the sizes stand."""
    return flip_bits(data[:96], rng) + data[96:]


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(0, len(data))]


def leave_out(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    start, _ = _span(data, rng)
    return data[:start] + rng.bytes(int(rng.integers(1, 64))) + data[start:]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] * int(rng.integers(1, 50)) + data[end:]


def empty(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def absurd_length(data: bytes, rng: np.random.Generator) -> bytes:
    value = ABSURD[rng.integers(len(ABSURD))]
    start = int(rng.integers(0, min(len(data), 400)))
    return data[:start] + value + data[start + len(value) :]


def absurd_word(data: bytes, rng: np.random.Generator) -> bytes:
    """Another text where a number or a word stands."""
    found = list(re.finditer(rb"[0-9A-Za-z.+-]+", data))
    if not found:
        return cut(data, rng)
    place = found[rng.integers(len(found))]
    return data[: place.start()] + WORDS[rng.integers(len(WORDS))] + data[place.end() :]


DAMAGES: tuple[Damage, ...] = (
    *(flip_bits, flip_head, cut, leave_out, insert),
    *(repeat, empty, absurd_length, absurd_word),
)


def _span(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(0, max(len(data), 1)))
    return start, min(len(data), start + int(rng.integers(1, 65)))


def swapped_heads(goods: list[bytes], rng: np.random.Generator) -> bytes:
    """The beginning of one file before the rest of another, or of itself."""
    one, other = (goods[rng.integers(len(goods))] for _ in range(2))
    return one[: int(rng.integers(1, 64))] + other[int(rng.integers(0, 64)) :]


def mutations(
    goods: list[bytes], seed: int, count: int, repaired: Callable[[bytes], bytes] | None = None
) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files and the name of each case; every second one is mended by `repaired`, where it is given."""
    for case in range(count):
        rng = np.random.default_rng([seed, case])
        choice = int(rng.integers(len(DAMAGES) + 1))
        if choice == len(DAMAGES):
            name, data = "swapped_heads", swapped_heads(goods, rng)
        else:
            name, data = DAMAGES[choice].__name__, DAMAGES[choice](goods[rng.integers(len(goods))], rng)
        if repaired and case % 2:
            name, data = f"{name}, repaired", repaired(data)
        yield f"case {case} of seed {seed} ({name})", data


# Running --------------------------------------------------------------------------------------------


def assert_survives(
    read: Callable[[Path], object], file_name: str, cases: Iterable[tuple[str, bytes]], folder: Path
) -> dict[str, int]:
    """Each case is written as `<folder>/in/<file_name>` and read; returns how many were read, and refused.

    Fails with the cases that raised anything but DataError, took too long or more memory, ended the process, or left a
    file. What else the reader needs may lie in `<folder>/in` already.
    """
    (folder / "in").mkdir(exist_ok=True)
    (folder / "empty").mkdir()
    before = {file.name for file in folder.rglob("*")} | {file_name}
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    cases = list(cases)
    process = fork.Process(target=_run, args=(read, folder, file_name, cases, sender))
    process.start()
    sender.close()
    counts, faults, current = {"read": 0, "refused": 0}, [], "none"
    try:
        while receiver.poll(SECONDS * 4):
            current, ending, words = receiver.recv()
            if ending == "begun":
                continue
            if ending in counts:
                counts[ending] += 1
            else:
                faults.append(f"{current}: {words}")
        faults.append(f"{current}: no answer")
    except EOFError:
        pass
    process.kill() if process.is_alive() and faults else process.join()
    if sum(counts.values()) + len(faults) < len(cases):
        faults.append(f"{current}: the process ended with it ({process.exitcode})")
    left = {file.name for file in folder.rglob("*")} - before
    assert not faults, f"{len(faults)} of {len(cases)}:\n" + "\n".join(faults[:5])
    assert not left, f"left behind: {left}"
    return counts


def _run(read, folder: Path, file_name: str, cases: list[tuple[str, bytes]], sender) -> None:
    """The process of the cases."""
    os.chdir(folder / "empty")
    resource.setrlimit(resource.RLIMIT_AS, (_memory() + MEMORY,) * 2)
    signal.signal(signal.SIGALRM, _late)
    warnings.simplefilter("ignore")
    for name, data in cases:
        (folder / "in" / file_name).write_bytes(data)
        sender.send((name, "begun", ""))
        sender.send((name, *_ending(read, folder / "in" / file_name)))
    sender.close()
    os._exit(0)


def _ending(read: Callable[[Path], object], path: Path) -> tuple[str, str]:
    signal.alarm(SECONDS)
    try:
        read(path)
        return "read", ""
    except DataError as error:
        words = str(error)
        return ("refused", "") if "Remedy: " in words and "\n" not in words else ("bad words", words)
    except (Exception, TooLongError):
        return "fault", traceback.format_exc(limit=-4)
    finally:
        signal.alarm(0)


def _late(*_) -> None:
    raise TooLongError


def _memory() -> int:
    """Bytes of addresses that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
