"""glTF 2.0 meshes: `.glb`, and `.gltf` with its buffers and images inside it or beside it.

What the file says of structure is not trusted: numbers are looked up in buffers only where they lie in them. Anything
else that a damaged file leads to (a missing key, a wrong type) is turned into a DataError by the caller.
"""

import base64
import json
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from utils.dataset.geometry import MAX_FACES, MAX_VERTICES
from utils.dataset.mesh_parts import AGAIN, MOST_PARTS, Embedded, Piece, find_named, too_many_parts
from utils.errors import DataError, read_bytes

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
TRIANGLES, STRIP, FAN = 4, 5, 6  # modes of a primitive; the others are points and lines
REPEAT, CLAMP, MIRROR = 10497, 33071, 33648  # wrap modes of a sampler
# Extensions that change nothing we read, or that we follow
FOLLOWED = ("KHR_texture_transform", "KHR_mesh_quantization", "KHR_lights_punctual", "KHR_xmp_json_ld", "KHR_xmp")
REMEDIES = {
    "KHR_draco_mesh_compression": "switch off the box Compression (Draco) of the glTF exporter",
    "EXT_meshopt_compression": "switch off meshopt compression (gltfpack without -c and -cc)",
    "KHR_meshopt_compression": "switch off meshopt compression (gltfpack without -c and -cc)",
    "KHR_texture_basisu": "switch off KTX2 or Basis textures (gltfpack without -tc): choose PNG or JPEG",
    "EXT_texture_webp": "choose PNG or JPEG instead of WebP for the exporter's images",
    "EXT_texture_avif": "choose PNG or JPEG instead of AVIF for the exporter's images",
    "MSFT_texture_dds": "choose PNG or JPEG instead of DDS for the exporter's images",
    "EXT_mesh_gpu_instancing": "switch off the box GPU Instances of the glTF exporter",
}


class Texture(NamedTuple):
    """A material's colour texture: the image's number, the set of uv, how they are moved, the wrap mode."""

    image: int
    coordinates: int = 0
    transform: np.ndarray | None = None  # (2, 3), on uv with v down
    wrap: tuple[int, int] = (REPEAT, REPEAT)


def read_gltf(path: Path) -> list[Piece]:
    """The pieces of a glTF file, one per primitive of every node of its scene, in metres."""
    document = Document(path)
    pieces, n_vertices, n_faces = [], 0, 0
    for node, pose in document.nodes():
        for primitive in document.primitives(node):
            pieces.append(document.piece(node, primitive, pose))
            n_vertices, n_faces = n_vertices + len(pieces[-1].vertices), n_faces + len(pieces[-1].faces)
            if len(pieces) > MOST_PARTS:
                raise too_many_parts(path)
            if n_vertices > MAX_VERTICES or n_faces > MAX_FACES:  # a small file can repeat one mesh without end
                fault = f"it has more than {MAX_VERTICES:,} vertices or {MAX_FACES:,} faces"
                raise DataError.at(path, fault, "export the face alone")
    return pieces


class MorphTargets(NamedTuple):
    """A mesh and how it can be moved: vertices (V, 3), faces (F, 3), the offset (V, 3) of each target by its name."""

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    targets: dict[str, np.ndarray]


def read_morph_targets(path: Path) -> list[MorphTargets]:
    """The meshes of a glTF file, one per primitive of every node of its scene, with the morph targets that have names.

    All weights are zero, and a skeleton is at rest.
    """
    document = Document(path)
    return [
        document.morph_targets(node, primitive, pose)
        for node, pose in document.nodes()
        for primitive in document.triangles(node)
    ]


def read_gltf_image(image: Embedded) -> bytes:
    """The bytes of an image inside a glTF file, PNG or JPEG."""
    return Document(image.path).image(image.index)


def _refused(path: Path, extension: str) -> DataError:
    remedy = REMEDIES.get(extension, "export without it")
    return DataError.at(path, f"it needs the glTF extension {extension}, which is not read here", remedy)


