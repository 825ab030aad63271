"""Mesh files for tests, written by hand: a textured grid of a face's size as OBJ, PLY and glTF, with any damage."""

import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

RED, BLUE = (220, 40, 30), (20, 60, 200)
SIDE = 5  # vertices along a side of the grid


def grid(size: float = 120.0, lift: float = 0.0):
    """A bent square of that many millimetres: vertices (V, 3), faces (F, 3), uv (V, 2) in 0..1."""
    uv = np.stack(np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE)), -1).reshape(-1, 2)
    vertices = np.column_stack([(uv - 0.5) * size, size * (0.1 - np.square(uv - 0.5).sum(1) / 5) + lift])
    index = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    a, b, c, d = (corner.ravel() for corner in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    return vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([d, c, b], 1)]), uv


def plain(colour=RED, size=(8, 8)) -> np.ndarray:
    """A texture (H, W, 3) of one colour."""
    return np.tile(np.array(colour, np.uint8), (*size, 1))


def write_png(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def obj_text(vertices, faces, uv=None, head: str = "mtllib m.mtl\nusemtl skin\n", first: int = 1) -> str:
    """Lines of an OBJ; faces count from `first`, where other vertices and uv stand before these."""
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices]
    lines += [] if uv is None else [f"vt {u:.6f} {v:.6f}" for u, v in uv]
    form = "{0}" if uv is None else "{0}/{0}"
    lines += [head.rstrip("\n")] + ["f " + " ".join(form.format(i + first) for i in face) for face in faces]
    return "\n".join(lines) + "\n"


def write_objs(folder: Path, text: str, frames: int = 2) -> Path:
    """The same OBJ in every frame of a clip's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for t in range(frames):
        (folder / f"f_{t}.obj").write_text(text, encoding="utf-8")
    return folder


class Gltf:
    """A glTF file in the making: parts are added, `json` may be changed at will, then it is written."""

    def __init__(self):
        self.binary = b""
        names = ("nodes", "meshes", "materials", "textures", "images", "accessors", "bufferViews")
        self.json = {"asset": {"version": "2.0"}, "scenes": [{"nodes": []}], **{name: [] for name in names}}

    def view(self, data: bytes) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.json["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)})
        self.binary += data
        return len(self.json["bufferViews"]) - 1

    def numbers(self, array: np.ndarray, component: int = 5126, kind: str = "VEC3", **more) -> int:
        accessor = {"bufferView": self.view(array.tobytes()), "componentType": component, "count": len(array)}
        self.json["accessors"].append({**accessor, "type": kind, **more})
        return len(self.json["accessors"]) - 1

    def image(self, data: bytes) -> int:
        self.json["images"].append({"bufferView": self.view(data), "mimeType": "image/png"})
        return len(self.json["images"]) - 1

    def part(self, vertices, faces, uv=None, image: int | None = None, name: str = "skin") -> dict:
        """Add a part, in metres, with its material and node; returns its primitive, to be changed."""
        attributes = {"POSITION": self.numbers(np.asarray(vertices, "<f4"))}
        if uv is not None:
            down = np.column_stack([uv[:, 0], 1 - uv[:, 1]])
            attributes["TEXCOORD_0"] = self.numbers(np.asarray(down, "<f4"), kind="VEC2")
        indices = self.numbers(np.asarray(faces, "<u4").reshape(-1), 5125, "SCALAR")
        material = {"name": name}
        if image is not None:
            self.json["textures"].append({"source": image})
            material["pbrMetallicRoughness"] = {"baseColorTexture": {"index": len(self.json["textures"]) - 1}}
        self.json["materials"].append(material)
        primitive = {"attributes": attributes, "indices": indices, "material": len(self.json["materials"]) - 1}
        self.json["meshes"].append({"name": name, "primitives": [primitive]})
        self.json["nodes"].append({"mesh": len(self.json["meshes"]) - 1})
        self.json["scenes"][0]["nodes"].append(len(self.json["nodes"]) - 1)
        return primitive

    def glb(self) -> bytes:
        self.json["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        binary = self.binary + b"\0" * (-len(self.binary) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def write(self, folder: Path, frames: int = 2) -> Path:
        """The same `.glb` in every frame of a clip's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for t in range(frames):
            (folder / f"f_{t}.glb").write_bytes(self.glb())
        return folder


def textured(size: float = 0.12, image: bytes | None = None) -> Gltf:
    """A glTF of one textured part, of so many metres."""
    gltf = Gltf()
    vertices, faces, uv = grid(size)
    gltf.part(vertices, faces, uv, gltf.image(png(plain()) if image is None else image))
    return gltf
