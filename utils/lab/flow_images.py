"""Precomputed flow images: scores those that the field shares, and writes those of other clips.

    python -m utils.lab.flow_images --root DIR [DIR ...] --labels FILE.csv [--jobs 2] [--seeds 2] [--members 2]
    python -m utils.lab.flow_images --write OUT --data ROOT [--set "views=single flow_method=dis"]

The first form leaves one subject out at a time. Scores are averaged over the seeds; their 95% intervals come from a
bootstrap over subjects. The layout of the folders is that of `utils.lab.shared_files`. A public source is the data
folder of the repository HTNet (`datasets/STSNet_whole_norm_u_v_os`). Several folders are several sources of the same
clips, with other crops and flow methods. Each row of the table is then scored on every source, on the second phases
where a source has them (CausalNet's folder of that name does), on all pictures together, and averaged over the sources.

The second form takes any data root and all parameters that the notebooks take. The first form reads what it writes.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from utils.config import Config, load_config
from utils.errors import DataError
from utils.evaluate.baselines import baselines
from utils.evaluate.protocol import OutOfFold, average_predictions, cross_validate, leave_one_subject_out
from utils.evaluate.scores import compare, interval
from utils.lab.crop_match import crop_matched
from utils.lab.shared_files import phases_of, read_flow_images, read_loso_tree, write_flow_images
from utils.lab.tables import publish, tidy
from utils.lab.teachers.classifier import THREE, controls
from utils.pipeline import load_data
from utils.train.ensemble import resize_maps
from utils.train.estimator import Estimator
from utils.train.fit import network_estimator
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig
from utils.train.shipped import FINE_TUNE, initial_state, load_pretrained, zero_shot_estimator
from utils.train.units_first import units_first_estimator

TRAIN = TrainConfig(mode="single-label", patience=0, batch=64)  # all epochs on all training subjects: nothing is chosen
MEMBERS = 2  # networks with different starts whose probabilities are averaged in one row, unless told otherwise
METRICS = {"UF1": "macro_uf1", "UAR": "uar"}  # as MEGC 2019 calls them, and as `utils.evaluate.scores` does
POOLED = "pooled"  # all databases together
REFERENCE = "network"  # the row with which every other row is compared
GAIN, LATER_GAIN = "UF1 minus the network's", "UF1 minus the first phase's"
PLUS = " + "  # between rows whose probabilities are averaged
AS_IT_IS = ", crop as it is"  # end of the rows that see the pictures uncropped
SECOND, BOTH, ALL = ", second phase", ", both phases", "all pictures"  # two ends of names of pictures, and one name
Part = tuple[str, str]  # an estimator and the picture that it sees, by name


# Estimators and pictures --------------------------------------------------------------------------------------------


def estimators(samples: Samples, members: int = MEMBERS) -> dict[str, Estimator]:
    """Estimators by name: the baselines, our network and, for three classes, the network taught by synthetic motion.

    samples: one view; the pictures of a clip are its phases. "network" averages `members` networks with different
    starts. "zero-shot" is the taught network, which has seen no real clip. "units first" learns a table from its action
    units to the classes. "fine-tuned" trains it further, `members` times. These three, and the controls, take the
    classes for negative, positive and surprise, in this order, and see one picture per clip. The three see it in the
    crop that suits them best, which is found without a label (`utils.lab.crop_match`).
    """
    pictures = samples.x.shape[2]
    model_config = ModelConfig(classes=len(samples.classes), views=1, phases=pictures)
    network = network_estimator(model_config, TRAIN, how="all", members=members)
    available = {**baselines("single-label"), "network": network}
    if len(samples.classes) == len(THREE) and pictures == 1:
        taught = load_pretrained("single")
        uncropped = {
            "zero-shot": zero_shot_estimator(taught),
            "units first": units_first_estimator(taught),
            "fine-tuned": fine_tuned_estimator("single", len(THREE), how="all", members=members),
        }
        for name, estimator in uncropped.items():
            available[name] = crop_matched(estimator, taught, pixels=False)
            available[f"{name}{AS_IT_IS}"] = estimator
        by_test_clips = crop_matched(uncropped["zero-shot"], taught, pixels=False, transduction=True)
        available |= {"zero-shot, crop by the test clips": by_test_clips, **controls(taught)}
    return available


def fine_tuned_estimator(
    kind: str, classes: int, train: TrainConfig | None = None, how: str = "inner", members: int = 1
) -> Estimator:
    """An estimator that trains the shipped network of a kind further, with `train` or else with FINE_TUNE of the kind.

    how, members: as in `network_estimator`.
    """
    model = replace(load_pretrained(kind).model_config, classes=classes, units=0)
    return network_estimator(model, train or FINE_TUNE[kind], how, members, initial_state(kind))


def pictures_of(sources: Mapping[str, Samples]) -> dict[str, Samples]:
    """The pictures (N, 1, phases, ...) that a row can see, by name: of each source the first phase and, where it has
    two, the second phase and both; of several sources also all pictures together, in the size of the first source."""
    pictures = {}
    for name, samples in sources.items():
        pictures[name] = samples.take_phases([0])
        if samples.x.shape[2] > 1:
            pictures[name + SECOND], pictures[name + BOTH] = samples.take_phases([1]), samples
    if len(sources) > 1:
        first = next(iter(sources.values()))
        sized = [resize_maps(torch.from_numpy(source.x), first.x.shape[-1]).numpy() for source in sources.values()]
        pictures[ALL] = replace(first, x=np.concatenate(sized, axis=2))
    return pictures


# Rows of the table --------------------------------------------------------------------------------------------------

# Without `--rows` these are scored, where the data allow: "zero-shot" and "fine-tuned" need three classes.
DEFAULT_ROWS = ("best constant", "LDA", "RBF-SVM", "network", "network + RBF-SVM", "zero-shot", "network + fine-tuned")


def parts_by_row(
    available: Mapping[Part, Any], sources: Sequence[str], rows: Sequence[str] | None
) -> dict[str, list[Part]]:
    """The rows of the table, each with the parts that it averages: every row on all pictures that its estimators can
    read, and averaged over the sources.

    available: the possible parts. In a row, a part is written "estimator" if it sees the first picture, and otherwise
    "estimator [picture]". A row that contains "[...]" is taken as it was typed. Raises DataError for an unknown part.
    """
    table, first = {}, sources[0]
    pictures = list(dict.fromkeys(picture for _, picture in available))
    for row in rows or [row for row in DEFAULT_ROWS if all((name, first) in available for name in row.split(PLUS))]:
        names = row.split(PLUS)
        if "[" in row:
            split = [name.removesuffix("]").partition(" [") for name in names]
            table[row] = [(estimator, picture or first) for estimator, _, picture in split]
            continue
        by_picture = {picture: [(name, picture) for name in names] for picture in pictures}
        readable = [parts for parts in by_picture.values() if set(parts) <= set(available)] or [by_picture[first]]
        average = [part for source in sources for part in by_picture[source]]
        readable += [average] if set(average) <= set(available) else []
        for parts in readable:
            table[PLUS.join(name if picture == first else f"{name} [{picture}]" for name, picture in parts)] = parts
    for name, picture in (part for parts in table.values() for part in parts):
        if (name, picture) not in available:
            names = ", ".join(name for name, picture in available if picture == first)
            remedy = f"choose from {names}, or 'a + b', or 'a [p]' with p from {', '.join(pictures)}"
            raise DataError.at("--rows", f"row '{name} [{picture}]' is unknown", remedy)
    return table


def held_out_predictions(
    available: Mapping[Part, tuple[Samples, Estimator]],
    table: Mapping[str, Sequence[Part]],
    seeds: Sequence[int],
    jobs: int,
) -> dict[str, OutOfFold]:
    """The predictions of `parts_by_row`'s rows for every clip, one subject left out at a time, all on the same folds
    and seeds. A row with several parts averages their probabilities with equal weights, so it needs no training."""
    folds = leave_one_subject_out(next(iter(available.values()))[0].subjects)
    predictions = {
        part: cross_validate(*available[part], folds, seeds, jobs, description="{} [{}]".format(*part))
        for part in dict.fromkeys(part for parts in table.values() for part in parts)
    }
    return {row: average_predictions(*(predictions[part] for part in parts)) for row, parts in table.items()}


def scores_table(
    results: Mapping[str, OutOfFold], table: Mapping[str, Sequence[Part]], databases: np.ndarray
) -> pd.DataFrame:
    """The tidy table of scores by row, pooled and per database.

    UF1 is the mean over the classes of the F1 from pooled counts, UAR is the mean recall, as in MEGC 2019. GAIN is the
    paired difference in UF1 to the row REFERENCE. LATER_GAIN is the difference of a row on both phases to the same row
    on the first phase.
    """
    keep = {POOLED: np.ones(len(databases), bool)}
    keep |= {str(name): databases == name for name in np.unique(databases) if len(np.unique(databases)) > 1}
    rows_of = {tuple(parts): row for row, parts in table.items()}
    first_phase = {picture + BOTH: picture for parts in table.values() for _, picture in parts}
    scores = []
    for row, parts in table.items():
        alone = rows_of.get(tuple((name, first_phase.get(picture)) for name, picture in parts))
        references = {GAIN: REFERENCE, LATER_GAIN: alone}
        for database, clips in keep.items():
            oof = results[row].subset(clips)
            about = {"row": row, "database": database, "n": len(oof.ids), "subjects": len(np.unique(oof.subjects))}
            for measure, metric in METRICS.items():
                scores.append(about | {"measure": measure, "value": interval(oof, metric), "unit": "score"})
            for measure, reference in references.items():
                if reference in results:
                    difference = compare(oof, results[reference].subset(clips))
                    scores.append(about | {"measure": measure, "value": difference, "unit": "difference"})
    return tidy(scores)


# The command --------------------------------------------------------------------------------------------------------


def read_sources(roots: Sequence[str], labels: str | None) -> tuple[dict[str, Samples], np.ndarray]:
    """Samples with all their phases, by the name of the folder, and the database (N,) of each clip.

    Raises DataError where the images cannot be read, and where two folders have one name.
    """
    if not labels:
        if len(roots) > 1:
            raise DataError.at(roots[1], "no table says which clips the images show", "give --labels FILE")
        samples, databases = read_loso_tree(roots[0])
        return {Path(roots[0]).name: samples}, databases
    sources = {}
    for root in roots:
        name = Path(root).resolve().name
        if name in sources:
            raise DataError.at(root, f"two sources are called {name}", "rename one of the folders")
        sources[name], databases = read_flow_images(root, labels, phases_of(root, labels))
    return sources, databases


def score(options: argparse.Namespace) -> None:
    """Score the images under `--root`, print the table, and store it where `--json` says."""
    sources, databases = read_sources(options.root, options.labels)
    available = {
        (name, picture): (samples, estimator)
        for picture, samples in pictures_of(sources).items()
        for name, estimator in estimators(samples, options.members).items()
    }
    table = parts_by_row(available, list(sources), options.rows)
    results = held_out_predictions(available, table, range(options.seeds), options.jobs)
    publish(scores_table(results, table, databases), "measure", vars(options), options.json)


def write(options: argparse.Namespace, config: Config) -> None:
    """Write the flow images of a data root, and print which clips were left out."""
    data = load_data(config)
    table, left_out = write_flow_images(config, data, Path(options.write), options.size, options.zoom, options.megc)
    print(*left_out, sep="\n", end="\n" if left_out else "")
    people = table["sub"].nunique()
    print(f"{options.write}: {len(table)} clips of {people} subjects, both phases, flow by {config.flow_method}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the module's docstring. A fault of the data, or an unknown row, ends it with one line."""
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
    writes.add_argument("--work", default="", help="folder of the run whose views are used (default: the profile's)")
    writes.add_argument("--size", type=int, default=28, help="pixels of a side")
    writes.add_argument("--zoom", type=float, default=1.0, help="how much closer than the crop of notebook 01")
    writes.add_argument("--megc", action="store_true", help="the three classes of MEGC 2019: 0, 1, 2")
    options = parser.parse_args(arguments)
    if options.members < 1:
        parser.error("--members starts at 1")
    if bool(options.root) == bool(options.write):
        parser.error("give --root to score, or --write to write")
    if options.size < 8 or not 1 <= options.zoom <= 4:
        parser.error("--size starts at 8, and --zoom lies between 1 and 4")
    try:
        config = load_config(options.profile, options.set, data=options.data, work=options.work, jobs=options.jobs)
    except ValueError as error:
        parser.error(str(error))
    try:
        if options.root:
            score(options)
        else:
            write(options, config)
    except DataError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
