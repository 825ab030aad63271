"""Facts about the card of a data root: its bounds and its numbers."""

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
def truth(monkeypatch):
    """120 clips of three subjects with two AUs and two labels: "brows" is AU4 above 0.6, "coin" is independent of both.

    The forests have few trees.
    """
    monkeypatch.setattr(data_card, "ExtraTreesClassifier", lambda _, **options: ExtraTreesClassifier(12, **options))
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((CLIPS, 2)), columns=["AU4", "AU12"])
    return table.assign(
        subject=[f"s{i % 3}" for i in range(CLIPS)],
        brows=(table["AU4"] > 0.6).astype(int),
        coin=(rng.random(CLIPS) < 0.4).astype(int),
    )


def test_the_bound_is_near_one_for_a_label_that_the_units_determine_and_else_near_the_trivial_answer(truth):
    both, brows, coin = (bounds(truth, classes) for classes in (("brows", "coin"), ("brows",), ("coin",)))
    assert brows["true_units"] > 0.95
    assert coin["true_units"] == pytest.approx(coin["all_ones"], abs=0.1)
    assert coin["true_units"] < both["true_units"] < brows["true_units"]
    assert both["all_ones"] == pytest.approx((brows["all_ones"] + coin["all_ones"]) / 2)


@pytest.mark.parametrize("name", ["brows", "coin"])
def test_the_trivial_bound_is_the_f1_of_yes_for_every_clip(truth, name):
    share = truth[name].mean()
    assert bounds(truth, (name,))["all_ones"] == pytest.approx(2 * share / (1 + share))


def test_the_bound_uses_no_column_but_the_units(truth):
    leaking = truth.assign(apex=truth["coin"], peak_px=truth["coin"])
    assert bounds(leaking, ("coin",)) == bounds(truth, ("coin",))


def test_classes_are_counted_alone_and_together():
    table = pd.DataFrame({"a": [1, 1, 0, 0], "b": [0, 1, 1, 0]})
    row = {"clips": 2, "alone": 1, "with another": 1, "share": 0.5}
    assert describe(table, ("a", "b")).to_dict("index") == {"a": row, "b": row}


@pytest.fixture
def root(tiny, tmp_path):
    """The tiny data root, with room for another card."""
    for name in ("train", "test", "truth"):
        (tmp_path / name).symlink_to(tiny.data_root / name)
    return tmp_path


@pytest.fixture
def card(root, monkeypatch):
    """A card with made-up bounds."""
    monkeypatch.setattr(data_card, "bounds", lambda truth, classes: {"true_units": 0.8125, "all_ones": len(truth) / 10})
    return write_card(root)


def test_the_card_has_the_numbers_of_the_truth(card, root):
    truth = read_artefact(root / "truth" / "clips.csv")
    assert (card["clips"], card["subjects"], card["frames"], card["mean_frames"]) == (9, 3, 54, 6)
    assert card["peak_px"]["50%"] == truth["peak_px"].median() and list(card["peak_px"]) == ["5%", "50%", "95%"]
    assert card["confounders"] == {name: truth[name].mean() for name in ("blink", "gaze", "drift", "flicker")}
    assert card["bounds"]["all_ones"] == 0.6  # of the six training clips only
    assert json.loads((root / "card" / "card.json").read_text()) == card


def test_the_text_of_the_card_has_its_numbers_its_table_and_its_pictures(card, root):
    text = (root / "card" / "README.md").read_text()
    assert "9 clips of 3 people, 54 frames (6.0 a clip" in text
    assert "0.812 for a classifier" in text and "0.600 for the best trivial answer" in text
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows[1:] == [f"| {name}" for name in CLASSES]
    for name in ("labels.png", "statistics.png", "identities.png"):
        assert f"({name})" in text and (root / "card" / name).read_bytes().startswith(b"\x89PNG")


def test_two_training_subjects_have_a_card_without_bounds(root):
    assert write_card(root)["bounds"] == {}
    assert "three training subjects or more" in (root / "card" / "README.md").read_text()
