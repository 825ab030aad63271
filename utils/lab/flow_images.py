"""Precomputed flow images: score honestly on those that the field shares, and write those of any clips.

    python -m utils.lab.flow_images --root DIR [DIR ...] --labels FILE.csv [--jobs 2] [--seeds 2] [--members 2]
    python -m utils.lab.flow_images --write OUT --data ROOT [--set "views=single flow_method=dis"]

The layout is that of `utils.lab.shared_files`. A public source: the data folder of the repository HTNet
(`datasets/STSNet_whole_norm_u_v_os`). Several folders are several sources of the same clips, by other crops and flow
methods: every row is scored on each, on their second phases where these are there (CausalNet's folder of that name has
them), on all pictures together, and averaged over the sources. The second form takes any data root that the notebooks
take, with all their parameters, and what it writes the first one reads.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from utils.config import Config, load_config
from utils.errors import DataError
from utils.evaluate.baselines import baselines
from utils.evaluate.protocol import OutOfFold, average_predictions, cross_validate, leave_one_subject_out
from utils.evaluate.scores import Interval, compare, interval, pooled_score
from utils.lab.crop_match import crop_matched
from utils.lab.shared_files import phases_of, read_flow_images, read_loso_tree, write_flow_images
from utils.lab.teachers.classifier import THREE, controls
from utils.pipeline import load_data
from utils.provenance import commit
from utils.train.ensemble import resize_maps
from utils.train.estimator import Estimator
from utils.train.fit import network_estimator
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig
from utils.train.shipped import FINE_TUNE, initial_state, load_pretrained, zero_shot_estimator
from utils.train.units_first import units_first_estimator


class UnknownRowError(ValueError):
    """A row of the table that nothing is known to fill; the message names those that are."""


# Scoring ---------------------------------------------------------------------------------------------

TRAIN = TrainConfig(mode="single-label", patience=0, batch=64)  # all epochs on all training subjects: nothing is chosen
MEMBERS = 2  # networks of different starts whose probabilities are averaged in one row, unless told otherwise
PLUS = " + "  # between the rows whose probabilities an average row averages
REFERENCE = "network"  # the others are held against it, paired
AS_IT_IS = ", crop as it is"  # end of rows that are shown the pictures uncropped
SECOND, BOTH, ALL = ", second phase", ", both phases", "all pictures"  # names of pictures, or their ends


def estimators(samples: Samples, members: int = MEMBERS) -> dict[str, Estimator]:
    """name -> estimator: the baselines, our network, and for three classes the one taught by synthetic motion.

    samples: one view; the pictures of a clip are its phases, one or more. "network" is the mean of `members` networks
    with different starts; "zero-shot" has seen no real clip, "units first" learns a table from its action units to the
    classes, "fine-tuned" goes on from its weights, `members` times. These see the clips in the crop that suits them
    best, found without a label (`utils.lab.crop_match`). They take the classes for negative, positive, surprise, in
    this order, and read single pictures; so do the controls.
    """
    pictures = samples.x.shape[2]
    model_config = ModelConfig(classes=len(samples.classes), views=1, phases=pictures)
    network = network_estimator(model_config, TRAIN, how="all", members=members)
    found = {**baselines("single-label"), "network": network}
    if len(samples.classes) == len(THREE) and pictures == 1:
        taught = load_pretrained("single")
        known = {
            "zero-shot": zero_shot_estimator(taught),
            "units first": units_first_estimator(taught),
            "fine-tuned": fine_tuned_estimator("single", len(THREE), how="all", members=members),
        }
        for name, estimator in known.items():
            found[name] = crop_matched(estimator, taught, pixels=False)
            found[f"{name}{AS_IT_IS}"] = estimator
        by_test_clips = crop_matched(known["zero-shot"], taught, pixels=False, transduction=True)
        found |= {"zero-shot, crop by the test clips": by_test_clips, **controls(taught)}
    return found


def fine_tuned_estimator(
    kind: str, classes: int, train: TrainConfig | None = None, how: str = "inner", members: int = 1
) -> Estimator:
    """An estimator for `protocol.cross_validate`: the shipped network trained on with the clips at hand.

    `train`, how and members as in `network_estimator`; by default FINE_TUNE of that kind.
    """
    model = replace(load_pretrained(kind).model_config, classes=classes, units=0)
    return network_estimator(model, train or FINE_TUNE[kind], how, members, initial_state(kind))


# Rows of the table, where the data has them: "zero-shot" and "fine-tuned" need three classes.
DEFAULT_ROWS = ("best constant", "LDA", "RBF-SVM", "network", "network + RBF-SVM", "zero-shot", "network + fine-tuned")


def pictures_of(sources: Mapping[str, Samples]) -> dict[str, Samples]:
    """What a row may be shown of the same clips from several sources, (N, 1, phases): the first phase of each source,
    its second and both where it has two, and of several sources all their pictures, sized as the first.

    The first is the one that a row is shown whose name says nothing else.
    """
    found = {}
    for name, samples in sources.items():
        found[name] = samples.take_phases([0])
        if samples.x.shape[2] > 1:
            found[name + SECOND], found[name + BOTH] = samples.take_phases([1]), samples
    if len(sources) > 1:
        first = next(iter(sources.values()))
        sized = [resize_maps(torch.from_numpy(each.x), first.x.shape[-1]).numpy() for each in sources.values()]
        found[ALL] = replace(first, x=np.concatenate(sized, axis=2))
    return found


def rows_of(pictures: Mapping[str, Samples], rows: Sequence[str] | None = None) -> list[str]:
    """The lines of the table: each row on every picture that it can read, and averaged over the sources.

    A row's name alone stands for the first picture, else the picture's name stands in brackets behind it; a row that
    says "[...]" itself is taken as it is.
    """
    first, found = next(iter(pictures)), []
    known = {name: estimators(samples) for name, samples in pictures.items()}
    sources = [name for name in pictures if name != ALL and not name.endswith((SECOND, BOTH))]
    for row in rows or [row for row in DEFAULT_ROWS if all(part in known[first] for part in row.split(PLUS))]:
        parts = row.split(PLUS)
        if "[" in row:
            found.append(row)
            continue
        readable = [name for name in pictures if all(part in known[name] for part in parts)]
        on = {name: PLUS.join(_on(part, name, first) for part in parts) for name in readable or [first]}
        found += list(on.values())
        if len(sources) > 1 and all(name in on for name in sources):
            found.append(PLUS.join(on[name] for name in sources))
    return list(dict.fromkeys(found))


def _on(row: str, picture: str, first: str) -> str:
    return row if picture == first else f"{row} [{picture}]"


def leave_one_subject_out_scores(
    pictures: Mapping[str, Samples],
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1),
    jobs: int = 1,
    members: int = MEMBERS,
) -> dict[str, OutOfFold]:
    """row -> held-out predictions of every clip, each row on the same folds and seeds.

    pictures: of `pictures_of`; members: as `estimators` takes them. A row "a + b" averages the probabilities of rows a
    and b, with equal weights, so that it needs no choice and no training of its own. Raises UnknownRowError for a row
    or a picture that is none.
    """
    first = next(iter(pictures))
    folds, found, rows = leave_one_subject_out(pictures[first].subjects), {}, rows_of(pictures, rows)
    for name in dict.fromkeys(part for row in rows for part in row.split(PLUS)):
        row, _, picture = name.removesuffix("]").partition(" [")
        available = estimators(pictures[picture or first], members) if (picture or first) in pictures else {}
        if row not in available:
            names, seen = ", ".join(estimators(pictures[first])), ", ".join(pictures)
            raise UnknownRowError(
                f"row {name!r} is unknown. Remedy: choose from {names}, with one of the pictures [{seen}] behind it "
                "(what was taught reads single pictures), or averages as 'a + b'."
            )
        found[name] = cross_validate(pictures[picture or first], available[row], folds, seeds, jobs, description=name)
    return {row: average_predictions(*(found[part] for part in row.split(PLUS))) for row in rows}


def worth_of_second_phase(results: Mapping[str, OutOfFold]) -> dict[str, dict]:
    """row on both phases -> its UF1 less that of the same row on the first phase alone, paired."""
    found = {}
    for row, oof in results.items():
        if PLUS in row or not row.endswith(BOTH + "]"):
            continue
        alone = row.removesuffix(BOTH + "]") + "]"
        alone = alone if alone in results else alone.partition(" [")[0]
        if alone in results:
            found[row] = asdict(compare(oof, results[alone]))
    return found


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
        "second_phase": worth_of_second_phase(results),
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
    for row, span in found["second_phase"].items():
        lines.append(f"{row}: UF1 less that of onset to apex alone {Interval(**span)}")
    return "\n".join(lines)


def read_sources(roots: Sequence[str], labels: str | None) -> tuple[dict[str, Samples], np.ndarray]:
    """Folder's name -> samples of all its phases, and the dataset of each clip. DataError where they cannot be read."""
    if not labels:
        if len(roots) > 1:
            raise DataError.at(roots[1], "nothing says what the images of several sources are of", "give --labels FILE")
        samples, datasets = read_loso_tree(roots[0])
        return {Path(roots[0]).name: samples}, datasets
    names = [Path(root).resolve().name for root in roots]
    found = {}
    for root, name in zip(roots, names, strict=True):
        if name in found:
            raise DataError.at(root, f"two sources are called {name}", "rename one of the folders")
        found[name], datasets = read_flow_images(root, labels, phases_of(root, labels))
    return found, datasets


def score(options: argparse.Namespace) -> None:
    """Score the images under `--root`, print the table, and leave it as JSON where that is asked for."""
    sources, datasets = read_sources(options.root, options.labels)
    start = time.perf_counter()
    results = leave_one_subject_out_scores(
        pictures_of(sources), options.rows, range(options.seeds), options.jobs, options.members
    )
    found = scores_by_row(results, datasets) | {
        "members": options.members,
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
    parser = argparse.ArgumentParser(prog="python -m utils.lab.flow_images", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="workers over folds or clips")
    reads = parser.add_argument_group("scores")
    reads.add_argument("--root", nargs="+", metavar="DIR", help="folders of flow images, or the folder of a LOSO tree")
    reads.add_argument("--labels", help="table with dataset, sub, label, imagename; without it DIR is a LOSO tree")
    reads.add_argument("--seeds", type=int, default=2, help="repetitions of every row")
    reads.add_argument("--members", type=int, default=MEMBERS, help="networks averaged in each row that trains them")
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
    if options.members < 1:
        parser.error("--members starts at 1")
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
