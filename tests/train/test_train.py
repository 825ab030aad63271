from dataclasses import replace

import numpy as np
import pytest
import torch

from utils.evaluate.protocol import grouped_folds, run_fold
from utils.train.augment import augment, mirror, mix, warp
from utils.train.ensemble import build_network, load_ensemble, predict, predict_units, save_ensemble
from utils.train.fit import class_weights, fit, fit_ensemble, focal_loss, network_estimator
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

MODEL = ModelConfig(classes=2, views=2, phases=1, size=16, widths=(4, 6, 8), features=8, dropout=0.0)
TRAIN = TrainConfig(epochs=12, patience=6, batch=16, lr=5e-3, device="cpu")
SINGLE = replace(TRAIN, mode="single-label")


def make(n: int = 120, single: bool = False, subjects: int = 6, units: bool = False) -> Samples:
    """Two classes: the upper half moves down, the lower half moves up; visible in both views, with noise."""
    rng = np.random.default_rng(0)
    y = np.eye(2)[rng.integers(0, 2, n)] if single else (rng.random((n, 2)) < 0.4).astype(float)
    x = rng.normal(0, 0.5, (n, 2, 1, 3, 16, 16))
    x[:, :, 0, 1, :8] += y[:, 0, None, None, None]
    x[:, :, 0, 1, 8:] -= y[:, 1, None, None, None]
    ids, who = [f"c{i}" for i in range(n)], [f"s{i % subjects}" for i in range(n)]
    return Samples(x, y, ids, who, ("down", "up"), y[:, :1] if units else None)


def halves(samples: Samples) -> tuple[Samples, Samples]:
    second = np.isin(samples.subjects, ("s4", "s5"))
    return samples.subset(~second), samples.subset(second)


# Geometry


def test_a_mirror_flips_x_negates_u_and_swaps_the_views():
    x = torch.randn(2, 2, 2, 3, 5, 5)
    seen = mirror(x)
    torch.testing.assert_close(seen[:, 0, :, 0], -x[:, 1, :, 0].flip(-1))
    torch.testing.assert_close(seen[:, 1, :, 1], x[:, 0, :, 1].flip(-1))
    torch.testing.assert_close(seen[:, 0, :, 2], x[:, 1, :, 2].flip(-1))
    torch.testing.assert_close(mirror(seen), x)


def radial(side: int = 33) -> torch.Tensor:
    """Flow that points outward and grows with distance: the same after any rotation or zoom about the
    centre.
    """
    axis = torch.linspace(-1, 1, side) * (side - 1) / side
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([u, v, torch.hypot(u, v)])[None, None, None]


def moved(x: torch.Tensor, angle=0.0, zoom=1.0, shift=(0.0, 0.0), mirrored=False, gain=1.0) -> torch.Tensor:
    """`warp` of all clips alike."""
    n = len(x)
    each = (torch.full((n,), value) for value in (mirrored, gain))
    return warp(x, torch.full((n,), angle), torch.full((n,), zoom), torch.tensor([shift] * n), *each)


@pytest.mark.parametrize("angle, zoom", [(0.4, 1.0), (0.0, 0.8), (-0.3, 1.2)])
def test_rotation_and_zoom_turn_and_scale_the_vectors(angle, zoom):
    x = radial()
    seen = moved(x, angle, zoom)
    torch.testing.assert_close(seen[..., 10:23, 10:23], x[..., 10:23, 10:23], atol=0.02, rtol=0)


def test_a_shift_moves_the_maps_right_and_down():
    x = torch.zeros(1, 1, 1, 3, 16, 16)
    x[..., 4, 6] = 1.0
    assert moved(x, shift=(2 * 3 / 16, 2 * 1 / 16))[0, 0, 0, 1].argmax() == 5 * 16 + 9


