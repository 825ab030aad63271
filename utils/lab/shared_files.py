"""Flow images on disk, in the layout in which the field shares them: read from there, and written from any clips.

One RGB image per clip, channels (u, v, optical strain) of onset to apex, each min-max scaled per clip to 0..255, any
size from 28 x 28 up, and a table with the columns dataset, sub, label, imagename. Or, to be read, the field's folder
tree <subject>/u_test/<label>/*.png, whose test halves are the data. Apex to offset, where there is, is the image of the
same name with `_1` behind it.
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
PHASES = ("", "_1")  # behind a clip's name: onset to apex, apex to offset, as a public source has it
VIEWS = {1: ("",), 2: ("left", "right")}  # folders, by number of views
# The three classes of MEGC 2019 (See et al. 2019) by our labels; others, and clips that are of two of them, are none.
MEGC = {"Negative": "0", "Repression": "0", "Positive": "1", "Surprise": "2"}

# Reading ------------------------------------------------------------------------------------------------------------


def phases_of(root: str | Path, labels: str | Path) -> int:
    """How many phases of its clips a folder shows: 2 where an image of apex to offset lies beside one of the clips."""
    names, found = set(_read_table(labels)["imagename"].map(_plain)), _index_images(Path(root))
    seconds = {name + PHASES[1] for name in names} - names  # a clip may be called another's name with _1 behind it
    return 2 if any(name in found or _without_zeros(name) in found for name in seconds) else 1


def read_flow_images(root: str | Path, labels: str | Path, phases: int = 1) -> tuple[Samples, np.ndarray]:
    """Samples (one view, 1 or 2 phases) and the dataset (N,) of each clip, in the order of the table.

    Image names match whatever their extension and stray spaces, and where none does, whatever the zeros before their
    numbers. A subject is a dataset's `sub`, since databases count from one. Raises DataError naming the file, and the
    line of the table, when a column, an image or its content is missing or unreadable, and when a name fits several
    images or an image several lines.
    """
    root, table = Path(root), _read_table(labels)
    found = _index_images(root)
    paths, lines = [], {}
    for line, name in table["imagename"].items():
        where = f"{labels}, line {line}"
        path = _find_image(root, found, where, name)
        if path in lines:
            fault = f"image {name!r} is {path.name!r}, which line {lines[path]} names too"
            raise DataError.at(where, fault, "correct one of the names")
        lines[path] = line
        later = [_find_image(root, found, where, _plain(name) + phase) for phase in PHASES[1:phases]]
        paths.append([path, *later])
    subjects = table["dataset"] + "/" + table["sub"]
    return _to_samples(paths, subjects, table["label"], table["dataset"] + "/" + table["imagename"].map(_plain)), table[
        "dataset"
    ].to_numpy(dtype=str)


def read_loso_tree(root: str | Path) -> tuple[Samples, np.ndarray]:
    """The same from DIR/<subject>/u_test/<label>/*.png; the train halves repeat those clips and are not read.

    The tree does not name databases: the dataset is "all" for every clip.
    """
    root = Path(root)
    paths = sorted(path for path in root.glob("*/u_test/*/*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError.at(root, "no image in <subject>/u_test/<label>/", "give that tree, or --labels FILE.csv")
    subjects = pd.Series([path.parents[2].name for path in paths])
    ids = subjects + "/" + pd.Series([_plain(path.name) for path in paths])
    samples = _to_samples([[path] for path in paths], subjects, pd.Series([path.parent.name for path in paths]), ids)
    return samples, np.full(len(paths), "all")


def _plain(name: str) -> str:
    """A name without its extension and stray spaces."""
    name = str(name).strip()
    stem, dot, suffix = name.rpartition(".")
    return (stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name).strip()


def _read_table(labels: str | Path) -> pd.DataFrame:
    """The table's COLUMNS as texts, rows by their line in the file."""
    table = read_cells(Path(labels))
    table.columns = [name.lower() for name in table.columns]
    for name in COLUMNS:
        if (count := int((table.columns == name).sum())) != 1:
            fault = f"no column {name}" if count == 0 else f"the column {name} stands there twice"
            raise DataError.at(labels, fault, f"the table needs {', '.join(COLUMNS)}, each once")
    if table.empty:
        raise DataError.at(labels, "no clip", "give one line per clip")
    table = table[list(COLUMNS)]
    empty = np.argwhere((table == "").to_numpy())
    if len(empty):
        row, column = empty[0]
        raise DataError.at(
            f"{labels}, line {table.index[row]}", f"no {COLUMNS[column]}", "fill it in or delete the line"
        )
    return table


def _index_images(root: Path) -> dict[str, list[Path]]:
    """The images under a folder by their plain name, and by that name without zeros before numbers."""
    if not root.is_dir():
        raise DataError.at(root, "no such folder", "give the folder of the flow images")
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.suffix.strip().lower() in IMAGE_SUFFIXES):
        for name in {_plain(path.name), _without_zeros(path.name)}:
            found.setdefault(name, []).append(path)
    return found


def _find_image(root: Path, found: dict[str, list[Path]], where: str, name: str) -> Path:
    """The one image of that name, else the one of that name but for zeros."""
    exact = [path for path in found.get(_plain(name), []) if _plain(path.name) == _plain(name)]
    fitting = exact or found.get(_without_zeros(name), [])
    if not fitting:
        raise DataError.at(where, f"no image {name!r} under {root}", "add it or delete the line")
    if len(fitting) > 1:
        fault = f"image {name!r} may be {fitting[0].relative_to(root)} or {fitting[1].relative_to(root)}"
        raise DataError.at(where, fault, "keep one of them, or write its name in full")
    return fitting[0]


def _without_zeros(name: str) -> str:
    """A plain name without the zeros before its numbers: "s01_s001_ne_0" is "s1_s1_ne_0"."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", _plain(name))


def _to_samples(paths: list[list[Path]], subjects: pd.Series, labels: pd.Series, ids: pd.Series) -> Samples:
    classes = sorted(labels.unique(), key=lambda name: (len(name), name))
    images = [[read_image(path) for path in clip] for clip in paths]
    height, width = images[0][0].shape[:2]
    x = np.array([[from_image(_of_size(image, width, height).transpose(2, 0, 1)) for image in clip] for clip in images])
    y = labels.to_numpy()[:, None] == np.array(classes)
    return Samples(x[:, None], y, ids.to_numpy(dtype=str), subjects.to_numpy(dtype=str), tuple(classes))


def _of_size(image: np.ndarray, width: int, height: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


# Writing ------------------------------------------------------------------------------------------------------------


def write_flow_images(
    config: Config, data: DataRoot, out: Path, size: int = 28, zoom: float = 1.0, megc: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """Write both phases of every training clip of a data root as flow images, with `labels.csv`; returns that table.

    out: a new folder, complete or not there; of two views it has a folder for each, `left` and `right`, of the layout
        above. Moments and flow are those of 02 with this config, without the head's own motion, and zero outside
        the face.
    zoom: how much closer than the crop of 01 the pictures are, about its middle; the field's crops are tighter.
    megc: labels 0, 1, 2 of MEGC 2019 in place of the classes' names, clips that are none of them left out.
    Also returns a word on each clip that is left out. Raises DataError for a folder that is there already.
    """
    if out.exists():
        raise DataError.at(out, "it is there already", "name a new folder")
    labels = {id: label for id, label in zip(data.train["Id"], label_texts(data, megc), strict=True) if label}
    left_out = [f"{id}: it is none of the three classes of MEGC 2019" for id in data.train["Id"] if id not in labels]
    jobs = [job for job in jobs_of(config, data) if job.split == "train" and job.id in labels]
    if not jobs:
        raise DataError.at(data.root, "no clip of it has a label to write", "leave --megc out, or give other clips")
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
    """A label per training clip: its classes joined by "+", or with `megc` one of three, empty where it is none."""
    names = np.array(data.classes)
    found = []
    for row in data.train[list(data.classes)].to_numpy(bool):
        three = {MEGC.get(name, "") for name in names[row]}
        found.append((three.pop() if len(three) == 1 else "") if megc else "+".join(names[row]) or "none")
    return found


def images_of(job: Job, size: int, zoom: float) -> np.ndarray:
    """Flow images (V, P=2, size, size, 3) uint8 of a clip, see `write_flow_images`."""
    views = job.views()
    flows = clip_flows(views, tuple(job.features()["moments"].tolist()), job.config.flow_method)
    maps = strain_maps(np.moveaxis(flows, -1, 2)) * views.masks[:, None, None]  # (V, P, 3, S, S)
    return np.array([[_reduced(phase, size, zoom) for phase in view] for view in maps])


def _reduced(maps: np.ndarray, size: int, zoom: float) -> np.ndarray:
    """Maps (3, S, S) as an image (size, size, 3) uint8 of their middle, scaled after the averaging."""
    side = maps.shape[-1]
    edge = round((side - side / zoom) / 2)
    middle = np.moveaxis(maps[:, edge : side - edge, edge : side - edge], 0, -1)
    small = cv2.resize(middle, (size, size), interpolation=cv2.INTER_AREA)
    return np.moveaxis(to_image(np.moveaxis(small, -1, 0)), 0, -1)
