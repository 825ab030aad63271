"""Reads and writes single files: meshes with their textures. What is wrong is a `DataError`.

Units and axes: vertices (V, 3) float32 in millimetres, x to the viewer's right, y up, z towards the viewer; faces
(F, 3) int32; uv (V, 2) float32 as in OBJ files, u right, v up from the lower left; textures (H, W, 3) uint8 RGB.
"""

import re
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np

from utils.dataset.geometry import check_mesh
from utils.dataset.images import IMAGE_SUFFIXES, read_image
from utils.dataset.reading import DataError

MESH_SUFFIXES = (".obj", ".ply", ".glb")
# A face measures 100 to 1000 mm across its bounding box. Mesh files carry no unit, so a first frame whose
# diagonal lies below the first number is taken for metres (as glTF prescribes) or centimetres, and scaled
# to millimetres.
UNITS = ((1.0, 1000.0), (60.0, 10.0))

# Reading one file ---------------------------------------------------------------------------------


def check_composite(image: np.ndarray, path: str | Path) -> None:
    """Raise DataError if the image (H, W, 3) cannot be cut into two halves of one width."""
    if image.shape[1] % 2:
        raise DataError.at(
            path, f"a composite has two halves, and its width {image.shape[1]} is odd", "export both views at one width"
        )


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces and uv of a mesh file; a vertex with several uv is doubled, so that each has one.

    Several parts in one file are joined. Vertices keep the file's order, so that they correspond over the
    frames as long as the files do.
    """
    import trimesh

    try:
        scene = trimesh.load_scene(path, process=False, skip_materials=path.suffix.lower() != ".glb")
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh)]
    except Exception as error:  # the loaders raise whatever the damage leads to
        raise DataError.at(path, f"the mesh cannot be read ({error})", "export this frame again") from error
    if not parts:
        raise DataError.at(path, "the mesh is empty", "export this frame again")
    if any(getattr(part.visual, "uv", None) is None for part in parts):
        raise DataError.at(path, "the mesh has no texture coordinates", "export it with UVs")
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    uv = np.concatenate([part.visual.uv for part in parts])[:, :2]
    return check_mesh(path, vertices, faces, uv)


def scale_to_mm(vertices: np.ndarray) -> float:
    diagonal = np.linalg.norm(np.ptp(vertices, axis=0))
    return next((factor for limit, factor in UNITS if diagonal < limit), 1.0)


def read_texture(path: Path) -> np.ndarray:
    """The texture of a mesh file: what it embeds or names, else the image of the same stem beside it."""
    if path.suffix.lower() == ".glb":
        embedded = _embedded_image(path)
        if embedded is not None:
            return embedded
    named = _named_images(path)
    if len(named) > 1:
        raise DataError.at(path, f"it uses several textures ({', '.join(named)})", "bake them into one image")
    # Scanners write absolute paths of their own machine into the material: the file's name is what counts.
    candidates = [path.parent / name for name in named]
    candidates += [path.parent / PureWindowsPath(name).name for name in named]
    candidates += [path.with_suffix(suffix) for suffix in IMAGE_SUFFIXES]
    for candidate in candidates:
        if candidate.is_file():
            return read_image(candidate)
    missing = f" (the file names {named[0]})" if named else ""
    raise DataError.at(
        path,
        f"its texture is missing{missing}",
        f"put the image beside it, as {named[0] if named else path.stem + '.png'}",
    )


def _named_images(path: Path) -> list[str]:
    """Names of the images that an OBJ's material library or a PLY's header give."""
    if path.suffix.lower() == ".ply":
        header = path.read_bytes().split(b"end_header", 1)[0].decode("utf-8", "replace")
        return _named(header, r"comment\s+texturefile")
    if path.suffix.lower() == ".obj":
        libraries = _named(path.read_text(encoding="utf-8", errors="replace"), "mtllib")
        files = [path.parent / PureWindowsPath(name).name for name in libraries]
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
        return _named("\n".join(texts), "map_kd")
    return []


def _named(text: str, keyword: str) -> list[str]:
    """What stands after a keyword that begins a line, without repetitions."""
    names = re.findall(rf"^\s*{keyword}\s+(.+?)\s*$", text, flags=re.MULTILINE | re.IGNORECASE)
    return list(dict.fromkeys(names))


def _embedded_image(path: Path) -> np.ndarray | None:
    import trimesh

    try:
        parts = trimesh.load_scene(path, process=False).geometry.values()
        materials = [getattr(part.visual, "material", None) for part in parts]
        images = [getattr(material, "baseColorTexture", None) for material in materials]
        return next((np.array(image.convert("RGB")) for image in images if image is not None), None)
    except Exception as error:  # as for meshes: the loaders raise whatever the damage leads to
        raise DataError.at(path, f"its texture cannot be read ({error})", "export this frame again") from error


# Writing ------------------------------------------------------------------------------------------


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the suffix: PNG packed for speed, JPEG at quality 95.

    Sensor noise does not compress: without the search for repetitions a PNG is written in half the time, and smaller;
    with one filter for all rows, rather than the best of five for each, in half of that, and it is read sooner.
    """
    packing = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    packing += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG]
    is_jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if is_jpeg else packing if Path(path).suffix.lower() == ".png" else []
    if not cv2.imwrite(str(path), cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR), options):
        raise DataError.at(path, "the image cannot be written", "check the folder and the space on the disk")
