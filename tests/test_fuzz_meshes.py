"""Mesh files damaged at random, always alike: each is read, or refused as a DataError, soon and in little memory."""

import copy
import json
import random
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import trimesh
from mesh_files import BLUE, Gltf, grid, obj_text, plain, png, textured, write_objs, write_png

from utils.dataset.reading import DataError
from utils.dataset.sequences import open_sequence
from utils.render.views import textured_meshes

ROUNDS = 100  # damaged files of each kind
SECONDS = 3  # a case
MEMORY = 1 << 30  # bytes beyond those of the process at the start of a case
WORDS = (
    *(
        b"nan",
        b"-1",
        b"0",
        b"1e300",
        b"-inf",
        b"99999999999999999999",
        b"1_0",
        b"/",
        b"//",
        b"\\\n",
        b"\0",
        b"\xff\xfe",
    ),
    *(
        b"f 1/1 2/2\n",
        b"v 1\n",
        b"vt\n",
        b"usemtl x\n",
        b"mtllib ../m.mtl\n",
        b"map_Kd /etc/hostname\n",
        b"-s 1 ",
        b"{}",
    ),
    *(
        b"null",
        b"1e9",
        b"4294967295",
        b"list uchar int",
        b"element vertex 4000000000\n",
        b"true",
        b'"',
        b"[[[[",
        b"../",
    ),
)


@contextmanager
def little_memory():
    """Within it, more than so much memory beyond what the process has is a MemoryError."""
    with open("/proc/self/statm", encoding="ascii") as handle:
        now = int(handle.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The bytes with one to four damages: cut off, flipped, a piece lost, doubled or moved, another word."""
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 4, 30, 300))
        piece = data[at : at + length]
        word, number = rng.choice(WORDS), str(rng.randint(-3, 10 ** rng.randint(0, 12))).encode()
        data = rng.choice(
            (
                data[:at],
                data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
                data[:at] + data[at + length :],
                data[:at] + piece * 3 + data[at + length :],
                data[:at] + word + data[at + len(word) :],
                data[:at] + word + data[at:],
                data[:at] + number + data[at + len(number) :],
                data[:at] + data[at + length :] + piece,
            )
        )
    return data


def damaged_words(rng: random.Random, data: bytes) -> bytes:
    """The bytes with one to three numbers changed, so that the file keeps its form."""
    words = data.split(b" ")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(words))
        words[at] = rng.choice((*WORDS[:9], str(rng.randint(-3, 10 ** rng.randint(0, 12))).encode()))
    return b" ".join(words)


ODD = (None, True, -1, 0, 1, 3, 33071, 10**12, 1e300, "", "../x", "data:,", "data:;base64,!", [], {}, [0] * 9, {"0": 0})


def damaged_json(rng: random.Random, data: bytes) -> bytes:
    """A glTF's text with one to three values changed or lost, at any depth."""
    tree = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        branch = tree
        while True:
            keys = list(branch) if isinstance(branch, dict) else list(range(len(branch)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(branch[key], dict | list) and rng.random() < 0.9:
                branch = branch[key]
                continue
            if rng.random() < 0.2:
                del branch[key]
            else:
                branch[key] = copy.deepcopy(rng.choice(ODD))
            break
    return json.dumps(tree).encode()


def write_clip(folder, kind):
    """A whole clip of two frames; returns the file to damage."""
    if kind in ("obj", "mtl"):
        vertices, faces, uv = grid()
        write_objs(folder, obj_text(vertices, faces, uv) + obj_text(*grid(30, 20), "usemtl eye", first=26))
        (folder / "m.mtl").write_text(
            "newmtl skin\nKd 1 1 1\nmap_Kd -s 1 1 1 maps\\skin.png\nnewmtl eye\nmap_Kd eye.png\n"
        )
        write_png(folder / "maps" / "skin.png", plain())
        write_png(folder / "eye.png", plain(BLUE))
        return folder / ("m.mtl" if kind == "mtl" else "f_0.obj")
    if kind == "glb":
        return textured().write(folder) / "f_0.glb"
    if kind == "gltf":
        gltf = Gltf()
        gltf.part(*grid(0.12), gltf.image(png(plain())))
        return write_gltf(folder, gltf)
    return write_ply(folder, kind)


def write_gltf(folder, gltf):
    folder.mkdir()
    (folder / "data.bin").write_bytes(gltf.binary)
    gltf.json["buffers"] = [{"byteLength": len(gltf.binary), "uri": "data.bin"}]
    for t in range(2):
        (folder / f"f_{t}.gltf").write_text(json.dumps(gltf.json))
    return folder / "f_0.gltf"


def write_ply(folder, kind):
    vertices, faces, uv = grid()
    visual = trimesh.visual.TextureVisuals(uv=uv)
    mesh = trimesh.Trimesh(vertices, faces, visual=visual, process=False)
    folder.mkdir()
    for t in range(2):
        (folder / f"f_{t}.ply").write_bytes(mesh.export(file_type="ply", encoding=kind.removeprefix("ply ")))
        write_png(folder / f"f_{t}.png", plain())
    return folder / "f_0.ply"


def read_and_check(folder):
    """Read both frames as the renderer gets them. Raises AssertionError for one that could not be drawn."""
    sequence = open_sequence(folder)
    for t in range(len(sequence)):
        for mesh in textured_meshes(sequence, t):
            assert np.isfinite(mesh.vertices).all() and np.isfinite(mesh.uv).all()
            assert mesh.vertices.dtype == np.float32 and mesh.uv.shape == (len(mesh.vertices), 2)
            assert len(mesh.faces) and 0 <= mesh.faces.min() and mesh.faces.max() < len(mesh.vertices)
            assert mesh.texture.dtype == np.uint8 and mesh.texture.ndim == 3
    return sequence.constant_topology


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of casts in trimesh
@pytest.mark.parametrize("kind", ["obj", "mtl", "glb", "gltf", "ply ascii", "ply binary"])
def test_a_damaged_mesh_file_is_read_or_refused(tmp_path, at_most, kind):
    file = write_clip(tmp_path / "clip", kind)
    whole, rng, read = file.read_bytes(), random.Random(kind), 0
    for case in range(ROUNDS):
        damage = damaged if case % 3 else damaged_json if kind == "gltf" else damaged_words
        file.write_bytes(damage(rng, whole))
        try:
            with at_most(SECONDS), little_memory():
                read_and_check(file.parent)
            read += 1
        except DataError as error:
            assert "Remedy: " in str(error) and len(str(error)) < 1500
        except BaseException as error:
            raise AssertionError(f"case {case} of {kind} ends as {error!r}, see {file}") from error
    assert 0 < read < ROUNDS  # some damages do no harm, else the whole file is not read either