class Document:
    """One glTF file: its JSON, and its numbers when asked for."""

    def __init__(self, path: Path):
        self.path = path
        self.json, self._chunk = _content(path)
        for extension in self.json.get("extensionsRequired", []):
            if extension not in FOLLOWED and not str(extension).startswith("KHR_materials_"):
                raise _refused(path, str(extension))
        if str(self.json["asset"]["version"]).split(".")[0] != "2":
            raise DataError.at(path, "it is not of glTF's version 2", "export it as glTF 2.0")

    def _item(self, kind: str, index: Any) -> dict:
        """An entry of one of the lists of the file. No number is negative, which Python would count from the end."""
        if not isinstance(index, int) or index < 0:
            raise ValueError(f"{kind} {index!r:.20} is no number from 0")
        return self.json[kind][index]

    # Nodes

    def nodes(self) -> Iterator[tuple[dict, np.ndarray]]:
        """Each node of the scene that has a mesh, and where it stands, a matrix (4, 4)."""
        stack = [(root, np.eye(4)) for root in reversed(self._roots())]
        seen = set()
        while stack:
            index, parent = stack.pop()
            if index in seen:
                raise ValueError(f"node {index} is its own ancestor or stands twice")
            seen.add(index)
            node = self._item("nodes", index)
            pose = parent @ _pose(node)
            if "mesh" in node:
                yield node, pose
            stack += [(child, pose) for child in reversed(node.get("children", []))]

    def _roots(self) -> list[int]:
        if self.json.get("scenes"):
            return self._item("scenes", self.json.get("scene", 0)).get("nodes", [])
        children = {child for node in self.json.get("nodes", []) for child in node.get("children", [])}
        return [index for index in range(len(self.json.get("nodes", []))) if index not in children]

    def primitives(self, node: dict) -> list[dict]:
        """The triangles among a node's primitives. Raises DataError for a mesh that a skeleton or animation moves."""
        if "skin" in node:
            raise DataError.at(
                self.path, "a skeleton moves its mesh", "apply the armature, so that the vertices themselves move"
            )
        return self.triangles(node)

    def triangles(self, node: dict) -> list[dict]:
        """The triangles among a node's primitives."""
        mesh = self._item("meshes", node["mesh"])
        return [part for part in mesh["primitives"] if part.get("mode", TRIANGLES) in (TRIANGLES, STRIP, FAN)]

    def piece(self, node: dict, primitive: dict, pose: np.ndarray) -> Piece:
        """One primitive with its vertices where the node stands."""
        mesh = self._item("meshes", node["mesh"])
        vertices = self._positions(primitive)
        vertices = self._morphed(vertices, primitive, node.get("weights", mesh.get("weights")))
        if not np.array_equal(pose, np.eye(4)):
            vertices = vertices @ pose[:3, :3].T + pose[:3, 3]
        faces = self._faces(primitive, len(vertices))
        material = self._item("materials", primitive["material"]) if "material" in primitive else {}
        texture = self._texture(material)
        uv = self._uv(primitive, texture)
        image, missing = self._image(texture) if texture and uv is not None else (None, "")
        name = str(material.get("name") or mesh.get("name") or node.get("name") or "without name")
        clamp = texture is not None and CLAMP in texture.wrap
        return Piece(name, vertices, faces, uv, self._colours(primitive), image, missing, clamp)

    def morph_targets(self, node: dict, primitive: dict, pose: np.ndarray) -> MorphTargets:
        """One primitive at rest where the node stands, and its morph targets by their names."""
        mesh = self._item("meshes", node["mesh"])
        turn = np.eye(4) if "skin" in node else pose  # a mesh with a skeleton stands where its vertices say
        extras = {**primitive.get("extras", {}), **mesh.get("extras", {})}
        with np.errstate(invalid="ignore"):  # who reads them looks for numbers that are not finite
            vertices = self._positions(primitive) @ turn[:3, :3].T + turn[:3, 3]
            targets = {
                str(name): self._numbers(target["POSITION"], (3,)) @ turn[:3, :3].T
                for name, target in zip(extras.get("targetNames", []), primitive.get("targets", []), strict=False)
                if "POSITION" in target
            }
        if any(offset.shape != vertices.shape for offset in targets.values()):
            raise ValueError("a morph target has another number of vertices than its mesh")
        material = self._item("materials", primitive["material"]) if "material" in primitive else {}
        name = " ".join(str(part.get("name", "")) for part in (node, mesh, material))
        return MorphTargets(name, vertices, self._faces(primitive, len(vertices)), targets)

    def _positions(self, primitive: dict) -> np.ndarray:
        """The vertices (V, 3) of a primitive. Raises DataError for compressed ones."""
        compressed = [name for name in primitive.get("extensions", {}) if name in REMEDIES]
        if compressed and "bufferView" not in self._item("accessors", primitive["attributes"]["POSITION"]):
            raise _refused(self.path, compressed[0])
        return self._numbers(primitive["attributes"]["POSITION"], (3,))

    def _morphed(self, vertices: np.ndarray, primitive: dict, weights: list[float] | None) -> np.ndarray:
        """Vertices with the morph targets added by their weights. Raises DataError where no weights are given."""
        targets = primitive.get("targets", [])
        if not targets:
            return vertices
        paths = [
            channel["target"].get("path") for one in self.json.get("animations", []) for channel in one["channels"]
        ]
        if weights is None or "weights" in paths:
            raise DataError.at(
                self.path,
                "its expression is in morph targets that are not applied",
                "apply the shape keys in every frame, and export it without morph targets and animation",
            )
        for target, weight in zip(targets, weights, strict=True):
            if weight and "POSITION" in target:
                vertices = vertices + np.float32(weight) * self._numbers(target["POSITION"], (3,))
        return vertices

    def _faces(self, primitive: dict, n_vertices: int) -> np.ndarray:
        """Triangles (F, 3) of a primitive, whose order of corners does not matter here."""
        if "indices" in primitive:
            corners = self._numbers(primitive["indices"], (1,))[:, 0].astype(np.int64)
        else:
            corners = np.arange(n_vertices)
        mode = primitive.get("mode", TRIANGLES)
        if mode == STRIP:
            faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], -1)
        elif mode == FAN:
            faces = np.stack([np.full(max(0, len(corners) - 2), corners[0]), corners[1:-1], corners[2:]], -1)
        else:
            faces = corners.reshape(-1, 3)
        return faces

    def _colours(self, primitive: dict) -> np.ndarray | None:
        """Colours (V, 3) in 0..1 as a screen shows them; glTF has them linear."""
        if "COLOR_0" not in primitive["attributes"]:
            return None
        linear = np.clip(self._numbers(primitive["attributes"]["COLOR_0"], (3, 4))[:, :3].astype(float), 0, 1)
        return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)

    # Textures

    def _texture(self, material: dict) -> Texture | None:
        """The colour texture of a material: of its usual model, an older one, or what it emits (photographs unlit)."""
        older = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
        usual = material.get("pbrMetallicRoughness", {})
        use = usual.get("baseColorTexture") or older.get("diffuseTexture") or material.get("emissiveTexture")
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
        """uv (V, 2) with v up, as the texture moves them."""
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

    def _image(self, texture: Texture) -> tuple[Path | Embedded | None, str]:
        """Where the image is, or the name of one that is not there."""
        uri = self._item("images", texture.image).get("uri")
        if uri is None or uri.startswith("data:"):
            return Embedded(self.path, texture.image), ""
        found = find_named(self.path, unquote(uri))
        return (found, "") if found else (None, unquote(uri))

    def image(self, index: int) -> bytes:
        """The bytes of an image that lies in this file or its buffers."""
        image = self._item("images", index)
        return _data_uri(image["uri"]) if "uri" in image else self._view(image["bufferView"])

    # Numbers

    @cached_property
    def _buffers(self) -> dict[int, bytes]:
        return {}

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            self._buffers[index] = self._read_buffer(self._item("buffers", index).get("uri"))
        return self._buffers[index]

    def _read_buffer(self, uri: str | None) -> bytes:
        if uri is None:
            return self._chunk
        if uri.startswith("data:"):
            return _data_uri(uri)
        found = find_named(self.path, unquote(uri))
        if found is None:
            raise DataError.at(self.path, f"its buffer {unquote(uri)!r:.80} is missing", "put it beside the mesh")
        return read_bytes(found, "the buffer of a mesh")

    def _view(self, index: int) -> bytes:
        view = self._item("bufferViews", index)
        if "EXT_meshopt_compression" in view.get("extensions", {}):
            raise _refused(self.path, "EXT_meshopt_compression")
        start, length = view.get("byteOffset", 0), view["byteLength"]
        data = self._buffer(view["buffer"])
        if start < 0 or length < 0 or start + length > len(data):
            raise ValueError("it is cut off: a view reaches beyond its buffer")
        return data[start : start + length]

    def _numbers(self, index: int, widths: tuple[int, ...]) -> np.ndarray:
        """What an accessor names, (N, C): float32, or the integers of the file."""
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
        if kind.kind == "f" or not accessor.get("normalized"):
            return numbers if kind.kind != "f" else numbers.astype(np.float32)
        return np.maximum(numbers.astype(np.float32) / np.iinfo(kind).max, -1)

    def _dense(self, accessor: dict, kind: np.dtype, width: int) -> np.ndarray:
        stride = self._item("bufferViews", accessor["bufferView"]).get("byteStride") or width * kind.itemsize
        return _strided(self._view(accessor["bufferView"]), accessor, kind, width, stride)

    def _sparse(self, accessor: dict, kind: np.dtype, width: int) -> np.ndarray:
        """Numbers that are zero, or those of a view, but for the listed ones: how shape keys are often written."""
        sparse, count = accessor["sparse"], accessor["count"]
        if count > MAX_FACES:
            raise ValueError(f"an accessor has {count} rows")
        numbers = self._dense(accessor, kind, width) if "bufferView" in accessor else np.zeros((count, width), kind)
        listed = {"count": sparse["count"]}
        places = {**sparse["indices"], **listed}
        rows = self._dense(places, np.dtype(COMPONENTS[places["componentType"]]), 1)[:, 0]
        numbers[rows] = self._dense({**sparse["values"], **listed}, kind, width)
        return numbers


def _strided(data: bytes, accessor: dict, kind: np.dtype, width: int, stride: int) -> np.ndarray:
    start, count = accessor.get("byteOffset", 0), accessor["count"]
    if min(start, count, stride) < 0 or start + max(0, count - 1) * stride + width * kind.itemsize > len(data):
        raise ValueError("it is cut off: an accessor reaches beyond its view")
    return np.ndarray((count, width), kind, data, start, (stride, kind.itemsize)).copy()


def _content(path: Path) -> tuple[dict, bytes]:
    """The JSON of a file, and the bytes that a `.glb` has behind it."""
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


def _data_uri(uri: str) -> bytes:
    head, _, body = uri.partition(",")
    return base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)


def _pose(node: dict) -> np.ndarray:
    """Where a node stands in its parent, a matrix (4, 4)."""
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T  # column by column in the file
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
    """KHR_texture_transform as a matrix (2, 3): scaled, turned, then shifted, with v down."""
    angle = float(moved.get("rotation", 0))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn * np.array(moved.get("scale", (1, 1)), float), moved.get("offset", (0, 0))])
