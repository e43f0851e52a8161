"""EDM's networks: sizes, variants, counts of operations, features, number formats, recomputation, dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from generative.errors import ConfigError
from generative.nets.dropout import SampleDropout, kept, mixed
from generative.nets.edm_config import DhariwalConfig, MlpConfig, SongConfig
from generative.nets.edm_layers import Init, Resample, ResampledConv
from generative.nets.edm_precond import EdmNetwork, class_labels
from generative.nets.edm_unet import UNetSize
from generative.nets.fir import filter_kernel, resample
from generative.training.engines.parts import repeated_parts
from tests.support.edm import formula_weights

TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "dropout": 0.0}
NCSNPP = {"embedding": "fourier", "noise_multiplier": 2, "encoder": "residual", "filter": (1, 3, 3, 1)}
CONFIGS = {
    "ddpmpp": SongConfig(**TINY),
    "ncsnpp": SongConfig(**TINY, **NCSNPP),
    "skips": SongConfig(**TINY, encoder="skip", decoder="skip", filter=(1, 3, 3, 1)),
    "boxes": SongConfig(**TINY, encoder="residual", decoder="skip"),
    "mlp": MlpConfig(width=16, blocks=3, embedding=8),
    "adm": DhariwalConfig(**{**TINY, "width": 32, "multipliers": (1, 2)}),
}
SIZE = UNetSize(8, 2, classes=3, augment=9)


def filled(name, **changes):
    net = EdmNetwork(CONFIGS[name].model_copy(update=changes), SIZE)
    formula_weights(net)
    return net.eval()


def inputs(batch=3, dtype=torch.float32):
    drawn = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 2, 8, 8, generator=drawn, dtype=dtype)
    sigma = torch.rand(batch, generator=drawn, dtype=dtype) * 3 + 0.01
    augment = torch.randn(batch, 9, generator=drawn, dtype=dtype)
    return x, sigma, class_labels(torch.arange(batch) % 3, 3).to(dtype), augment


def close(found, wanted, tolerance):
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * max(1.0, wanted.abs().max().item()))


@pytest.mark.parametrize(
    ("config", "size", "millions"),
    [(SongConfig(), UNetSize(32, 3, 10, 9), 55.7), (DhariwalConfig(), UNetSize(64, 3, 1000), 295.9)],
)
def test_published_sizes(config, size, millions):
    with torch.device("meta"):
        net = EdmNetwork(config, size)
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_told_operations(name):
    net = EdmNetwork(CONFIGS[name], SIZE)
    x, s, label, augment = torch.ones(3, 2, 8, 8), torch.ones(3), torch.ones(3, 3), torch.ones(3, 9)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        assert net(x, s, label, augment).shape == x.shape
    assert counter.get_total_flops() == 3 * 2 * net.multiply_adds()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        net(x, s, label, augment, features=(1,), encoder_only=True)
    assert counter.get_total_flops() == 3 * 2 * net.multiply_adds(encoder_only=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_items_do_not_see_each_other(name):
    net, (x, s, labels, augment) = filled(name).double(), inputs(dtype=torch.float64)
    together = net(x, s, labels, augment)
    alone = torch.cat([net(x[i : i + 1], s[i : i + 1], labels[i : i + 1], augment[i : i + 1]) for i in range(3)])
    close(alone, together, 1e-11)
    for changed in ((x, s.flip(0), labels, augment), (x, s, labels.flip(0), augment), (x, s, labels, augment.flip(0))):
        assert not torch.allclose(net(*changed), together)


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_told_is_told_zeros(name):
    net, (x, s, labels, augment) = filled(name), inputs()
    torch.testing.assert_close(net(x, s), net(x, s, torch.zeros_like(labels), torch.zeros_like(augment)))


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_reach_every_weight_and_recomputation_keeps_them(name):
    net, arguments = filled(name, dropout=0.2).train(), (*inputs(), torch.tensor([5, 6, 7]))

    def gradients():
        return torch.autograd.grad(net(*arguments).square().mean(), list(net.parameters()))

    first = gradients()
    for (parameter, _), gradient in zip(net.named_parameters(), first, strict=True):
        assert gradient.abs().max() > 0, parameter
    net.activation_checkpointing = True
    torch.testing.assert_close(gradients(), first, rtol=0, atol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_features(name):
    net, arguments = filled(name), inputs()
    wanted = net(*arguments)
    denoised, features = net(*arguments, features=(1, 0))
    torch.testing.assert_close(denoised, wanted, rtol=0, atol=0)
    width = CONFIGS[name].width
    shapes = [(width, 1, 1)] * 2 if name == "mlp" else [(2 * width, 4, 4), (width, 8, 8)]
    assert [tuple(f.shape[1:]) for f in features] == shapes
    assert net.feature_maps == [shape[:2] for shape in reversed(shapes)]
    alone = net(*arguments, features=(1, 0), encoder_only=True)
    torch.testing.assert_close(alone, features, rtol=0, atol=0)


def test_the_encoder_alone_runs_no_decoder_and_its_gradient_is_whole():
    net, (x, *rest) = filled("ddpmpp"), inputs()
    x.requires_grad_()
    called = []
    for part in net.model.dec.values():
        part.register_forward_hook(lambda *_: called.append(torch.is_grad_enabled()))
    (alone,) = net(x, *rest, features=(1,), encoder_only=True)
    assert not called
    wanted = torch.autograd.grad(alone.square().sum(), x)[0]
    denoised, (feature,) = net(x, *rest, features=(1,), decoder_gradient=False)
    assert not denoised.requires_grad
    assert not any(called)
    torch.testing.assert_close(torch.autograd.grad(feature.square().sum(), x)[0], wanted)


@pytest.mark.parametrize("name", ["ncsnpp", "adm"])
def test_channels_last_is_the_same(name):
    net, arguments = filled(name), inputs()
    wanted = net(*arguments)
    close(net.to(memory_format=torch.channels_last)(*arguments), wanted, 1e-5)


@pytest.mark.parametrize("way", ["autocast", "weights"])
@pytest.mark.parametrize("name", CONFIGS)
def test_bf16(name, way):
    """Results are fp32 and near those of fp32; scalings and frequencies stay in that."""
    net, arguments = filled(name), inputs()
    wanted = net(*arguments)
    if way == "weights":
        net.bfloat16()
        if name == "ncsnpp":
            assert net.model.map_noise.freqs.dtype == torch.float32
        found = net(*arguments)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            found = net(*arguments)
    assert found.dtype == torch.float32
    close(found, wanted, 0.1)


def test_double_inputs_keep_their_digits():
    """D - c_skip x is the network's, in fp32; what passes beside it is not rounded."""
    net, (x, s, *_) = filled("ddpmpp"), inputs()
    s = torch.full_like(s, 1e-5)
    x = x.double() + 1e-9
    found = net(x, s)
    assert found.dtype == torch.float64
    close(found, x, 1e-4)
    torch.testing.assert_close(net(x, torch.zeros_like(s)), x, rtol=0, atol=1e-12)


