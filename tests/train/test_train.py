"""Facts about training: augmentation, loss, fitting, ensembles and their files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from utils.evaluate.protocol import grouped_folds
from utils.train.augment import augment, mirror, mix, warp
from utils.train.ensemble import forward_all, load_ensemble, predict, save_ensemble
from utils.train.fit import class_weights, fit, fit_ensemble, focal_loss
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

MODEL = ModelConfig(classes=2, views=2, phases=1, size=16, widths=(4, 6, 8), features=8, dropout=0.0)
TRAIN = TrainConfig(epochs=12, patience=6, batch=16, lr=5e-3, device="cpu")
SINGLE = replace(TRAIN, mode="single-label")
SHORT = replace(TRAIN, epochs=1)


def make(single: bool = False, units: bool = False, n: int = 120) -> Samples:
    """Two classes: the upper half moves down, the lower half moves up; visible in both views, with noise."""
    rng = np.random.default_rng(0)
    y = np.eye(2)[rng.integers(0, 2, n)] if single else (rng.random((n, 2)) < 0.4).astype(float)
    x = rng.normal(0, 0.5, (n, 2, 1, 3, 16, 16))
    x[:, :, 0, 1, :8] += y[:, 0, None, None, None]
    x[:, :, 0, 1, 8:] -= y[:, 1, None, None, None]
    ids, subjects = [f"c{i}" for i in range(n)], [f"s{i % 6}" for i in range(n)]
    return Samples(x, y, ids, subjects, ("down", "up"), y[:, :1] if units else None)


def split(samples: Samples) -> tuple[Samples, Samples]:
    """Four subjects to train on and two to validate on."""
    validation = np.isin(samples.subjects, ("s4", "s5"))
    return samples.subset(~validation), samples.subset(validation)


@pytest.fixture
def parts() -> tuple[Samples, Samples]:
    return split(make())


def accuracy(ensemble, val: Samples) -> float:
    """Share of right decisions over clips and classes."""
    cuts = 0.5 if ensemble.thresholds is None else ensemble.thresholds.values
    return ((predict(ensemble, val.x)[0] > cuts) == (val.y > 0)).mean()


# Augmentation


def test_a_mirror_flips_x_negates_u_and_swaps_the_views():
    x = torch.randn(2, 2, 2, 3, 5, 5)
    mirrored = mirror(x)
    torch.testing.assert_close(mirrored[:, 0, :, 0], -x[:, 1, :, 0].flip(-1))
    torch.testing.assert_close(mirrored[:, 1, :, 1], x[:, 0, :, 1].flip(-1))
    torch.testing.assert_close(mirrored[:, 0, :, 2], x[:, 1, :, 2].flip(-1))
    torch.testing.assert_close(mirror(mirrored), x)


def warp_all(x: torch.Tensor, angle=0.0, zoom=1.0, shift=(0.0, 0.0), mirrored=False, gain=1.0) -> torch.Tensor:
    """`warp` with the same values for all clips."""
    angle, zoom, mirrored, gain = (torch.full((len(x),), value) for value in (angle, zoom, mirrored, gain))
    return warp(x, angle, zoom, torch.tensor([shift] * len(x)), mirrored, gain)


@pytest.mark.parametrize("angle, zoom", [(0.4, 1.0), (0.0, 0.8), (-0.3, 1.2)])
def test_rotation_and_zoom_leave_a_radial_flow_unchanged(angle, zoom):
    axis = torch.linspace(-16, 16, 33) / 33
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    x = torch.stack([u, v, torch.hypot(u, v)])[None, None, None]
    warped = warp_all(x, angle, zoom)
    torch.testing.assert_close(warped[..., 10:23, 10:23], x[..., 10:23, 10:23], atol=0.02, rtol=0)


def test_a_shift_moves_the_maps_right_and_down():
    x = torch.zeros(1, 1, 1, 3, 16, 16)
    x[..., 4, 6] = 1.0
    assert warp_all(x, shift=(2 * 3 / 16, 2 * 1 / 16))[0, 0, 0, 1].argmax() == 5 * 16 + 9


def test_a_clockwise_quarter_turn_takes_rightward_flow_on_the_right_to_downward_flow_at_the_bottom():
    x = torch.zeros(1, 1, 1, 3, 17, 17)
    x[..., 0, 8, 14] = 1.0
    warped = warp_all(x, np.pi / 2)
    assert warped[0, 0, 0, 1, 14, 8] == pytest.approx(1.0, abs=1e-3) and warped[0, 0, 0, 0].abs().max() < 1e-3


def test_a_clip_is_mirrored_before_it_is_turned_zoomed_and_shifted():
    x, changes = torch.randn(3, 3, 2, 3, 12, 12), {"angle": 0.3, "zoom": 1.1, "shift": (0.1, -0.2)}
    torch.testing.assert_close(warp_all(x, mirrored=True), mirror(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(warp_all(x, mirrored=True, **changes), warp_all(mirror(x), **changes), atol=1e-5, rtol=0)


def test_a_gain_multiplies_all_channels_of_its_clip_only():
    x = torch.randn(2, 2, 2, 3, 12, 12)
    unchanged = torch.zeros(2), torch.ones(2), torch.zeros(2, 2), torch.tensor([False, False])
    expected = torch.stack([x[0], 3 * x[1]])
    torch.testing.assert_close(warp(x, *unchanged, torch.tensor([1.0, 3.0])), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("probability", [0, 0.25])
def test_each_clip_is_mirrored_with_the_configured_probability_and_otherwise_unchanged(probability):
    x = torch.randn(400, 2, 1, 3, 4, 4)
    torch.manual_seed(0)
    augmented = augment(x, TrainConfig(mirror=probability, rotate=0, zoom=0, shift=0, gain=0))
    mirrored = (augmented - mirror(x)).flatten(1).abs().amax(1) < 1e-4
    assert ((augmented - x).flatten(1).abs().amax(1) < 1e-4).equal(~mirrored)
    assert mirrored.float().mean() == pytest.approx(probability, abs=0.07)


def test_mixup_keeps_clips_and_targets_together():
    y = torch.eye(8)
    x = y[:, :, None, None, None, None].expand(8, 8, 1, 3, 2, 2)
    mixed, (targets,) = mix(x, [y], 0.4)
    torch.testing.assert_close(mixed[:, :, 0, 0, 0, 0], targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(8))


# Loss


def test_focal_loss_with_gamma_0_is_cross_entropy():
    logits, y = torch.randn(20, 3), (torch.rand(20, 3) < 0.5).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, y) * 3
    torch.testing.assert_close(focal_loss(logits, y, torch.full((3,), 0.5), 0.0, "multi-label"), expected)
    single = torch.eye(3)[torch.randint(0, 3, (20,))]
    expected = torch.nn.functional.cross_entropy(logits, single)
    torch.testing.assert_close(focal_loss(logits, single, torch.ones(3), 0.0, "single-label"), expected)


def test_focal_loss_has_its_closed_form():
    p = torch.tensor([[0.9]])
    loss = focal_loss(p.logit(), torch.ones(1, 1), torch.tensor([0.7]), 2.0, "multi-label")
    assert loss.item() == pytest.approx(-2 * 0.7 * 0.1**2 * np.log(0.9), rel=1e-4)


def test_class_weights_favour_the_rare_class():
    y = torch.tensor([[1.0, 0.0]] * 9 + [[0.0, 1.0]])
    torch.testing.assert_close(class_weights(y, "multi-label"), torch.tensor([0.1, 0.9]))
    single = class_weights(y, "single-label")
    assert single[1] / single[0] == pytest.approx(9) and (single * y.mean(0)).sum() == pytest.approx(1)


# Fitting


@pytest.mark.parametrize("single", [False, True])
def test_the_network_learns_obvious_classes_and_its_files_predict_the_same(single, tmp_path):
    train, val = split(make(single=single))
    ensemble = fit(train, val, MODEL, SINGLE if single else TRAIN)
    assert accuracy(ensemble, val) > 0.85
    probability, weights = predict(ensemble, val.x)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert single == (ensemble.thresholds is None)
    save_ensemble(ensemble, tmp_path, "fold0")
    loaded = load_ensemble(tmp_path, "fold0")
    np.testing.assert_array_equal(predict(loaded, val.x)[0], probability)
    assert loaded.model_config == ensemble.model_config and loaded.train_config == ensemble.train_config
    assert loaded.members[0].history == ensemble.members[0].history
    assert single or loaded.thresholds.sources == ensemble.thresholds.sources
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold0.json", "fold0.safetensors"]


def test_the_same_seed_gives_the_same_network_and_another_seed_another(parts):
    train, val = parts
    a, b, c = (predict(fit(train, val, MODEL, TRAIN, seed), val.x)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_training_does_not_change_the_global_random_state(parts):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(*parts, MODEL, SHORT)
    torch.testing.assert_close(torch.rand(3), expected)


def test_the_input_scale_comes_from_the_training_clips(parts):
    train, val = parts
    a, b = (fit(train, clips, MODEL, SHORT).members[0].scale for clips in (val, replace(val, x=val.x * 100)))
    assert a == b and a[0] == pytest.approx(np.sqrt((train.x[:, :, :, :2] ** 2).mean()), rel=1e-4)


def test_early_stopping_keeps_the_epoch_with_the_smallest_validation_loss(parts):
    network = fit(*parts, MODEL, replace(TRAIN, epochs=30, patience=2, lr=0.05)).members[0]
    losses = [record["val_loss"] for record in network.history]
    assert network.epoch == int(np.argmin(losses)) + 1 and len(losses) <= network.epoch + 2 < 32
    assert len(fit(*parts, MODEL, replace(TRAIN, patience=0)).members[0].history) == TRAIN.epochs


def test_an_ensemble_averages_its_networks_and_takes_its_thresholds_from_all_training_clips(parts):
    train, _ = parts
    ensemble = fit_ensemble(train, grouped_folds(train.y, train.subjects, 2), MODEL, replace(TRAIN, epochs=2))
    assert all(f"among {len(train)}" in source and "out-of-fold" in source for source in ensemble.thresholds.sources)
    raw = replace(ensemble, calibration=None)
    first, second = (predict(replace(raw, members=(member,)), train.x)[0] for member in ensemble.members)
    np.testing.assert_allclose(predict(raw, train.x)[0], (first + second) / 2, rtol=1e-5)


def test_with_mirror_averaging_a_clip_and_its_mirror_image_get_the_same_prediction(parts):
    train, val = parts
    ensemble = fit(train, val, MODEL, SHORT)
    mirrored = mirror(torch.from_numpy(val.x)).numpy()
    np.testing.assert_allclose(predict(ensemble, val.x)[0], predict(ensemble, mirrored)[0], atol=1e-6)
    plain = replace(ensemble, train_config=replace(TRAIN, mirror_average=False))
    assert not np.allclose(predict(plain, val.x)[0], predict(plain, mirrored)[0], atol=1e-6)


def test_initial_weights_are_matched_by_name_and_missing_ones_are_listed(parts):
    first = fit(*parts, MODEL, TRAIN).members[0]
    init = {name: value for name, value in first.state.items() if not name.startswith("head")}
    network = fit(*parts, MODEL, replace(SHORT, lr=1e-12), init=init).members[0]
    assert set(network.missing) == {"head.weight", "head.bias"}
    torch.testing.assert_close(network.state["streams.u.project.weight"], first.state["streams.u.project.weight"])


def test_interpolation_gives_weights_between_the_initial_and_the_trained_ones(parts):
    train, val = parts
    init = fit(val, None, MODEL, TRAIN).members[0].state
    init["head.weight"] = init["head.weight"][:-1]  # another shape, so the trained weights are kept
    trained, between, initial = (
        fit(train, None, MODEL, replace(SHORT, interpolation=share), init=init).members[0].state
        for share in (1, 0.25, 0)
    )
    assert torch.equal(between["head.weight"], trained["head.weight"])
    name = "streams.u.layers.0.weight"
    assert torch.equal(initial[name], init[name]) and not torch.equal(trained[name], init[name])
    assert torch.allclose(between[name], 0.75 * init[name] + 0.25 * trained[name], atol=1e-6)


def test_action_units_are_learnt_together_with_the_classes():
    train, val = split(make(units=True))
    ensemble = fit(train, val, replace(MODEL, units=1), TRAIN)
    units = forward_all(ensemble, val.x)[2].sigmoid().mean(0)[:, 0].numpy()
    assert units[val.units[:, 0] > 0].mean() > units[val.units[:, 0] == 0].mean() + 0.3


def test_maps_of_any_size_are_averaged_to_the_size_of_the_network(parts):
    train, val = parts
    ensemble = fit(train, val, replace(MODEL, size=8), SHORT)
    enlarged = np.repeat(np.repeat(val.x, 2, -1), 2, -2)
    assert predict(ensemble, enlarged)[0] == pytest.approx(predict(ensemble, val.x)[0], abs=1e-6)


def test_wrong_samples_and_settings_are_refused(parts):
    train, val = parts
    with pytest.raises(ValueError, match="subject s0 stands in training and validation"):
        fit(train, train, MODEL, TRAIN)
    with pytest.raises(ValueError, match="views, phases, classes are"):
        fit(train, val, replace(MODEL, views=1), TRAIN)
    with pytest.raises(ValueError, match="not exactly one label"):
        fit(train, val, MODEL, SINGLE)
    with pytest.raises(ValueError, match="the samples lack the 1 action units"):
        fit(train, val, replace(MODEL, units=1), TRAIN)
    with pytest.raises(ValueError, match="schedule is 'step'"):
        TrainConfig(schedule="step")
    with pytest.raises(ValueError, match="interpolation is 1.5"):
        TrainConfig(interpolation=1.5)


def test_lower_precision_learns_the_same_and_the_cpu_does_not_use_it_by_default(parts):
    train, val = parts
    precisions = ("bfloat16", "float32", "auto")
    low, full, auto = (fit(train, val, MODEL, replace(TRAIN, precision=precision)) for precision in precisions)
    assert accuracy(low, val) > 0.85
    assert all(value.dtype == torch.float32 for value in low.members[0].state.values() if value.ndim)
    in_full = predict(replace(low, train_config=TRAIN), val.x)[0]
    assert 0 < np.abs(predict(low, val.x)[0] - in_full).max() < 0.02
    np.testing.assert_array_equal(predict(full, val.x)[0], predict(auto, val.x)[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_training_on_cuda_learns_the_same_and_predicts_as_the_cpu_does(precision, parts):
    train, val = parts
    ensemble = fit(train, val, MODEL, replace(TRAIN, device="cuda", precision=precision))
    assert all(np.isfinite([record["train_loss"], record["val_loss"]]).all() for record in ensemble.members[0].history)
    assert accuracy(ensemble, val) > 0.85
    on_cpu = predict(replace(ensemble, train_config=TRAIN), val.x)[0]
    np.testing.assert_allclose(predict(ensemble, val.x)[0], on_cpu, atol=0.02)
