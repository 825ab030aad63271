"""Precomputed flow images: score honestly on those that the field shares, and write those of any clips.

    python -m utils.experiments.flow_images --root DIR --labels FILE.csv [--jobs 2] [--seeds 2] [--json OUT]
    python -m utils.experiments.flow_images --write OUT --data ROOT [--set "views=single flow_method=dis"]

The layout is that of `utils.experiments.shared_files`. A public source: the data folder of the repository HTNet
(`datasets/STSNet_whole_norm_u_v_os`). The second form takes any data root that the notebooks take, with all their
parameters, and what it writes the first one reads.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from utils.config import Config, load_config
from utils.dataset.reading import DataError
from utils.dataset.samples import Samples
from utils.experiments.shared_files import read_flow_images, read_loso_tree, write_flow_images
from utils.pipeline import load_data
from utils.pretrain.classifier import THREE, controls, fine_tuned_predictor, load_pretrained, zero_shot_predictor
from utils.report.record import commit
from utils.train.baselines import baselines
from utils.train.fit import network_predictor
from utils.train.network import ModelConfig
from utils.train.protocol import OutOfFold, Predictor, average_predictions, cross_validate, leave_one_subject_out
from utils.train.scores import Interval, compare, interval, pooled_score
from utils.train.settings import TrainConfig


class UnknownRowError(ValueError):
    """A row of the table that nothing is known to fill; the message names those that are."""


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


def score(options: argparse.Namespace) -> None:
    """Score the images under `--root`, print the table, and leave it as JSON where that is asked for."""
    reader = partial(read_flow_images, labels=options.labels) if options.labels else read_loso_tree
    samples, datasets = reader(options.root)
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


def write(options: argparse.Namespace, config: Config) -> None:
    """Write the flow images of a data root, and say what was left out."""
    data = load_data(config)
    table, left_out = write_flow_images(config, data, Path(options.write), options.size, options.zoom, options.megc)
    print(*left_out, sep="\n", end="\n" if left_out else "")
    people = table["sub"].nunique()
    print(f"{options.write}: {len(table)} clips of {people} subjects, both phases, flow by {config.flow_method}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m utils.experiments.flow_images", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="workers over folds or clips")
    reads = parser.add_argument_group("scores")
    reads.add_argument("--root", help="folder of the flow images, or of the LOSO tree")
    reads.add_argument("--labels", help="table with dataset, sub, label, imagename; without it DIR is a LOSO tree")
    reads.add_argument("--seeds", type=int, default=2, help="repetitions of every row")
    reads.add_argument("--rows", nargs="+", help='rows of the table, in this order, such as "network" "fine-tuned"')
    reads.add_argument("--json", help="file for the scores; - for standard output")
    writes = parser.add_argument_group("flow images of a data root")
    writes.add_argument("--write", metavar="OUT", help="new folder for them")
    writes.add_argument("--data", default="", help="data root (default: the synthetic faces of the profile)")
    writes.add_argument("--profile", default="demo")
    writes.add_argument("--set", default="", help="single parameters: name=value name=value")
    writes.add_argument("--work", default="", help="folder of a run, whose views are used (default: the profile's)")
    writes.add_argument("--size", type=int, default=28, help="pixels of a side")
    writes.add_argument("--zoom", type=float, default=1.0, help="how much closer than the crop of notebook 01")
    writes.add_argument("--megc", action="store_true", help="the three classes of MEGC 2019: 0, 1, 2")
    options = parser.parse_args(arguments)
    if bool(options.root) == bool(options.write):
        parser.error("give --root to score, or --write to write")
    if options.root:
        score(options)
        return
    if options.size < 8 or not 1 <= options.zoom <= 4:
        parser.error("--size starts at 8, and --zoom lies between 1 and 4")
    try:
        config = load_config(options.profile, options.set, data=options.data, work=options.work, jobs=options.jobs)
    except ValueError as error:
        parser.error(str(error))
    write(options, config)


def run() -> None:
    """The command: what is wrong with the data or the rows is one line, and not a traceback."""
    try:
        main()
    except (DataError, UnknownRowError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run()
