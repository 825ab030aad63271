"""The variants that `04_ablation` compares by one protocol: our network, its ablations, and the baselines."""

from collections.abc import Callable, Mapping

from utils.config import Config
from utils.dataset.tables import DataRoot
from utils.evaluate.baselines import baselines, paper_network
from utils.evaluate.held_out import (
    Plan,
    held_out_rows,
    learner_variants,
    learners,
    model_config,
    network,
    train_config,
)
from utils.evaluate.other_inputs import OTHER_FLOWS, samples_with_flow, unstabilised_samples
from utils.evaluate.paper import paper_samples
from utils.evaluate.protocol import OutOfFold, Variant, average_predictions
from utils.evaluate.rows import (
    HEADLINE,
    HONEST,
    LEAK,
    OURS,
    PAPER_METHOD,
    RECALIBRATED,
    SCRATCH,
    SVM,
    UNITS_FIRST,
    UNSTABILISED,
    ZERO_SHOT,
)
from utils.train.fit import network_estimator
from utils.train.samples import Samples
from utils.train.shipped import KINDS, load_pretrained, zero_shot_estimator
from utils.train.stacking import stacking_weights
from utils.train.units_first import units_first_estimator

MEANS = {"from scratch + RBF-SVM": (SCRATCH, SVM)}  # rows that are the mean of two other rows


def teacher_variants(plan: Plan) -> dict[str, Variant]:
    """Variants of the shipped network, which synthetic motion taught: a table from its action units to the emotions,
    a table from its emotions to the emotions (both learnt from the training clips), and its emotions unchanged."""
    teacher = load_pretrained(KINDS[plan.n_views])
    return {
        UNITS_FIRST: Variant(units_first_estimator(teacher)),
        RECALIBRATED: Variant(units_first_estimator(teacher, "emotions")),
        ZERO_SHOT: Variant(zero_shot_estimator(teacher)),
    }


def variants(plan: Plan) -> dict[str, Variant]:
    """The variants to compare with the learners, by name, in the order of the table: ablations of our network, trained
    from scratch, and the baselines."""

    def ours(model: dict | None = None, train: dict | None = None, transform: Callable | None = None) -> Variant:
        estimator = network(plan, model_config(plan, **(model or {})), train_config(plan, **(train or {})))
        return Variant(estimator, transform) if transform else Variant(estimator)

    one_view = {
        f"{side} view alone": ours({"views": 1}, transform=lambda s, v=v: s.take_views([v]))
        for v, side in enumerate(("left", "right") if plan.n_views == 2 else ())
    }
    single = network_estimator(model_config(plan), train_config(plan), how="first")
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
        LEAK: Variant(single, leaking=True),
        HONEST: Variant(single),
    }
    return rows | {name: Variant(estimator) for name, estimator in baselines().items()}


def ablate(config: Config, samples: Samples) -> dict[str, OutOfFold]:
    """Held-out predictions of the rows that see the samples of the run, by name, in the order of the table.

    `config.ablation_rows` chooses all rows, or those of HEADLINE.
    """
    plan, seeds = Plan.of(config), config.ablation_seeds

    def wanted(rows: Mapping[str, Variant]) -> dict[str, Variant]:
        return {name: row for name, row in rows.items() if config.ablation_rows == "all" or name in HEADLINE}

    main = held_out_rows(plan, samples, learner_variants(plan), seeds)  # `03_train` stores and reads the same files
    means = {OURS: average_predictions(*(main[name] for name in learners(plan)), weighting=stacking_weights)}
    main |= held_out_rows(plan, samples, wanted(teacher_variants(plan)), seeds, teacher_variants)
    rows = held_out_rows(plan, samples, wanted(variants(plan)), seeds, variants)
    if config.ablation_rows == "all":
        means |= {name: average_predictions(*((main | rows)[part] for part in parts)) for name, parts in MEANS.items()}
    return main | means | rows


def ablate_inputs(config: Config, data: DataRoot) -> dict[str, OutOfFold]:
    """The same of the rows that see the training clips by other views, moments or flow.

    Of these, HEADLINE has the paper's whole method. The row UNSTABILISED exists only if the run rendered and stabilised
    its views.
    """
    plan, seeds = Plan.of(config), config.ablation_seeds
    paper = {PAPER_METHOD: Variant(paper_network())}
    rows = held_out_rows(plan, paper_samples(config, data), paper, seeds, paper_network)
    if config.ablation_rows == "headline":
        return rows
    inputs = {}
    if config.views == "render" and config.stabilise:
        inputs[UNSTABILISED] = unstabilised_samples(config, data)
    other_flows = [method for method in OTHER_FLOWS if method != config.flow_method]
    inputs |= {f"flow by {method}": samples_with_flow(config, data, method) for method in other_flows}
    scratch = learner_variants(plan)[SCRATCH]
    for name, samples in inputs.items():
        rows |= held_out_rows(plan, samples, {name: scratch}, seeds)
    return rows
