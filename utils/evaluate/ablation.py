"""The variants that `04_ablation` compares: the paper's, ours, and the baselines, all through one protocol."""

from collections.abc import Callable

from utils.config import Config
from utils.dataset.tables import DataRoot
from utils.evaluate.baselines import baselines
from utils.evaluate.held_out import (
    Plan,
    held_out,
    held_out_rows,
    learner_variants,
    learners,
    model_config,
    network,
    train_config,
)
from utils.evaluate.other_inputs import OTHER_FLOWS, samples_with_flow, unstabilised_samples
from utils.evaluate.protocol import OutOfFold, Variant, average_predictions
from utils.evaluate.rows import HONEST, LEAK, OURS, RECALIBRATED, SCRATCH, UNITS_FIRST, UNSTABILISED, ZERO_SHOT
from utils.train.fit import network_estimator
from utils.train.samples import Samples
from utils.train.shipped import KINDS, load_pretrained, zero_shot_estimator
from utils.train.stacking import stacking_weights
from utils.train.units_first import units_first_estimator

MEANS = {"ours + RBF-SVM": (SCRATCH, "RBF-SVM")}  # rows that average the predictions of others


def teacher_variants(plan: Plan) -> dict[str, Variant]:
    """What the teacher of synthetic motion knows: its action units, or its emotions, with a table learnt from the clips
    at hand that leads to their emotions, and its emotions as they are."""
    teacher = load_pretrained(KINDS[plan.n_views])
    return {
        UNITS_FIRST: Variant(units_first_estimator(teacher)),
        RECALIBRATED: Variant(units_first_estimator(teacher, "emotions")),
        ZERO_SHOT: Variant(zero_shot_estimator(teacher)),
    }


def variants(plan: Plan) -> dict[str, Variant]:
    """Name -> variant of what is compared with the learners, in the order of the table. Our networks here start from
    scratch."""

    def ours(model: dict | None = None, train: dict | None = None, transform: Callable | None = None) -> Variant:
        estimator = network(plan, model_config(plan, **(model or {})), train_config(plan, **(train or {})))
        return Variant(estimator, transform) if transform else Variant(estimator)

    one_view = {
        f"{side} view alone": ours({"views": 1}, transform=lambda s, v=v: s.take_views([v]))
        for v, side in enumerate(("left", "right") if plan.n_views == 2 else ())
    }
    rows = {
        "without fusion attention": ours({"attention": False}),
        "without SE": ours({"se": False}),
        "without both": ours({"attention": False, "se": False}),
        **one_view,
        "onset to apex alone": ours({"phases": 1}, transform=lambda s: s.take_phases([0])),
        "apex to offset alone": ours({"phases": 1}, transform=lambda s: s.take_phases([1])),
        "u alone": ours({"streams": ("u",), "se": False}),
        "v alone": ours({"streams": ("v",), "se": False}),
        "magnitude alone": ours({"streams": ("magnitude",)}),
        "cross-entropy for focal": ours(train={"loss": "bce"}),
        LEAK: Variant(network_estimator(model_config(plan), train_config(plan), how="first"), leaking=True),
        HONEST: Variant(network_estimator(model_config(plan), train_config(plan), how="first")),
    }
    return rows | {name: Variant(estimator) for name, estimator in baselines().items()}


def ablate(config: Config, samples: Samples) -> dict[str, OutOfFold]:
    """Held-out predictions of every variant and mean of variants, by name, in the order of the table."""
    plan, seeds = Plan.of(config), config.ablation_seeds
    main = held_out_rows(plan, samples, learner_variants(plan), seeds)  # 03 shares the submitted ones
    main |= held_out_rows(plan, samples, teacher_variants(plan), seeds, teacher_variants)
    rows = held_out_rows(plan, samples, variants(plan), seeds, variants)
    means = {OURS: average_predictions(*(main[name] for name in learners(plan)), weighting=stacking_weights)}
    means |= {name: average_predictions(*((main | rows)[part] for part in parts)) for name, parts in MEANS.items()}
    return main | means | rows


def no_stabilisation(config: Config, data: DataRoot) -> dict[str, OutOfFold]:
    """The row "without 3D stabilisation"; empty where the views were not rendered and stabilised in the first place."""
    if config.views != "render" or not config.stabilise:
        return {}
    return _from_scratch(config, UNSTABILISED, unstabilised_samples(config, data))


def other_flows(config: Config, data: DataRoot) -> dict[str, OutOfFold]:
    """Rows "flow by <method>": the same clips, moments and network on the flow of the other methods of OTHER_FLOWS."""
    rows = {}
    for method in OTHER_FLOWS:
        if method != config.flow_method:
            rows |= _from_scratch(config, f"flow by {method}", samples_with_flow(config, data, method))
    return rows


def _from_scratch(config: Config, name: str, samples: Samples) -> dict[str, OutOfFold]:
    """The row of our network from scratch on other samples."""
    plan = Plan.of(config)
    return {name: held_out(plan, samples, name, learner_variants(plan)[SCRATCH], config.ablation_seeds)}
