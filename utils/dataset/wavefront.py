"""Wavefront OBJ meshes and their MTL material libraries, as exporters write them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.dataset.mesh_parts import AGAIN, MOST_PARTS, Piece, find_named, too_many_parts
from utils.errors import DataError, read_bytes, reading

# Options of a texture in a material and how many values they take; those of -s, -o and -t may be fewer.
MAP_OPTIONS = {
    **{"-blendu": 1, "-blendv": 1, "-boost": 1, "-cc": 1, "-clamp": 1, "-bm": 1, "-imfchan": 1, "-texres": 1},
    **{"-type": 1, "-colorspace": 1, "-mm": 2, "-s": 3, "-o": 3, "-t": 3},
}
NUMERIC = ("-boost", "-bm", "-texres", "-mm", "-s", "-o", "-t")
MESHLAB_COUNT = re.compile(r"^#\s*(Vertices|Faces):\s*(\d{1,12})\s*$", re.MULTILINE)  # in the header that it writes


class TextureMap(NamedTuple):
    """A material's texture: uv * scale + offset is looked up in the image."""

    name: str
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamp: bool = False


class Faces(NamedTuple):
    """Triangles: numbers from 0 of vertices (F, 3) and texture coordinates (F, 3, -1 for none), and material (F,)."""

    vertices: np.ndarray
    uv: np.ndarray
    material: np.ndarray


@dataclass
class Lines:
    """What an OBJ file says, still as text: runs of lines of one keyword, and how many lines have which material."""

    vertices: list[str] = field(default_factory=list)
    uv: list[str] = field(default_factory=list)
    faces: list[str] = field(default_factory=list)
    n_vertices: int = 0
    n_uv: int = 0
    n_normals: int = 0
    material: list[tuple[int, int]] = field(default_factory=list)  # number among the names, lines
    names: dict[str, int] = field(default_factory=lambda: {"": 0})  # of materials, "" for none
    libraries: dict[str, None] = field(default_factory=dict)


# The runs of lines of one keyword that make up nearly all of a file, or any other line
RUNS = re.compile(
    "|".join(rf"(?P<{key}>(?:^[ \t]*{key}[ \t][^\n]*\n)++)" for key in ("v", "vt", "vn", "f")) + r"|(?P<line>[^\n]*\n)",
    re.MULTILINE,
)
FACE, SLASH = -1, -2  # stand for "f" and "/" among the numbers of faces, so that all are read at once
# How a corner is written, with 0 for a number, and where its vertex and its uv stand, None for none
CORNERS = {(0,): None, (0, SLASH, 0): 2, (0, SLASH, SLASH, 0): None, (0, SLASH, 0, SLASH, 0): 2}


# OBJ ----------------------------------------------------------------------------------------------


def read_obj(path: Path) -> tuple[list[Piece], tuple[int, int, int]]:
    """The pieces of an OBJ file, one per material, and how many lines v, vt and f it has.

    A vertex with several uv is doubled, so that each has one; vertices keep the file's order. Raises DataError for a
    line that does not parse and for faces that name what is not there: signs of a file that was cut off.
    """
    lines, vertices, uv, faces, counts = _parse(path)
    return _pieces(path, lines, vertices, uv, faces) if faces else [], counts


