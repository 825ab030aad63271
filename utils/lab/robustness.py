"""What a trained network's score loses when the clips that it judges are seen otherwise than those it learnt from.

    python -m utils.lab.robustness --root DIR [DIR ...] --labels FILE.csv [--jobs 2] [--json OUT] [--figure OUT]
    python -m utils.lab.robustness --data ROOT --work RUN [--profile full] [--set "..."] [--json OUT]

The first form takes flow images, as `utils.lab.flow_images`: more noise of the flow, a crop moved on purpose,
another source of the same clips, another database. The second takes the clips of a run (without `--data` the synthetic
ones): noise, crops, the apex found too early or too late, another flow method. Folds are disjoint in people, each
network is trained once on the clips as they are and judged on all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from utils.config import Config, load_config
from utils.dataset.tables import DataRoot
from utils.errors import DataError
from utils.evaluate.ablation import teacher_variants
from utils.evaluate.held_out import Plan, learner_variants
from utils.evaluate.other_inputs import OTHER_FLOWS, samples_with_apex, samples_with_flow
from utils.evaluate.protocol import (
    FoldResult,
    OutOfFold,
    check_disjoint,
    cross_validate,
    grouped_folds,
    join_folds,
    predict_fold,
)
from utils.evaluate.rows import SCRATCH, TUNED_HARD, ZERO_SHOT
from utils.evaluate.scores import Interval, compare, interval
from utils.lab.crop_match import Crop, crop_matched, cropped
from utils.lab.figures import crop_scores
from utils.lab.flow_images import estimators, read_sources
from utils.lab.teachers.flow_noise import smooth_noise
from utils.parallel import parallel_map
from utils.pipeline import load_data, load_samples
from utils.provenance import commit
from utils.report.figures.common import save_figure
from utils.train.estimator import Estimator, Fold
from utils.train.samples import Samples
from utils.train.shipped import KINDS, load_pretrained

FOLDS = 8
AS_LEARNT, SOURCE = "as learnt", "source "
BY_TEST_CLIPS = f"{ZERO_SHOT}, crop by the test clips"
NOISES = (0.25, 0.5, 1.0)  # deviations of the added flow, in those of a clip's own
NOISE_LENGTH = 1.0  # map pixels over which the added flow is smooth
CROPS = {
    "a tenth closer": Crop(zoom=1.1),
    "a quarter closer": Crop(zoom=1.25),
    "a quarter looser": Crop(zoom=0.8),
    "half looser": Crop(zoom=2 / 3),
    "moved down by 6%": Crop(y=-0.06),
    "moved aside by 6%": Crop(x=0.06),
}
APEX = (-4, -2, -1, 1, 2, 4)  # frames too late


def noisy(samples: Samples, share: float, pixels: bool, seed: int = 0) -> Samples:
    """The clips with smooth Gaussian flow added, of `share` of each clip's own deviation; pixels: the third channel is
    the magnitude, which follows, and else strain, which gets noise of its own."""
    rng = np.random.default_rng(seed)
    spread = samples.x.std(axis=(2, 4, 5), keepdims=True)  # of every view and channel
    x = samples.x + np.float32(share) * spread * smooth_noise(samples.x.shape, NOISE_LENGTH, rng)
    if pixels:
        x[..., 2, :, :] = np.hypot(x[..., 0, :, :], x[..., 1, :, :])
    return replace(samples, x=x)


def seen_otherwise(samples: Samples, pixels: bool) -> dict[str, Samples]:
    """Name -> the clips as they are, with more noise, and in other crops."""
    found = {AS_LEARNT: samples}
    found |= {f"noise of {share:g} of the motion": noisy(samples, share, pixels) for share in NOISES}
    return found | {name: replace(samples, x=cropped(samples.x, crop, pixels)) for name, crop in CROPS.items()}


def of_images(sources: Mapping[str, Samples]) -> tuple[Samples, dict[str, Estimator], dict[str, Samples]]:
    """Flow images of the first source: clips, rows, and the clips seen otherwise, also by the other sources."""
    first, *others = ((name, each.take_phases([0])) for name, each in sources.items())
    samples, available = first[1], estimators(first[1], members=1)
    wanted = ("network", "RBF-SVM", ZERO_SHOT, BY_TEST_CLIPS)
    tested = seen_otherwise(samples, pixels=False) | {f"{SOURCE}{name}": each for name, each in others}
    return samples, {name: available[name] for name in wanted if name in available}, tested


def of_run(config: Config, data: DataRoot) -> tuple[Samples, dict[str, Estimator], dict[str, Samples]]:
    """The same of a run's training clips, with the apex missed and by other flow methods."""
    plan = Plan.of(config)
    samples, variants = load_samples(config, data, "train"), (learner_variants(plan) | teacher_variants(plan))
    taught = load_pretrained(KINDS[config.n_views])
    rows = {name: variants[name].estimator for name in (SCRATCH, TUNED_HARD, ZERO_SHOT)}
    rows[BY_TEST_CLIPS] = crop_matched(rows[ZERO_SHOT], taught, transduction=True)
    tested = seen_otherwise(samples, pixels=True)
    for shift in APEX:
        words = f"apex {abs(shift)} frames too {'late' if shift > 0 else 'early'}"
        tested[words] = samples_with_apex(config, data, shift)
    flows = [method for method in OTHER_FLOWS if method != config.flow_method]
    return samples, rows, tested | {f"flow by {method}": samples_with_flow(config, data, method) for method in flows}


