"""Mesh files that tests write and may damage: a textured grid of a face's size as OBJ, PLY and glTF."""

import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

RED, BLUE = (220, 40, 30), (20, 60, 200)
SIDE = 5  # vertices along a side of the grid


def grid_faces(side: int) -> np.ndarray:
    """The faces (F, 3) int32 of a square grid of side x side vertices, two in each cell."""
    index = np.arange(side * side, dtype=np.int32).reshape(side, side)
    a, b, c, d = (corner.ravel() for corner in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    return np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])


def grid(size: float = 120.0, lift: float = 0.0):
    """A bent square with sides of `size`, moved along z by `lift`: vertices (V, 3), faces (F, 3), uv (V, 2) in 0..1."""
    uv = np.stack(np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE)), -1).reshape(-1, 2)
    vertices = np.column_stack([(uv - 0.5) * size, size * (0.1 - np.square(uv - 0.5).sum(1) / 5) + lift])
    return vertices, grid_faces(SIDE), uv


def plain(colour=RED) -> np.ndarray:
    """A texture (8, 8, 3) of one colour."""
    return np.tile(np.array(colour, np.uint8), (8, 8, 1))


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def write_png(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(image))
    return path


def obj_text(vertices, faces, uv=None, head: str = "mtllib m.mtl\nusemtl skin\n", first: int = 1) -> str:
    """The text of an OBJ, with `head` before the faces. first: the number of its first vertex in the file."""
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices]
    lines += [] if uv is None else [f"vt {u:.6f} {v:.6f}" for u, v in uv]
    form = "{0}" if uv is None else "{0}/{0}"
    lines += [head.rstrip("\n")] + ["f " + " ".join(form.format(i + first) for i in face) for face in faces]
    return "\n".join(lines) + "\n"


def write_objs(folder: Path, text: str, frames: int = 2) -> Path:
    """Write a clip whose frames are all the same OBJ; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for t in range(frames):
        (folder / f"f_{t}.obj").write_text(text, encoding="utf-8")
    return folder


class Gltf:
    """A builder of glTF files: add parts, change `json` as a test needs, then write."""

    def __init__(self):
        self.binary = b""
        names = ("nodes", "meshes", "materials", "textures", "images", "accessors", "bufferViews")
        self.json = {"asset": {"version": "2.0"}, "scenes": [{"nodes": []}], **{name: [] for name in names}}

    def add(self, name: str, entry: dict) -> int:
        """Append an entry to a list of the JSON; returns its index."""
        self.json[name].append(entry)
        return len(self.json[name]) - 1

    def view(self, data: bytes) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        start = len(self.binary)
        self.binary += data
        return self.add("bufferViews", {"buffer": 0, "byteOffset": start, "byteLength": len(data)})

    def numbers(self, array: np.ndarray, component: int = 5126, kind: str = "VEC3", **more) -> int:
        accessor = {"bufferView": self.view(array.tobytes()), "componentType": component, "count": len(array)}
        return self.add("accessors", {**accessor, "type": kind, **more})

    def image(self, data: bytes) -> int:
        return self.add("images", {"bufferView": self.view(data), "mimeType": "image/png"})

    def part(self, vertices, faces, uv=None, image: int | None = None, name: str = "skin") -> dict:
        """Add a part, in metres, with its material and node; returns its primitive, which a test may change."""
        attributes = {"POSITION": self.numbers(np.asarray(vertices, "<f4"))}
        if uv is not None:
            down = np.column_stack([uv[:, 0], 1 - uv[:, 1]])
            attributes["TEXCOORD_0"] = self.numbers(np.asarray(down, "<f4"), kind="VEC2")
        indices = self.numbers(np.asarray(faces, "<u4").reshape(-1), 5125, "SCALAR")
        material = {"name": name}
        if image is not None:
            texture = self.add("textures", {"source": image})
            material["pbrMetallicRoughness"] = {"baseColorTexture": {"index": texture}}
        primitive = {"attributes": attributes, "indices": indices, "material": self.add("materials", material)}
        mesh = self.add("meshes", {"name": name, "primitives": [primitive]})
        self.json["scenes"][0]["nodes"].append(self.add("nodes", {"mesh": mesh}))
        return primitive

    def glb(self) -> bytes:
        self.json["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        binary = self.binary + b"\0" * (-len(self.binary) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def write(self, folder: Path) -> Path:
        """Write a clip of two frames that are both this `.glb`; returns its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for t in range(2):
            (folder / f"f_{t}.glb").write_bytes(self.glb())
        return folder


def textured(size: float = 0.12, image: bytes | None = None) -> Gltf:
    """A glTF of one textured grid with sides of `size` metres."""
    gltf = Gltf()
    vertices, faces, uv = grid(size)
    gltf.part(vertices, faces, uv, gltf.image(png(plain()) if image is None else image))
    return gltf