def test_a_quarter_turn_clockwise_takes_rightward_flow_at_the_right_to_downward_flow_at_the_bottom():
    x = torch.zeros(1, 1, 1, 3, 17, 17)
    x[..., 0, 8, 14] = 1.0
    seen = moved(x, np.pi / 2)
    assert seen[0, 0, 0, 1, 14, 8] == pytest.approx(1.0, abs=1e-3) and seen[0, 0, 0, 0].abs().max() < 1e-3


def test_a_mirrored_clip_is_mirrored_before_it_turns_zooms_and_shifts():
    x, how = torch.randn(3, 3, 2, 3, 12, 12), dict(angle=0.3, zoom=1.1, shift=(0.1, -0.2))
    torch.testing.assert_close(moved(x, mirrored=True), mirror(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved(x, mirrored=True, **how), moved(mirror(x), **how), atol=1e-5, rtol=0)


def test_a_gain_multiplies_every_channel_of_its_clip_alone():
    x = torch.randn(2, 2, 2, 3, 12, 12)
    still = torch.zeros(2), torch.ones(2), torch.zeros(2, 2), torch.tensor([False, False])
    torch.testing.assert_close(
        warp(x, *still, torch.tensor([1.0, 3.0])), torch.stack([x[0], 3 * x[1]]), atol=1e-5, rtol=1e-5
    )


def test_the_augmentation_mirrors_as_often_as_asked_and_each_clip_by_its_own_lot():
    x = torch.randn(400, 2, 1, 3, 4, 4)
    torch.manual_seed(0)
    seen = augment(x, TrainConfig(mirror=0.25, rotate=0, zoom=0, shift=0, gain=0))
    turned = (seen - mirror(x)).flatten(1).abs().amax(1) < 1e-4
    assert ((seen - x).flatten(1).abs().amax(1) < 1e-4).equal(~turned)
    assert turned.float().mean() == pytest.approx(0.25, abs=0.07)


def test_no_augmentation_leaves_the_clips_as_they_are():
    x = torch.randn(4, 2, 2, 3, 8, 8)
    off = TrainConfig(mirror=0, rotate=0, zoom=0, shift=0, gain=0)
    torch.testing.assert_close(augment(x, off), x)


def test_mixup_keeps_clips_and_targets_together():
    y = torch.eye(8)
    x = y[:, :, None, None, None, None].expand(8, 8, 1, 3, 2, 2)
    mixed, (targets,) = mix(x, [y], 0.4)
    torch.testing.assert_close(mixed[:, :, 0, 0, 0, 0], targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(8))


# Loss


def test_focal_loss_without_focus_is_cross_entropy():
    logits, y = torch.randn(20, 3), (torch.rand(20, 3) < 0.5).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, y) * 3
    torch.testing.assert_close(focal_loss(logits, y, torch.full((3,), 0.5), 0.0, "multi-label"), expected)
    single = torch.eye(3)[torch.randint(0, 3, (20,))]
    expected = torch.nn.functional.cross_entropy(logits, single)
    torch.testing.assert_close(focal_loss(logits, single, torch.ones(3), 0.0, "single-label"), expected)


def test_focal_loss_has_its_closed_form_and_forgives_what_is_easy():
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
def test_the_network_learns_what_is_plain_to_see(single):
    train, val = halves(make(single=single))
    ensemble = fit(train, val, MODEL, SINGLE if single else TRAIN, seed=0)
    probability, weights = predict(ensemble, val.x)
    decision = probability > (0.5 if single else ensemble.thresholds.values)
    assert (decision == (val.y > 0)).mean() > 0.85
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert single == (ensemble.thresholds is None)


