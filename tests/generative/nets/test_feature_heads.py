"""Discriminators on features: weights and logits of the released code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from generative.errors import ConfigError
from generative.nets.feature_heads import TransformerHeads, UnetHeads, norm_groups

GOLDEN = Path(__file__).parents[2] / "golden" / "f_distill" / "discriminator.safetensors"


@pytest.mark.parametrize(("prefix", "heads"), [("", UnetHeads([12, 12], [16, 8])), ("dit.", TransformerHeads(24, 2))])
def test_logits_of_the_released_code(prefix: str, heads: torch.nn.Module) -> None:
    golden = {key: tensor.float() for key, tensor in load_file(GOLDEN).items()}
    start = f"{prefix}w."
    heads.load_state_dict({key.removeprefix(start): tensor for key, tensor in golden.items() if key.startswith(start)})
    features = [golden[f"{prefix}in.feat{i}"] for i in range(2)]
    found = heads(features)
    torch.testing.assert_close(found, golden[f"{prefix}out.logits"], rtol=1e-4, atol=1e-5)


def test_a_sample_does_not_see_the_others() -> None:
    torch.manual_seed(0)
    heads, features = UnetHeads([8, 8], [8, 4]), [torch.randn(3, 8, 8, 8), torch.randn(3, 8, 4, 4)]
    alone = torch.cat([heads([feature[i : i + 1] for feature in features]) for i in range(3)])
    torch.testing.assert_close(heads(features), alone)
    assert alone.shape == (3, 2)


def test_multiply_adds_are_those_of_the_layers() -> None:
    heads = UnetHeads([8, 40], [16, 4])
    counted = []
    for module in heads.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, _, y: counted.append(m.weight.numel() * y[0, 0].numel()))
    heads([torch.zeros(1, 8, 16, 16), torch.zeros(1, 40, 4, 4)])
    assert heads.multiply_adds() == sum(counted)


def test_groups() -> None:
    assert [norm_groups(c) for c in (3, 12, 32, 40, 256, 768, 1280, 37)] == [1, 3, 8, 20, 32, 32, 32, 1]
    # Few channels that a quarter of them does not divide: as a small teacher of fully connected layers may have.
    assert [norm_groups(c) for c in (5, 22, 30)] == [1, 2, 6]
    assert UnetHeads([22], [1])([torch.zeros(2, 22, 1, 1)]).shape == (2, 1)


def test_maps_that_do_not_fit() -> None:
    for resolution in (2, 12):
        with pytest.raises(ConfigError, match=f"resolution {resolution}"):
            UnetHeads([8], [resolution])
    with pytest.raises(ConfigError, match=r"maps of \[\] channels"):
        UnetHeads([], [])


def test_features_without_places_get_a_head_of_fully_connected_layers():
    heads = UnetHeads([8], [1])
    feature = torch.randn(3, 8, 1, 1)
    first, norm, _, last = heads.discriminator_heads[0]
    hidden = feature.flatten(1) @ first.weight.flatten(1).T + first.bias
    wanted = torch.nn.functional.silu(norm(hidden)) @ last.weight.flatten(1).T + last.bias
    torch.testing.assert_close(heads([feature]), wanted)
    assert heads.multiply_adds() == 8 * 8 + 8
