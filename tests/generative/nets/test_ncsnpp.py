"""NCSN++: sizes, counts of operations, invariances, number formats, recomputation. Released numbers: methods/sgmse."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from generative.errors import ConfigError
from generative.nets.ncsnpp import Ncsnpp, real_channels
from generative.nets.ncsnpp_blocks import FOURIER_SCALE, TimeEmbedding
from generative.nets.ncsnpp_config import NcsnppConfig
from generative.training.engines.parts import repeated_parts

VARIANTS = ["v1", "v2", "48k"]
TINY = {"width": 8, "multipliers": (1, 2, 2), "res_blocks": 1, "attention_levels": (1,)}


def filled(variant="v2", seed=0, **changes):
    """A network whose weights are all of some size, those that begin near zero too."""
    torch.manual_seed(seed)
    net = Ncsnpp(NcsnppConfig(variant=variant, **{**TINY, **changes}))
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def inputs(batch=2, bins=16, frames=12, seed=1, dtype=torch.complex64):
    drawn = torch.Generator().manual_seed(seed)
    x_t, y = (torch.randn(batch, 1, bins, frames, generator=drawn, dtype=dtype) for _ in range(2))
    return x_t, y, torch.rand(batch, generator=drawn, dtype=x_t.real.dtype) * 0.97 + 0.03


def close(found, wanted, tolerance):
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * wanted.abs().max().item())


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (NcsnppConfig(), 65_590_694),
        (NcsnppConfig(variant="48k", attention_levels=()), 64_739_854 - 128),
        (NcsnppConfig(width=16, multipliers=(1, 2, 2, 2), res_blocks=1, attention_levels=()), 442_874 - 16),
    ],
)
def test_published_sizes(config, parameters):
    """All but the frequencies, which are a buffer here."""
    with torch.device("meta"):
        net = Ncsnpp(config)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert net.time.frequencies.shape == (config.width,)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("changes", [{}, {"attention_levels": (0, 2), "res_blocks": 2}, {"multipliers": (2,)}], ids=str)
def test_the_told_operations(variant, changes):
    sizes = TINY | changes
    if len(sizes["multipliers"]) == 1:
        sizes["attention_levels"] = ()
    net, x = Ncsnpp(NcsnppConfig(variant=variant, **sizes)), torch.ones(3, 1, 16, 8, dtype=torch.complex64)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        assert net(x, x, torch.ones(3)).shape == x.shape
    assert counter.get_total_flops() == 3 * 2 * net.multiply_adds(16, 8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_items_do_not_see_each_other(variant):
    net, (x_t, y, t) = filled(variant).double(), inputs(3, dtype=torch.complex128)
    together = net(x_t, y, t)
    alone = torch.cat([net(x_t[i : i + 1], y[i : i + 1], t[i : i + 1]) for i in range(3)])
    close(alone, together, 1e-12)
    assert not torch.allclose(net(x_t, y.flip(0), t), together)
    assert not torch.allclose(net(x_t, y, t.flip(0)), together)


def test_division_by_time():
    """v1 divides before its bias, 48k after it, v2 not at all."""
    x_t, y, t = inputs(dtype=torch.complex128)
    nets = {variant: filled(variant).double() for variant in VARIANTS}
    nets["v1"].load_state_dict(nets["v2"].state_dict())
    real, imaginary = nets["v2"].output.bias.tolist()
    bias = complex(real, imaginary)
    scale = t[:, None, None, None]
    close(nets["v1"](x_t, y, t) - bias, (nets["v2"](x_t, y, t) - bias) / scale, 1e-12)
    undivided = nets["48k"]._read(real_channels(torch.cat((x_t, y), 1)), nn.functional.silu(nets["48k"].time(t)))
    parts = nets["48k"].output(undivided) / scale
    close(nets["48k"](x_t, y, t), torch.complex(parts[:, :1], parts[:, 1:]), 1e-12)


def test_inputs_that_are_not_centred():
    net, shifted = filled(centered=True).double(), filled(centered=False).double()
    x_t, y, t = inputs(dtype=torch.complex128)
    close(shifted(x_t, y, t), net(2 * x_t - (1 + 1j), 2 * y - (1 + 1j), t), 1e-12)


def test_a_new_network_reads_out_next_to_nothing():
    torch.manual_seed(0)
    net, (x_t, y, t) = Ncsnpp(NcsnppConfig(**TINY)), inputs()
    bias = torch.complex(*net.output.bias.detach())
    torch.testing.assert_close(net(x_t, y, t).detach(), bias.expand_as(x_t), rtol=0, atol=1e-3)
    assert net.time.frequencies.std() > FOURIER_SCALE / 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_recomputed_activations_give_the_same_gradients(variant):
    net, arguments = filled(variant), inputs()

    def gradients():
        loss = torch.view_as_real(net(*arguments)).square().mean()
        return torch.autograd.grad(loss, list(net.parameters()))

    kept = gradients()
    net.activation_checkpointing = True
    torch.testing.assert_close(gradients(), kept, rtol=0, atol=0)


def test_recomputation_keeps_less():
    def kept_numbers(net):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            net(*inputs())
        return sum(sizes)

    net = filled()
    everything = kept_numbers(net)
    net.activation_checkpointing = True
    assert kept_numbers(net) < everything / 3


def test_gradients_reach_every_weight():
    net = filled()
    torch.view_as_real(net(*inputs())).square().mean().backward()
    for name, parameter in net.named_parameters():
        # A bias of the keys shifts all scores of a query alike, which attention does not heed.
        assert name.endswith("attention.key.bias") or parameter.grad.abs().max() > 1e-7, name


def test_channels_last_is_the_same():
    net, arguments = filled(), inputs()
    wanted = net(*arguments)
    close(net.to(memory_format=torch.channels_last)(*arguments), wanted, 1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_gradients_is_the_same(variant):
    """Another memory layout, and sums in place: neither the answer nor the input may notice."""
    net, arguments = filled(variant, attention_levels=(0, 2)), inputs()
    before = [argument.clone() for argument in arguments]
    wanted = net(*arguments)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            close(net(*arguments), wanted, 1e-5)
    torch.testing.assert_close(list(arguments), before, rtol=0, atol=0)


def test_without_gradients_under_autocast():
    net, arguments = filled(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        wanted = net(*arguments)
        with torch.no_grad():
            found = net(*arguments)
    assert found.dtype == torch.complex64
    close(found, wanted, 0.02)


@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_bf16(way):
    """Outputs are complex64, and near those of fp32: time features, output layer and division stay in that."""
    net, arguments = filled("v1"), inputs()
    wanted = net(*arguments)
    if way == "weights":
        net.bfloat16()
        assert net.time.frequencies.dtype == torch.float32
        found = net(*arguments)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            found = net(*arguments)
    assert found.dtype == torch.complex64
    close(found, wanted, 0.05)


def test_time_features_stay_exact_under_autocast():
    """Hundreds of turns at small times: bf16 would leave nothing of their phase."""
    torch.manual_seed(0)
    embedding, t = TimeEmbedding(16), torch.tensor([1e-4, 0.5, 1.0])
    seen = []
    embedding.hidden.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    embedding(t)
    with torch.autocast("cpu", torch.bfloat16):
        embedding(t)
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=0)
    exact = 2 * torch.pi * t.double().log()[:, None] * embedding.frequencies.double()
    torch.testing.assert_close(seen[0].double(), torch.cat((exact.sin(), exact.cos()), 1), rtol=0, atol=2e-3)


def test_parts_that_are_sharded_one_by_one_are_called():
    """Engines gather a part's weights when it is called."""
    net, called = filled(), set()
    parts = repeated_parts(net)
    assert len(parts) == 3 + 2 + 3
    for number, part in enumerate(parts):
        part.register_forward_hook(lambda *_, number=number: called.add(number))
    net(*inputs())
    assert called == set(range(len(parts)))


@pytest.mark.parametrize("shape", [(1, 16, 14), (1, 18, 12), (2, 16, 12)], ids=str)
def test_spectrograms_that_do_not_fit(shape):
    x = torch.zeros(1, *shape, dtype=torch.complex64)
    with pytest.raises(ConfigError) as error:
        filled()(x, x, torch.ones(1))
    assert str([1, *shape]) in error.value.problem
    assert "multiples of 4" in error.value.expected


def test_widths_that_do_not_split():
    with pytest.raises(ConfigError, match="144 channels"):
        Ncsnpp(NcsnppConfig(width=48, multipliers=(1, 2), attention_levels=()))
    with pytest.raises(ConfigError, match="2 channels"):
        Ncsnpp(NcsnppConfig(width=2, multipliers=(1, 1), attention_levels=()))
    for wrong in ({"multipliers": (1, 2)}, {"multipliers": (), "attention_levels": ()}, {"attention_levels": (-1,)}):
        with pytest.raises(ValidationError):
            NcsnppConfig(**wrong)
