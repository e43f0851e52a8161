from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generative.diffusion.categorical import gumbel_scores, inverse_cdf, probability_of

GOLDEN = Path(__file__).parents[2] / "golden" / "masked_diffusion_lm" / "gumbel.npz"


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_gumbel_draws_agree_with_the_released_helper(temperature):
    with np.load(GOLDEN) as golden:
        logits, uniform, expected, choice = (
            torch.tensor(golden[name])
            for name in ("logits", f"u_T{temperature}", f"out_T{temperature}", f"argmax_T{temperature}")
        )
    scores = gumbel_scores(logits, uniform, temperature)
    assert torch.equal(scores.argmax(-1), choice)
    torch.testing.assert_close(scores.exp(), expected, rtol=1e-10, atol=0)


def test_large_logits_do_not_overflow():
    scores = gumbel_scores(torch.tensor([[900.0, 901.0]]), torch.tensor([[0.5, 0.5]]))
    assert scores.isfinite().all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_inverse_cdf_gives_each_category_its_share_of_the_unit_interval(temperature):
    logits = torch.tensor([0.3, -1.0, 2.0, -torch.inf, 0.0])
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    drawn = inverse_cdf(logits.expand(100_000, -1), uniform, temperature)
    share = drawn.bincount(minlength=5) / 100_000
    torch.testing.assert_close(share.double(), (logits.double() / temperature).softmax(-1), rtol=0, atol=1e-5)


def test_gumbel_draws_have_softmax_frequencies():
    logits = torch.tensor([0.3, -1.0, 2.0])
    uniform = torch.rand((200_000, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    share = gumbel_scores(logits.expand(200_000, -1), uniform, 0.7).argmax(-1).bincount() / 200_000
    torch.testing.assert_close(share, (logits / 0.7).softmax(-1), rtol=0, atol=5e-3)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=6), st.sampled_from([0.0, 1 - 2**-53, 0.5]))
def test_impossible_categories_are_never_drawn(values, uniform):
    logits = torch.tensor([[-torch.inf, *values, -torch.inf]])
    drawn = inverse_cdf(logits, torch.tensor([uniform], dtype=torch.float64))
    assert 1 <= int(drawn) <= len(values)


def test_temperature_zero_takes_the_greatest():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, -1.0]])
    assert inverse_cdf(logits, torch.tensor([0.99, 0.99]), 0.0).tolist() == [1, 0]


def test_probability_of_the_choice():
    logits = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    choice = torch.arange(300) % 5
    torch.testing.assert_close(
        probability_of(logits, choice), logits.double().softmax(-1)[torch.arange(300), choice], rtol=1e-12, atol=0
    )
