"""Reads Wavefront OBJ meshes and their MTL material libraries, as exporters write them."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.dataset.mesh_parts import AGAIN, MAX_PARTS, Piece, find_named, too_many_parts
from utils.errors import DataError, read_bytes, reading

# Options of a texture in a material and how many values they take; -s, -o and -t may have fewer.
MAP_OPTIONS = dict.fromkeys(
    ("-blendu", "-blendv", "-boost", "-cc", "-clamp", "-bm", "-imfchan", "-texres", "-type", "-colorspace"), 1
) | {"-mm": 2, "-s": 3, "-o": 3, "-t": 3}
NUMERIC = ("-boost", "-bm", "-texres", "-mm", "-s", "-o", "-t")
MESHLAB_COUNT = re.compile(r"^#\s*(Vertices|Faces):\s*(\d{1,12})\s*$", re.MULTILINE)  # in the header of MeshLab
# Successive lines of one keyword, which make up nearly all of a file, or any other single line
RUNS = re.compile(
    "|".join(rf"(?P<{key}>(?:^[ \t]*{key}[ \t][^\n]*\n)++)" for key in ("v", "vt", "vn", "f")) + r"|(?P<line>[^\n]*\n)",
    re.MULTILINE,
)
# Patterns of a corner (vertex/uv/normal), and whether it has uv
CORNERS = {"[0-9]+": False, "[0-9]+/[0-9]+": True, "[0-9]+//[0-9]+": False, "[0-9]+/[0-9]+/[0-9]+": True}


class TextureMap(NamedTuple):
    """A material's texture, which is looked up at uv * scale + offset."""

    name: str
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamp: bool = False


class Faces(NamedTuple):
    """Triangles, with all numbers from 0."""

    vertices: np.ndarray  # (F, 3) numbers of vertices
    uv: np.ndarray  # (F, 3) numbers of uv, -1 for none
    material: np.ndarray  # (F,) numbers of materials


def read_obj(path: Path) -> tuple[list[Piece], tuple[int, int, int]]:
    """The pieces of an OBJ file, one per material, and its numbers of lines v, vt and f.

    A vertex with several uv is doubled, so that each has one; vertices keep the file's order. Raises DataError for a
    line that cannot be parsed and for faces that name missing vertices or uv: the signs of a file that is cut off.
    """
    obj = ObjFile(path)
    return obj.pieces(), (obj.counts["v"], obj.counts["vt"], obj.counts["f"])


