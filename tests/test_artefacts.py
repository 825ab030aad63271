"""Facts about artefacts: atomic writing, keys, and what is made again."""

import json
import os
import re
import subprocess
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from utils import artefacts
from utils.artefacts import (
    DamagedError,
    DiskFullError,
    artefact_key,
    atomic_path,
    cached,
    checksum,
    is_current,
    read_artefact,
    remove_leftovers,
    write_artefact,
)


def test_every_format_reads_back_what_was_written(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_artefact(tmp_path / "a.npy", array)
    write_artefact(tmp_path / "a.npz", {"x": array, "y": np.array(["one", "two"])})
    write_artefact(tmp_path / "a.safetensors", {"w": torch.ones(2, 2)})
    write_artefact(tmp_path / "a.json", {"score": np.float32(0.5), "bad": float("nan"), "shape": (1, 2)})
    np.testing.assert_array_equal(read_artefact(tmp_path / "a.npy"), array)
    assert read_artefact(tmp_path / "a.npz")["y"].tolist() == ["one", "two"]
    assert torch.equal(read_artefact(tmp_path / "a.safetensors")["w"], torch.ones(2, 2))
    assert read_artefact(tmp_path / "a.json") == {"score": 0.5, "bad": None, "shape": [1, 2]}


def test_tables_keep_ids_as_text_and_numbers_exact(tmp_path):
    scores = np.append(np.random.default_rng(0).normal(size=999) * 1e-7, np.nan)
    table = pd.DataFrame({"Id": ["007", "12"] * 500, "subject": ["01", "2"] * 500, "score": scores})
    table["name"] = "NA"
    write_artefact(tmp_path / "a.csv", table)
    pd.testing.assert_frame_equal(read_artefact(tmp_path / "a.csv"), table, check_exact=True)


def test_arrays_of_objects_and_unknown_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        write_artefact(tmp_path / "a.npy", np.array([{}]))
    with pytest.raises(ValueError, match="suffix"):
        write_artefact(tmp_path / "a.pkl", 1)
    with pytest.raises(TypeError, match="JSON"):
        write_artefact(tmp_path / "a.json", {"path": tmp_path})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [False, True])
