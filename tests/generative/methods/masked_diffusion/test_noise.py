from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generative.methods.masked_diffusion.noise import (
    SCHEDULES,
    antithetic,
    draw_times,
    exact_counts,
    mask_exactly,
    stratified,
)


@pytest.mark.parametrize(("name", "golden_name"), [("linear", "Linear"), ("cosine", "Cosine")])
def test_schedules_agree_with_dllm(golden, name, golden_name):
    expected, schedule = golden("schedules"), SCHEDULES[name]
    t = expected["t"]
    level, prefix = schedule.mask_probability(t), f"{golden_name}AlphaScheduler"
    torch.testing.assert_close(1 - level, expected[f"{prefix}/alpha"], rtol=1e-5, atol=1e-6)
    # That code adds 1e-6 to the denominator of the weight.
    weight = schedule.weight(t) * level / (level + 1e-6)
    torch.testing.assert_close(weight, expected[f"{prefix}/weight"], rtol=1e-4, atol=1e-6)
    reverse = schedule.mask_probability(t / 2) / level
    torch.testing.assert_close(reverse, expected[f"{prefix}/reverse_mask_prob_s_half_t"], rtol=1e-4, atol=1e-6)


def test_loglinear_schedule_agrees_with_mdlm(golden):
    expected, schedule = golden("schedules"), SCHEDULES["loglinear"]
    level, weight = schedule.mask_probability(expected["t"]), schedule.weight(expected["t"])
    torch.testing.assert_close(level, expected["mdlm_loglinear_move_chance"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(-torch.log1p(-level), expected["mdlm_loglinear_sigma"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(weight, expected["mdlm_loglinear_weight"], rtol=1e-4, atol=0)


def test_spread_times_agree_with_the_released_codes(golden):
    expected = golden("schedules")
    spread = stratified(expected["lowdisc_u0"], torch.arange(8), 8)
    torch.testing.assert_close(spread, expected["lowdisc_t_smdm_eval"])
    torch.testing.assert_close(antithetic(expected["antithetic_u"]), expected["antithetic_t_mdlm"])


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_weight_is_minus_alpha_prime_over_masked_share(name):
    schedule, t = SCHEDULES[name], torch.linspace(0.05, 0.95, 19, dtype=torch.float64, requires_grad=True)
    level = schedule.mask_probability(t)
    (slope,) = torch.autograd.grad(level.sum(), t)
    torch.testing.assert_close(schedule.weight(t.detach()), slope / level.detach())


@pytest.mark.parametrize("sampler", ["stratified", "exact"])
def test_one_time_in_each_stratum_of_the_global_batch(sampler, make_batch, context):
    batch, order = make_batch(size=16), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    for step in range(5):
        t = draw_times(sampler, batch, context(16, step))
        assert sorted((t * 16).long().tolist()) == list(range(16))
        part = {name: tensor[order[:3]] for name, tensor in batch.items()}
        assert torch.equal(draw_times(sampler, part, context(16, step)), t[order[:3]])


def test_iid_times_follow_the_sample_not_its_place(make_batch, context):
    batch = make_batch(size=6)
    moved = {**batch, "position": batch["position"].flip(0)}
    assert torch.equal(draw_times("iid", batch, context(6)), draw_times("iid", moved, context(6)))
    assert len(set(draw_times("iid", batch, context(6)).tolist())) == 6


@given(st.integers(1, 40), st.integers(1, 50))
def test_exact_counts_are_uniform_over_1_to_length(length, per_count):
    t = (torch.arange(length * per_count, dtype=torch.float64) + 0.5) / (length * per_count)
    counts = exact_counts(t, torch.tensor(length))
    assert torch.equal(counts.bincount(minlength=length + 1)[1:], torch.full((length,), per_count))


def test_exact_masks_have_their_count_inside_the_length_even_with_ties():
    uniform = torch.zeros(3, 8)
    uniform[2] = torch.linspace(0.9, 0.1, 8)  # the smallest lie beyond the length
    mask = mask_exactly(uniform, torch.tensor([1, 5, 3]), torch.tensor([8, 5, 4]))
    assert mask.sum(1).tolist() == [1, 5, 3]
    assert not mask[1, 5:].any()
    assert not mask[2, 4:].any()


def test_exact_masks_are_uniform_subsets():
    orders = list(itertools.permutations([0.1, 0.3, 0.5, 0.7]))
    mask = mask_exactly(torch.tensor(orders), torch.full((24,), 2), torch.full((24,), 4))
    subsets = {tuple(row) for row in mask.int().tolist()}
    assert len(subsets) == 6
    assert all(sum(tuple(row) == s for row in mask.int().tolist()) == 4 for s in subsets)
