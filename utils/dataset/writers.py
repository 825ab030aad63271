"""Writes sequences: as `clip.npz` with composites, or as OBJ, MTL and PNG files per frame."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from utils.artefacts import atomic_path
from utils.dataset.clip_file import CLIP
from utils.dataset.images import write_image
from utils.dataset.readers import open_sequence
from utils.dataset.sequence import Sequence
from utils.errors import DataError


def write_clip(
    folder: str | Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray,
    fps: float,
    textures: Iterable[np.ndarray],
) -> Path:
    """Write a sequence in the compact form. An existing folder is replaced when the new one is complete.

    vertices (T, V, 3) millimetres; faces (F, 3); uv (V, 2) or (T, V, 2); textures: T composites (H, W, 3) uint8 RGB,
    which may come from an iterator. Raises DataError for a sequence that cannot be read again.
    """
    folder = Path(folder)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        np.savez(
            temporary / CLIP,
            allow_pickle=False,
            vertices=np.asarray(vertices, np.float32),
            faces=np.asarray(faces, np.int32),
            uv=np.asarray(uv, np.float32),
            fps=np.float32(fps),
        )
        for t, texture in enumerate(textures):
            write_image(temporary / f"frame_{t:04d}.png", texture)
        open_sequence(temporary)
    return folder


def write_obj_sequence(sequence: Sequence, folder: str | Path) -> Path:
    """Write a mesh sequence as OBJ, MTL and PNG files per frame. An existing folder is replaced at the end.

    Nine significant digits hold float32 exactly, so that the written sequence renders to the same pixels.
    """
    folder = Path(folder)
    if sequence.kind != "mesh":
        raise DataError.at(sequence.folder, "it has no meshes to write", "choose a mesh sequence")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for t in range(len(sequence)):
            surfaces = sequence.surfaces(t)
            if len(surfaces) > 1 or surfaces[0].tint is not None:
                raise DataError.at(sequence.folder, "it has no single texture to write", "bake its textures into one")
            _write_obj(temporary / f"frame_{t:04d}.obj", *sequence.geometry(t), surfaces[0].texture)
    return folder


def _write_obj(path: Path, vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, texture: np.ndarray) -> None:
    image, material = path.with_suffix(".png"), path.with_suffix(".mtl")
    write_image(image, texture)
    material.write_text(f"newmtl skin\nKd 1 1 1\nmap_Kd {image.name}\n", encoding="utf-8")
    corners = np.repeat(faces + 1, 2, axis=1)  # the same number for vertex and uv
    with path.open("w", encoding="utf-8") as handle:
        handle.write(f"mtllib {material.name}\n")
        np.savetxt(handle, vertices, "v %.9g %.9g %.9g")
        np.savetxt(handle, uv, "vt %.9g %.9g")
        handle.write("usemtl skin\n")
        np.savetxt(handle, corners, "f %d/%d %d/%d %d/%d")
