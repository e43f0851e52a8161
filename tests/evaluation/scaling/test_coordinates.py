"""The coordinate check: flat under muP, and not without it."""

from __future__ import annotations

import pytest
import torch

from evaluation.scaling.coordinates import coordinate_check
from evaluation.scaling.rules import mup_rates
from generative.errors import DataError
from generative.nets.transformer_config import TransformerConfig
from generative.training.config import OptimizerConfig

WIDTHS = (16, 32, 64, 128)


def tokens():
    """Most tokens are one of a few, as in text: something to learn in the first steps."""
    return torch.randint(50, (2, 16, 24), generator=torch.Generator().manual_seed(0)) ** 3 // 50**2


def checked(mup, causal):
    networks = [
        (
            TransformerConfig(
                layers=2,
                heads=width // 8,
                width=width,
                ff_width=4 * width,
                vocab_size=50,
                base_width=16 if mup else None,
            ),
            OptimizerConfig(lr=1e-2, rates=mup_rates(width, 16) if mup else {}),
        )
        for width in WIDTHS
    ]
    return {one.name: one for one in coordinate_check(networks, tokens(), causal=causal)}


@pytest.mark.parametrize("causal", [False, True])
def test_changes_are_flat_over_width_under_mup_alone(causal):
    flat = checked(True, causal)
    assert flat.keys() == {"embedding", "attention", "feed_forward", "logits"}
    assert all(one.flat for one in flat.values()), flat
    usual = checked(False, causal)
    assert usual["feed_forward"].slope > 0.4, usual
    assert not usual["feed_forward"].flat


def test_one_width_shows_nothing():
    network = TransformerConfig(layers=1, heads=2, width=16, ff_width=64, vocab_size=50)
    with pytest.raises(DataError, match="1 widths"):
        coordinate_check([(network, OptimizerConfig())] * 2, tokens(), causal=True)