def judge_elsewhere(
    samples: Samples,
    estimator: Estimator,
    folds: Sequence[Fold],
    tested: Mapping[str, Samples],
    seed: int = 0,
    n_jobs: int = 1,
    description: str = "",
) -> dict[str, OutOfFold]:
    """Predictors trained on `samples`, one a fold, and what each says of its held-out clips as they are in `tested`.

    tested: name -> the same clips in the same order, seen otherwise. Raises ValueError where their Ids differ.
    """
    for name, other in tested.items():
        if not np.array_equal(other.ids, samples.ids):
            raise ValueError(f"{name}: its Ids are not those of the training clips. Remedy: give the same clips.")
    task = partial(_judge_fold, samples, estimator, tested, seed)
    found = parallel_map(task, list(folds), n_jobs, description=description)
    return {name: join_folds(other, folds, (seed,), [[one[name] for one in found]]) for name, other in tested.items()}


def _judge_fold(
    samples: Samples, estimator: Estimator, tested: Mapping[str, Samples], seed: int, fold: Fold
) -> dict[str, FoldResult]:
    train = samples.subset(fold[0])
    check_disjoint(train, samples.subset(fold[1]))
    inner = grouped_folds(train.y, train.subjects, min(4, len(np.unique(train.subjects))), seed)
    classifier = estimator(train, inner, seed)
    return {name: predict_fold(lambda: classifier, other.subset(fold[1])) for name, other in tested.items()}


def losses(samples: Samples, rows: Mapping[str, Estimator], tested: Mapping[str, Samples], jobs: int) -> dict:
    """Row -> condition -> UF1 with its interval, and the paired difference to AS_LEARNT."""
    folds = grouped_folds(samples.y, samples.subjects, min(FOLDS, len(np.unique(samples.subjects))))
    found = {}
    for name, estimator in rows.items():
        oofs = judge_elsewhere(samples, estimator, folds, tested, n_jobs=jobs, description=name)
        found[name] = {
            condition: {"uf1": asdict(interval(oof)), "difference": asdict(compare(oof, oofs[AS_LEARNT]))}
            for condition, oof in oofs.items()
        }
    return found


def across_databases(
    samples: Samples, rows: Mapping[str, Estimator], datasets: np.ndarray, jobs: int
) -> dict[str, dict[str, dict]]:
    """Row -> database -> UF1 with its interval, of networks that learnt from the other databases alone."""
    folds = [(np.flatnonzero(datasets != name), np.flatnonzero(datasets == name)) for name in np.unique(datasets)]
    found = {}
    for name, estimator in rows.items():
        oof: OutOfFold = cross_validate(samples, estimator, folds, n_jobs=jobs, description=f"{name}, other databases")
        found[name] = {
            str(samples_of): {"uf1": asdict(interval(oof.subset(datasets == samples_of)))}
            for samples_of in np.unique(datasets)
        }
    return found


def crop_figure(found: dict) -> Figure:
    """What the crop does to the network that never saw a clip of these, and how far a crop found without a label mends
    it."""
    rows = found["rows"]
    crops = [name for name in rows[ZERO_SHOT] if name == AS_LEARNT or name in CROPS or name.startswith(SOURCE)]
    words = {ZERO_SHOT: "crop as it is", BY_TEST_CLIPS: "crop found without a label"}
    return crop_scores(
        {text: {crop: Interval(**rows[name][crop]["uf1"]) for crop in crops} for name, text in words.items()}
    )


def format_losses(found: dict) -> str:
    """What `main` records as a plain table."""
    lines = []
    for name, conditions in found["rows"].items():
        lines.append(f"{name}\n{'':34}{'UF1':24}less {AS_LEARNT}")
        for condition, scores in conditions.items():
            uf1, difference = Interval(**scores["uf1"]), Interval(**scores["difference"])
            lines.append(f"  {condition:32}{uf1!s:24}{'' if condition == AS_LEARNT else difference}")
        for dataset, scores in found.get("across", {}).get(name, {}).items():
            lines.append(f"  {f'{dataset}, learnt from the others':32}{Interval(**scores['uf1'])}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.lab.robustness", description=__doc__.split("\n")[0])
    parser.add_argument("--root", nargs="+", metavar="DIR", help="folders of flow images, or the folder of a LOSO tree")
    parser.add_argument("--labels", help="table with dataset, sub, label, imagename; without it DIR is a LOSO tree")
    parser.add_argument("--data", default="", help="data root (default: the synthetic faces of the profile)")
    parser.add_argument("--work", default="", help="folder of a run, whose views are used (default: the profile's)")
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--set", default="", help="single parameters: name=value name=value")
    parser.add_argument("--jobs", type=int, default=2, help="workers over folds or clips")
    parser.add_argument("--json", type=Path, help="file for the scores")
    parser.add_argument("--figure", type=Path, help="picture (PNG) of the scores by crop")
    options = parser.parse_args()
    try:
        if options.root:
            sources, datasets = read_sources(options.root, options.labels)
            samples, rows, tested = of_images(sources)
        else:
            config = load_config(options.profile, options.set, data=options.data, work=options.work, jobs=options.jobs)
            samples, rows, tested = of_run(config, load_data(config))
            datasets = np.full(len(samples), "all")
    except (DataError, ValueError) as error:
        sys.exit(f"error: {error}")
    if options.figure and ZERO_SHOT not in rows:
        sys.exit(f"error: --figure shows the row {ZERO_SHOT!r}, which needs three classes. Remedy: leave it out.")
    found = {"rows": losses(samples, rows, tested, options.jobs), "clips": len(samples), "commit": commit()}
    if len(np.unique(datasets)) > 1:
        found["across"] = across_databases(samples, rows, datasets, options.jobs)
    print(format_losses(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.figure:
        save_figure(crop_figure(found), options.figure)


if __name__ == "__main__":
    main()
