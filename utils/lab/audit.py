"""The price of a leak: networks of the field and ours, honest beside leaky, on flow images that the field shares.

    python -m utils.lab.audit --root DIR --labels FILE.csv [--jobs 2] [--seed 0] [--json OUT]

DIR and FILE are those of `utils.lab.flow_images`. One person is left out at a time. Honest: the epoch is the
most accurate on a quarter of the training people. Leaky: it is the most accurate on the person left out, as public code
of the field chooses it. Nothing else differs; a row's difference is paired, with its interval by bootstrap over people.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from utils.errors import DataError
from utils.evaluate.baselines import OFF_APEXNET, PLAIN, STSTNET, OffApexNetConfig, STSTNetConfig, plain_network
from utils.evaluate.protocol import Variant, cross_validate_variants, leave_one_subject_out
from utils.evaluate.scores import Interval, compare, interval
from utils.lab.flow_images import TRAIN, read_sources
from utils.lab.htnet import HTNetConfig
from utils.provenance import commit
from utils.train.estimator import Estimator
from utils.train.fit import network_estimator
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

HTNET = replace(PLAIN, loss="bce", epochs=60, lr=5e-4)
METRICS = {"uf1": "macro_uf1", "uar": "uar"}  # as the field calls them, and as `utils.evaluate.scores` does


def chosen_by_accuracy(train: TrainConfig) -> TrainConfig:
    """The same training to its end, with the weights of the most accurate epoch."""
    return replace(train, mode="single-label", patience=train.epochs, stop_by="accuracy")


def audited(samples: Samples) -> dict[str, Estimator]:
    """Row -> estimator that chooses its epoch on the first inner fold, which a leaking variant makes the test fold."""
    shape = {"classes": len(samples.classes), "views": 1, "phases": samples.x.shape[2]}
    plain: dict[str, tuple[type[ModelConfig], TrainConfig]] = {
        "STSTNet": (STSTNetConfig, STSTNET),
        "Off-ApexNet": (OffApexNetConfig, replace(OFF_APEXNET, epochs=30)),  # whose steps are the dearest
        "HTNet, small": (HTNetConfig, HTNET),
        "MicroAttNet, as in the paper": (ModelConfig, PLAIN),
    }
    found = {name: plain_network(model, chosen_by_accuracy(train)) for name, (model, train) in plain.items()}
    return found | {"ours": network_estimator(ModelConfig(**shape), chosen_by_accuracy(TRAIN), how="first")}


def audit(samples: Samples, rows: dict[str, Estimator], seed: int = 0, jobs: int = 1) -> dict[str, dict]:
    """Row -> UF1 and UAR, honest and leaky, with intervals, and the paired difference, leaky less honest."""
    both = ("honest", "leaky")
    tasks = {(name, how): Variant(one, leaking=how == "leaky") for name, one in rows.items() for how in both}
    folds = leave_one_subject_out(samples.subjects)
    oofs = cross_validate_variants(samples, tasks, folds, (seed,), jobs, description="audit")
    return {
        name: {
            **{how: {metric: asdict(interval(oofs[name, how], of)) for metric, of in METRICS.items()} for how in both},
            "price": asdict(compare(oofs[name, "leaky"], oofs[name, "honest"])),
        }
        for name in rows
    }


def format_audit(found: dict) -> str:
    """What `main` records as a plain table."""
    lines = [f"{found['clips']} clips, {found['subjects']} subjects, leave one subject out, seed {found['seed']}"]
    lines.append(f"{'':32}{'UF1, honest':24}{'leaky':24}leaky less honest")
    for name, row in found["rows"].items():
        spans = (row["honest"]["uf1"], row["leaky"]["uf1"], row["price"])
        honest, leaky, price = (str(Interval(**span)) for span in spans)
        lines.append(f"{name:32}{honest:24}{leaky:24}{price}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.lab.audit", description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="folder of the flow images, or of the LOSO tree")
    parser.add_argument("--labels", help="table with dataset, sub, label, imagename; without it DIR is a LOSO tree")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="workers over folds")
    parser.add_argument("--json", type=Path, help="file for the scores")
    options = parser.parse_args()
    try:
        sources, _ = read_sources([options.root], options.labels)
    except DataError as error:
        sys.exit(f"error: {error}")
    samples = next(iter(sources.values())).take_phases([0])
    start = time.perf_counter()
    rows = audit(samples, audited(samples), options.seed, options.jobs)
    found = {
        "clips": len(samples),
        "subjects": len(np.unique(samples.subjects)),
        "seed": options.seed,
        "rows": rows,
        "wall_seconds": round(time.perf_counter() - start, 1),
        "commit": commit(),
    }
    print(format_audit(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