def test_parts_that_are_sharded_one_by_one_are_called():
    net, called = filled("boxes"), set()
    parts = repeated_parts(net)
    for number, part in enumerate(parts):
        part.register_forward_hook(lambda *_, number=number: called.add(number))
    net(*inputs())
    assert called == set(range(len(parts)))


@pytest.mark.parametrize("wrong", [(torch.zeros(1, 2, 8, 4), torch.ones(1)), (torch.zeros(2, 2, 8, 8), torch.ones(1))])
def test_samples_that_do_not_fit(wrong):
    with pytest.raises(ConfigError, match="shape"):
        filled("ddpmpp")(*wrong)


def test_sizes_that_cannot_be():
    with pytest.raises(ConfigError, match="multiple of 4"):
        EdmNetwork(SongConfig(**{**TINY, "multipliers": (1, 1, 1)}), UNetSize(6, 1))
    with pytest.raises(ConfigError, match="groups"):
        EdmNetwork(SongConfig(**{**TINY, "width": 2}), UNetSize(8, 1))


# ---------------------------------------------------------------------- layers


@pytest.mark.parametrize("direction", ["up", "down"])
def test_boxes_are_means_and_copies(direction):
    x, kernel = torch.randn(2, 3, 4, 6), filter_kernel((1, 1))
    wanted = resample(x, 4 * kernel if direction == "up" else kernel, direction)
    torch.testing.assert_close(Resample(direction, (1, 1))(x), wanted)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_resampled_convolutions_in_single_steps(direction, fused):
    """Zeros between samples (or samples left out), a full filter, a full convolution, away from the border."""
    layer = ResampledConv(2, 3, 3, direction, (1, 3, 3, 1), Init("xavier", 1, 1), fused=fused).double()
    x = torch.randn(1, 2, 12, 12, dtype=torch.float64)
    kernel = filter_kernel((1, 3, 3, 1)).double().expand(2, 1, -1, -1)
    if direction == "up":
        stuffed = torch.zeros(1, 2, 24, 24, dtype=torch.float64)
        stuffed[:, :, ::2, ::2] = x
        filtered = F.conv2d(F.pad(stuffed, (2, 1, 2, 1)), 4 * kernel, groups=2)
    else:
        filtered = F.conv2d(F.pad(x, (1, 1, 1, 1)), kernel, stride=2, groups=2)
    if direction == "down" and fused:
        # Convolved before every second place is left out.
        convolved = F.conv2d(x, layer.weight, layer.bias, padding=2)
        wanted = F.conv2d(convolved, kernel[:1].expand(3, 1, -1, -1), stride=2, groups=3)
    else:
        wanted = F.conv2d(filtered, layer.weight, layer.bias, padding=1)
    found = layer(x)
    assert found.shape[2:] == ((24, 24) if direction == "up" else (6, 6))
    torch.testing.assert_close(found[..., 2:-2, 2:-2], wanted[..., 2:-2, 2:-2])


