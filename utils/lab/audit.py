"""The price of a leak: networks of the field and ours, trained honestly and with a leak, on shared flow images.

    python -m utils.lab.audit --root DIR --labels FILE.csv [--jobs 2] [--seed 0] [--json OUT]

DIR and FILE are those of `utils.lab.flow_images`. One person is left out at a time. The honest network keeps the epoch
that is most accurate on a quarter of the training people. The leaky network keeps the epoch that is most accurate on
the person left out, as public code of the field does. Nothing else differs. The difference of the two is paired, with
an interval by bootstrap over people.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from utils.errors import DataError
from utils.evaluate.baselines import OFF_APEXNET, PLAIN, STSTNET, OffApexNetConfig, STSTNetConfig, plain_network
from utils.evaluate.protocol import Variant, cross_validate_variants, leave_one_subject_out
from utils.evaluate.scores import compare, interval
from utils.lab.flow_images import METRICS, TRAIN, read_sources
from utils.lab.htnet import HTNetConfig
from utils.lab.tables import publish, tidy
from utils.train.estimator import Estimator
from utils.train.fit import network_estimator
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

HTNET = replace(PLAIN, loss="bce", epochs=60, lr=5e-4)


def most_accurate_epoch(train: TrainConfig) -> TrainConfig:
    """The same training for all of its epochs, of which the most accurate one is kept."""
    return replace(train, mode="single-label", patience=train.epochs, stop_by="accuracy")


def audited(samples: Samples) -> dict[str, Estimator]:
    """Estimators by name. Each chooses its epoch on its first inner fold; a leaking variant makes it the test fold."""
    shape = {"classes": len(samples.classes), "views": 1, "phases": samples.x.shape[2]}
    plain: dict[str, tuple[type[ModelConfig], TrainConfig]] = {
        "STSTNet": (STSTNetConfig, STSTNET),
        "Off-ApexNet": (OffApexNetConfig, replace(OFF_APEXNET, epochs=30)),  # its steps take the longest
        "HTNet, small": (HTNetConfig, HTNET),
        "MicroAttNet, as in the paper": (ModelConfig, PLAIN),
    }
    networks = {name: plain_network(model, most_accurate_epoch(train)) for name, (model, train) in plain.items()}
    return networks | {"ours": network_estimator(ModelConfig(**shape), most_accurate_epoch(TRAIN), how="first")}


def audit(samples: Samples, estimators: Mapping[str, Estimator], seed: int, jobs: int) -> pd.DataFrame:
    """The tidy table of UF1 and UAR by network and choice of the epoch, with the paired differences."""
    variants = {
        (network, choice): Variant(estimator, leaking=choice == "leaky")
        for network, estimator in estimators.items()
        for choice in ("honest", "leaky")
    }
    folds = leave_one_subject_out(samples.subjects)
    oofs = cross_validate_variants(samples, variants, folds, (seed,), jobs, description="audit")
    rows = []
    for network in estimators:
        honest, leaky = oofs[network, "honest"], oofs[network, "leaky"]
        for measure, metric in METRICS.items():
            for choice, value, unit in (
                ("honest", interval(honest, metric), "score"),
                ("leaky", interval(leaky, metric), "score"),
                ("leaky less honest", compare(leaky, honest, metric), "difference"),
            ):
                rows.append({"network": network, "choice": choice, "measure": measure, "value": value, "unit": unit})
    return tidy(rows).assign(n=len(samples), subjects=len(np.unique(samples.subjects)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.lab.audit", description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="folder of the flow images, or of the LOSO tree")
    parser.add_argument("--labels", help="table with dataset, sub, label, imagename; without it DIR is a LOSO tree")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="workers over folds")
    parser.add_argument("--json", help="file for the scores")
    options = parser.parse_args()
    try:
        sources, _ = read_sources([options.root], options.labels)
    except DataError as error:
        sys.exit(f"error: {error}")
    (samples,) = (source.take_phases([0]) for source in sources.values())
    publish(audit(samples, audited(samples), options.seed, options.jobs), "choice", vars(options), options.json)


if __name__ == "__main__":
    main()
