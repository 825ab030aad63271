"""The variants that `04_ablation` compares: the paper's, ours, and the baselines, all through one protocol."""

from dataclasses import replace

from utils.config import CLASSES, Config
from utils.dataset.samples import Samples
from utils.dataset.tables import DataRoot
from utils.experiments.held_out import (
    PRETRAINED,
    SCRATCH,
    ZERO_SHOT,
    Transform,
    Variant,
    held_out,
    model_config,
    network,
    train_config,
)
from utils.experiments.other_inputs import OTHER_FLOWS, moments_of, samples_with_flow, unstabilised_samples
from utils.pretrain.classifier import fine_tuned_predictor, load_pretrained, zero_shot_predictor
from utils.train.baselines import average, baselines, rbf_svm
from utils.train.fit import network_predictor
from utils.train.protocol import OutOfFold


def variants(config: Config) -> dict[str, Variant]:
    """Name -> variant, in the order of the table; the first, SCRATCH, is the reference.

    All our networks start from scratch but for PRETRAINED and ZERO_SHOT, which were taught by synthetic motion.
    """

    def ours(model: dict | None = None, train: dict | None = None, transform: Transform | None = None) -> Variant:
        predictor = network(config, model_config(config, **(model or {})), train_config(config, **(train or {})))
        return Variant(predictor, transform) if transform else Variant(predictor)

    rows = {
        SCRATCH: ours(),
        PRETRAINED: Variant(fine_tuned_predictor("dual", len(CLASSES))),
        ZERO_SHOT: Variant(zero_shot_predictor(load_pretrained("dual"))),
        "ours + RBF-SVM": Variant(average(network(config), rbf_svm())),
        "without fusion attention": ours({"attention": False}),
        "without SE": ours({"se": False}),
        "without both": ours({"attention": False, "se": False}),
        "left view alone": ours({"views": 1}, transform=lambda s: s.take_views([0])),
        "right view alone": ours({"views": 1}, transform=lambda s: s.take_views([1])),
        "onset to apex alone": ours({"phases": 1}, transform=lambda s: s.take_phases([0])),
        "apex to offset alone": ours({"phases": 1}, transform=lambda s: s.take_phases([1])),
        "u alone": ours({"streams": ("u",), "se": False}),
        "v alone": ours({"streams": ("v",), "se": False}),
        "magnitude alone": ours({"streams": ("magnitude",)}),
        "cross-entropy for focal": ours(train={"loss": "bce"}),
        "LEAK: epoch and thresholds on the test fold": Variant(
            network_predictor(model_config(config), train_config(config), how="first"), leaking=True
        ),
        "its honest counterpart": Variant(network_predictor(model_config(config), train_config(config), how="first")),
    }
    return rows | {name: Variant(predictor) for name, predictor in baselines().items()}


def ablate(config: Config, samples: Samples) -> dict[str, OutOfFold]:
    """Held-out predictions of every variant, by name, in the order of the table."""
    return {
        name: held_out(config, samples, name, variant, config.ablation_seeds)
        for name, variant in variants(config).items()
    }


def no_stabilisation(config: Config, data: DataRoot, samples: Samples) -> dict[str, OutOfFold]:
    """The row "without 3D stabilisation"; empty where the views were not rendered and stabilised in the first place."""
    if config.views != "render" or not config.stabilise:
        return {}
    moved = unstabilised_samples(config, data, samples, moments_of(config, samples))
    name = "without 3D stabilisation"
    return {name: held_out(config, moved, name, variants(config)[SCRATCH], config.ablation_seeds)}


def other_flows(config: Config, data: DataRoot, samples: Samples) -> dict[str, OutOfFold]:
    """Rows "flow by <method>": the same clips, moments and network on the flow of the other methods of OTHER_FLOWS."""
    moments, rows = moments_of(config, samples), {}
    for method in OTHER_FLOWS:
        if method != config.flow_method:
            other = samples_with_flow(replace(config, flow_method=method), data, samples, moments)
            name = f"flow by {method}"
            rows[name] = held_out(config, other, name, variants(config)[SCRATCH], config.ablation_seeds)
    return rows