def test_a_write_that_fails_halfway_leaves_the_old_artefact(tmp_path, folder):
    def fill(path, text):
        if folder:
            path.mkdir()
        (path / "x" if folder else path).write_text(text)

    target = tmp_path / "artefact"
    with atomic_path(target) as temporary:
        fill(temporary, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        fill(temporary, "half of the new")
        raise RuntimeError
    assert (target / "x" if folder else target).read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_file_is_renamed_not_copied(tmp_path):
    with atomic_path(tmp_path / "a.npy") as temporary:
        temporary.write_text("new")
        inode = temporary.stat().st_ino
    assert (tmp_path / "a.npy").stat().st_ino == inode


# Keys -----------------------------------------------------------------------------------------------


def test_a_key_does_not_depend_on_the_order_of_parameters_nor_on_where_the_data_lies(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place / "clip").mkdir(parents=True)
        (tmp_path / place / "clip" / "a.txt").write_text("data")
    here = artefact_key([tmp_path / "here" / "clip"], {"a": 1, "b": (2, 3)}, "utils.artefacts")
    there = artefact_key([tmp_path / "there" / "clip"], {"b": [2, 3], "a": 1}, artefact_key)
    assert here == there


def test_a_key_follows_content_names_and_parameters(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("data")
    keys = [artefact_key([tmp_path], 1), artefact_key([tmp_path], 2), artefact_key([tmp_path], 1, artefact_key)]
    file.write_text("else")
    keys.append(artefact_key([tmp_path], 1))
    file.rename(tmp_path / "b.txt")
    keys.append(artefact_key([tmp_path], 1))
    assert len(set(keys)) == len(keys)


def test_a_large_input_counts_by_size_and_time_a_small_one_by_content(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x")
    large.write_bytes(b"x" * (artefacts.CONTENT_HASH + 1))
    before = artefact_key([small]), artefact_key([large])
    for file in (small, large):
        os.utime(file, ns=(1, 1))
    assert artefact_key([small]) == before[0]
    assert artefact_key([large]) != before[1]


def test_an_artefact_as_input_counts_by_its_own_key_whatever_its_time(tmp_path):
    path = tmp_path / "a.npy"
    array = np.zeros(artefacts.CONTENT_HASH, np.float32)
    write_artefact(path, array, key="k1")
    before = artefact_key([path])
    os.utime(path, ns=(1, 1))
    assert artefact_key([path]) == before
    write_artefact(path, array, key="k2")
    assert artefact_key([path]) != before


# Reuse ----------------------------------------------------------------------------------------------


@pytest.fixture
def maker(tmp_path):
    """A call that makes or reuses an artefact too large to checksum whole, and counts its makings."""
    made = []

    def make():
        made.append(1)
        return np.arange(artefacts.WHOLE_CHECKSUM, dtype=np.float32)

    def call(key="k"):
        cached(tmp_path / "a.npy", key, make)
        return len(made)

    return call


def test_an_artefact_whose_key_matches_is_not_made_again(maker):
    assert [maker(), maker(), maker("other"), maker("other")] == [1, 1, 2, 2]


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def empty_the_middle(path):
    with path.open("r+b") as handle:
        handle.seek(path.stat().st_size // 4)
        handle.write(b"\0" * (path.stat().st_size // 2))


def break_the_header(path):
    with path.open("r+b") as handle:
        handle.write(b"garbage")


@pytest.mark.parametrize("damage", [cut, empty_the_middle, break_the_header, os.remove])
def test_a_damaged_artefact_is_made_again(maker, tmp_path, damage):
    maker()
    damage(tmp_path / "a.npy")
    assert maker() == 2


def test_a_bit_flipped_between_the_sampled_blocks_is_found_when_it_is_read(tmp_path):
    path, array = tmp_path / "a.npz", np.arange(artefacts.WHOLE_CHECKSUM, dtype=np.float32)
    write_artefact(path, {"x": array}, key="k")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 + 9000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="a.npz: not a whole artefact.*Remedy"):
        read_artefact(path)
    assert np.array_equal(cached(path, "k", lambda: {"x": array})["x"], array)
    assert np.array_equal(read_artefact(path)["x"], array)


def test_content_and_key_of_two_writers_never_pass_for_one(tmp_path):
    path, current = tmp_path / "a.npz", 0
    for _ in range(100):
        writers = [
            threading.Thread(target=write_artefact, args=(path, {"x": np.full(50_000, float(key))}, key))
            for key in "12"
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        for key in "12":
            if is_current(path, key):
                current += 1
                assert (read_artefact(path)["x"] == float(key)).all()
    assert current > 0


def test_leftovers_of_processes_that_have_ended_are_removed_and_nothing_else(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / f".clip.{ended.pid}-00ff00ff").mkdir()
    (tmp_path / f".a.{ended.pid}-00ff00ff.npz").touch()
    kept = {f".a.{os.getpid()}-00ff00ff.npz", ".gitignore", "a.npz"}
    for name in kept:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "k"}'])
def test_a_damaged_sidecar_means_made_again(maker, tmp_path, content):
    maker()
    (tmp_path / "a.npy.key").write_text(content)
    assert maker() == 2


def test_a_flipped_bit_in_a_small_artefact_is_found(tmp_path):
    write_artefact(tmp_path / "a.npy", np.zeros(1000), key="k")
    data = bytearray((tmp_path / "a.npy").read_bytes())
    data[3000] ^= 1
    (tmp_path / "a.npy").write_bytes(data)
    assert not is_current(tmp_path / "a.npy", "k")


def test_the_sidecar_is_readable_json(tmp_path):
    write_artefact(tmp_path / "a.npy", np.zeros(3), key="k")
    record = json.loads((tmp_path / "a.npy.key").read_text())
    assert record == {"key": "k", "checksum": checksum(tmp_path / "a.npy")}


# A full disk ----------------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_with_file_and_remedy_and_leaves_nothing(tmp_path):
    with pytest.raises(DiskFullError) as caught, atomic_path(tmp_path / "a" / "b.json") as temporary:
        temporary.write_text("half")
        with open("/dev/full", "w") as full:
            full.write("the rest")
    assert re.fullmatch(r".*a/b\.json: it cannot be written, the disk is full\. Remedy: .*\.", str(caught.value))
    assert list((tmp_path / "a").iterdir()) == []


def test_a_writer_that_does_not_say_why_it_failed_is_understood(tmp_path, monkeypatch):
    monkeypatch.setattr(artefacts.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(DiskFullError, match="a.npy.*Remedy"), atomic_path(tmp_path / "a.npy"):
        raise ValueError("1000 requested and 0 written")


def test_a_leftover_whose_writers_number_another_process_has_by_now_is_removed(tmp_path):
    left = tmp_path / f".a.{os.getpid()}-00ff00ff.npz"
    left.touch()
    os.utime(left, (1, 1))
    remove_leftovers(tmp_path)
    assert not left.exists()
