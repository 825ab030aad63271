"""Facts about the card of a data root: its bounds and the values that it tells."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier

from utils.artefacts import read_artefact
from utils.report import data_card
from utils.report.data_card import bounds, describe, write_card
from utils.train.samples import CLASSES

CLIPS = 120


@pytest.fixture
def few_trees(monkeypatch):
    monkeypatch.setattr(data_card, "ExtraTreesClassifier", lambda _, **how: ExtraTreesClassifier(12, **how))


@pytest.fixture
def truth():
    """120 clips of three subjects with two AUs and two labels: "brows" is AU4 above 0.6, "coin" is independent."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((CLIPS, 2)), columns=["AU4", "AU12"])
    return table.assign(
        subject=[f"s{i % 3}" for i in range(CLIPS)],
        brows=(table["AU4"] > 0.6).astype(int),
        coin=(rng.random(CLIPS) < 0.4).astype(int),
    )


def all_ones(share: float) -> float:
    """Closed form of the F1 of yes for every clip."""
    return 2 * share / (1 + share)


def test_a_label_that_the_units_tell_is_bounded_near_one(truth, few_trees):
    found = bounds(truth, ("brows",))
    assert found["true_units"] > 0.95
    assert found["all_ones"] == pytest.approx(all_ones(truth["brows"].mean()))


def test_a_label_that_the_units_do_not_tell_is_bounded_near_the_trivial_answer(truth, few_trees):
    found = bounds(truth, ("coin",))
    assert found["true_units"] == pytest.approx(found["all_ones"], abs=0.1)
    assert found["all_ones"] == pytest.approx(all_ones(truth["coin"].mean()))


def test_the_bounds_of_several_labels_are_the_means_of_each(truth, few_trees):
    both, brows, coin = (bounds(truth, classes) for classes in (("brows", "coin"), ("brows",), ("coin",)))
    assert both["all_ones"] == pytest.approx((brows["all_ones"] + coin["all_ones"]) / 2)
    assert coin["true_units"] < both["true_units"] < brows["true_units"]


def test_the_bound_knows_nothing_but_the_units(truth, few_trees):
    """Not the subject, nor any other column of the truth, though here these are the label itself."""
    leaking = truth.assign(apex=truth["coin"], peak_px=truth["coin"])
    assert bounds(leaking, ("coin",)) == bounds(truth, ("coin",))


def test_classes_are_counted_alone_and_together():
    table = pd.DataFrame({"a": [1, 1, 0, 0], "b": [0, 1, 1, 0]})
    assert describe(table, ("a", "b")).to_dict("index") == {
        "a": {"clips": 2, "alone": 1, "with another": 1, "share": 0.5},
        "b": {"clips": 2, "alone": 1, "with another": 1, "share": 0.5},
    }


@pytest.fixture
def carded(tiny, tmp_path, monkeypatch):
    """A card of the tiny root, in a folder of its own, with bounds made up."""
    for name in ("train", "test", "truth"):
        (tmp_path / name).symlink_to(tiny.data_root / name)
    monkeypatch.setattr(data_card, "bounds", lambda truth, classes: {"true_units": 0.8125, "all_ones": len(truth) / 10})
    return write_card(tmp_path), tmp_path / "card"


def test_the_card_tells_what_the_truth_holds(carded, tiny):
    card, folder = carded
    truth = read_artefact(tiny.data_root / "truth" / "clips.csv")
    assert (card["clips"], card["subjects"], card["frames"], card["mean_frames"]) == (9, 3, 54, 6)
    assert card["peak_px"]["50%"] == truth["peak_px"].median() and list(card["peak_px"]) == ["5%", "50%", "95%"]
    assert card["confounders"] == {name: truth[name].mean() for name in ("blink", "gaze", "drift", "flicker")}
    assert card["bounds"]["all_ones"] == 0.6  # of the six training clips alone
    assert json.loads((folder / "card.json").read_text()) == card


def test_the_text_of_the_card_has_its_numbers_its_table_and_its_pictures(carded):
    text = (carded[1] / "README.md").read_text()
    assert "9 clips of 3 people, 54 frames (6.0 a clip" in text
    assert "every action unit: 0.812;" in text and "label for every clip: 0.600." in text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")][1:] == [
        f"| {name}" for name in CLASSES
    ]
    for name in ("labels.png", "statistics.png", "identities.png"):
        assert f"({name})" in text and (carded[1] / name).read_bytes().startswith(b"\x89PNG")


def test_two_training_subjects_have_a_card_without_bounds(tiny, tmp_path):
    for name in ("train", "test", "truth"):
        (tmp_path / name).symlink_to(tiny.data_root / name)
    assert write_card(tmp_path)["bounds"] == {}
    assert "three training subjects or more" in (tmp_path / "card" / "README.md").read_text()
