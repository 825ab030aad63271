"""Facts about utils.evaluate.ablation: each row is shown, and trained as, what its name says. No network trains."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from utils.config import load_config
from utils.evaluate.ablation import ablate
from utils.evaluate.baselines import all_ones
from utils.evaluate.protocol import check_paired
from utils.train.decision import Thresholds
from utils.train.ensemble import Ensemble
from utils.train.estimator import Classifier
from utils.train.network import ModelConfig, count_parameters
from utils.train.samples import CHANNELS, CLASSES, Samples
from utils.train.shipped import load_pretrained

PLACES = list(product(("left", "right"), ("rise", "fall"), CHANNELS))  # a clip's maps: view, phase, channel
WHOLE = 2.0 ** len(PLACES)
SIZE = 28


@pytest.fixture(scope="module")
def samples():
    """24 clips of six subjects. Every map is a power of two, so that a sum of maps tells which they were."""
    codes = 2.0 ** np.arange(len(PLACES)).reshape(2, 2, 3, 1, 1) / WHOLE
    x = np.broadcast_to(codes, (24, 2, 2, 3, SIZE, SIZE))
    y = np.random.default_rng(0).random((24, len(CLASSES))) < 0.4
    return Samples(x, y, [f"c{i}" for i in range(24)], [f"s{i % 6}" for i in range(24)], CLASSES)


def untrained(train, val, model, config, seed=0, init=None) -> Ensemble:
    """What stands for a trained network: it keeps how it was to be trained and, as thresholds, who validated it."""
    who = people(val.subjects) if isinstance(val, Samples) else 0.5
    thresholds = Thresholds(np.full(len(CLASSES), who), ("none",) * len(CLASSES))
    member = SimpleNamespace(epoch=1, init=init)
    held_out = None if isinstance(val, Samples) else np.full(train.y.shape, 0.5)  # an ensemble's alone
    return Ensemble(model, config, train.classes, (member,), thresholds, seed, held_out=held_out)


def people(subjects) -> float:
    """A number in 0..1 that tells which subjects s0 to s5 these are."""
    return sum(0.5 ** (int(name[1:]) + 1) for name in set(subjects))


def validates(name: str, number: float) -> bool:
    return bool(int(number * 2 ** (int(name[1:]) + 1)) & 1)


def answer(ensemble, x) -> tuple[np.ndarray, None]:
    """In the place of probabilities: the sum of the maps seen, and how the network was to be trained."""
    model = ensemble.model_config
    channels = [CHANNELS.index(name) for name in model.streams]
    trained = (ensemble.train_config.loss == "focal", model.attention, model.se, ensemble.members[0].init is not None)
    return np.column_stack([x[:, :, :, channels, 0, 0].sum((1, 2, 3)), np.tile(trained, (len(x), 1))]), None


def zeros():
    """An estimator of probability 0 for every label, with inner out-of-fold probabilities."""

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
        patch.setattr("utils.train.fit.predict", answer)
        patch.setattr("utils.evaluate.ablation.baselines", lambda: {"RBF-SVM": zeros(), "all-ones": all_ones()})
        return ablate(config, samples)


def seen(row) -> set[tuple[str, str, str]]:
    """The maps that a network was shown: the same of every clip and seed."""
    (total,) = np.unique(row.probability[:, :, 0])
    return {place for i, place in enumerate(PLACES) if round(total * WHOLE) >> i & 1}


def trained(row) -> dict[str, bool]:
    return dict(zip(("focal", "attention", "se", "pretrained"), row.probability[0, 0, 1:] > 0, strict=True))


OURS = {"focal": True, "attention": True, "se": True, "pretrained": False}


def test_the_reference_is_the_first_row_and_sees_everything(rows):
    first = next(iter(rows))
    assert first == "ours, from scratch"
    assert seen(rows[first]) == set(PLACES) and trained(rows[first]) == OURS
    assert rows[first].notes[0][0]["parameters"] == count_parameters(ModelConfig(size=SIZE))


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
def test_a_part_alone_is_all_that_its_row_sees(rows, name, part):
    assert seen(rows[name]) == {place for place in PLACES if part in place}
    assert trained(rows[name]) == OURS | {"se": part not in ("u", "v")}  # SE stands on the magnitude stream


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("without fusion attention", {"attention": False}),
        ("without SE", {"se": False}),
        ("without both", {"attention": False, "se": False}),
        ("cross-entropy for focal", {"focal": False}),
        ("its honest counterpart", {}),
        ("LEAK: epoch and thresholds on the test fold", {}),
    ],
)
def test_a_row_changes_what_its_name_says_and_nothing_else(rows, name, change):
    assert seen(rows[name]) == set(PLACES) and trained(rows[name]) == OURS | change


def test_the_pretrained_row_starts_from_the_shipped_weights_and_zero_shot_is_their_network(rows):
    assert trained(rows["ours, pretrained"])["pretrained"] and seen(rows["ours, pretrained"]) == set(PLACES)
    assert rows["zero-shot"].notes[0][0] == {
        "parameters": count_parameters(load_pretrained("dual").model_config),
        "epochs": [],
        "threshold_sources": list(load_pretrained("dual").thresholds.sources),
    }


def test_the_leaking_row_alone_is_validated_on_the_clips_that_it_is_scored_on(rows):
    leak, honest = rows["LEAK: epoch and thresholds on the test fold"], rows["its honest counterpart"]
    for fold in range(2):
        held_out = set(leak.subjects[leak.fold == fold])
        assert leak.thresholds[0, fold, 0] == people(held_out)
        validating = {name for name in leak.subjects if validates(name, honest.thresholds[0, fold, 0])}
        assert validating and not validating & held_out


def test_all_rows_share_clips_folds_and_seeds(rows):
    reference = next(iter(rows.values()))
    for row in rows.values():
        check_paired(reference, row)


def test_ours_is_the_mean_of_the_ways_of_training_as_the_inner_folds_weigh_them(rows):
    parts = [rows[name] for name in ("ours, from scratch", "ours, pretrained", "ours, pretrained, tuned hard")]
    weights = np.array([rows["ours"].notes[0][fold]["weights"] for fold in range(2)])[rows["ours"].fold]  # (N, 3)
    np.testing.assert_allclose(weights.sum(1), 1)
    expected = sum(weights[:, p, None] * part.probability[0] for p, part in enumerate(parts))
    np.testing.assert_allclose(rows["ours"].probability[0], expected)
    assert [trained(part)["pretrained"] for part in parts] == [False, True, True]


def test_baselines_stand_below_ours_without_any_network(rows):
    assert list(rows)[-1] == "all-ones" and rows["all-ones"].decision.all()


def test_a_mean_of_rows_stands_among_ours_and_is_their_mean(rows):
    ours, svm, both = (rows[name] for name in ("ours, from scratch", "RBF-SVM", "ours + RBF-SVM"))
    assert list(rows).index("ours + RBF-SVM") == list(rows).index("ours") + 1
    assert np.array_equal(both.probability, (ours.probability + svm.probability) / 2)
    assert both.notes[0][0]["parameters"] == ours.notes[0][0]["parameters"]
