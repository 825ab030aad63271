"""Facts about the network: shapes, streams, views, and its state dict."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from utils.train.network import CHANNEL, MicroAttNet, ModelConfig, count_parameters, turn_right_views


def build(**changes) -> tuple[MicroAttNet, torch.Tensor]:
    """A network in evaluation mode, and an input for it."""
    config = ModelConfig(**changes)
    torch.manual_seed(0)
    return MicroAttNet(config).eval(), torch.randn(5, config.views, config.phases, 3, 20, 20)


@pytest.mark.parametrize("views, phases, units", [(1, 1, 0), (2, 1, 0), (1, 2, 7), (2, 2, 0), (3, 2, 7)])
def test_any_number_of_views_phases_and_units_is_possible(views, phases, units):
    model, x = build(views=views, phases=phases, classes=4, units=units)
    logits, weights, unit_logits = model.forward_all(x)
    assert logits.shape == (5, 4) and weights.shape == (5, 3) and unit_logits.shape == (5, units)


@pytest.mark.parametrize("attention", [True, False])
def test_attention_weights_sum_to_one(attention):
    model, x = build(attention=attention)
    _, weights = model(x)
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    assert torch.all(weights == weights[0, 0]) == (not attention)


@pytest.mark.parametrize("stream, channel", [("u", 0), ("v", 1), ("magnitude", 2)])
def test_a_single_stream_sees_only_its_channel(stream, channel):
    model, x = build(streams=(stream,))
    changed = x.clone()
    changed[:, :, :, [c for c in range(3) if c != channel]] = 7.0
    torch.testing.assert_close(model(x)[0], model(changed)[0])
    assert not torch.allclose(model(x)[0], model(x * 2)[0])
    torch.testing.assert_close(model(x)[1], torch.ones(5, 1))


@pytest.mark.parametrize("share_views", [True, False])
def test_every_view_and_phase_changes_the_logits(share_views):
    model, x = build(share_views=share_views)
    logits = model(x)[0]
    for view in range(2):
        for phase in range(2):
            changed = x.clone()
            changed[:, view, phase] += torch.randn(5, 3, 20, 20)
            assert not torch.allclose(logits, model(changed)[0])


def test_the_right_view_is_mirrored_before_the_shared_convolutions():
    x = torch.randn(2, 2, 1, 3, 6, 6)
    turned = turn_right_views(x)
    torch.testing.assert_close(turned[:, 0], x[:, 0])
    torch.testing.assert_close(turned[:, 1, :, 0], -x[:, 1, :, 0].flip(-1))
    torch.testing.assert_close(turned[:, 1, :, 1:], x[:, 1, :, 1:].flip(-1))
    torch.testing.assert_close(turn_right_views(x[:, :1]), x[:, :1])
    three_views = torch.randn(2, 3, 1, 3, 6, 6)
    torch.testing.assert_close(turn_right_views(three_views)[:, :2], three_views[:, :2])
    name = "streams.u.layers.0.weight"
    shapes = [tuple(MicroAttNet(ModelConfig(share_views=shared)).state_dict()[name].shape) for shared in (False, True)]
    assert shapes == [(8, 4, 7, 7), (8, 2, 7, 7)]


def encode_one_by_one(config: ModelConfig, state: dict, x: torch.Tensor) -> torch.Tensor:
    """Features (B, S, F), computed stream by stream without groups, from the separate entries of each stream."""
    features, turned = [], turn_right_views(x)
    for stream in config.streams:
        prefix = f"streams.{stream}."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        maps = turned[:, :, :, CHANNEL[stream]].flatten(0, 1)
        for i, (stride, padding) in zip((0, 3, 6), ((4, 3), (1, 1), (2, 1)), strict=True):
            maps = F.conv2d(maps, weights[f"layers.{i}.weight"], stride=stride, padding=padding)
            norm = [weights[f"layers.{i + 1}.{entry}"] for entry in ("running_mean", "running_var", "weight", "bias")]
            maps = F.batch_norm(maps, *norm).relu()
        if "recalibrate.gate.0.weight" in weights:
            gate = [weights[f"recalibrate.gate.{i}.{entry}"] for i in (0, 2) for entry in ("weight", "bias")]
            hidden = F.linear(maps.mean((2, 3)), *gate[:2]).relu()
            maps = maps * F.linear(hidden, *gate[2:]).sigmoid()[:, :, None, None]
        flat = F.adaptive_avg_pool2d(maps, config.pool).reshape(len(x), -1)
        features.append(F.linear(flat, weights["project.weight"], weights["project.bias"]).relu())
    return torch.stack(features, dim=1)


@pytest.mark.parametrize("streams", [("u", "v", "magnitude"), ("v", "u"), ("magnitude",)])
def test_grouped_streams_compute_what_separate_streams_compute(streams):
    model, x = build(streams=streams)
    with torch.no_grad():
        for value in model.parameters():  # make the streams differ, also in their normalisation
            value += 0.1 * torch.rand_like(value)
        model.train()(3 * x + 1)
        model.eval()
        expected = encode_one_by_one(model.config, model.state_dict(), x)
        torch.testing.assert_close(model.encode(x), expected, atol=1e-5, rtol=1e-4)


def test_the_state_dict_of_a_network_rebuilds_it():
    model, x = build()
    with torch.device("meta"):
        rebuilt = MicroAttNet(model.config)
    rebuilt.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    torch.testing.assert_close(rebuilt.eval()(x), model(x), atol=0, rtol=0)
    state = {name: value for name, value in model.state_dict().items() if name != "streams.v.project.bias"}
    with pytest.raises(RuntimeError, match="streams.project.bias"):
        rebuilt.load_state_dict(state)


def test_only_the_magnitude_stream_has_squeeze_and_excitation():
    gates = [name for name in MicroAttNet(ModelConfig()).state_dict() if "gate" in name]
    assert gates and all(name.startswith("streams.magnitude.recalibrate.") for name in gates)
    changes = ({}, {"se": False}, {"se": False, "attention": False})
    full, without_se, without_both = (count_parameters(ModelConfig(**change)) for change in changes)
    assert full > without_se > without_both


def test_a_wrong_shape_or_stream_is_refused():
    model, x = build()
    with pytest.raises(ValueError, match=r"Remedy: give \(B, 2, 2, 3, H, W\)"):
        model(x[:, :1])
    with pytest.raises(ValueError, match="unknown or none"):
        replace(model.config, streams=("w",))
