"""The deep complex U-Net: complex arithmetic, the released numbers, sizes, invariances."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from generative.errors import ConfigError
from generative.nets.complex_layers import ComplexConv, ComplexLinear, ComplexTransposedConv, joined, stacked, unstacked
from generative.nets.dcunet import Dcunet
from generative.nets.dcunet_config import DcunetConfig
from tests.support.sgmse_formula import formula_spectrogram, formula_weights

GOLDEN = Path(__file__).parents[2] / "golden" / "sgmse"
SMALL = DcunetConfig(width=4, time_features=6, time_layers=2)


def drawn(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small(seed=0):
    torch.manual_seed(seed)
    return Dcunet(SMALL)


def inputs(batch=2, bins=97, frames=6, dtype=torch.complex64):
    x_t, y = (drawn(batch, 1, bins, frames, seed=seed, dtype=dtype) for seed in (1, 2))
    return x_t, y, torch.linspace(0.1, 0.9, batch, dtype=x_t.real.dtype)


def complex_weight(layer):
    return torch.complex(layer.real, layer.imaginary)


# ---------------------------------------------------------------------- complex arithmetic


def test_linear_layers_are_complex():
    layer, x = ComplexLinear(5, 3).double(), drawn(2, 5)
    wanted = F.linear(x, complex_weight(layer), torch.complex(*layer.bias.chunk(2)))
    torch.testing.assert_close(unstacked(layer(stacked(x))), wanted)


@pytest.mark.parametrize(("stride", "dilation"), [((1, 1), (1, 1)), ((2, 1), (2, 1)), ((2, 2), (4, 1))])
def test_convolutions_are_complex(stride, dilation):
    layer, x = ComplexConv(2, 3, 4, stride, dilation).double(), drawn(2, 2, 17, 9)
    wanted = F.conv2d(x, complex_weight(layer), None, stride, 2, dilation)
    torch.testing.assert_close(unstacked(layer(stacked(x))), wanted)
    assert layer.out_size((17, 9)) == wanted.shape[2:]
    back = ComplexTransposedConv(3, 2, 4, stride, dilation, bias=False).double()
    back.real.data, back.imaginary.data = layer.real.data, -layer.imaginary.data
    # The adjoint of a convolution is the transposed one with the conjugate weight.
    y, size = drawn(*wanted.shape, seed=3), x.shape[2:]
    torch.testing.assert_close((wanted.conj() * y).sum(), (x.conj() * unstacked(back(stacked(y), size))).sum())


def test_joining_is_along_complex_channels():
    a, b = drawn(2, 3, 4), drawn(2, 5, 4, seed=1)
    torch.testing.assert_close(unstacked(joined(stacked(a), stacked(b))), torch.cat((a, b), 1))


# ---------------------------------------------------------------------- the released network


def linear(state, name):
    """Two real layers as a complex one: a bias of each counts in both parts."""
    real, imaginary = (state[f"{name}.{part}.bias"] for part in ("re", "im"))
    bias = torch.cat((real - imaginary, real + imaginary))
    return {"real": state[f"{name}.re.weight"], "imaginary": state[f"{name}.im.weight"], "bias": bias}


def ours(state):
    """Released names to ours."""
    found = {"time.frequencies": state["embed.0.W"]}
    parts = {"time.layers.0": linear(state, "embed.1")}
    for down, count, theirs, conv in (("down", 6, "encoders", "conv"), ("up", 5, "decoders", "deconv")):
        for i in range(count):
            at = f"{theirs}.{i}"
            layer = {p: state[f"{at}.{conv}.{q}_module.weight"] for p, q in (("real", "re"), ("imaginary", "im"))}
            norm = {
                k: torch.cat([state[f"{at}.norm.{q}_module.{k}"] for q in ("re", "im")]) for k in ("weight", "bias")
            }
            time = linear(state, f"{at}.embed_layer.0.dense")
            parts |= {f"{down}.{i}.conv": layer, f"{down}.{i}.norm": norm, f"{down}.{i}.time": time}
    output = {name.replace("_module", ""): state[f"output_layer.{name}"] for name in _OUTPUT}
    parts["output"] = linear({f"output.{name}": tensor for name, tensor in output.items()}, "output")
    return found | {f"{module}.{name}": t for module, tensors in parts.items() for name, t in tensors.items()}


_OUTPUT = [f"{part}_module.{kind}" for part in ("re", "im") for kind in ("weight", "bias")]


def test_released_numbers():
    golden = np.load(GOLDEN / "networks_formula.npz")
    shapes = {name: tuple(shape) for name, shape in json.loads((GOLDEN / "keys_dcunet.json").read_text())}
    norms = {name for name in shapes if ".norm." in name and name.endswith(".weight")}
    net = Dcunet(DcunetConfig()).eval()
    state = ours(formula_weights(shapes, norms, frequencies="embed.0.W"))
    kept = {name: tensor for name, tensor in net.state_dict().items() if name not in state}
    assert all(name.rsplit(".")[-1] in ("running_mean", "running_var", "num_batches_tracked") for name in kept)
    net.load_state_dict(state | kept)
    assert sum(parameter.numel() for parameter in net.parameters()) == 3_531_970 - 64
    x_t, y = (formula_spectrogram(frequency, 257, 17) for frequency in golden["input_freqs"])
    with torch.inference_mode():
        out = net(x_t, y, torch.from_numpy(golden["t"]))
    wanted = torch.from_numpy(golden["dcunet_out_sub"])
    torch.testing.assert_close(out[:, :, ::4, ::2], wanted, rtol=0, atol=5e-4 * wanted.abs().max().item())
    torch.testing.assert_close(out.abs().mean().item(), golden["dcunet_out_abs_mean"].item(), rtol=5e-4, atol=0)


# ---------------------------------------------------------------------- promises


@pytest.mark.parametrize(("bins", "frames"), [(97, 1), (97, 4), (105, 6), (129, 9)])
def test_the_told_operations(bins, frames):
    net, x = Dcunet(SMALL), torch.ones(3, 1, bins, frames, dtype=torch.complex64)
    with FlopCounterMode(display=False) as counter:
        assert net(x, x, torch.ones(3)).shape == x.shape
    assert counter.get_total_flops() == 3 * 2 * net.multiply_adds(bins, frames)


def test_padded_frames_are_cut_off():
    net, (x_t, y, t) = small().eval(), inputs(frames=6)
    more = [F.pad(x, (0, 3)) for x in (x_t, y)]
    torch.testing.assert_close(net(*more, t)[..., :6], net(x_t, y, t))


def test_items_do_not_see_each_other_in_evaluation():
    net, (x_t, y, t) = small().double().eval(), inputs(3, dtype=torch.complex128)
    alone = torch.cat([net(x_t[i : i + 1], y[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, net(x_t, y, t))
    assert not torch.allclose(net(x_t, y, t.flip(0)), alone)


def test_rows_that_do_not_count():
    x_t, y, t = inputs(3, dtype=torch.complex128)
    valid = torch.tensor([True, True, False])
    whole, part = small().double(), small().double()
    torch.testing.assert_close(whole(x_t, y, t, valid)[:2], part(x_t[:2], y[:2], t[:2]))
    torch.testing.assert_close(dict(whole.state_dict()), dict(part.state_dict()))


def test_recomputed_activations_give_the_same_gradients_and_statistics():
    results = []
    for wanted in (False, True):
        net = small()
        net.activation_checkpointing = wanted
        torch.view_as_real(net(*inputs())).square().mean().backward()
        results.append(({name: p.grad for name, p in net.named_parameters()}, dict(net.named_buffers())))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


def test_bf16_under_autocast():
    net, arguments = small().eval(), inputs()
    wanted = net(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(*arguments)
    assert found.dtype == torch.complex64
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.05 * wanted.abs().max().item())


@pytest.mark.parametrize(("bins", "fitting"), [(256, 257), (258, 265), (33, 97)])
def test_bins_that_do_not_fit(bins, fitting):
    x = torch.zeros(1, 1, bins, 4, dtype=torch.complex64)
    with pytest.raises(ConfigError, match=f"such as {fitting}"):
        small()(x, x, torch.ones(1))
    assert SMALL.fitting_bins(fitting) == fitting
