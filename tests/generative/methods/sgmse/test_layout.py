"""Released networks under our names: names, sizes, and the numbers that the released code gave (tests/golden/sgmse)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from generative.errors import CheckpointError
from generative.methods.sgmse.layout import from_released, inferred_sizes, released_names, to_released
from generative.nets.ncsnpp import Ncsnpp
from generative.nets.ncsnpp_config import NcsnppConfig
from tests.support.sgmse_formula import formula_spectrogram, formula_weights

GOLDEN = Path(__file__).parents[3] / "golden" / "sgmse"
FULL = {"ncsnpp": NcsnppConfig(variant="v1"), "ncsnpp_48k": NcsnppConfig(variant="48k", attention_levels=())}
FILES = {"v1": "ncsnpp", "v2": "ncsnpp", "48k": "ncsnpp_48k"}
OUTPUTS = {"v1": "out_ncsnpp", "v2": "out_ncsnpp_v2", "48k": "out_ncsnpp_48k"}


def close(found, wanted, tolerance):
    found, wanted = found.detach(), torch.as_tensor(wanted)
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * wanted.abs().max().item())


def released(variant):
    """A small released network as ours, and the released code's inputs."""
    state = load_file(GOLDEN / f"weights_{FILES[variant]}.safetensors")
    net = Ncsnpp(inferred_sizes(state, variant))
    net.load_state_dict(from_released(state, net.config))
    golden = np.load(GOLDEN / "networks.npz")
    return net, golden, tuple(torch.from_numpy(golden[name]) for name in ("x_t", "y", "t"))


def meta_state(config):
    with torch.device("meta"):
        return Ncsnpp(config).state_dict()


@pytest.mark.parametrize("name", FULL)
def test_names_shapes_and_order_of_the_published_networks(name):
    keys = json.loads((GOLDEN / f"keys_{name}_full.json").read_text())
    theirs = to_released(meta_state(FULL[name]), FULL[name])
    assert [(key, list(tensor.shape)) for key, tensor in theirs.items()] == [(key, shape) for key, shape, _ in keys]
    assert inferred_sizes(theirs) == FULL[name]
    assert [key for key, _, trained in keys if not trained] == [released_names(FULL[name])["time.frequencies"]]


@pytest.mark.parametrize("variant", FILES)
def test_outputs(variant):
    net, golden, arguments = released(variant)
    close(net(*arguments), golden[OUTPUTS[variant]], 2e-4)
    exact = net.double()(*(argument.to(torch.promote_types(argument.dtype, torch.float64)) for argument in arguments))
    close(exact.to(torch.complex64), golden[OUTPUTS[variant]], 2e-5)


def test_time_embedding_and_gradients():
    net, golden, (x_t, y, t) = released("v2")
    x_t.requires_grad_()
    close(net.time(t), golden["v2_temb"], 2e-4)
    total = net(x_t, y, t).abs().square().sum()
    torch.testing.assert_close(total.detach(), torch.from_numpy(golden["v2_sumsq"]), rtol=2e-4, atol=0)
    total.backward()
    close(x_t.grad, golden["v2_grad_x_t"], 2e-4)
    close(net.output.weight.grad, golden["v2_grad_outputlayer_w"], 2e-4)


def test_the_published_size():
    """65.6 million weights from a formula, half a second of sound."""
    golden = np.load(GOLDEN / "networks_formula.npz")
    config = FULL["ncsnpp"]
    names = released_names(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in to_released(meta_state(config), config).items()}
    norms = {theirs for ours, theirs in names.items() if ".norm" in ours and ours.endswith(".weight")}
    weights = formula_weights(shapes, norms)
    first = torch.stack([weight.flatten()[0] for weight in weights.values()])
    torch.testing.assert_close(first, torch.from_numpy(golden["param_first"]), rtol=0, atol=1e-6)
    with torch.device("meta"):
        net = Ncsnpp(config)
    net.load_state_dict(from_released(weights, config), assign=True)
    x_t, y = (formula_spectrogram(frequency, 256, 64) for frequency in golden["input_freqs"])
    with torch.inference_mode():
        out = net(x_t, y, torch.from_numpy(golden["t"]))
    close(out[:, :, ::4, ::4], golden["out_sub"], 5e-4)
    torch.testing.assert_close(out.abs().mean().item(), golden["out_abs_mean"].item(), rtol=5e-4, atol=0)
    torch.testing.assert_close(out.abs().max().item(), golden["out_abs_max"].item(), rtol=5e-4, atol=0)
    torch.testing.assert_close(out.sum().item(), golden["out_sum"].item(), rtol=5e-4, atol=0)


@st.composite
def sizes(draw):
    levels = draw(st.integers(2, 3))
    chosen = draw(st.sets(st.integers(0, levels - 1)))
    return NcsnppConfig(
        variant=draw(st.sampled_from(["v1", "v2", "48k"])),
        width=draw(st.sampled_from([4, 8])),
        multipliers=(1, *draw(st.lists(st.integers(1, 3), min_size=levels - 1, max_size=levels - 1))),
        res_blocks=draw(st.integers(1, 3)),
        attention_levels=tuple(sorted(chosen)),
    )


@settings(max_examples=8)
@given(sizes())
def test_sizes_follow_from_the_tensors_and_all_comes_back(config):
    state = Ncsnpp(config).state_dict()
    theirs = to_released(state, config)
    assert inferred_sizes(theirs, config.variant) == config
    assert inferred_sizes(theirs).variant == ("48k" if config.variant == "48k" else "v1")
    back = from_released(theirs, config)
    assert back.keys() == state.keys()
    torch.testing.assert_close(back, dict(state), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda state: state.pop("output_layer.bias"), "1 missing: output_layer.bias"),
        (lambda state: state.update(extra=torch.ones(1)), "1 unknown: extra"),
        (lambda state: state.update({"all_modules.4.Conv_0.bias": torch.ones(3)}), "of another shape: all_modules.4"),
    ],
)
def test_every_tensor_is_checked(spoil, told):
    state = load_file(GOLDEN / "weights_ncsnpp.safetensors")
    config = inferred_sizes(state)
    spoil(state)
    with pytest.raises(CheckpointError, match=told):
        from_released(state, config)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"all_modules.0.W": torch.ones(())},
        {"all_modules.0.W": torch.ones(4), "all_modules.4.Conv_0.weight": torch.ones(())},
        {"all_modules.0.W": torch.ones(4), "all_modules.4.weight": torch.ones(4, 4, 3, 3)},
        {f"all_modules.{i}.Conv_{j}.weight": torch.ones(4, 4, 3, 3) for i in range(9) for j in range(3)},
    ],
)
def test_other_networks(state):
    with pytest.raises(CheckpointError, match="not the tensors of a released NCSN"):
        inferred_sizes(state)


def test_a_variant_that_the_tensors_are_not_of():
    with pytest.raises(CheckpointError, match="named 48k"):
        inferred_sizes(load_file(GOLDEN / "weights_ncsnpp.safetensors"), "48k")
    with pytest.raises(CheckpointError, match="no pyramids in a network that is named v2"):
        inferred_sizes(load_file(GOLDEN / "weights_ncsnpp_48k.safetensors"), "v2")
