"""Precomputed flow images as a source: read the layout in which the field shares them, and score honestly on
it.

    python -m utils.experiments.flow_images --root DIR --labels FILE.csv [--jobs 2] [--seeds 2] [--json OUT]

Layout: one RGB image per clip, channels (u, v, optical strain) of onset to apex, min-max scaled per clip and
channel to 0..255, any square or other size from 28 x 28 up; FILE.csv has the columns dataset, sub, label,
imagename. Or, without --labels, the field's folder tree DIR/<subject>/u_test/<label>/*.png, whose test
halves are the data. A public source in the first layout: the data folder of the repository HTNet
(`datasets/STSNet_whole_norm_u_v_os`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from utils.dataset.cells import read_cells
from utils.dataset.images import IMAGE_SUFFIXES, read_image
from utils.dataset.reading import DataError
from utils.dataset.samples import Samples
from utils.pretrain.classifier import THREE, controls, fine_tuned_predictor, load_pretrained, zero_shot_predictor
from utils.report.record import commit
from utils.train.baselines import baselines
from utils.train.fit import network_predictor
from utils.train.network import ModelConfig
from utils.train.protocol import OutOfFold, Predictor, average_predictions, cross_validate, leave_one_subject_out
from utils.train.scores import Interval, compare, interval, pooled_score
from utils.train.settings import TrainConfig

COLUMNS = ("dataset", "sub", "label", "imagename")


class UnknownRowError(ValueError):
    """A row of the table that nothing is known to fill; the message names those that are."""


# Reading ---------------------------------------------------------------------------------------------


def read_flow_images(root: str | Path, labels: str | Path) -> tuple[Samples, np.ndarray]:
    """Samples (one view, one phase) and the dataset (N,) of each clip, in the order of the table.

    Image names match whatever their extension and stray spaces, and where none does, whatever the zeros before their
    numbers. A subject is a dataset's `sub`, since databases count from one. Raises DataError naming the file, and the
    line of the table, when a column, an image or its content is missing or unreadable, and when a name fits several
    images or an image several lines.
    """
    root, table = Path(root), _read_table(labels)
    found = _index_images(root)
    paths, lines = [], {}
    for line, name in table["imagename"].items():
        path = _find_image(root, found, f"{labels}, line {line}", name)
        if path in lines:
            fault = f"image {name!r} is {path.name!r}, which line {lines[path]} names too"
            raise DataError.at(f"{labels}, line {line}", fault, "correct one of the names")
        lines[path] = line
        paths.append(path)
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
    samples = _to_samples(paths, subjects, pd.Series([path.parent.name for path in paths]), ids)
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


def _to_samples(paths: list[Path], subjects: pd.Series, labels: pd.Series, ids: pd.Series) -> Samples:
    classes = sorted(labels.unique(), key=lambda name: (len(name), name))
    images = [read_image(path) for path in paths]
    height, width = images[0].shape[:2]
    x = np.stack(
        [
            recentre(
                image
                if image.shape[:2] == (height, width)
                else cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            )
            for image in images
        ]
    )
    y = labels.to_numpy()[:, None] == np.array(classes)
    return Samples(x[:, None, None], y, ids.to_numpy(dtype=str), subjects.to_numpy(dtype=str), tuple(classes))


def recentre(image: np.ndarray) -> np.ndarray:
    """Flow image (H, W, 3) uint8 -> maps (3, H, W) float32 in units of the full range.

    Min-max scaling loses where zero motion lies; the median of u and of v stands for it, since most of a
    face is still. Strain starts at zero.
    """
    maps = image.transpose(2, 0, 1).astype(np.float32) / 255
    maps[:2] -= np.median(maps[:2], axis=(1, 2), keepdims=True)
    return maps


# Scoring ---------------------------------------------------------------------------------------------

TRAIN = TrainConfig(mode="single-label", patience=0, batch=64)  # all epochs on all training subjects: nothing is chosen
MEMBERS = 1  # networks whose probabilities are averaged in one row
PLUS = " + "  # between the rows whose probabilities an average row averages
REFERENCE = "network"  # the others are held against it, paired


def predictors(samples: Samples) -> dict[str, Predictor]:
    """name -> predictor: the baselines, our network, and for three classes the one taught by synthetic motion.

    "network" is the mean of networks with different starts; "zero-shot" has seen no real clip, "fine-tuned" goes on
    from its weights. Both take the classes for negative, positive, surprise, in this order; so do the controls.
    """
    model_config = ModelConfig(classes=len(samples.classes), views=1, phases=1)
    network = network_predictor(model_config, TRAIN, how="all", members=MEMBERS)
    found = {**baselines("single-label"), "network": network}
    if len(samples.classes) == len(THREE):
        taught = load_pretrained("single")
        found |= {"zero-shot": zero_shot_predictor(taught), **controls(taught)}
        found["fine-tuned"] = fine_tuned_predictor("single", len(THREE), how="all")
    return found


# Rows of the table, where the data has them: "zero-shot" needs three classes; "fine-tuned" is slower, on request.
DEFAULT_ROWS = ("best constant", "LDA", "RBF-SVM", "network", "network + RBF-SVM", "zero-shot")


def leave_one_subject_out_scores(
    samples: Samples, rows: Sequence[str] | None = None, seeds: Sequence[int] = (0, 1), jobs: int = 1
) -> dict[str, OutOfFold]:
    """row -> held-out predictions of every clip, each row on the same folds and seeds.

    A row "a + b" averages the probabilities of rows a and b, with equal weights, so that it needs no choice and no
    training of its own.
    """
    available, folds, found = predictors(samples), leave_one_subject_out(samples.subjects), {}
    rows = rows or [row for row in DEFAULT_ROWS if all(part in available for part in row.split(PLUS))]
    wanted = dict.fromkeys(part for row in rows for part in row.split(PLUS))
    if unknown := [name for name in wanted if name not in available]:
        names = ", ".join(available)
        raise UnknownRowError(f"row {unknown[0]!r} is unknown. Remedy: choose from {names}, or averages as 'a + b'.")
    for name in wanted:
        found[name] = cross_validate(samples, available[name], folds, seeds, jobs, description=name)
    return {row: average_predictions(*(found[part] for part in row.split(PLUS))) for row in rows}


def scores_by_row(results: dict[str, OutOfFold], datasets: np.ndarray) -> dict:
    """Scores with 95% intervals per row, pooled and per dataset, ready for JSON.

    UF1 is the mean over classes of F1 from pooled counts, UAR the mean recall, as in MEGC 2019; gain is the paired
    difference in UF1 to REFERENCE, where that row is there.
    """
    names = [name for name in np.unique(datasets) if len(np.unique(datasets)) > 1]
    parts = {"pooled": np.ones(len(datasets), bool)} | {str(name): datasets == name for name in names}
    rows = {}
    for row, oof in results.items():
        rows[row] = {"seconds": round(oof.seconds, 1)}
        for part, keep in parts.items():
            one = oof.subset(keep)
            pooled = pooled_score(one)
            rows[row][part] = {
                "uf1": asdict(interval(one)),
                "uar": asdict(interval(one, "uar")),
                "gain": asdict(compare(one, results[REFERENCE].subset(keep))) if REFERENCE in results else None,
                "uf1_by_seed": pooled["seeds"],
                "per_class": pooled["per_class"],
                "absent": pooled["absent"],
            }
    first = next(iter(results.values()))
    counts = {part: int(keep.sum()) for part, keep in parts.items()}
    subjects = len(np.unique(first.subjects))
    protocol = "leave one subject out; intervals: 95%, bootstrap over subjects; scores averaged over seeds"
    return {
        "protocol": protocol,
        "clips": counts,
        "subjects": subjects,
        "classes": list(first.classes),
        "seeds": list(first.seeds),
        "rows": rows,
    }


def format_scores(found: dict) -> str:
    """What `scores_by_row` returns as a plain table: UF1 and UAR with intervals, a line per row and part."""
    lines = [
        f"{found['clips']['pooled']} clips, {found['subjects']} subjects, seeds {found['seeds']}",
        found["protocol"],
    ]
    width = max(24, *(len(row) + 2 for row in found["rows"]))
    lines.append(f"{'':{width}}{'':12}{'UF1':24}{'UAR':24}UF1 less that of {REFERENCE!r}")
    for row, parts in found["rows"].items():
        for part, scores in parts.items():
            if part != "seconds":
                spans = (scores[name] for name in ("uf1", "uar", "gain"))
                uf1, uar, gain = (str(Interval(**span)) if span else "" for span in spans)
                lines.append(f"{row:{width}}{part:12}{uf1:24}{uar:24}{gain}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m utils.experiments.flow_images", description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="folder of the flow images, or of the LOSO tree")
    parser.add_argument("--labels", help="table with dataset, sub, label, imagename; without it DIR is a LOSO tree")
    parser.add_argument("--jobs", type=int, default=2, help="workers over folds")
    parser.add_argument("--seeds", type=int, default=2, help="repetitions of every row")
    parser.add_argument("--rows", nargs="+", help='rows of the table, in this order, such as "network" "fine-tuned"')
    parser.add_argument("--json", help="file for the scores; - for standard output")
    options = parser.parse_args(arguments)
    samples, datasets = (
        read_flow_images(options.root, options.labels) if options.labels else read_loso_tree(options.root)
    )
    start = time.perf_counter()
    results = leave_one_subject_out_scores(samples, options.rows, range(options.seeds), options.jobs)
    found = scores_by_row(results, datasets) | {
        "wall_seconds": round(time.perf_counter() - start, 1),
        "commit": commit(),
    }
    text = json.dumps(found, indent=1)
    if options.json == "-":
        print(text)
        return
    print(format_scores(found))
    if options.json:
        Path(options.json).write_text(text + "\n")


def run() -> None:
    """The command: what is wrong with the data or the rows is one line, and not a traceback."""
    try:
        main()
    except (DataError, UnknownRowError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run()
