"""Randomly damaged mesh files, the same in each run: each is read, or refused with a DataError."""

import copy
import json
import random

import numpy as np
import pytest
import trimesh
from helpers.fuzzing import mutations
from helpers.mesh_files import BLUE, grid, obj_text, plain, textured, write_objs, write_png

from utils.dataset.readers import open_sequence
from utils.render.views import textured_meshes

COUNT = 100  # damaged files of each kind, times --fuzz
NUMBERS = rb"nan|-1|0|1e300|-inf|99999999999999999999|1_0|/|//|1e9|4294967295"
WORDS = tuple((NUMBERS + rb"|list uchar int|true|\"|[[[[|../|null|{}").split(b"|"))
LINES = (b"f 1/1 2/2", b"v 1", b"vt", b"usemtl x", b"mtllib ../m.mtl", b"map_Kd /etc/hostname", b"map_Kd -s 1 ")
WORDS += (b"\\\n", b"\0", b"\xff\xfe", b"element vertex 4000000000\n", *(line + b"\n" for line in LINES))


def damaged_words(rng: random.Random, data: bytes) -> bytes:
    """The bytes with one to three of their words replaced, half the time by a number."""
    words = data.split(b" ")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(words))
        words[at] = rng.choice((rng.choice(WORDS), str(rng.randint(-3, 10 ** rng.randint(0, 12))).encode()))
    return b" ".join(words)


ODD = (None, True, -1, 0, 1, 3, 33071, 10**12, 1e300, "", "../x", "data:,", "data:;base64,!", [], {}, [0] * 9, {"0": 0})


def damaged_json(rng: random.Random, data: bytes) -> bytes:
    """The text of a glTF file with one to three values changed or removed, at any depth."""
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
    """Write a clip of two frames; returns the file that will be damaged."""
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
    folder.mkdir()
    if kind == "gltf":
        gltf = textured()
        (folder / "data.bin").write_bytes(gltf.binary)
        gltf.json["buffers"] = [{"byteLength": len(gltf.binary), "uri": "data.bin"}]
        for t in range(2):
            (folder / f"f_{t}.gltf").write_text(json.dumps(gltf.json))
        return folder / "f_0.gltf"
    vertices, faces, uv = grid()
    visual = trimesh.visual.TextureVisuals(uv=uv)
    mesh = trimesh.Trimesh(vertices, faces, visual=visual, process=False)
    for t in range(2):
        (folder / f"f_{t}.ply").write_bytes(mesh.export(file_type="ply", encoding=kind.removeprefix("ply ")))
        write_png(folder / f"f_{t}.png", plain())
    return folder / "f_0.ply"


def read_and_check(path):
    """Read both frames beside a file as the renderer gets them. Raises AssertionError if one cannot be drawn."""
    sequence = open_sequence(path.parent)
    for t in range(len(sequence)):
        for mesh in textured_meshes(sequence, t):
            assert np.isfinite(mesh.vertices).all() and np.isfinite(mesh.uv).all()
            assert mesh.vertices.dtype == np.float32 and mesh.uv.shape == (len(mesh.vertices), 2)
            assert len(mesh.faces) and 0 <= mesh.faces.min() and mesh.faces.max() < len(mesh.vertices)
            assert mesh.texture.dtype == np.uint8 and mesh.texture.ndim == 3
    return sequence.constant_topology


def cases(kind: str, whole: bytes, count: int):
    """A third of the files have replaced words or values; the others have damages that are possible in any file."""
    damage = damaged_json if kind == "gltf" else damaged_words
    rng = random.Random(kind)
    yield from ((f"case {case} of {kind} ({damage.__name__})", damage(rng, whole)) for case in range(count // 3))
    yield from mutations([whole], 6, count - count // 3)


@pytest.mark.parametrize("kind", ["obj", "mtl", "glb", "gltf", "ply ascii", "ply binary"])
def test_a_damaged_mesh_file_is_read_or_refused(survives, tmp_path, kind):
    file = write_clip(tmp_path / "in", kind)
    read_and_check(file)
    counts = survives(read_and_check, file.name, cases(kind, file.read_bytes(), survives.many(COUNT)))
    assert counts["read"] and counts["refused"]  # some damages do no harm
