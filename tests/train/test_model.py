from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from utils.train.network import CHANNEL, MicroAttNet, ModelConfig, count_parameters, turn_right_views


def build(**changes) -> tuple[MicroAttNet, torch.Tensor]:
    config = ModelConfig(**changes)
    torch.manual_seed(0)
    return MicroAttNet(config).eval(), torch.randn(5, config.views, config.phases, 3, 20, 20)


@pytest.mark.parametrize("views, phases", [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2)])
def test_any_number_of_views_and_phases_gives_logits_and_weights(views, phases):
    model, x = build(views=views, phases=phases, classes=4)
    logits, weights = model(x)
    assert logits.shape == (5, 4) and weights.shape == (5, 3)


@pytest.mark.parametrize("attention", [True, False])
def test_attention_weights_sum_to_one(attention):
    _, weights = build(attention=attention)[0](torch.randn(5, 2, 2, 3, 20, 20))
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    assert torch.all(weights == weights[0, 0]) == (not attention)


@pytest.mark.parametrize("stream, channel", [("u", 0), ("v", 1), ("magnitude", 2)])
def test_a_stream_alone_sees_its_channel_alone(stream, channel):
    model, x = build(streams=(stream,))
    others = x.clone()
    others[:, :, :, [c for c in range(3) if c != channel]] = 7.0
    torch.testing.assert_close(model(x)[0], model(others)[0])
    assert not torch.allclose(model(x)[0], model(x * 2)[0])
    torch.testing.assert_close(model(x)[1], torch.ones(5, 1))


@pytest.mark.parametrize("share_views", [True, False])
def test_every_view_and_phase_reaches_the_logits(share_views):
    model, x = build(share_views=share_views)
    base = model(x)[0]
    for view in range(2):
        for phase in range(2):
            changed = x.clone()
            changed[:, view, phase] += torch.randn(5, 3, 20, 20)
            assert not torch.allclose(base, model(changed)[0])


def test_the_right_view_is_mirrored_before_the_shared_convolutions():
    x = torch.randn(2, 2, 1, 3, 6, 6)
    turned = turn_right_views(x)
    torch.testing.assert_close(turned[:, 0], x[:, 0])
    torch.testing.assert_close(turned[:, 1, :, 0], -x[:, 1, :, 0].flip(-1))
    torch.testing.assert_close(turned[:, 1, :, 1:], x[:, 1, :, 1:].flip(-1))
    torch.testing.assert_close(turn_right_views(x[:, :1]), x[:, :1])
    first = "streams.u.layers.0.weight"
    shapes = [tuple(MicroAttNet(ModelConfig(share_views=s)).state_dict()[first].shape) for s in (False, True)]
    assert shapes == [(8, 4, 7, 7), (8, 2, 7, 7)]
    three = torch.randn(2, 3, 1, 3, 6, 6)
    torch.testing.assert_close(turn_right_views(three)[:, :2], three[:, :2])


def one_after_the_other(config: ModelConfig, state: dict, x: torch.Tensor) -> torch.Tensor:
    """Features (B, S, F) of every stream alone, written down without groups, from the entries of its own."""
    each, maps = [], turn_right_views(x)
    for name in config.streams:
        own = {k.removeprefix(f"streams.{name}."): v for k, v in state.items() if k.startswith(f"streams.{name}.")}
        part = maps[:, :, :, CHANNEL[name]].flatten(0, 1)
        for i, (stride, padding) in zip((0, 3, 6), ((4, 3), (1, 1), (2, 1)), strict=True):
            part = F.conv2d(part, own[f"layers.{i}.weight"], stride=stride, padding=padding)
            norm = [own[f"layers.{i + 1}.{entry}"] for entry in ("running_mean", "running_var", "weight", "bias")]
            part = F.batch_norm(part, *norm).relu()
        if "recalibrate.gate.0.weight" in own:
            gate = [own[f"recalibrate.gate.{i}.{entry}"] for i in (0, 2) for entry in ("weight", "bias")]
            hidden = F.linear(part.mean((2, 3)), *gate[:2]).relu()
            part = part * F.linear(hidden, *gate[2:]).sigmoid()[:, :, None, None]
        flat = F.adaptive_avg_pool2d(part, config.pool).reshape(len(x), -1)
        each.append(F.linear(flat, own["project.weight"], own["project.bias"]).relu())
    return torch.stack(each, dim=1)


@pytest.mark.parametrize("streams", [("u", "v", "magnitude"), ("v", "u"), ("magnitude",)])
def test_streams_side_by_side_compute_what_each_computes_alone(streams):
    model, x = build(streams=streams)
    with torch.no_grad():
        for value in model.parameters():  # no two streams alike, not even in their normalisation
            value += 0.1 * torch.rand_like(value)
        model.train()(3 * x + 1)
        model.eval()
        expected = one_after_the_other(model.config, model.state_dict(), x)
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


def test_squeeze_and_excitation_stands_on_the_magnitude_stream_alone():
    gates = [key for key in MicroAttNet(ModelConfig()).state_dict() if "gate" in key]
    assert gates and all(key.startswith("streams.magnitude.recalibrate.") for key in gates)
    assert (
        count_parameters(ModelConfig())
        > count_parameters(ModelConfig(se=False))
        > count_parameters(ModelConfig(se=False, attention=False))
    )


def test_the_unit_head_is_optional_and_leaves_the_logits_their_shape():
    model, x = build(units=7)
    logits, _, units = model.forward_all(x)
    assert logits.shape == (5, 5) and units.shape == (5, 7)
    assert build()[0].forward_all(x)[2].shape == (5, 0)


def test_a_wrong_shape_or_stream_is_named():
    model, x = build()
    with pytest.raises(ValueError, match=r"Remedy: give \(B, 2, 2, 3, H, W\)"):
        model(x[:, :1])
    with pytest.raises(ValueError, match="unknown or none"):
        replace(model.config, streams=("w",))
