"""Flow images on disk in the layout in which the field shares them: reading them, and writing them from any clips.

There is one RGB image per clip and a table with the columns dataset, sub, label, imagename. The channels are u, v and
optical strain from onset to apex (`utils.lab.shared_image`), of any size from 28 x 28. A second image with `_1` after
its name shows apex to offset. The folder tree <subject>/u_test/<label>/*.png can be read, too.
"""

import re
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from utils.artefacts import atomic_path
from utils.config import Config
from utils.dataset.cells import read_cells
from utils.dataset.images import IMAGE_SUFFIXES, read_image, write_image
from utils.dataset.tables import DataRoot
from utils.errors import DataError
from utils.flow.features import clip_flows
from utils.lab.shared_image import from_image, strain_maps, to_image
from utils.parallel import parallel_map
from utils.pipeline import Job, jobs_of
from utils.train.samples import Samples

COLUMNS = ("dataset", "sub", "label", "imagename")
PHASES = ("", "_1")  # after a clip's name: onset to apex, apex to offset
VIEWS = {1: ("",), 2: ("left", "right")}  # folders by number of views
# Our labels -> the three classes of MEGC 2019 (See et al. 2019). Clips of other labels, or of two classes, have none.
MEGC = {"Negative": "0", "Repression": "0", "Positive": "1", "Surprise": "2"}


def phases_of(root: str | Path, labels: str | Path) -> int:
    """Number of phases in a folder: 2 if there is an image of apex to offset for any clip of the table, else 1."""
    names, images = set(_read_table(labels)["imagename"].map(_plain)), _index_images(Path(root))
    seconds = {name + PHASES[1] for name in names} - names  # the name of a clip may itself end with _1
    return 1 + any(_without_zeros(name) in images for name in seconds)


def read_flow_images(root: str | Path, labels: str | Path, phases: int = 1) -> tuple[Samples, np.ndarray]:
    """Samples (one view, 1 or 2 phases) and the dataset (N,) of each clip, in the order of the table.

    The extensions of image names and stray spaces are ignored; if no image matches, zeros before numbers, too.
    A subject is "dataset/sub", since every database counts its subjects from one. Raises DataError with the file and
    the line for a missing or unreadable column, image or cell, and for a name that does not match exactly one image.
    """
    root, paths, lines = Path(root), [], {}
    images, table = _index_images(root), _read_table(labels)
    for line, name in table["imagename"].items():
        where = f"{labels}, line {line}"
        path = _find_image(root, images, where, name)
        if path in lines:
            fault = f"image {name!r} is {path.name!r}, which line {lines[path]} names too"
            raise DataError.at(where, fault, "correct one of the names")
        lines[path] = line
        paths.append([path, *(_find_image(root, images, where, _plain(name) + phase) for phase in PHASES[1:phases])])
    datasets = table["dataset"]
    ids = datasets + "/" + table["imagename"].map(_plain)
    return _to_samples(paths, datasets + "/" + table["sub"], table["label"], ids), datasets.to_numpy(dtype=str)


