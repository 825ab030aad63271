"""Facts about the ablation: the network of each row sees the input, and has the settings, that its name says.

No network is trained here.
"""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from utils.config import load_config
from utils.evaluate.ablation import MEANS, ablate, ablate_inputs
from utils.evaluate.baselines import all_ones
from utils.evaluate.held_out import Plan, learners
from utils.evaluate.protocol import check_paired
from utils.evaluate.rows import (
    EVERY_LABEL,
    HEADLINE,
    HONEST,
    LEAK,
    OURS,
    PAPER_METHOD,
    PAPER_NETWORK,
    SCRATCH,
    SVM,
    TUNED_GENTLY,
    UNSTABILISED,
    ZERO_SHOT,
)
from utils.train.decision import Thresholds
from utils.train.ensemble import Ensemble
from utils.train.estimator import Classifier
from utils.train.network import ModelConfig, count_parameters
from utils.train.samples import CHANNELS, CLASSES, Samples
from utils.train.shipped import load_pretrained

MAPS = list(product(("left", "right"), ("rise", "fall"), CHANNELS))  # the maps of a clip: view, phase, channel
WHOLE = 2.0 ** len(MAPS)
SIZE = 28


@pytest.fixture(scope="module")
def samples():
    """24 clips of six subjects. Every map is a power of two, so the sum of some maps tells which ones they are."""
    codes = 2.0 ** np.arange(len(MAPS)).reshape(2, 2, 3, 1, 1) / WHOLE
    x = np.broadcast_to(codes, (24, 2, 2, 3, SIZE, SIZE))
    y = np.random.default_rng(0).random((24, len(CLASSES))) < 0.4
    return Samples(x, y, [f"c{i}" for i in range(24)], [f"s{i % 6}" for i in range(24)], CLASSES)


def untrained(train, val, model, config, seed=0, init=None) -> Ensemble:
    """In place of `fit` and `fit_ensemble`: it keeps the settings and, as epoch, the validation subjects of `fit`."""
    subjects = sorted(set(val.subjects)) if isinstance(val, Samples) else None
    held_out = np.full(train.y.shape, 0.5) if subjects is None else None  # only of an ensemble
    member = SimpleNamespace(epoch=subjects, init=init)
    thresholds = Thresholds(np.full(len(CLASSES), 0.5), ("none",) * len(CLASSES))
    return Ensemble(model, config, train.classes, (member,), thresholds, seed, held_out=held_out)


def sum_and_settings(ensemble, x) -> tuple[np.ndarray, None]:
    """In place of `predict`: the sum of the maps that the network sees, and its settings."""
    model = ensemble.model_config
    channels = [CHANNELS.index(name) for name in model.streams]
    settings = (ensemble.train_config.loss == "focal", model.attention, model.se, ensemble.members[0].init is not None)
    return np.column_stack([x[:, :, :, channels, 0, 0].sum((1, 2, 3)), np.tile(settings, (len(x), 1))]), None


def zeros():
    """An estimator that gives every label the probability 0."""

    def estimator(train, inner, seed):
        thresholds = Thresholds(np.full(len(CLASSES), 0.5), ("none",) * len(CLASSES))
        return Classifier(lambda x: np.zeros((len(x), len(CLASSES))), thresholds, {}, np.zeros(train.y.shape))

    return estimator


@pytest.fixture(scope="module")
def rows(samples, tmp_path_factory):
    config = load_config("smoke", work=str(tmp_path_factory.mktemp("ablation")), jobs=1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fit", "fit_ensemble"):
            patch.setattr(f"utils.train.fit.{name}", untrained)
        patch.setattr("utils.train.fit.predict", sum_and_settings)
        patch.setattr("utils.evaluate.ablation.baselines", lambda: {SVM: zeros(), EVERY_LABEL: all_ones()})
        return ablate(config, samples)


def seen(row) -> set[tuple[str, str, str]]:
    """The maps that the network of a row sees, the same for all clips and seeds."""
    (total,) = np.unique(row.probability[:, :, 0])
    return {name for i, name in enumerate(MAPS) if round(total * WHOLE) >> i & 1}


def settings(row) -> dict[str, bool]:
    return dict(zip(("focal", "attention", "se", "pretrained"), row.probability[0, 0, 1:] > 0, strict=True))


FULL = {"focal": True, "attention": True, "se": True, "pretrained": False}


def test_the_reference_is_the_first_row_and_sees_everything(rows):
    assert next(iter(rows)) == SCRATCH
    assert seen(rows[SCRATCH]) == set(MAPS) and settings(rows[SCRATCH]) == FULL
    assert rows[SCRATCH].notes[0][0]["parameters"] == count_parameters(ModelConfig(size=SIZE))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("left view alone", "left"),
        ("right view alone", "right"),
        ("onset to apex alone", "rise"),
        ("apex to offset alone", "fall"),
        ("u alone", "u"),
        ("v alone", "v"),
        ("magnitude alone", "magnitude"),
    ],
)
def test_a_row_of_a_part_alone_sees_only_this_part(rows, name, part):
    assert seen(rows[name]) == {names for names in MAPS if part in names}
    assert settings(rows[name]) == FULL | {"se": part not in ("u", "v")}  # only the magnitude stream has SE


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("without fusion attention", {"attention": False}),
        ("without SE", {"se": False}),
        ("without both", {"attention": False, "se": False}),
        ("cross-entropy for focal", {"focal": False}),
        (HONEST, {}),
        (LEAK, {}),
        (TUNED_GENTLY, {"pretrained": True, "focal": False}),
    ],
)
def test_a_row_changes_only_what_its_name_says(rows, name, change):
    assert seen(rows[name]) == set(MAPS) and settings(rows[name]) == FULL | change