def test_initial_weights():
    torch.manual_seed(0)
    layer = nn.Linear(200, 100)
    Init("xavier", 0.5)(layer)
    assert layer.weight.abs().max().item() == pytest.approx(0.5 * (6 / 300) ** 0.5, rel=1e-2)
    assert not layer.bias.any()
    Init("kaiming", 2.0, 1.0)(layer)
    assert layer.weight.abs().max().item() == pytest.approx(2 * (3 / 200) ** 0.5, rel=1e-2)
    assert 0 < layer.bias.abs().max().item() <= (3 / 200) ** 0.5
    Init("normal", 3.0)(layer)
    assert layer.weight.std().item() == pytest.approx(3 / 200**0.5, rel=2e-2)


def test_a_new_network_takes_off_what_the_scalings_do():
    """Last layers begin at (almost) 0."""
    for name in ("ddpmpp", "adm"):
        torch.manual_seed(0)
        net, (x, s, *_) = EdmNetwork(CONFIGS[name], SIZE), inputs()
        skip = (0.25 / (s.square() + 0.25))[:, None, None, None]
        torch.testing.assert_close(net(x, s).detach(), skip * x, rtol=0, atol=1e-3)


# ---------------------------------------------------------------------- dropout


def test_masks_are_of_the_sample_the_layer_and_the_place():
    seeds = torch.tensor([3, 2**32 - 1, 3])
    masks = kept(seeds, 1, torch.Size((4, 5, 5)), 0.3)
    torch.testing.assert_close(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(kept(seeds, 2, torch.Size((4, 5, 5)), 0.3), masks)
    torch.testing.assert_close(kept(seeds[1:2], 1, torch.Size((4, 5, 5)), 0.3), masks[1:2])


def test_masks_look_random():
    seeds = torch.arange(64)
    masks = kept(seeds, 7, torch.Size((4096,)), 0.13).double()
    assert masks.mean().item() == pytest.approx(0.87, abs=3e-3)
    centred = masks - 0.87
    correlation = centred @ centred.T / 4096 / (0.13 * 0.87)
    assert correlation.fill_diagonal_(0).abs().max() < 0.07
    assert (centred[:, 1:] * centred[:, :-1]).mean().abs() < 1e-3


def test_words_are_permuted():
    words = torch.arange(2**16) * 65537 % 2**32
    assert len(mixed(words).unique()) == len(words.unique())
    assert mixed(words).min() >= 0
    assert mixed(words).max() < 2**32


def test_dropout_is_for_training_with_seeds():
    layer, x = SampleDropout(0.5, 0), torch.randn(4, 3, 8, 8)
    seeds = torch.arange(4)
    found = layer(x, seeds)
    assert bool(((found == 0) | (found == 2 * x)).all())
    assert layer(x, None) is x
    assert layer.eval()(x, seeds) is x
