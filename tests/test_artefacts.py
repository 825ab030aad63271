"""Facts about artefacts: atomic writing, keys, and when an artefact is made again."""

import json
import os
import re
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.processes import ended_process

from utils import artefacts
from utils.artefacts import DiskFullError, artefact_key, atomic_path, cached, is_current, read_artefact, write_artefact


def test_every_format_reads_back_what_was_written(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_artefact(tmp_path / "a.npy", array)
    write_artefact(tmp_path / "a.npz", {"x": array, "y": np.array(["left", "right"])})
    write_artefact(tmp_path / "a.safetensors", {"w": torch.ones(2, 2)})
    write_artefact(tmp_path / "a.json", {"score": np.float32(0.5), "bad": float("nan"), "shape": (1, 2)})
    np.testing.assert_array_equal(read_artefact(tmp_path / "a.npy"), array)
    np.testing.assert_array_equal(read_artefact(tmp_path / "a.npz")["x"], array)
    assert read_artefact(tmp_path / "a.npz")["y"].tolist() == ["left", "right"]
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
def test_a_finished_write_is_renamed_and_a_failed_write_leaves_the_old_artefact(tmp_path, folder):
    def fill(path, text):
        if folder:
            path.mkdir()
        (path / "x" if folder else path).write_text(text)

    target = tmp_path / "artefact"
    with atomic_path(target) as temporary:
        fill(temporary, "old")
        inode = temporary.stat().st_ino
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        fill(temporary, "half of the new")
        raise RuntimeError
    assert (target / "x" if folder else target).read_text() == "old" and target.stat().st_ino == inode
    assert list(tmp_path.iterdir()) == [target]


def test_only_the_leftovers_of_processes_that_have_ended_are_removed(tmp_path):
    ended = ended_process()
    (tmp_path / f".clip.{ended}-00ff00ff").mkdir()
    (tmp_path / f".a.{ended}-00ff00ff.npz").touch()
    kept = {f".a.{os.getpid()}-00ff00ff.npz", ".gitignore", "a.npz"}
    for name in kept:
        (tmp_path / name).touch()
    older = tmp_path / f".b.{os.getpid()}-00ff00ff.npz"  # its writer ended, and this process now has the same number
    older.touch()
    os.utime(older, (1, 1))
    artefacts.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_full_disk_is_reported_in_one_line_with_file_and_remedy_and_leaves_no_file(tmp_path):
    with pytest.raises(DiskFullError) as caught, atomic_path(tmp_path / "a" / "b.json") as temporary:
        temporary.write_text("half")
        with open("/dev/full", "w") as full:
            full.write("the rest")
    assert re.fullmatch(r".*a/b\.json: it cannot be written, the disk is full\. Remedy: .*\.", str(caught.value))
    assert list((tmp_path / "a").iterdir()) == []


def test_a_full_disk_is_recognised_when_a_writer_hides_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(artefacts.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(DiskFullError, match="a.npy.*Remedy"), atomic_path(tmp_path / "a.npy"):
        raise ValueError("1000 requested and 0 written")


# Keys -----------------------------------------------------------------------------------------------


def test_a_key_does_not_depend_on_the_order_of_parameters_or_on_the_place_of_the_data(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place / "clip").mkdir(parents=True)
        (tmp_path / place / "clip" / "a.txt").write_text("data")
    here = artefact_key([tmp_path / "here" / "clip"], {"a": 1, "b": (2, 3)}, "utils.artefacts")
    there = artefact_key([tmp_path / "there" / "clip"], {"b": [2, 3], "a": 1}, artefact_key)
    assert here == there


def test_a_key_changes_with_content_names_parameters_and_code(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("data")
    keys = [artefact_key([tmp_path], 1), artefact_key([tmp_path], 2), artefact_key([tmp_path], 1, artefact_key)]
    file.write_text("else")
    keys.append(artefact_key([tmp_path], 1))
    file.rename(tmp_path / "b.txt")
    keys.append(artefact_key([tmp_path], 1))
    assert len(set(keys)) == len(keys)


def test_small_inputs_count_by_content_large_ones_by_time_and_artefacts_by_their_key(tmp_path):
    small, large, artefact = (tmp_path / name for name in ("small", "large", "artefact.npy"))
    array = np.zeros(artefacts.CONTENT_HASH, np.float32)
    small.write_bytes(b"x")
    large.write_bytes(b"x" * (artefacts.CONTENT_HASH + 1))
    write_artefact(artefact, array, key="k1")
    before = {file: artefact_key([file]) for file in (small, large, artefact)}
    for file in before:
        os.utime(file, ns=(1, 1))
    assert [file for file in before if artefact_key([file]) != before[file]] == [large]
    write_artefact(artefact, array, key="k2")
    assert artefact_key([artefact]) != before[artefact]


# Reuse ----------------------------------------------------------------------------------------------


@pytest.fixture
def maker(tmp_path):
    """A function that makes or reuses an artefact, and returns how often it was made.

    The file is so large that its checksum covers some blocks only.
    """
    calls = []

    def make():
        calls.append(1)
        return np.arange(artefacts.WHOLE_CHECKSUM, dtype=np.float32)

    def call(key="k"):
        cached(tmp_path / "a.npy", key, make)
        return len(calls)

    return call


def test_an_artefact_whose_key_matches_is_not_made_again(maker):
    assert [maker(), maker(), maker("other"), maker("other")] == [1, 1, 2, 2]


def overwrite(path, place, data):
    with path.open("r+b") as handle:
        handle.seek(place)
        handle.write(data)


def half(path):
    return path.stat().st_size // 2


DAMAGES = {
    "cut": lambda path: os.truncate(path, half(path)),
    "emptied in the middle": lambda path: overwrite(path, half(path) // 2, b"\0" * half(path)),
    "broken header": lambda path: overwrite(path, 0, b"garbage"),
    "removed": os.remove,
}
for text in ("", "{", "[]", '{"key": "k"}'):
    DAMAGES[f"sidecar {text!r}"] = lambda path, text=text: path.with_name(f"{path.name}.key").write_text(text)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_artefact_is_made_again(maker, tmp_path, damage):
    maker()
    DAMAGES[damage](tmp_path / "a.npy")
    assert maker() == 2


def flip_a_bit(path, place):
    overwrite(path, place, bytes([path.read_bytes()[place] ^ 1]))


def test_the_sidecar_has_a_checksum_that_shows_a_flipped_bit_in_a_small_artefact(tmp_path):
    write_artefact(tmp_path / "a.npy", np.zeros(1000), key="k")
    record = json.loads((tmp_path / "a.npy.key").read_text())
    assert record == {"key": "k", "checksum": artefacts.checksum(tmp_path / "a.npy")}
    flip_a_bit(tmp_path / "a.npy", 3000)
    assert not is_current(tmp_path / "a.npy", "k")


def test_a_flipped_bit_outside_the_blocks_of_the_checksum_is_noticed_by_reading(tmp_path):
    path, array = tmp_path / "a.npz", np.arange(artefacts.WHOLE_CHECKSUM, dtype=np.float32)
    write_artefact(path, {"x": array}, key="k")
    flip_a_bit(path, half(path) + 9000)
    assert is_current(path, "k")
    with pytest.raises(artefacts.DamagedError, match="a.npz: not a whole artefact.*Remedy"):
        read_artefact(path)
    assert np.array_equal(cached(path, "k", lambda: {"x": array})["x"], array)
    assert np.array_equal(read_artefact(path)["x"], array)


def test_with_two_writers_an_artefact_is_current_only_for_the_key_of_its_content(tmp_path):
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
