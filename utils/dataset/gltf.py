"""Reads glTF 2.0 meshes: `.glb`, and `.gltf` with its buffers and images inside it or beside it.

The structure that the file declares is not trusted: numbers are read only where they lie within their buffers. Other
errors that a damaged file causes (a missing key, a wrong type) become a DataError in the caller.
"""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from utils.dataset.geometry import MAX_FACES, MAX_VERTICES
from utils.dataset.mesh_parts import AGAIN, MAX_PARTS, Embedded, Piece, find_named, too_many_parts
from utils.errors import DataError, read_bytes

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
TRIANGLES, STRIP, FAN = 4, 5, 6  # modes of a primitive; the others are points and lines
REPEAT, CLAMP, MIRROR = 10497, 33071, 33648  # wrap modes of a sampler
# Required extensions that do not stop the reader: it applies the first two, and the others change nothing that it reads
SUPPORTED = ("KHR_texture_transform", "KHR_mesh_quantization", "KHR_lights_punctual", "KHR_xmp_json_ld", "KHR_xmp")
REMEDIES = {
    "KHR_draco_mesh_compression": "switch off the box Compression (Draco) of the glTF exporter",
    "EXT_meshopt_compression": "switch off meshopt compression (gltfpack without -c and -cc)",
    "KHR_meshopt_compression": "switch off meshopt compression (gltfpack without -c and -cc)",
    "KHR_texture_basisu": "switch off KTX2 or Basis textures (gltfpack without -tc): choose PNG or JPEG",
    "EXT_mesh_gpu_instancing": "switch off the box GPU Instances of the glTF exporter",
    **dict.fromkeys(("EXT_texture_webp", "EXT_texture_avif", "MSFT_texture_dds"), "choose PNG or JPEG for its images"),
}


class Texture(NamedTuple):
    """The colour texture of a material."""

    image: int  # number of the image in the file
    coordinates: int  # number of the set of uv
    transform: np.ndarray | None  # (2, 3), applied to uv with v down
    wrap: tuple[int, int]  # wrap modes of u and v


class MorphTargets(NamedTuple):
    """A mesh at rest and its morph targets."""

    name: str
    vertices: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    targets: dict[str, np.ndarray]  # offsets (V, 3) by the name of the target


def read_gltf(path: Path) -> list[Piece]:
    """The pieces of a glTF file in metres: one per primitive of each node in its scene."""
    document = Document(path)
    pieces, n_vertices, n_faces = [], 0, 0
    for node, pose in document.nodes():
        if "skin" in node:
            remedy = "apply the armature, so that the vertices themselves move"
            raise DataError.at(path, "a skeleton moves its mesh", remedy)
        for primitive in document.primitives(node):
            pieces.append(document.piece(node, primitive, pose))
            n_vertices, n_faces = n_vertices + len(pieces[-1].vertices), n_faces + len(pieces[-1].faces)
            if len(pieces) > MAX_PARTS:
                raise too_many_parts(path)
            if n_vertices > MAX_VERTICES or n_faces > MAX_FACES:  # many nodes of a small file can repeat one mesh
                fault = f"it has more than {MAX_VERTICES:,} vertices or {MAX_FACES:,} faces"
                raise DataError.at(path, fault, "export the face alone")
    return pieces


def read_morph_targets(path: Path) -> list[MorphTargets]:
    """The meshes of a glTF file with their named morph targets: one per primitive of each node in its scene.

    All weights are zero, and a skeleton is at rest.
    """
    document = Document(path)
    return [
        document.morph_targets(node, primitive, pose)
        for node, pose in document.nodes()
        for primitive in document.primitives(node)
    ]


def _refused(path: Path, extension: str) -> DataError:
    fault = f"it needs the glTF extension {extension}, which is not supported"
    return DataError.at(path, fault, REMEDIES.get(extension, "export without it"))


