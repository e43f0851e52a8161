"""Rules for batch, learning rate and widths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scaling.rules import (
    critical_batch,
    learning_rate_law,
    marin,
    mup_rates,
    nanochat,
    nanochat_tokens,
    nanochat_width,
    porian,
    steps_for,
    warmup_steps,
)
from generative.errors import DataError
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig
from generative.training.optimizers import rate_of


def test_porian_at_its_reference_and_beyond():
    assert (porian(108e6).batch, porian(108e6).learning_rate) == (pytest.approx(160), pytest.approx(0.0047))
    assert (porian(8 * 108e6).batch, porian(8 * 108e6).learning_rate) == (pytest.approx(640), pytest.approx(0.00235))


def test_nanochat_at_its_reference_and_beyond():
    def rule(D):
        return nanochat(D, D_ref=1e9, learning_rate=0.02, weight_decay=0.2, length=2048)

    same = rule(1e9)
    assert (same.batch, same.learning_rate, same.weight_decay) == (256, pytest.approx(0.02), pytest.approx(0.2))
    longer = rule(1e9 * 4 ** (1 / 0.383))
    assert (longer.batch, longer.learning_rate) == (1024, pytest.approx(0.04))
    assert longer.weight_decay == pytest.approx(0.2 * 2 / 4 ** (1 / 0.383))
    assert math.log2(rule(7e9).batch).is_integer()
    assert (nanochat_width(12), nanochat_tokens(1e8)) == (768, 1.2e9)


@given(st.floats(1e7, 1e13), st.sampled_from([128, 2048]))
def test_marin_rounds_batches_up_to_a_power_of_two(tokens, length):
    rule = marin(512, tokens, length)
    assert math.log2(rule.batch).is_integer()
    steps = tokens / (rule.batch * length)
    assert steps <= 2**16 * (1 + 1e-6)
    assert rule.batch == 1 or steps > 2**15 * (1 - 1e-6)
    assert rule.learning_rate == pytest.approx(0.33 / (512 * math.sqrt(rule.batch)))


@given(st.floats(1e12, 1e18), st.floats(1e5, 1e8))
def test_steps_spend_the_budget(C, per_token):
    steps = steps_for(C, per_token, 32, 128)
    spent = steps * per_token * 32 * 128
    assert steps >= 1
    assert steps < 50 or abs(spent / C - 1) < 0.0101


def test_warm_up_is_about_n_tokens_and_a_share_of_the_run():
    assert warmup_steps(1e6, 10_000, 64, 128) == 122
    assert warmup_steps(1e6, 100, 64, 128) == 20
    assert warmup_steps(10, 100, 64, 128) == 1


def test_mup_slows_down_matrices_and_head_but_neither_embedding_nor_gains():
    net = Transformer(
        TransformerConfig(layers=2, heads=4, width=64, ff_width=256, vocab_size=50), causal=True, mask_row=False
    )
    rates = mup_rates(64, 16)
    for name, _ in net.named_parameters():
        hidden = name.startswith("blocks.") and "norm" not in name
        assert rate_of(name, rates) == (0.25 if hidden or name == "head.weight" else 1.0), name
    assert mup_rates(64, 64) == {}


def test_rate_over_sizes():
    law = learning_rate_law([1e6, 8e6], [4e-3, 2e-3])
    assert law.slope == pytest.approx(-1 / 3)
    assert law(64e6) == pytest.approx(1e-3)
    with pytest.raises(DataError, match="1 sizes"):
        learning_rate_law([1e6, 1e6], [4e-3, 2e-3])


def test_noise_scale_is_unbiased():
    rng = np.random.default_rng(0)
    gradient, small, big = np.full(50, 0.1), 8, 64
    noise = rng.normal(0, 1, (4000, big, 50))
    small_norm = ((gradient + noise[:, :small].mean(1)) ** 2).sum(-1).mean()
    big_norm = ((gradient + noise.mean(1)) ** 2).sum(-1).mean()
    found = critical_batch(small, small_norm, big, big_norm)
    assert found.gradient == pytest.approx(0.5, rel=0.05)
    assert found.noise == pytest.approx(50, rel=0.05)
    assert found.batch == pytest.approx(100, rel=0.1)
    assert found.compute_overhead(found.batch) == found.step_overhead(found.batch) == 2
    with pytest.raises(DataError, match="tell no noise"):
        critical_batch(8, 1.0, 8, 1.0)
