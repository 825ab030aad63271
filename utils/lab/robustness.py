"""How much the score of a trained network drops on clips that differ from those it was trained on.

    python -m utils.lab.robustness --root DIR [DIR ...] --labels FILE.csv [--jobs 2] [--json OUT] [--figure OUT]
    python -m utils.lab.robustness --data ROOT --work RUN [--profile full] [--set "..."] [--json OUT]

The first form takes flow images, as `utils.lab.flow_images` does. It adds noise to the flow, moves the crop, and tests
on another source of the same clips and on another database. The second form takes the clips of a run (without `--data`
the synthetic ones). It adds noise, moves the crop, takes a wrong apex and another flow method. Folds are disjoint in
people. Each network is trained once per fold, on the unchanged clips, and tested under every condition.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils.config import Config, load_config
from utils.dataset.tables import DataRoot
from utils.evaluate.ablation import teacher_variants
from utils.evaluate.held_out import Plan, learner_variants
from utils.evaluate.other_inputs import OTHER_FLOWS, samples_with_apex, samples_with_flow
from utils.evaluate.protocol import FoldResult, check_disjoint, cross_validate, grouped_folds, join_folds, predict_fold
from utils.evaluate.rows import SCRATCH, TUNED_HARD, ZERO_SHOT
from utils.evaluate.scores import compare, interval
from utils.lab.crop_match import Crop, crop_matched, cropped
from utils.lab.figures import crop_scores
from utils.lab.flow_images import estimators, read_sources
from utils.lab.tables import publish, tidy
from utils.lab.teachers.flow_noise import smooth_noise
from utils.parallel import parallel_map
from utils.pipeline import load_data, load_samples
from utils.report.figures.common import save_figure
from utils.train.estimator import Estimator, Fold
from utils.train.samples import Samples
from utils.train.shipped import KINDS, load_pretrained

FOLDS, SEED = 8, 0
BY_TEST_CLIPS = f"{ZERO_SHOT}, crop by the test clips"
NOISES = (0.25, 0.5, 1.0)  # standard deviations of the added flow, relative to the clip's own
NOISE_LENGTH = 1.0  # map pixels over which the added flow is smooth
CROPS = {
    "a tenth closer": Crop(zoom=1.1),
    "a quarter closer": Crop(zoom=1.25),
    "a quarter looser": Crop(zoom=0.8),
    "half looser": Crop(zoom=2 / 3),
    "moved down by 6%": Crop(y=-0.06),
    "moved aside by 6%": Crop(x=0.06),
}
APEX_SHIFTS = (-4, -2, -1, 1, 2, 4)  # frames; positive is too late
AS_LEARNT, NOISE, SOURCE = "as learnt", "noise of {:g} of the motion", "source {}"  # names of conditions


def noisy(samples: Samples, share: float, pixels: bool) -> Samples:
    """The clips with smooth Gaussian flow added, whose standard deviation is `share` of each clip's own.

    pixels: the third channel is the magnitude and follows from the flow. Otherwise it is strain and gets its own noise.
    """
    rng = np.random.default_rng(SEED)
    spread = samples.x.std(axis=(2, 4, 5), keepdims=True)  # of each view and channel
    x = samples.x + np.float32(share) * spread * smooth_noise(samples.x.shape, NOISE_LENGTH, rng)
    if pixels:
        x[..., 2, :, :] = np.hypot(x[..., 0, :, :], x[..., 1, :, :])
    return replace(samples, x=x)


def altered(samples: Samples, pixels: bool) -> dict[str, Samples]:
    """The clips by condition: unchanged, with more noise, and in other crops."""
    noises = {NOISE.format(share): noisy(samples, share, pixels) for share in NOISES}
    crops = {name: replace(samples, x=cropped(samples.x, crop, pixels)) for name, crop in CROPS.items()}
    return {AS_LEARNT: samples} | noises | crops


def image_conditions(sources: Mapping[str, Samples]) -> tuple[dict[str, Estimator], dict[str, Samples]]:
    """The estimators for flow images, and the clips of the first source by condition, also from the other sources."""
    (_, samples), *second_sources = ((name, source.take_phases([0])) for name, source in sources.items())
    available = estimators(samples, members=1)
    rows = {name: available[name] for name in ("network", "RBF-SVM", ZERO_SHOT, BY_TEST_CLIPS) if name in available}
    return rows, altered(samples, pixels=False) | {SOURCE.format(name): source for name, source in second_sources}


def run_conditions(config: Config, data: DataRoot) -> tuple[dict[str, Estimator], dict[str, Samples]]:
    """The estimators for a run, and its training clips by condition, also with a wrong apex and other flow methods."""
    plan = Plan.of(config)
    variants = learner_variants(plan) | teacher_variants(plan)
    rows = {name: variants[name].estimator for name in (SCRATCH, TUNED_HARD, ZERO_SHOT)}
    rows[BY_TEST_CLIPS] = crop_matched(rows[ZERO_SHOT], load_pretrained(KINDS[config.n_views]), transduction=True)
    conditions = altered(load_samples(config, data, "train"), pixels=True)
    for shift in APEX_SHIFTS:
        name = f"apex {abs(shift)} frames too {'late' if shift > 0 else 'early'}"
        conditions[name] = samples_with_apex(config, data, shift)
    flows = [method for method in OTHER_FLOWS if method != config.flow_method]
    return rows, conditions | {f"flow by {method}": samples_with_flow(config, data, method) for method in flows}


def score_conditions(rows: Mapping[str, Estimator], conditions: Mapping[str, Samples], jobs: int) -> list[dict]:
    """UF1 by network and condition, and its paired difference to AS_LEARNT, as rows of a tidy table.

    conditions: the same clips in the same order, under each condition.
    """
    samples, scores = conditions[AS_LEARNT], []
    folds = grouped_folds(samples.y, samples.subjects, min(FOLDS, len(np.unique(samples.subjects))))
    for network, estimator in rows.items():
        by_fold = parallel_map(partial(_test_fold, estimator, conditions), folds, jobs, description=network)
        oofs = {
            name: join_folds(clips, folds, (SEED,), [[results[name] for results in by_fold]])
            for name, clips in conditions.items()
        }
        for name, oof in oofs.items():
            about = {"network": network, "clips": name, "n": len(oof.ids)}
            scores.append(about | {"measure": "UF1", "value": interval(oof), "unit": "score"})
            if name != AS_LEARNT:
                difference = compare(oof, oofs[AS_LEARNT])
                scores.append(about | {"measure": "UF1 less as learnt", "value": difference, "unit": "difference"})
    return scores


def _test_fold(estimator: Estimator, conditions: Mapping[str, Samples], fold: Fold) -> dict[str, FoldResult]:
    train, test = (conditions[AS_LEARNT].subset(part) for part in fold)
    check_disjoint(train, test)
    inner = grouped_folds(train.y, train.subjects, min(4, len(np.unique(train.subjects))), SEED)
    classifier = estimator(train, inner, SEED)
    return {name: predict_fold(lambda: classifier, clips.subset(fold[1])) for name, clips in conditions.items()}


def across_databases(samples: Samples, rows: Mapping[str, Estimator], databases: np.ndarray, jobs: int) -> list[dict]:
    """UF1 by network and database, where each network was trained on the other databases, as rows of a tidy table."""
    names, scores = np.unique(databases), []
    folds = [(np.flatnonzero(databases != name), np.flatnonzero(databases == name)) for name in names]
    for network, estimator in rows.items():
        oof = cross_validate(samples, estimator, folds, n_jobs=jobs, description=f"{network}, other databases")
        for name, (_, test) in zip(names, folds, strict=True):
            about = {"network": network, "clips": f"{name}, learnt from the others", "n": len(test)}
            scores.append(about | {"measure": "UF1", "value": interval(oof.subset(test)), "unit": "score"})
    return scores


def crop_figure(table: pd.DataFrame, sources: Iterable[str]) -> Figure:
    """UF1 of the zero-shot network by crop and source, in the crop as it is and in a crop found without a label."""
    labels = {ZERO_SHOT: "crop as it is", BY_TEST_CLIPS: "crop found without a label"}
    chosen = table["clips"].isin([AS_LEARNT, *CROPS, *map(SOURCE.format, sources)]) & (table["measure"] == "UF1")
    return crop_scores(table.assign(label=table["network"].map(labels))[chosen].dropna(subset="label"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.lab.robustness", description=__doc__.split("\n")[0])
    parser.add_argument("--root", nargs="+", metavar="DIR", help="folders of flow images, or the folder of a LOSO tree")
    parser.add_argument("--labels", help="table with dataset, sub, label, imagename; without it DIR is a LOSO tree")
    parser.add_argument("--data", default="", help="data root (default: the synthetic faces of the profile)")
    parser.add_argument("--work", default="", help="folder of the run whose views are used (default: the profile's)")
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--set", default="", help="single parameters: name=value name=value")
    parser.add_argument("--jobs", type=int, default=2, help="workers over folds or clips")
    parser.add_argument("--json", help="file for the scores")
    parser.add_argument("--figure", help="picture (PNG) of the scores by crop")
    options = parser.parse_args()
    try:
        if options.root:
            sources, databases = read_sources(options.root, options.labels)
            rows, conditions = image_conditions(sources)
        else:
            config = load_config(options.profile, options.set, data=options.data, work=options.work, jobs=options.jobs)
            rows, conditions = run_conditions(config, load_data(config))
            sources, databases = {}, np.array(["all"])
    except ValueError as error:
        sys.exit(f"error: {error}")
    if options.figure and ZERO_SHOT not in rows:
        sys.exit(f"error: --figure shows the row {ZERO_SHOT!r}, which needs three classes. Remedy: leave it out.")
    scores = score_conditions(rows, conditions, options.jobs)
    if len(np.unique(databases)) > 1:
        scores += across_databases(conditions[AS_LEARNT], rows, databases, options.jobs)
    publish(table := tidy(scores), "measure", vars(options), options.json)
    if options.figure:
        save_figure(crop_figure(table, sources), options.figure)


if __name__ == "__main__":
    main()
