"""Damages files at random, and checks that a reader ends in one of two ways: with a result or with a DataError.

    cases = mutations([content, another_content], seed=0, count=200)
    assert_survives(read, ".png", cases, tmp_path)  # read(path) returns or raises DataError

All cases run in a process of their own, in an empty folder that is checked afterwards. The process has a limit on its
memory, and each case has a limit on its time.
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

SECONDS = 5  # limit of one case
MEMORY = 2**30  # bytes that the process may allocate
# Absurd values of a size in a binary file, and of a cell or word in a text file
LENGTHS = (b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00" * 4)
LENGTHS += (b"\x80\x00\x00\x00", b"\xff" * 8, b"\x00\x00")
WORDS = (b"9" * 20, b"-1", b"1e300", b"nan", b"inf", b"0", b"", b"\xc3", b'"', b"\0", b";")
WORDS += (b"x" * 300, b"4294967296", b"\r")

Damage = Callable[[bytes, np.random.Generator], bytes]


class TooLongError(BaseException):
    """A case took more than its time. It is not an Exception, since readers turn those into DataErrors."""


# Damage ---------------------------------------------------------------------------------------------


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(data)
    for place in rng.integers(0, len(damaged), rng.integers(1, 9)):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(0, len(data))]


def in_a_span(change: Damage) -> Damage:
    """A damage that applies `change` to up to 64 bytes anywhere in the file."""

    def damage(data: bytes, rng: np.random.Generator) -> bytes:
        start = int(rng.integers(0, max(len(data), 1)))
        end = min(len(data), start + int(rng.integers(1, 65)))
        return data[:start] + change(data[start:end], rng) + data[end:]

    return damage


def absurd_length(data: bytes, rng: np.random.Generator) -> bytes:
    """Write one of LENGTHS over bytes near the beginning, where most formats write sizes."""
    value = LENGTHS[rng.integers(len(LENGTHS))]
    start = int(rng.integers(0, min(len(data), 400)))
    return data[:start] + value + data[start + len(value) :]


def absurd_word(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace a number or a word by one of WORDS."""
    places = list(re.finditer(rb"[0-9A-Za-z.+-]+", data))
    if not places:
        return cut(data, rng)
    place = places[rng.integers(len(places))]
    return data[: place.start()] + WORDS[rng.integers(len(WORDS))] + data[place.end() :]


DAMAGES: dict[str, Damage] = {
    "flipped bits": flip_bits,
    "flipped bits in the head": lambda data, rng: flip_bits(data[:96], rng) + data[96:],
    "cut": cut,
    "left out": in_a_span(lambda part, rng: b""),
    "inserted": in_a_span(lambda part, rng: rng.bytes(int(rng.integers(1, 64))) + part),
    "repeated": in_a_span(lambda part, rng: part * (1 + int(rng.integers(1, 50)))),
    "emptied": in_a_span(lambda part, rng: bytes(len(part))),
    "absurd length": absurd_length,
    "absurd word": absurd_word,
}


def swapped_heads(contents: list[bytes], rng: np.random.Generator) -> bytes:
    """The first bytes of one file, and then the rest of another or of the same file."""
    first, second = (contents[rng.integers(len(contents))] for _ in range(2))
    return first[: int(rng.integers(1, 64))] + second[int(rng.integers(0, 64)) :]


def mutations(
    contents: list[bytes], seed: int, count: int, repaired: Callable[[bytes], bytes] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield `count` cases, each the name and the content of a damaged file.

    repaired: repairs the checksum of every second file after the damage, so that readers also parse its content.
    """
    for case in range(count):
        rng = np.random.default_rng([seed, case])
        choice = int(rng.integers(len(DAMAGES) + 1))
        if choice == len(DAMAGES):
            name, data = "swapped heads", swapped_heads(contents, rng)
        else:
            name, damage = list(DAMAGES.items())[choice]
            data = damage(contents[rng.integers(len(contents))], rng)
        if repaired and case % 2:
            name, data = f"{name}, repaired", repaired(data)
        yield f"case {case} of seed {seed} ({name})", data


# Running --------------------------------------------------------------------------------------------


def assert_survives(
    read: Callable[[Path], object], file_name: str, cases: Iterable[tuple[str, bytes]], folder: Path
) -> dict[str, int]:
    """Write each case as `<folder>/in/<file_name>` and read it; returns the numbers of files "read" and "refused".

    Fails with the cases that raised another error than DataError, took too much time or memory, ended the process, or
    left a file behind. Other files that the reader needs may lie in `<folder>/in` before.
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
            if ending in counts:
                counts[ending] += 1
            elif ending != "begun":
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
    """The work of the process: read every case, and send how it ended."""
    os.chdir(folder / "empty")
    allocated = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (allocated + MEMORY,) * 2)
    signal.signal(signal.SIGALRM, _stop)
    warnings.simplefilter("ignore")
    for name, data in cases:
        (folder / "in" / file_name).write_bytes(data)
        sender.send((name, "begun", ""))
        sender.send((name, *_ending(read, folder / "in" / file_name)))
    sender.close()
    os._exit(0)


def _ending(read: Callable[[Path], object], path: Path) -> tuple[str, str]:
    """How a case ends, and the fault in words: "read", "refused", "bad words" (an unclear DataError) or "fault"."""
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


def _stop(*_) -> None:
    raise TooLongError