class Document:
    """One glTF file: its JSON, and readers for the parts that the JSON names."""

    def __init__(self, path: Path):
        self.path = path
        self.json, self._chunk = _content(path)
        self._buffers: dict[int, bytes] = {}  # by number, after the first use
        for extension in self.json.get("extensionsRequired", []):
            if extension not in SUPPORTED and not str(extension).startswith("KHR_materials_"):
                raise _refused(path, str(extension))
        if str(self.json["asset"]["version"]).split(".")[0] != "2":
            raise DataError.at(path, "it is not of glTF's version 2", "export it as glTF 2.0")

    def _item(self, kind: str, index: Any) -> dict:
        """An entry of one of the file's lists. ValueError for a negative number, which Python counts from the end."""
        if not isinstance(index, int) or index < 0:
            raise ValueError(f"{kind} {index!r:.20} is not a number from 0")
        return self.json[kind][index]

    def _material(self, primitive: dict) -> dict:
        return self._item("materials", primitive["material"]) if "material" in primitive else {}

    # Nodes

    def nodes(self) -> Iterator[tuple[dict, np.ndarray]]:
        """Each node of the scene that has a mesh, and its pose in the scene, a matrix (4, 4)."""
        if self.json.get("scenes"):
            roots = self._item("scenes", self.json.get("scene", 0)).get("nodes", [])
        else:
            children = {child for node in self.json.get("nodes", []) for child in node.get("children", [])}
            roots = [index for index in range(len(self.json.get("nodes", []))) if index not in children]
        stack, seen = [(root, np.eye(4)) for root in reversed(roots)], set()
        while stack:
            index, parent = stack.pop()
            if index in seen:
                raise ValueError(f"node {index} is its own ancestor, or it has two parents")
            seen.add(index)
            node = self._item("nodes", index)
            pose = parent @ _pose(node)
            if "mesh" in node:
                yield node, pose
            stack += [(child, pose) for child in reversed(node.get("children", []))]

    def primitives(self, node: dict) -> list[dict]:
        """The primitives of a node's mesh that are made of triangles."""
        mesh = self._item("meshes", node["mesh"])
        return [part for part in mesh["primitives"] if part.get("mode", TRIANGLES) in (TRIANGLES, STRIP, FAN)]

    def piece(self, node: dict, primitive: dict, pose: np.ndarray) -> Piece:
        """One primitive, with the pose of its node applied."""
        mesh = self._item("meshes", node["mesh"])
        vertices = self._morphed(self._positions(primitive), primitive, node.get("weights", mesh.get("weights")))
        if not np.array_equal(pose, np.eye(4)):
            vertices = vertices @ pose[:3, :3].T + pose[:3, 3]
        material = self._material(primitive)
        texture = self._texture(material)
        uv = self._uv(primitive, texture)
        image, missing = None, ""
        if texture and uv is not None:
            uri = self._item("images", texture.image).get("uri")
            if uri is None or uri.startswith("data:"):
                image = Embedded(self.path, texture.image)
            else:
                image = find_named(self.path, unquote(uri))
                missing = "" if image else unquote(uri)
        name = str(material.get("name") or mesh.get("name") or node.get("name") or "without name")
        clamp = texture is not None and CLAMP in texture.wrap
        faces, colours = self._faces(primitive, len(vertices)), self._colours(primitive)
        return Piece(name, vertices, faces, uv, colours, image, missing, clamp)

    def morph_targets(self, node: dict, primitive: dict, pose: np.ndarray) -> MorphTargets:
        """One primitive at rest, with the pose of its node applied, and its named morph targets."""
        mesh = self._item("meshes", node["mesh"])
        turn = np.eye(4) if "skin" in node else pose  # a node's pose does not move a mesh that has a skeleton
        extras = {**primitive.get("extras", {}), **mesh.get("extras", {})}
        with np.errstate(invalid="ignore"):  # the caller checks that all numbers are finite
            vertices = self._positions(primitive) @ turn[:3, :3].T + turn[:3, 3]
            targets = {
                str(name): self._numbers(target["POSITION"], (3,)) @ turn[:3, :3].T
                for name, target in zip(extras.get("targetNames", []), primitive.get("targets", []), strict=False)
                if "POSITION" in target
            }
        if any(offset.shape != vertices.shape for offset in targets.values()):
            raise ValueError("a morph target has another number of vertices than its mesh")
        name = " ".join(str(part.get("name", "")) for part in (node, mesh, self._material(primitive)))
        return MorphTargets(name, vertices, self._faces(primitive, len(vertices)), targets)

    def _positions(self, primitive: dict) -> np.ndarray:
        """The vertices (V, 3) of a primitive. Raises DataError if they are compressed."""
        compressed = [name for name in primitive.get("extensions", {}) if name in REMEDIES]
        if compressed and "bufferView" not in self._item("accessors", primitive["attributes"]["POSITION"]):
            raise _refused(self.path, compressed[0])
        return self._numbers(primitive["attributes"]["POSITION"], (3,))

    def _morphed(self, vertices: np.ndarray, primitive: dict, weights: list[float] | None) -> np.ndarray:
        """The vertices plus the weighted morph targets. Raises DataError for targets without constant weights."""
        targets = primitive.get("targets", [])
        if not targets:
            return vertices
        channels = [channel for animation in self.json.get("animations", []) for channel in animation["channels"]]
        if weights is None or "weights" in [channel["target"].get("path") for channel in channels]:
            remedy = "apply the shape keys in every frame, and export it without morph targets and animation"
            raise DataError.at(self.path, "its expression is in morph targets that are not applied", remedy)
        for target, weight in zip(targets, weights, strict=True):
            if weight and "POSITION" in target:
                vertices = vertices + np.float32(weight) * self._numbers(target["POSITION"], (3,))
        return vertices

    def _faces(self, primitive: dict, n_vertices: int) -> np.ndarray:
        """The triangles (F, 3) of a primitive. The order of their corners does not matter here."""
        if "indices" in primitive:
            corners = self._numbers(primitive["indices"], (1,))[:, 0].astype(np.int64)
        else:
            corners = np.arange(n_vertices)
        mode = primitive.get("mode", TRIANGLES)
        if mode == STRIP:
            return np.stack([corners[:-2], corners[1:-1], corners[2:]], -1)
        if mode == FAN:
            return np.stack([np.full(max(0, len(corners) - 2), corners[0]), corners[1:-1], corners[2:]], -1)
        return corners.reshape(-1, 3)

    def _colours(self, primitive: dict) -> np.ndarray | None:
        """The sRGB colours (V, 3) in 0..1 of a primitive; glTF stores linear colours."""
        if "COLOR_0" not in primitive["attributes"]:
            return None
        linear = np.clip(self._numbers(primitive["attributes"]["COLOR_0"], (3, 4))[:, :3].astype(float), 0, 1)
        return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)

    # Textures

    def _texture(self, material: dict) -> Texture | None:
        """The colour texture of a material: its base colour, diffuse colour or emission (of photographs)."""
        base = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        glossiness = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
        use = base or glossiness.get("diffuseTexture") or material.get("emissiveTexture")
        if use is None:
            return None
        texture = self._item("textures", use["index"])
        if "source" not in texture:
            raise _refused(self.path, next(iter(texture.get("extensions", {})), "that its texture names"))
        sampler = self._item("samplers", texture["sampler"]) if "sampler" in texture else {}
        wrap = sampler.get("wrapS", REPEAT), sampler.get("wrapT", REPEAT)
        moved = use.get("extensions", {}).get("KHR_texture_transform", {})
        coordinates = moved.get("texCoord", use.get("texCoord", 0))
        return Texture(texture["source"], coordinates, _uv_transform(moved) if moved else None, wrap)

    def _uv(self, primitive: dict, texture: Texture | None) -> np.ndarray | None:
        """The uv (V, 2) of a primitive, with v up and with the texture's transform applied."""
        name = f"TEXCOORD_{texture.coordinates if texture else 0}"
        if name not in primitive["attributes"]:
            return None
        uv = self._numbers(primitive["attributes"][name], (2,))
        if texture and texture.transform is not None:
            uv = uv @ texture.transform[:, :2].T + texture.transform[:, 2]
        uv = np.column_stack([uv[:, 0], 1 - uv[:, 1]])
        if texture and MIRROR in texture.wrap and (uv.min() < 0 or uv.max() > 1):
            raise DataError.at(self.path, "its texture is repeated mirrored", "bake it with uv in 0..1")
        return uv

    def image(self, index: int) -> bytes:
        """The bytes of an image that lies in this file or in its buffers."""
        image = self._item("images", index)
        return self._resource(image["uri"]) if "uri" in image else self._view(image["bufferView"])

    # Numbers

    def _numbers(self, index: int, widths: tuple[int, ...]) -> np.ndarray:
        """The numbers of an accessor (N, C): float32, or the integers of the file."""
        accessor = self._item("accessors", index)
        width, kind = WIDTHS[accessor["type"]], np.dtype(COMPONENTS[accessor["componentType"]])
        if width not in widths:
            raise ValueError(f"an accessor is {accessor['type']}")
        if "sparse" in accessor:
            numbers = self._sparse(accessor, kind, width)
        elif "bufferView" in accessor:
            numbers = self._dense(accessor, kind, width)
        else:
            raise ValueError("an accessor has no numbers")
        if kind.kind == "f":
            return numbers.astype(np.float32)
        if accessor.get("normalized"):
            return np.maximum(numbers.astype(np.float32) / np.iinfo(kind).max, -1)
        return numbers

    def _dense(self, accessor: dict, kind: np.dtype, width: int) -> np.ndarray:
        view = self._item("bufferViews", accessor["bufferView"])
        data, stride = self._view(accessor["bufferView"]), view.get("byteStride") or width * kind.itemsize
        start, count = accessor.get("byteOffset", 0), accessor["count"]
        if min(start, count, stride) < 0 or start + max(0, count - 1) * stride + width * kind.itemsize > len(data):
            raise ValueError("it is cut off: an accessor reaches beyond its view")
        return np.ndarray((count, width), kind, data, start, (stride, kind.itemsize)).copy()

    def _sparse(self, accessor: dict, kind: np.dtype, width: int) -> np.ndarray:
        """An accessor that replaces some rows of zeros, or of a view. Shape keys are often written so."""
        sparse, count = accessor["sparse"], accessor["count"]
        if count > MAX_FACES:
            raise ValueError(f"an accessor has {count} rows")
        numbers = self._dense(accessor, kind, width) if "bufferView" in accessor else np.zeros((count, width), kind)
        indices, values = ({**sparse[name], "count": sparse["count"]} for name in ("indices", "values"))
        rows = self._dense(indices, np.dtype(COMPONENTS[indices["componentType"]]), 1)[:, 0]
        numbers[rows] = self._dense(values, kind, width)
        return numbers

    def _view(self, index: int) -> bytes:
        view = self._item("bufferViews", index)
        if "EXT_meshopt_compression" in view.get("extensions", {}):
            raise _refused(self.path, "EXT_meshopt_compression")
        start, length = view.get("byteOffset", 0), view["byteLength"]
        data = self._buffer(view["buffer"])
        if start < 0 or length < 0 or start + length > len(data):
            raise ValueError("it is cut off: a view reaches beyond its buffer")
        return data[start : start + length]

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            uri = self._item("buffers", index).get("uri")
            self._buffers[index] = self._chunk if uri is None else self._resource(uri)
        return self._buffers[index]

    def _resource(self, uri: str) -> bytes:
        if uri.startswith("data:"):
            head, _, body = uri.partition(",")
            return base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)
        file = find_named(self.path, unquote(uri))
        if file is None:
            raise DataError.at(self.path, f"its buffer {unquote(uri)!r:.80} is missing", "put it beside the mesh")
        return read_bytes(file, "the buffer of a mesh")


