"""Reads and writes single files: images, meshes with their textures, the compact clip. What is wrong is a `DataError`.

Units and axes: vertices (V, 3) float32 in millimetres, x to the viewer's right, y up, z towards the viewer; faces
(F, 3) int32; uv (V, 2) float32 as in OBJ files, u right, v up from the lower left; textures (H, W, 3) uint8 RGB.
"""

import re
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np

from utils.dataset.images import IMAGE_SUFFIXES, read_image
from utils.dataset.reading import DataError

CLIP = "clip.npz"
MESH_SUFFIXES = (".obj", ".ply", ".glb")
FPS = 60.0  # of 4DME, where the files do not say
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


def read_clip(path: Path, n_images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            vertices, faces, uv = arrays["vertices"], arrays["faces"], arrays["uv"]
            fps = float(arrays["fps"]) if "fps" in arrays else FPS
    except Exception as error:  # zip, header and key errors differ by the damage
        raise DataError.at(path, f"the clip cannot be read ({error})", "write it again with write_clip") from error
    shapes = f"vertices {vertices.shape}, faces {faces.shape}, uv {uv.shape}"
    if vertices.ndim != 3 or uv.ndim not in (2, 3) or (uv.ndim == 3 and len(uv) != len(vertices)):
        raise DataError.at(path, f"the arrays have the shapes {shapes}", "write vertices (T, V, 3) and uv (V, 2)")
    if len(vertices) != n_images:
        raise DataError.at(
            path,
            f"it has {len(vertices)} frames, and {n_images} images lie beside it",
            "put one composite per frame there",
        )
    vertices, uv = vertices.astype(np.float32, copy=False), uv.astype(np.float32, copy=False)
    _check_mesh(path, vertices[0], faces, uv if uv.ndim == 2 else uv[0])
    if not (np.isfinite(vertices).all() and np.isfinite(uv).all()):
        raise DataError.at(path, "vertices or uv are not finite in some frame", "repair or drop this sequence")
    return vertices, faces.astype(np.int32, copy=False), uv, fps


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
    _check_mesh(path, vertices, faces, uv)
    return vertices, faces.astype(np.int32), uv


def _check_mesh(path: Path, vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> None:
    if len(vertices) == 0 or len(faces) == 0:
        raise DataError.at(path, "the mesh is empty", "export this frame again")
    if vertices.shape[1:] != (3,) or faces.shape[1:] != (3,) or uv.shape != (len(vertices), 2):
        shapes = f"vertices {vertices.shape}, faces {faces.shape}, uv {uv.shape}"
        raise DataError.at(path, f"the arrays have the shapes {shapes}", "export triangles with one uv per vertex")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise DataError.at(path, f"its faces name vertices beyond the {len(vertices)} there are", "export it again")
    bad = ~np.isfinite(vertices).all(axis=1)
    if bad.any():
        raise DataError.at(
            path, f"{bad.sum()} vertices are NaN or infinite, the first is {bad.argmax()}", "repair or drop this frame"
        )
    if not np.isfinite(uv).all():
        raise DataError.at(path, "some texture coordinates are NaN or infinite", "repair or drop this frame")


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
