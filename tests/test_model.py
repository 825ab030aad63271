from dataclasses import replace

import pytest
import torch

from utils.model import MicroAttNet, ModelConfig, SqueezeExcite, count_parameters, turn_right_views


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
    stacked = MicroAttNet(ModelConfig(share_views=False)).streams["u"].layers[0]
    assert (stacked.in_channels, MicroAttNet(ModelConfig()).streams["u"].layers[0].in_channels) == (4, 2)
    three = torch.randn(2, 3, 1, 3, 6, 6)
    torch.testing.assert_close(turn_right_views(three)[:, :2], three[:, :2])


def test_squeeze_and_excitation_stands_on_the_magnitude_stream_alone():
    model = MicroAttNet(ModelConfig())
    assert {name: isinstance(s.recalibrate, SqueezeExcite) for name, s in model.streams.items()} == {
        "u": False,
        "v": False,
        "magnitude": True,
    }
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