def read_obj_surface(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Vertices (V, 3) as the file numbers them, triangles (F, 3), and the material's name of each; no uv.

    Raises DataError as `read_obj`.
    """
    lines, vertices, _, faces, _ = _parse(path)
    if not faces:
        return vertices, np.zeros((0, 3), np.int64), []
    names = list(lines.names)
    return vertices[:, :3], faces.vertices, [names[number] for number in faces.material]


def _parse(path: Path) -> tuple[Lines, np.ndarray, np.ndarray, Faces | None, tuple[int, int, int]]:
    """The lines of an OBJ file, its vertices and uv, its triangles if it has any, and how many lines v, vt and f."""
    text = decode_text(read_bytes(path, "the mesh"))
    lines = split_lines(text)
    vertices, uv = _table(path, "v", lines.vertices, 3), _table(path, "vt", lines.uv, 1)
    if not lines.faces or not len(vertices):
        return lines, vertices, uv, None, (len(vertices), len(uv), 0)
    if len(lines.names) + len(lines.libraries) > MOST_PARTS:
        raise too_many_parts(path)
    counts = (len(vertices), len(uv), sum(n for _, n in lines.material))
    _check_announced(path, text, counts)
    faces = _triangles(path, lines)
    _check_range(path, "vertex", faces.vertices, 0, len(vertices))
    _check_range(path, "texture coordinate", faces.uv, -1, len(uv))
    return lines, vertices, uv, faces, counts


def decode_text(data: bytes) -> str:
    """The text of an OBJ or MTL file: UTF-8, else Latin-1, as older tools write it."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def split_lines(text: str) -> Lines:
    """The lines of an OBJ file by their keyword; numbers that count from the end are turned into numbers from 1."""
    text = text.replace("\r\n", "\n").replace("\r", "\n") + "\n"
    if "\\\n" in text:
        text = text.replace("\\\n", " ")  # a line goes on after a backslash
    lines, material = Lines(), 0
    for run in RUNS.finditer(text):
        block, n = run[0], run[0].count("\n")
        if run.lastgroup == "v":
            lines.vertices.append(block)
            lines.n_vertices += n
        elif run.lastgroup == "vt":
            lines.uv.append(block)
            lines.n_uv += n
        elif run.lastgroup == "vn":
            lines.n_normals += n
        elif run.lastgroup == "f":
            lines.faces.append(_from_one(block, lines) if "-" in block else block)
            lines.material.append((material, n))
        else:
            material = _other_line(block, lines, material)
    return lines


def _other_line(line: str, lines: Lines, material: int) -> int:
    """Note what a line names; returns the number of the material of the faces after it."""
    keyword, rest = (*line.split(None, 1), "", "")[:2]
    if keyword == "mtllib":
        lines.libraries[rest] = None
    if keyword != "usemtl":
        return material
    return lines.names.setdefault(_unquoted(rest), len(lines.names))


def _from_one(block: str, lines: Lines) -> str:
    """Lines of faces, in which -1 is the last vertex so far, with numbers from 1."""
    so_far = (lines.n_vertices, lines.n_uv, lines.n_normals)

    def positive(corner: str) -> str:
        numbers = zip(corner.split("/"), so_far, strict=False)
        return "/".join(str(max(0, int(n) + count + 1)) if re.fullmatch(r"-\d{1,12}", n) else n for n, count in numbers)

    return "".join(" ".join(positive(corner) for corner in line.split()) + "\n" for line in block.splitlines())


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'").strip()


def _table(path: Path, keyword: str, blocks: list[str], least: int) -> np.ndarray:
    """The numbers of all lines of one keyword (N, C) float64; those that fewer lines have are left out."""
    words = "".join(blocks).split()
    n = sum(block.count("\n") for block in blocks)
    if not n:
        return np.zeros((0, least))
    width = len(words) // n
    if len(words) % n == 0 and width > least and words[::width].count(keyword) == n:
        del words[::width]  # all lines have as many numbers
    else:
        words, width = _even_rows(path, keyword, "".join(blocks).splitlines(), least)
    with reading(path, f"a line {keyword}", AGAIN):
        return np.fromiter(map(float, words), float, len(words)).reshape(n, -1)


def _even_rows(path: Path, keyword: str, lines: list[str], least: int) -> tuple[list[str], int]:
    """The words of lines of several lengths: as many of each as all have, behind the keyword."""
    rows = [line.split()[1:] for line in lines]
    widths = [len(row) for row in rows]
    width = min(widths)
    if width < least or (keyword == "vt" and width < max(widths)):
        short = widths.index(width)
        raise DataError.at(
            path, f"line {keyword} number {short + 1} is cut off ({lines[short]!r:.60})", "export it again"
        )
    return [word for row in rows for word in row[:width]], width


def _check_announced(path: Path, text: str, counts: tuple[int, int, int]) -> None:
    """Raise DataError if the file's header announces more than there is."""
    there = {"Vertices": counts[0], "Faces": counts[2]}
    for what, announced in MESHLAB_COUNT.findall(text[:4096]):
        if int(announced) != there[what]:
            raise DataError.at(
                path,
                f"its header announces {announced} {what.lower()}, and {there[what]} are there: it was cut off",
                AGAIN,
            )


def _triangles(path: Path, lines: Lines) -> Faces:
    with reading(path, "a face", AGAIN):
        return _all_alike(lines) or _one_by_one(lines)


def _all_alike(lines: Lines) -> Faces | None:
    """The triangles of a file whose faces are all written in one form, at once; None for another file."""
    n = sum(count for _, count in lines.material)
    marked = "".join(lines.faces).replace("/", f" {SLASH} ").replace("f", f"{FACE}")
    try:
        numbers = np.fromstring(marked, np.int64, sep=" ")
    except ValueError:
        return None
    if len(numbers) % n or not len(numbers):
        return None
    table = numbers.reshape(n, -1)
    form = np.minimum(table[0], 0)
    length = (len(form) - 1) // 3
    corner = tuple(form[1 : length + 1].tolist())
    if corner not in CORNERS or form.tolist() != [FACE, *corner * 3] or (np.minimum(table, 0) != form).any():
        return None
    corners = table[:, 1:].reshape(n, 3, length)
    place = CORNERS[corner]
    uv = np.full((n, 3), -1) if place is None else corners[..., place] - 1
    return Faces(corners[..., 0] - 1, uv, _material_of(lines))


def _material_of(lines: Lines) -> np.ndarray:
    """The number of the material of each line of a face."""
    numbers, counts = zip(*lines.material, strict=True)
    return np.repeat(numbers, counts)


def _one_by_one(lines: Lines) -> Faces:
    """The triangles of any file; polygons become fans of triangles."""
    vertices, uv, material = [], [], []
    for face, of in zip("".join(lines.faces).splitlines(), _material_of(lines), strict=True):
        corners = [_corner(corner) for corner in face.split()[1:]]
        if len(corners) < 3:
            raise ValueError(f"{face!r:.60} has fewer than three corners")
        for second, third in zip(corners[1:], corners[2:], strict=False):
            triangle = corners[0], second, third
            vertices.append([corner[0] for corner in triangle])
            uv.append([corner[1] for corner in triangle])
            material.append(of)
    return Faces(np.array(vertices, np.int64), np.array(uv, np.int64), np.array(material))


def _corner(text: str) -> tuple[int, int]:
    """Numbers from 0 of a corner's vertex and uv (-1 for none), from "1", "1/2", "1//3" or "1/2/3"."""
    vertex, *others = text.split("/")
    uv = others[0] if others else "0"
    return int(vertex) - 1, (0 if len(others) == 2 and not uv else int(uv)) - 1


def _check_range(path: Path, what: str, numbers: np.ndarray, least: int, count: int) -> None:
    if numbers.min() < least or numbers.max() >= count:
        wrong = numbers.max() if numbers.max() >= count else numbers.min()
        raise DataError.at(path, f"a face names {what} {wrong + 1} of {count}: it was cut off or damaged", AGAIN)


def _pieces(path: Path, lines: Lines, vertices: np.ndarray, uv: np.ndarray, faces: Faces) -> list[Piece]:
    """One piece per material, and another for its faces that have no uv."""
    maps, names, pieces = _maps_of(path, lines), list(lines.names), []
    mapped = (faces.uv >= 0).all(axis=1)
    for number in dict.fromkeys(number for number, _ in lines.material):
        name = names[number]
        own = faces.material == number
        for has_uv in (True, False):
            chosen = own & (mapped == has_uv)
            if chosen.any():
                texture = maps[name] if has_uv else None
                pieces.append(_piece(path, name, vertices, uv, Faces(*(part[chosen] for part in faces)), texture))
    return pieces


def _piece(
    path: Path, name: str, vertices: np.ndarray, uv: np.ndarray, faces: Faces, texture: TextureMap | None
) -> Piece:
    pairs = faces.vertices.ravel() * (len(uv) + 1) + faces.uv.ravel() + 1
    pairs, corners = np.unique(pairs, return_inverse=True)  # sorted, so that the file's order stays
    of_vertex, of_uv = pairs // (len(uv) + 1), pairs % (len(uv) + 1) - 1
    own_uv = _looked_up(uv[of_uv], texture) if (of_uv >= 0).all() else None
    image = find_named(path, texture.name) if texture else None
    return Piece(
        name or "without material",
        vertices[of_vertex, :3],
        corners.reshape(-1, 3),
        own_uv,
        _colours(vertices)[of_vertex] if vertices.shape[1] in (6, 7) else None,
        image,
        texture.name if texture and image is None else "",
        bool(texture and texture.clamp),
    )


def _looked_up(uv: np.ndarray, texture: TextureMap | None) -> np.ndarray:
    """Texture coordinates (V, 2) as the material scales and shifts them; a texture of one row needs u alone."""
    uv = uv[:, :2] if uv.shape[1] > 1 else np.column_stack([uv, np.zeros(len(uv))])
    if texture is None or (texture.scale, texture.offset) == ((1.0, 1.0), (0.0, 0.0)):
        return uv
    return uv * texture.scale + texture.offset


def _colours(vertices: np.ndarray) -> np.ndarray:
    """Colours (V, 3) in 0..1 that stand behind each vertex, some in 0..255; of seven numbers the fourth is a weight."""
    colours = np.nan_to_num(vertices[:, -3:])
    return np.clip(colours / 255 if colours.max(initial=0) > 1 else colours, 0, 1)


# MTL ----------------------------------------------------------------------------------------------


def _maps_of(path: Path, lines: Lines) -> dict[str, TextureMap | None]:
    """The texture of each material that the mesh uses; one that no library knows has the only texture that is used."""
    known: dict[str, TextureMap | None] = {}
    for library in _libraries(path, lines.libraries):
        text = decode_text(read_bytes(library, "the material library"))
        known = parse_mtl(text) | known  # of two, the first library's counts
    folded = {name.casefold(): texture for name, texture in known.items()}
    found = {name: known.get(name, folded.get(name.casefold())) for name in lines.names}
    unknown = {name for name in lines.names if name not in known and name.casefold() not in folded}
    used = {texture for texture in found.values() if texture} or {texture for texture in known.values() if texture}
    only = used.pop() if len({texture.name for texture in used}) == 1 else None
    return {name: only if name in unknown else texture for name, texture in found.items()}


def _libraries(path: Path, names: Iterable[str]) -> Iterator[Path]:
    """The material libraries that are there; a line names one, whose name may have spaces, or several."""
    for line in names:
        whole = find_named(path, line)
        found = [whole] if whole else [find_named(path, name) for name in re.findall(r'"[^"]+"|\S+', line)[:20]]
        yield from (library for library in found if library is not None)


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
    """A texture from what stands behind `map_Kd`: options first, then the file's name, which may have spaces."""
    options: dict[str, list[str]] = {}
    while match := re.match(r"\s*(-[A-Za-z]+)\s+(?=\S)", text):
        option = match[1].lower()
        if option not in MAP_OPTIONS:
            break
        options[option], text = _values(text[match.end() :], MAP_OPTIONS[option], option in NUMERIC)
    scale, offset = _pair(options.get("-s", []), 1.0), _pair(options.get("-o", []), 0.0)
    return TextureMap(_unquoted(text), scale, offset, [value.lower() for value in options.get("-clamp", [])] == ["on"])


def _values(text: str, most: int, numeric: bool) -> tuple[list[str], str]:
    """Up to `most` values at the start, and what follows; the last word is the file's name and never a value."""
    values: list[str] = []
    while len(values) < most and (match := re.match(r"(\S+)\s+(?=\S)", text)):
        if numeric and not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", match[1]):
            break
        values.append(match[1])
        text = text[match.end() :]
    return values, text


def _pair(values: list[str], default: float) -> tuple[float, float]:
    u, v = ([float(value) for value in values] + [default] * 2)[:2]
    return u, v