def read_obj_surface(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Vertices (V, 3) in the file's order, triangles (F, 3) and the name of each triangle's material; without uv.

    Raises DataError as `read_obj` does.
    """
    obj = ObjFile(path)
    names = list(obj.materials)
    return obj.vertices[:, :3], obj.faces.vertices, [names[number] for number in obj.faces.material]


class ObjFile:
    """One OBJ file: its vertices, uv and triangles, and the materials and libraries that it names."""

    def __init__(self, path: Path):
        self.path = path
        self.counts: Counter = Counter()  # number of lines, by keyword
        self.materials = {"": 0}  # their numbers by name, "" for none
        self._blocks: dict[str, list[str]] = {"v": [], "vt": [], "f": []}  # successive lines, by keyword
        self._material_runs: list[tuple[int, int]] = []  # number of a material, and of the lines f that have it
        self._libraries: dict[str, None] = {}  # the lines mtllib
        text = _decoded(read_bytes(path, "the mesh"))
        self._split(text)
        self.vertices, self.uv = self._table("v", 3), self._table("vt", 1)
        self.faces = Faces(*(np.zeros(shape, np.int64) for shape in ((0, 3), (0, 3), 0)))
        if self.counts["f"] and len(self.vertices):
            if len(self.materials) + len(self._libraries) > MAX_PARTS:
                raise too_many_parts(path)
            self._check_announced(text)
            with reading(path, "a face", AGAIN):
                self.faces = self._all_alike() or self._one_by_one()
            self._check_range("vertex", self.faces.vertices, 0, len(self.vertices))
            self._check_range("texture coordinate", self.faces.uv, -1, len(self.uv))

    def _split(self, text: str) -> None:
        """Sort the lines by their keyword. Negative numbers in faces are replaced by numbers from 1."""
        text = text.replace("\r\n", "\n").replace("\r", "\n") + "\n"
        if "\\\n" in text:
            text = text.replace("\\\n", " ")  # a backslash continues the line
        material = 0
        for run in RUNS.finditer(text):
            keyword, block = run.lastgroup, run[0]
            if keyword == "line":
                keyword, rest = (*block.split(None, 1), "", "")[:2]
                if keyword == "mtllib":
                    self._libraries[rest] = None
                elif keyword == "usemtl":
                    material = self.materials.setdefault(_unquoted(rest), len(self.materials))
                continue
            count = block.count("\n")
            if keyword == "f":
                self._material_runs.append((material, count))
                block = self._absolute(block) if "-" in block else block
            if keyword in self._blocks:
                self._blocks[keyword].append(block)
            self.counts[keyword] += count

    def _absolute(self, block: str) -> str:
        """Lines of faces, in which -1 is the last vertex before them, with numbers from 1."""
        so_far = self.counts["v"], self.counts["vt"], self.counts["vn"]

        def positive(corner: str) -> str:
            numbers = zip(corner.split("/"), so_far, strict=False)
            return "/".join(
                str(max(0, int(n) + count + 1)) if re.fullmatch(r"-\d{1,12}", n) else n for n, count in numbers
            )

        return "".join(" ".join(positive(corner) for corner in line.split()) + "\n" for line in block[:-1].split("\n"))

    def _table(self, keyword: str, least: int) -> np.ndarray:
        """The numbers (N, C) float64 of all lines of a keyword; columns that some lines lack are left out."""
        text, n = "".join(self._blocks[keyword]), self.counts[keyword]
        if not n:
            return np.zeros((0, least))
        words = text.split()
        width = len(words) // n
        if len(words) % n == 0 and width > least and words[::width].count(keyword) == n:
            del words[::width]  # all lines have as many numbers
        else:  # cut all lines to the shortest
            lines = text.splitlines()
            rows = [line.split()[1:] for line in lines]
            widths = [len(row) for row in rows]
            width = min(widths)
            if width < least or (keyword == "vt" and width < max(widths)):
                short = widths.index(width)
                fault = f"line {keyword} number {short + 1} is cut off ({lines[short]!r:.60})"
                raise DataError.at(self.path, fault, "export it again")
            words = [word for row in rows for word in row[:width]]
        with reading(self.path, f"a line {keyword}", AGAIN):
            return np.fromiter(map(float, words), float, len(words)).reshape(n, -1)

    def _check_announced(self, text: str) -> None:
        """Raise DataError if the file's header announces another number of vertices or faces than there are."""
        counts = {"Vertices": self.counts["v"], "Faces": self.counts["f"]}
        for name, announced in MESHLAB_COUNT.findall(text[:4096]):
            if int(announced) != counts[name]:
                fault = f"its header announces {announced} {name.lower()}, but it has {counts[name]}: it was cut off"
                raise DataError.at(self.path, fault, AGAIN)

    def _all_alike(self) -> Faces | None:
        """The triangles of a file whose faces all have the same form, parsed at once; None for another file."""
        text = "".join(self._blocks["f"])
        corner = re.sub("[0-9]+", "[0-9]+", text.split(None, 2)[1])
        lines = rf"(?:[^\S\n]*f(?:[^\S\n]+{corner}){{3}}[^\S\n]*\n)++"
        if corner not in CORNERS or not re.fullmatch(lines, text, re.ASCII):
            return None
        numbers = np.fromstring(text.replace("f", " ").replace("/", " "), np.int64, sep=" ") - 1
        corners = numbers.reshape(self.counts["f"], 3, -1)
        uv = corners[..., 1] if CORNERS[corner] else np.full(corners.shape[:2], -1)
        return Faces(corners[..., 0], uv, self._material_of_lines())

    def _material_of_lines(self) -> np.ndarray:
        """The number of the material of each line f."""
        numbers, counts = zip(*self._material_runs, strict=True)
        return np.repeat(numbers, counts)

    def _one_by_one(self) -> Faces:
        """The triangles of any file; polygons become fans of triangles."""
        vertices, uv, materials = [], [], []
        lines = "".join(self._blocks["f"])[:-1].split("\n")
        for face, material in zip(lines, self._material_of_lines(), strict=True):
            corners = [_corner(corner) for corner in face.split()[1:]]
            if len(corners) < 3:
                raise ValueError(f"{face!r:.60} has fewer than three corners")
            for second, third in zip(corners[1:], corners[2:], strict=False):
                triangle = corners[0], second, third
                vertices.append([corner[0] for corner in triangle])
                uv.append([corner[1] for corner in triangle])
                materials.append(material)
        return Faces(np.array(vertices, np.int64), np.array(uv, np.int64), np.array(materials))

    def _check_range(self, name: str, numbers: np.ndarray, least: int, count: int) -> None:
        if numbers.min() < least or numbers.max() >= count:
            wrong = numbers.max() if numbers.max() >= count else numbers.min()
            fault = f"a face names {name} {wrong + 1} of {count}: it was cut off or damaged"
            raise DataError.at(self.path, fault, AGAIN)

    def pieces(self) -> list[Piece]:
        """One piece per material, and another one for its faces that have no uv."""
        maps, names, pieces = self._maps(), list(self.materials), []
        mapped = (self.faces.uv >= 0).all(axis=1)
        for number in dict.fromkeys(number for number, _ in self._material_runs):
            of_material = self.faces.material == number
            for has_uv in (True, False):
                chosen = of_material & (mapped == has_uv)
                if chosen.any():
                    texture = maps[names[number]] if has_uv else None
                    pieces.append(self._piece(names[number], Faces(*(part[chosen] for part in self.faces)), texture))
        return pieces

    def _piece(self, name: str, faces: Faces, texture: TextureMap | None) -> Piece:
        n_uv = len(self.uv) + 1
        pairs = faces.vertices.ravel() * n_uv + faces.uv.ravel() + 1  # one number for a pair of vertex and uv
        pairs, corners = np.unique(pairs, return_inverse=True)  # sorted, so that the file's order stays
        of_vertex, of_uv = pairs // n_uv, pairs % n_uv - 1
        image = find_named(self.path, texture.name) if texture else None
        return Piece(
            name or "without material",
            self.vertices[of_vertex, :3],
            corners.reshape(-1, 3),
            _transformed(self.uv[of_uv], texture) if (of_uv >= 0).all() else None,
            _colours(self.vertices)[of_vertex] if self.vertices.shape[1] in (6, 7) else None,
            image,
            texture.name if texture and image is None else "",
            bool(texture and texture.clamp),
        )

    def _maps(self) -> dict[str, TextureMap | None]:
        """The texture of each material that the mesh uses.

        A material that is in no library gets the texture of the other materials, if they all have the same one.
        """
        defined: dict[str, TextureMap | None] = {}
        for line in self._libraries:  # a line names one library, perhaps with spaces in its name, or several
            whole = find_named(self.path, line)
            names = [] if whole else re.findall(r'"[^"]+"|\S+', line)[:20]
            for library in filter(None, [whole, *(find_named(self.path, name) for name in names)]):
                text = _decoded(read_bytes(library, "the material library"))
                defined = parse_mtl(text) | defined  # a material of the first library takes precedence
        folded = {name.casefold(): texture for name, texture in defined.items()}
        maps = {name: defined.get(name, folded.get(name.casefold())) for name in self.materials}
        used = {texture for texture in maps.values() if texture} or {texture for texture in defined.values() if texture}
        only = used.pop() if len({texture.name for texture in used}) == 1 else None
        return {name: texture if name.casefold() in folded else only for name, texture in maps.items()}


def _decoded(data: bytes) -> str:
    """The text of an OBJ or MTL file: UTF-8, or Latin-1, which older programs write."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'").strip()


def _corner(text: str) -> tuple[int, int]:
    """The numbers from 0 of a corner's vertex and uv (-1 for none), from "1", "1/2", "1//3" or "1/2/3"."""
    vertex, *rest = text.split("/")
    uv = rest[0] if rest else "0"
    return int(vertex) - 1, (0 if len(rest) == 2 and not uv else int(uv)) - 1


def _transformed(uv: np.ndarray, texture: TextureMap | None) -> np.ndarray:
    """The uv (V, 2) with the material's scale and offset; v is 0 where the file gives u alone."""
    uv = uv[:, :2] if uv.shape[1] > 1 else np.column_stack([uv, np.zeros(len(uv))])
    if texture is None or (texture.scale, texture.offset) == ((1.0, 1.0), (0.0, 0.0)):
        return uv
    return uv * texture.scale + texture.offset


def _colours(vertices: np.ndarray) -> np.ndarray:
    """Colours (V, 3) in 0..1 from the last three numbers of each vertex, which some programs write in 0..255."""
    colours = np.nan_to_num(vertices[:, -3:])
    return np.clip(colours / 255 if colours.max(initial=0) > 1 else colours, 0, 1)


def parse_mtl(text: str) -> dict[str, TextureMap | None]:
    """The colour texture (`map_Kd`) of each material of a library, None for a material without one."""
    materials: dict[str, TextureMap | None] = {}
    name = ""
    for line in text.splitlines():
        keyword, rest = (*line.split(None, 1), "", "")[:2]
        if keyword.lower() == "newmtl":
            name = _unquoted(rest)
            materials.setdefault(name, None)
        elif keyword.lower() == "map_kd" and rest.strip():
            materials[name] = parse_map(rest)
    return materials


def parse_map(text: str) -> TextureMap:
    """The texture that follows `map_Kd`: options, then the file's name, which may contain spaces."""
    options: dict[str, list[str]] = {}
    while match := re.match(r"\s*(-[A-Za-z]+)\s+(?=\S)", text):
        option = match[1].lower()
        if option not in MAP_OPTIONS:
            break
        options[option], text = _values(text[match.end() :], MAP_OPTIONS[option], option in NUMERIC)
    scale = (*map(float, options.get("-s", [])), 1.0, 1.0)[:2]
    offset = (*map(float, options.get("-o", [])), 0.0, 0.0)[:2]
    return TextureMap(_unquoted(text), scale, offset, [value.lower() for value in options.get("-clamp", [])] == ["on"])


def _values(text: str, most: int, numeric: bool) -> tuple[list[str], str]:
    """Up to `most` values at the start of a text, and the rest. The last word is the file's name, never a value."""
    values: list[str] = []
    while len(values) < most and (match := re.match(r"(\S+)\s+(?=\S)", text)):
        if numeric and not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", match[1]):
            break
        values.append(match[1])
        text = text[match.end() :]
    return values, text