def _content(path: Path) -> tuple[dict, bytes]:
    """The JSON of a file, and the binary chunk of a `.glb`."""
    data = read_bytes(path, "the mesh")
    if data[:4] != b"glTF":
        return json.loads(data.decode("utf-8-sig")), b""
    _, version, length = struct.unpack_from("<4sII", data)
    if version != 2:
        raise DataError.at(path, f"it is of glTF's version {version}", "export it as glTF 2.0")
    if length > len(data):
        raise DataError.at(path, f"it is cut off ({len(data)} of {length} bytes)", AGAIN)
    chunks, position = {}, 12
    while position + 8 <= length:
        size, kind = struct.unpack_from("<I4s", data, position)
        chunks.setdefault(kind, data[position + 8 : position + 8 + size])
        position += 8 + size
    return json.loads(chunks[b"JSON"].decode("utf-8")), chunks.get(b"BIN\0", b"")


def _pose(node: dict) -> np.ndarray:
    """The pose of a node in its parent, a matrix (4, 4)."""
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T  # the file has it column by column
    pose = np.eye(4)
    x, y, z, w = (float(part) for part in node.get("rotation", (0, 0, 0, 1)))
    turn = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, :3] = np.array(turn) * np.array(node.get("scale", (1, 1, 1)), float)
    pose[:3, 3] = node.get("translation", (0, 0, 0))
    return pose


def _uv_transform(moved: dict) -> np.ndarray:
    """KHR_texture_transform as a matrix (2, 3) for uv with v down: scale, then rotation, then offset."""
    angle = float(moved.get("rotation", 0))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn * np.array(moved.get("scale", (1, 1)), float), moved.get("offset", (0, 0))])
