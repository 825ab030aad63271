"""Facts about utils.lab.teachers.classifier."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from utils.lab.flow_images import fine_tuned_estimator
from utils.lab.teachers.classifier import RECIPES, THREE, WEIGHTS, controls, pretrain, sample_dual, sample_single
from utils.synthetic.action_units import ACTION_UNITS
from utils.train.fit import fit
from utils.train.samples import CLASSES
from utils.train.shipped import initial_state, load_pretrained, unit_probabilities, zero_shot_estimator


@pytest.fixture(scope="module")
def flow_images():
    return sample_single(240, seed=991)  # people that the shipped weights were not trained on


@pytest.fixture
def two_classes(flow_images):
    return replace(flow_images, y=np.eye(2)[np.arange(len(flow_images)) % 2], classes=("calm", "moved"))


def test_samples_of_one_seed_are_equal_and_of_another_seed_differ():
    first, second, third = sample_single(20, 5), sample_single(20, 5), sample_single(20, 6)
    assert all(np.array_equal(getattr(first, part), getattr(second, part)) for part in ("x", "y", "units"))
    assert not np.array_equal(first.x, third.x)


def test_dual_samples_have_two_views_two_phases_and_our_classes():
    samples = sample_dual(30, 0)
    assert samples.x.shape == (30, 2, 2, 3, 28, 28) and samples.classes == CLASSES
    assert samples.units.shape == (30, len(ACTION_UNITS))
    assert (samples.x[:, :, :, 2] >= np.linalg.norm(samples.x[:, :, :, :2], axis=3) - 1e-5).all()


def test_single_samples_have_one_label_each(flow_images):
    assert flow_images.x.shape == (240, 1, 1, 3, 28, 28) and flow_images.classes == THREE
    assert (flow_images.y.sum(1) == 1).all()


@pytest.mark.parametrize("kind", list(RECIPES))
def test_pretraining_repeats_itself(kind, monkeypatch):
    recipe = RECIPES[kind]
    monkeypatch.setitem(RECIPES, kind, recipe._replace(clips=100, train=replace(recipe.train, epochs=1)))
    first, second = (pretrain(kind, seed=1).members[0].state for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", list(RECIPES))
def test_shipped_weights_are_small_and_fit_the_network_of_their_recipe(kind):
    assert (WEIGHTS / f"classifier-{kind}.safetensors").stat().st_size < 2e6
    ensemble = load_pretrained(kind)
    assert ensemble.model_config == RECIPES[kind].model and ensemble.classes == RECIPES[kind].classes


def test_shipped_weights_recognise_emotions_of_new_people_and_the_controls_do_not(flow_images):
    def accuracy(estimator):
        probability = estimator(flow_images, [], 0).probabilities(flow_images.x)
        return (probability.argmax(1) == flow_images.y.argmax(1)).mean()

    ensemble = load_pretrained("single")
    assert accuracy(zero_shot_estimator(ensemble)) > 0.7
    accuracies = {name: accuracy(estimator) for name, estimator in controls(ensemble).items()}
    assert len(accuracies) == 3 and max(accuracies.values()) < 0.5, accuracies


def test_shipped_weights_recognise_action_units(flow_images):
    probability = unit_probabilities("single", flow_images.x)
    smile = list(ACTION_UNITS).index("AU12")
    present = flow_images.units[:, smile] > 0.3
    assert probability[present, smile].mean() > probability[~present, smile].mean() + 0.3


def test_fine_tuning_starts_from_every_shipped_weight(flow_images):
    recipe = RECIPES["single"]
    ensemble = fit(flow_images, None, recipe.model, replace(recipe.train, epochs=1), 0, initial_state("single"))
    assert ensemble.members[0].missing == ()


def test_zero_shot_refuses_another_number_of_classes(two_classes):
    with pytest.raises(ValueError, match="the network knows"):
        zero_shot_estimator(load_pretrained("single"))(two_classes, [], 0)


def test_a_fine_tuned_network_has_the_classes_of_the_samples(two_classes):
    config = replace(RECIPES["single"].train, epochs=1)
    classifier = fine_tuned_estimator("single", 2, config, how="all")(two_classes, [], 0)
    assert classifier.probabilities(two_classes.x[:3]).shape == (3, 2)