def test_the_same_seed_gives_the_same_network_and_another_seed_another():
    train, val = halves(make())
    a, b, c = (predict(fit(train, val, MODEL, TRAIN, seed), val.x)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_training_leaves_the_global_random_state_alone():
    train, val = halves(make())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(train, val, MODEL, replace(TRAIN, epochs=1))
    torch.testing.assert_close(torch.rand(3), expected)


def test_permuting_held_out_labels_leaves_the_networks_predictions_unchanged():
    samples = make()
    fold = grouped_folds(samples.y, samples.subjects, 3)[0]
    y = samples.y.copy()
    y[fold[1]] = 1 - y[fold[1]]
    estimator = network_estimator(MODEL, replace(TRAIN, epochs=2))
    a, b = (run_fold(one, estimator, fold, 0, inner_folds=2) for one in (samples, replace(samples, y=y)))
    np.testing.assert_array_equal(a.probability, b.probability)
    np.testing.assert_array_equal(a.decision, b.decision)


def test_the_input_scale_comes_from_the_training_clips_alone():
    train, val = halves(make())
    louder = replace(val, x=val.x * 100)
    a, b = (fit(train, part, MODEL, replace(TRAIN, epochs=1)) for part in (val, louder))
    assert a.members[0].scale == b.members[0].scale
    assert a.members[0].scale[0] == pytest.approx(np.sqrt((train.x[:, :, :, :2] ** 2).mean()), rel=1e-4)


def test_early_stopping_keeps_the_epoch_with_the_best_validation_loss():
    train, val = halves(make())
    member = fit(train, val, MODEL, replace(TRAIN, epochs=30, patience=2, lr=0.05)).members[0]
    losses = [record["val_loss"] for record in member.history]
    assert member.epoch == int(np.argmin(losses)) + 1 and len(losses) <= member.epoch + 2 < 32
    assert len(fit(train, val, MODEL, replace(TRAIN, patience=0)).members[0].history) == TRAIN.epochs


def test_an_ensemble_takes_its_thresholds_from_every_training_clip():
    train, _ = halves(make())
    ensemble = fit_ensemble(train, grouped_folds(train.y, train.subjects, 2), MODEL, replace(TRAIN, epochs=2))
    assert len(ensemble.members) == 2
    assert all(f"among {len(train)}" in source and "out-of-fold" in source for source in ensemble.thresholds.sources)
    raw = replace(ensemble, calibration=None)
    one, two = (predict(replace(raw, members=(m,)), train.x)[0] for m in ensemble.members)
    np.testing.assert_allclose(predict(raw, train.x)[0], (one + two) / 2, rtol=1e-5)


def test_mirror_averaging_makes_the_prediction_blind_to_mirrors():
    train, val = halves(make())
    ensemble = fit(train, val, MODEL, replace(TRAIN, epochs=2))
    seen = mirror(torch.from_numpy(val.x)).numpy()
    np.testing.assert_allclose(predict(ensemble, val.x)[0], predict(ensemble, seen)[0], atol=1e-6)
    plain = replace(ensemble, train_config=replace(TRAIN, mirror_average=False))
    assert not np.allclose(predict(plain, val.x)[0], predict(plain, seen)[0], atol=1e-6)


def test_weights_to_start_from_are_matched_by_name_and_the_rest_is_listed():
    train, val = halves(make())
    first = fit(train, val, MODEL, TRAIN).members[0]
    other = {name: value for name, value in first.state.items() if not name.startswith("head")}
    started = fit(train, val, MODEL, replace(TRAIN, epochs=1, lr=1e-12), init=other).members[0]
    assert set(started.missing) == {"head.weight", "head.bias"}
    torch.testing.assert_close(started.state["streams.u.project.weight"], first.state["streams.u.project.weight"])


def test_a_network_may_end_part_of_the_way_from_where_it_started():
    train, val = halves(make())
    init = fit(val, None, MODEL, TRAIN).members[0].state
    init["head.weight"] = init["head.weight"][:-1]  # does not fit, hence stays as trained
    whole, part, none = (
        fit(train, None, MODEL, replace(TRAIN, epochs=1, interpolation=share), init=init).members[0].state
        for share in (1, 0.25, 0)
    )
    assert torch.equal(part["head.weight"], whole["head.weight"])
    name = "streams.u.layers.0.weight"
    assert torch.equal(none[name], init[name]) and not torch.equal(whole[name], init[name])
    assert torch.allclose(part[name], 0.75 * init[name] + 0.25 * whole[name], atol=1e-6)
    with pytest.raises(ValueError, match="interpolation is 1.5"):
        replace(TRAIN, interpolation=1.5)


def test_action_units_are_learned_beside_the_classes():
    train, val = halves(make(units=True))
    ensemble = fit(train, val, replace(MODEL, units=1), replace(TRAIN, epochs=12))
    units = predict_units(ensemble, val.x)[:, 0]
    assert units[val.units[:, 0] > 0].mean() > units[val.units[:, 0] == 0].mean() + 0.3
    with pytest.raises(ValueError, match="the samples lack them"):
        fit(*halves(make()), replace(MODEL, units=1), TRAIN)


def test_maps_of_any_size_are_averaged_to_the_models_size():
    train, val = halves(make())
    ensemble = fit(train, val, replace(MODEL, size=8), replace(TRAIN, epochs=1))
    assert predict(ensemble, np.repeat(np.repeat(val.x, 2, -1), 2, -2))[0] == pytest.approx(
        predict(ensemble, val.x)[0], abs=1e-6
    )


@pytest.mark.parametrize("single", [False, True])
def test_what_is_saved_predicts_the_same_when_loaded(tmp_path, single):
    train, val = halves(make(single=single))
    before = fit(train, val, MODEL, replace(SINGLE if single else TRAIN, epochs=2))
    save_ensemble(before, tmp_path, "fold0")
    after = load_ensemble(tmp_path, "fold0")
    np.testing.assert_array_equal(predict(before, val.x)[0], predict(after, val.x)[0])
    assert after.model_config == before.model_config and after.train_config == before.train_config
    assert after.members[0].history == before.members[0].history
    assert single or after.thresholds.sources == before.thresholds.sources
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fold0.json", "fold0.safetensors"]


def test_faults_are_named():
    train, val = halves(make())
    with pytest.raises(ValueError, match="subject s0 stands in training and validation"):
        fit(train, train, MODEL, TRAIN)
    with pytest.raises(ValueError, match="views, phases, classes are"):
        fit(train, val, replace(MODEL, views=1), TRAIN)
    with pytest.raises(ValueError, match="not exactly one label"):
        fit(train, val, MODEL, SINGLE)
    with pytest.raises(ValueError, match="schedule is 'step'"):
        TrainConfig(schedule="step")


def test_lower_precision_learns_the_same_and_is_not_used_on_the_cpu_unless_asked_for():
    train, val = halves(make())
    low, full, auto = (
        fit(train, val, MODEL, replace(TRAIN, precision=precision)) for precision in ("bfloat16", "float32", "auto")
    )
    decision = predict(low, val.x)[0] > low.thresholds.values
    assert (decision == (val.y > 0)).mean() > 0.85
    assert all(value.dtype == torch.float32 for value in low.members[0].state.values() if value.ndim)
    in_full = predict(replace(low, train_config=TRAIN), val.x)[0]
    assert 0 < np.abs(predict(low, val.x)[0] - in_full).max() < 0.02
    np.testing.assert_array_equal(predict(full, val.x)[0], predict(auto, val.x)[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_training_on_cuda_learns_the_same_and_predicts_as_the_cpu_does(precision):
    train, val = halves(make())
    ensemble = fit(train, val, MODEL, replace(TRAIN, device="cuda", precision=precision))
    assert all(np.isfinite([record["train_loss"], record["val_loss"]]).all() for record in ensemble.members[0].history)
    probability = predict(ensemble, val.x)[0]
    assert ((probability > ensemble.thresholds.values) == (val.y > 0)).mean() > 0.85
    np.testing.assert_allclose(probability, predict(replace(ensemble, train_config=TRAIN), val.x)[0], atol=0.02)


def test_gradients_reach_the_input_for_saliency():
    train, val = halves(make())
    network = build_network(fit(train, val, MODEL, replace(TRAIN, epochs=1)))
    x = torch.from_numpy(val.x).requires_grad_()
    network(x)[0].sum().backward()
    assert x.grad.abs().sum() > 0
