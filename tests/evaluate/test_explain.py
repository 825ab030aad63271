"""Facts about the explanations: saliency, and which action units (AUs) a clip shows, where, when and on which side."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from utils.artefacts import read_artefact, write_artefact
from utils.evaluate.explain import (
    AU_NAMES,
    NAMED_FROM,
    average_precision,
    contributions,
    saliency,
    side_names,
    unit_course,
    unit_evidence,
    unit_maps,
    unit_scores,
    unit_sides,
    unit_table,
    why,
)
from utils.lab.teachers import classifier
from utils.lab.teachers.classifier import sample_dual
from utils.pipeline import Job
from utils.report.figures import train as plots
from utils.synthetic.action_units import ACTION_UNITS, sides_of
from utils.synthetic.face_model import load_face_model
from utils.synthetic.truth import load_truth
from utils.train.augment import mirror
from utils.train.ensemble import build_network, scale_maps
from utils.train.samples import CLASSES
from utils.train.shipped import load_pretrained, unit_probabilities

NAMES = list(ACTION_UNITS)


@pytest.fixture(scope="module")
def clips():
    return sample_dual(200, seed=991)  # people that the shipped network was not trained on


@pytest.fixture(scope="module")
def job(tiny_run):
    id = tiny_run.data.train["Id"].iloc[0]
    return Job(tiny_run.config, "train", id, tiny_run.data.clip("train", id))


def test_every_action_unit_has_its_own_name():
    assert list(AU_NAMES) == NAMES and len(set(AU_NAMES.values()) - {""}) == len(NAMES)


# Where --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("head", "position", "output"), [("emotions", 0, 3), ("units", 2, 1)])
def test_contributions_sum_to_the_derivative_of_their_output_by_the_size_of_the_motion(clips, head, position, output):
    shipped = load_pretrained("dual")
    ensemble = replace(shipped, train_config=replace(shipped.train_config, mirror_average=False))
    network, x = build_network(shipped, shipped.members[0]), clips.x[:4]
    scaled = scale_maps(torch.from_numpy(x), shipped.members[0].scale)
    with torch.inference_mode():
        more, less = (network.forward_all(scaled * gain)[position][:, output] for gain in (1.002, 0.998))
    parts = contributions(ensemble, x, output, head)
    assert parts.shape == x.shape
    np.testing.assert_allclose(parts.sum(axis=(1, 2, 3, 4, 5)), (more - less) / 0.004, rtol=0.05, atol=0.02)


def test_contributions_of_a_mirrored_clip_are_mirrored(clips):
    x, ensemble = clips.x[:2], load_pretrained("dual")
    mirrored = mirror(torch.from_numpy(x)).numpy()
    expected = contributions(ensemble, x, 0)[:, ::-1, ..., ::-1]
    np.testing.assert_allclose(contributions(ensemble, mirrored, 0), expected, atol=1e-4)


def test_the_maps_of_brow_units_lie_above_those_of_mouth_units(clips):
    units = unit_probabilities("dual", clips.x)

    def mean_row(au: str) -> float:
        unit = NAMES.index(au)
        maps = np.mean([unit_maps(clips.x[i], [unit])[0] for i in np.flatnonzero(units[:, unit] > 0.5)[:6]], axis=0)
        return float(maps.sum(axis=(0, 2)) @ np.arange(maps.shape[1]))

    assert max(map(mean_row, ("AU1", "AU2", "AU4"))) < min(map(mean_row, ("AU12", "AU15", "AU17"))) - 3


def test_saliency_sums_to_one_per_class_and_is_zero_without_clips_or_motion(clips):
    y = clips.y.copy()
    y[:, 2] = 0
    maps = saliency(load_pretrained("dual"), replace(clips, y=y))
    np.testing.assert_allclose(maps.sum(axis=(1, 2, 3)), [1, 1, 0, 1, 1], atol=1e-4)
    assert (maps >= 0).all()
    assert not unit_maps(np.zeros_like(clips.x[0]), [0]).any()


# Which --------------------------------------------------------------------------------------------------------------


def test_weighted_average_precision_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    present, probability = rng.random(60) < 0.3, rng.random(60)
    weights = rng.integers(0, 4, (5, 60))
    expected = [average_precision_score(present, probability, sample_weight=row) for row in weights]
    np.testing.assert_allclose(average_precision(present, probability, weights), expected)


def test_unit_scores_of_perfect_and_of_reversed_probabilities():
    rng = np.random.default_rng(1)
    truth = pd.DataFrame(rng.uniform(0.01, 1, (40, 19)) * (rng.random((40, 19)) < 0.4), columns=NAMES)
    truth["subject"], truth["AU28"] = np.repeat(list("abcdefgh"), 5), 0.0
    jitter = rng.uniform(0, 0.1, (40, 19))
    perfect = unit_scores((truth[NAMES] > 0).to_numpy() + jitter, truth)
    assert "AU28" not in perfect.index and len(perfect) == 18
    assert (perfect[["average_precision", "low", "high"]] == 1).all(axis=None)
    np.testing.assert_allclose(perfect["prevalence"], (truth[perfect.index] > 0).mean())
    worst = unit_scores(jitter - (truth[NAMES] > 0).to_numpy(), truth)
    assert (worst["average_precision"] < worst["prevalence"]).all()
    assert (worst["low"] <= worst["average_precision"]).all()


def test_nine_of_ten_named_units_are_present(clips):
    named, present = unit_probabilities("dual", clips.x) >= NAMED_FROM, clips.units > 0
    assert (present & named).sum() / named.sum() > 0.85
    assert (present & named).sum() / present.sum() > 0.6


def test_the_unit_table_survives_its_file_with_an_empty_row_for_an_unread_clip(clips, tmp_path):
    units = unit_probabilities("dual", clips.x[:2])
    table = unit_table(["007", "b"], units, ["b", "unread", "007"])
    write_artefact(tmp_path / "units.csv", table)
    read = read_artefact(tmp_path / "units.csv")
    assert read.columns.tolist() == ["Id", *NAMES] and read["Id"].tolist() == ["b", "unread", "007"]
    np.testing.assert_allclose(read.loc[[2, 0], NAMES].to_numpy(float), units, atol=5.01e-4)
    assert read.loc[1, NAMES].isna().all()
    assert (tmp_path / "units.csv").read_text().splitlines()[2] == "unread" + "," * 19


# When ---------------------------------------------------------------------------------------------------------------


def test_the_course_covers_the_frames_between_onset_and_offset_and_gives_the_clips_probabilities_at_the_apex(job):
    stored = read_artefact(job.features_path)
    onset, apex, offset = stored["moments"].tolist()
    course = unit_course(job.views(), (onset, apex, offset), job.config)
    assert course.index.tolist() == list(range(onset + 1, offset)) and course.columns.tolist() == NAMES
    np.testing.assert_allclose(course.loc[apex], unit_probabilities("dual", stored["x"][None])[0], atol=1e-4)
    assert unit_course(job.views(), (0, 1, 1), job.config).index.tolist() == [1]  # of a clip of two frames


# One clip -----------------------------------------------------------------------------------------------------------


def test_the_evidence_shows_the_named_units_or_the_most_probable_unit(job):
    evidence = unit_evidence(job)
    assert evidence.shown[0] == evidence.units.idxmax() and len(evidence.shown) <= 3
    assert len(evidence.shown) == 1 or evidence.units[list(evidence.shown)].min() >= NAMED_FROM
    assert evidence.maps.shape[:2] == (len(evidence.shown), 2)


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_figure_shows_the_truth_if_there_is_one(job, synthetic):
    figure = plots.unit_evidence(unit_evidence(job), AU_NAMES, "why", load_truth(job.config) if synthetic else None)
    legends = [axis.get_legend() for part in figure.subfigs for axis in part.axes]
    texts = [text.get_text() for legend in legends if legend for text in legend.get_texts()]
    assert "found apex" in texts
    assert ("true apex" in texts) == ("truly moved" in texts) == synthetic


def test_why_names_emotions_and_units_in_the_order_of_their_probability():
    units = np.full(len(NAMES), 0.05)
    assert why("a", np.array([0.1, 0.2, 0.3, 0.1, 0.1]), np.zeros(5, bool), CLASSES, units) == (
        "a: no emotion above its threshold (most probable Repression 0.30), with no action unit from 0.3 up"
    )
    probability, decision = np.array([0.1, 0.62, 0.2, 0.81, 0.0]), np.array([False, True, False, True, False])
    units[[NAMES.index("AU1"), NAMES.index("AU2")]] = 0.88, 0.93
    assert why("S03_017", probability, decision, CLASSES, units) == (
        "S03_017: Surprise 0.81 and Positive 0.62, with AU2 (outer brow raiser) 0.93, AU1 (inner brow raiser) 0.88"
    )


# Sides --------------------------------------------------------------------------------------------------------------


def moved(weights, side):
    """How far each AU moved on one side at the apex, (N, 19), from the weights (N, 3, 58) of the blend shapes."""
    index = load_face_model().shape_index
    names = [[index[unit + side] for unit in units if len(sides_of(unit)) == 2] for units in ACTION_UNITS.values()]
    return np.stack([weights[:, 1, units].sum(axis=1) for units in names], axis=1)


def test_units_that_move_on_one_side_are_named_with_this_side(monkeypatch):
    motions, sample = [], classifier.sample_motion
    monkeypatch.setattr(classifier, "sample_motion", lambda *a, **k: motions.append(sample(*a, **k)) or motions[-1])
    clips = sample_dual(1200, seed=992)
    weights = np.concatenate([motion.weights for motion in motions])
    left, right = moved(weights, "Left"), moved(weights, "Right")
    units, sides = unit_probabilities("dual", clips.x), unit_sides(clips.x)
    answers = np.array([side_names(*clip) for clip in zip(units, sides, strict=True)])
    uneven = (left - right) / np.maximum(left + right, 1e-6)
    named = (units >= NAMED_FROM) & (left + right > 0.1)
    one_sided, even = named & (np.abs(uneven) > 0.5), named & (np.abs(uneven) < 0.25)
    true = np.where(uneven > 0, "left", "right")
    assert one_sided.sum() > 50 and (answers == true)[one_sided].mean() > 0.35
    assert ((answers != true) & (answers != "both"))[one_sided].mean() < 0.05
    assert (answers == "both")[even].mean() > 0.85


def test_the_mirror_image_exchanges_the_sides(clips):
    mirrored = mirror(torch.from_numpy(clips.x)).numpy()
    np.testing.assert_allclose(unit_sides(mirrored), -unit_sides(clips.x), atol=1e-3)


def test_only_named_units_that_have_sides_get_a_side():
    units, sides = np.full(len(NAMES), 0.9), np.full(len(NAMES), 9.0)
    units[NAMES.index("AU12")] = 0.1
    names = dict(zip(NAMES, side_names(units, sides), strict=True))
    assert names["AU12"] == "" and names["AU26"] == "" and names["AU14"] == "left"
