"""The plain transcription of NCSN++ is the library's network, and the released one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from evaluation.benchmarks.plain_ncsnpp import PlainNcsnpp, plain_copy
from generative.methods.sgmse.layout import inferred_sizes
from generative.nets.ncsnpp import Ncsnpp
from generative.nets.ncsnpp_config import NcsnppConfig

GOLDEN = Path(__file__).parents[2] / "golden" / "sgmse"
SIZES = {
    "attention": ({"multipliers": (1, 2, 2), "attention_levels": (1,)}, (2, 16, 12)),
    "attention_everywhere": ({"multipliers": (1, 2), "res_blocks": 2, "attention_levels": (0, 1)}, (3, 10, 6)),
    "one_level_of_odd_size": ({"multipliers": (2,), "attention_levels": (0,)}, (1, 9, 7)),
    "odd_at_the_bottom": ({"multipliers": (2, 1, 3), "attention_levels": ()}, (2, 20, 28)),
    "not_centred": ({"multipliers": (1, 1), "attention_levels": (), "centered": False}, (1, 6, 14)),
}


def close(found, wanted, tolerance):
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * wanted.abs().max().item())


def filled(**sizes):
    """A float64 network none of whose layers begins near zero."""
    torch.manual_seed(0)
    net = Ncsnpp(NcsnppConfig(**{"width": 8, "res_blocks": 1} | sizes)).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize("name", SIZES)
def test_outputs_and_gradients_are_ours(name, variant, depthwise):
    sizes, (batch, bins, frames) = SIZES[name]
    net = filled(variant=variant, **sizes)
    plain = plain_copy(net, depthwise)
    x_t, y = (torch.randn(batch, 1, bins, frames, dtype=torch.complex128, requires_grad=True) for _ in range(2))
    t = torch.rand(batch, dtype=torch.float64) + 1e-3
    found, wanted = plain(x_t, y, t), net(x_t, y, t)
    close(found, wanted, 1e-9)
    for mine, ours in ((plain.all_modules[3].weight, net.stem.weight), (x_t, x_t)):
        gradients = [
            torch.autograd.grad(out.abs().square().sum(), of, retain_graph=True)[0]
            for out, of in ((found, mine), (wanted, ours))
        ]
        close(*gradients, 1e-9)


@pytest.mark.parametrize(("variant", "golden"), [("v1", "out_ncsnpp"), ("v2", "out_ncsnpp_v2")])
def test_released_weights_and_outputs(variant, golden):
    state = load_file(GOLDEN / "weights_ncsnpp.safetensors")
    plain = PlainNcsnpp(inferred_sizes(state, variant))
    plain.load_state_dict(state)
    arrays = np.load(GOLDEN / "networks.npz")
    found = plain(*(torch.from_numpy(arrays[name]) for name in ("x_t", "y", "t")))
    close(found.detach(), torch.from_numpy(arrays[golden]), 2e-4)


def test_the_variant_that_is_not_written_out():
    with pytest.raises(ValueError, match="48k"):
        PlainNcsnpp(NcsnppConfig(variant="48k", attention_levels=()))