def test_the_zero_shot_row_is_the_shipped_network(rows):
    assert rows[ZERO_SHOT].notes[0][0] == {
        "parameters": count_parameters(load_pretrained("dual").model_config),
        "epochs": [],
        "threshold_sources": list(load_pretrained("dual").thresholds.sources),
    }


def test_only_the_leaking_row_is_validated_on_held_out_clips(rows):
    for fold in range(2):
        held_out = set(rows[LEAK].subjects[rows[LEAK].fold == fold])
        leaking, honest = (set(rows[name].notes[0][fold]["epochs"][0]) for name in (LEAK, HONEST))
        assert leaking == held_out and honest and not honest & held_out


def test_all_rows_share_clips_folds_and_seeds_and_baselines_are_the_last(rows):
    for row in rows.values():
        check_paired(rows[SCRATCH], row)
    assert list(rows)[-1] == EVERY_LABEL and rows[EVERY_LABEL].decision.all()


def test_ours_is_the_mean_of_the_learners_with_the_weights_of_each_fold(rows):
    names = list(learners(Plan.of(load_config("smoke"))))
    parts = [rows[name] for name in names]
    weights = np.array([rows[OURS].notes[0][fold]["weights"] for fold in range(2)])[rows[OURS].fold]  # (N, 3)
    np.testing.assert_allclose(weights.sum(1), 1)
    expected = sum(weights[:, p, None] * part.probability[0] for p, part in enumerate(parts))
    np.testing.assert_allclose(rows[OURS].probability[0], expected)
    assert [settings(part)["pretrained"] for part in parts] == [name != SCRATCH for name in names]


def test_a_mean_of_rows_follows_ours_and_is_their_mean(rows):
    (name, names), *_ = MEANS.items()
    first, second = (rows[part] for part in names)
    assert list(rows).index(name) == list(rows).index(OURS) + 1
    assert np.array_equal(rows[name].probability, (first.probability + second.probability) / 2)
    assert rows[name].notes[0][0]["parameters"] == first.notes[0][0]["parameters"]


def test_the_headline_rows_are_those_that_the_readme_shows(samples, tmp_path, monkeypatch):
    config = load_config("demo", "epochs=1 folds=2", work=str(tmp_path), jobs=1)
    for name in ("fit", "fit_ensemble"):
        monkeypatch.setattr(f"utils.train.fit.{name}", untrained)
    monkeypatch.setattr("utils.train.fit.predict", sum_and_settings)
    monkeypatch.setattr("utils.evaluate.ablation.baselines", lambda: {SVM: zeros(), "LDA": zeros()})
    rows = ablate(config, samples)
    assert set(rows) == set(HEADLINE) - {"STSTNet", PAPER_NETWORK, PAPER_METHOD, EVERY_LABEL}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("ablation_rows=headline", {PAPER_METHOD: 1}),
        ("ablation_rows=all", {PAPER_METHOD: 1, UNSTABILISED: 2, "flow by dis": 3, "flow by farneback": 4}),
        ("ablation_rows=all views=split", {PAPER_METHOD: 1, "flow by dis": 3, "flow by farneback": 4}),
    ],
)
def test_each_row_of_other_inputs_sees_its_own_and_the_headline_has_the_papers_alone(monkeypatch, setting, expected):
    numbers = {"dis": 3, "farneback": 4}
    monkeypatch.setattr("utils.evaluate.ablation.paper_samples", lambda *_: 1)
    monkeypatch.setattr("utils.evaluate.ablation.unstabilised_samples", lambda *_: 2)
    monkeypatch.setattr("utils.evaluate.ablation.samples_with_flow", lambda config, data, method: numbers[method])
    monkeypatch.setattr(
        "utils.evaluate.ablation.held_out_rows", lambda plan, samples, rows, *_: dict.fromkeys(rows, samples)
    )
    assert ablate_inputs(load_config("demo", setting), None) == expected