def read_loso_tree(root: str | Path) -> tuple[Samples, np.ndarray]:
    """Samples and datasets from <root>/<subject>/u_test/<label>/*.png; the training halves repeat these clips.

    The tree does not name its databases, so the dataset is "all" for every clip.
    """
    paths = sorted(path for path in Path(root).glob("*/u_test/*/*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError.at(root, "no image in <subject>/u_test/<label>/", "give that tree, or --labels FILE.csv")
    subjects = pd.Series([path.parents[2].name for path in paths])
    ids = subjects + "/" + pd.Series([_plain(path.name) for path in paths])
    samples = _to_samples([[path] for path in paths], subjects, pd.Series([path.parent.name for path in paths]), ids)
    return samples, np.full(len(paths), "all")


def _plain(name: str) -> str:
    """A name without its extension and stray spaces."""
    stem, dot, suffix = name.strip().rpartition(".")
    return (stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name).strip()


def _without_zeros(name: str) -> str:
    """A plain name without the zeros before its numbers: "s01_s001_ne_0" becomes "s1_s1_ne_0"."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", _plain(name))


def _read_table(labels: str | Path) -> pd.DataFrame:
    """The COLUMNS of the table as texts; the index is the line in the file."""
    table = read_cells(Path(labels))
    table.columns = [name.lower() for name in table.columns]
    for name in COLUMNS:
        if (count := int((table.columns == name).sum())) != 1:
            fault = f"no column {name}" if count == 0 else f"more than one column {name}"
            raise DataError.at(labels, fault, f"the table needs {', '.join(COLUMNS)}, each once")
    if table.empty:
        raise DataError.at(labels, "no clip", "give one line per clip")
    table = table[list(COLUMNS)]
    if len(empty := np.argwhere((table == "").to_numpy())):
        line, column = table.index[empty[0, 0]], COLUMNS[empty[0, 1]]
        raise DataError.at(f"{labels}, line {line}", f"no {column}", "fill it in or delete the line")
    return table


def _index_images(root: Path) -> dict[str, list[Path]]:
    """The images in a folder and its subfolders, by `_without_zeros` of their names."""
    if not root.is_dir():
        raise DataError.at(root, "no such folder", "give the folder of the flow images")
    images: dict[str, list[Path]] = {}
    for path in sorted(path for path in root.rglob("*") if path.suffix.strip().lower() in IMAGE_SUFFIXES):
        images.setdefault(_without_zeros(path.name), []).append(path)
    return images


def _find_image(root: Path, images: dict[str, list[Path]], where: str, name: str) -> Path:
    """The image with this name, or the image whose name differs only by zeros before numbers."""
    similar = images.get(_without_zeros(name), [])
    candidates = [path for path in similar if _plain(path.name) == _plain(name)] or similar
    if not candidates:
        raise DataError.at(where, f"no image {name!r} under {root}", "add it or delete the line")
    if len(candidates) > 1:
        fault = f"image {name!r} may be {candidates[0].relative_to(root)} or {candidates[1].relative_to(root)}"
        raise DataError.at(where, fault, "keep one of them, or write its name in full")
    return candidates[0]


def _to_samples(paths: list[list[Path]], subjects: pd.Series, labels: pd.Series, ids: pd.Series) -> Samples:
    """Samples from the images of each clip; all images get the size of the first one."""
    classes = sorted(labels.unique(), key=lambda name: (len(name), name))
    images = [[read_image(path) for path in clip] for clip in paths]
    size = images[0][0].shape[1::-1]
    sized = [[cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in clip] for clip in images]
    x = np.array([[from_image(image.transpose(2, 0, 1)) for image in clip] for clip in sized])
    y = labels.to_numpy()[:, None] == np.array(classes)
    return Samples(x[:, None], y, ids.to_numpy(dtype=str), subjects.to_numpy(dtype=str), tuple(classes))


def write_flow_images(
    config: Config, data: DataRoot, out: Path, size: int = 28, zoom: float = 1.0, megc: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """Write both phases of every training clip of a data root as flow images, with `labels.csv`.

    out: a new folder; two views are written to its subfolders `left` and `right`. zoom: how much closer than the crop
    of notebook 01 the images are; the crops of the field are tighter. megc: write the labels 0, 1, 2 of MEGC 2019, and
    leave out clips of no such class. Moments and flow are those of notebook 02, without the head's motion. Returns the
    table and a message for each clip that is left out. Raises DataError if the folder exists.
    """
    if out.exists():
        raise DataError.at(out, "it is there already", "name a new folder")
    labels = {id: label for id, label in zip(data.train["Id"], label_texts(data, megc), strict=True) if label}
    left_out = [f"{id}: it is none of the three classes of MEGC 2019" for id in data.train["Id"] if id not in labels]
    jobs = [job for job in jobs_of(config, data) if job.split == "train" and job.id in labels]
    if not jobs:
        raise DataError.at(data.root, "none of its clips has a label to write", "omit --megc, or give other clips")
    subjects = data.train.set_index("Id")["subject"]
    rows = [(data.root.name, subjects[job.id], labels[job.id], f"{job.id}.png") for job in jobs]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    images = parallel_map(partial(images_of, size=size, zoom=zoom), jobs, config.jobs, description="flow images")
    with atomic_path(out) as temporary:
        for v, view in enumerate(VIEWS[images[0].shape[0]]):
            folder = temporary / view / "images"
            folder.mkdir(parents=True)
            table.to_csv(folder.parent / "labels.csv", index=False)
            for job, clip in zip(jobs, images, strict=True):
                for phase, image in zip(PHASES, clip[v], strict=True):
                    write_image(folder / f"{job.id}{phase}.png", image)
    return table, left_out


def label_texts(data: DataRoot, megc: bool) -> list[str]:
    """The label of each training clip: its classes joined by "+", or with `megc` its one class there, else empty."""
    classes = [np.array(data.classes)[row] for row in data.train[list(data.classes)].to_numpy(bool)]
    if not megc:
        return ["+".join(names) or "none" for names in classes]
    labels = [{MEGC.get(name, "") for name in names} for names in classes]
    return [label.pop() if len(label) == 1 else "" for label in labels]


def images_of(job: Job, size: int, zoom: float) -> np.ndarray:
    """Flow images (V, P=2, size, size, 3) uint8 of a clip, see `write_flow_images`."""
    views = job.views()
    flows = clip_flows(views, tuple(job.features()["moments"].tolist()), job.config.flow_method)
    maps = strain_maps(np.moveaxis(flows, -1, 2)) * views.masks[:, None, None]  # (V, P, 3, S, S)
    side = maps.shape[-1]
    edge = round((side - side / zoom) / 2)
    middle = np.moveaxis(maps[..., edge : side - edge, edge : side - edge], 2, -1)
    small = [[cv2.resize(phase, (size, size), interpolation=cv2.INTER_AREA) for phase in view] for view in middle]
    return np.moveaxis(to_image(np.moveaxis(small, -1, 2)), 2, -1)
