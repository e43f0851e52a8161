"""Order x count x token policies, blocks and caches."""

from __future__ import annotations

import itertools

import pytest
import torch
from pydantic import ValidationError

from generative.errors import ConfigError
from generative.methods.masked_diffusion.config import SamplingConfig
from generative.methods.masked_diffusion.noise import SCHEDULES
from generative.methods.masked_diffusion.policies import (
    EvenCounts,
    Ranked,
    RoundedCounts,
    ScheduledCounts,
    Threshold,
    Turn,
    unmask_chances,
)
from generative.methods.masked_diffusion.sampler import StreamNoise
from generative.methods.masked_diffusion.sampling import check_settings, draw
from generative.randomness import Streams
from tests.support.sampling_cases import (
    EOS,
    MASK,
    VOCAB,
    T,
    canvases,
    denoiser,
    sharp_net,
)


@pytest.fixture(scope="module")
def net():
    return sharp_net()


def settings_of(**changes):
    return SamplingConfig(**{"steps": 6, **changes})


KINDS = [
    {"name": "first_hitting"},
    {"name": "random", "count": "even", "top_k": 3},
    {"name": "margin", "count": "rounded", "order_temperature": 0.3, "top_p": 0.8},
    {"name": "entropy", "block_length": 4, "count": "schedule"},
    {"name": "confidence", "count": "threshold", "threshold": 0.3, "block_length": 5},
    {"name": "confidence", "block_length": 4, "cache": "prefix", "guidance": 0.7},
    {"name": "ancestral", "block_length": 4, "cache": "dual", "stop_at_eos": True},
]
EXACT = [
    {"name": "ancestral", "cache": "exact", "stop_at_eos": True},
    {"name": "confidence", "cache": "exact", "guidance": 0.7, "temperature": 0.0},
]


@pytest.mark.parametrize(("changes", "block"), [(k, None) for k in KINDS] + [(k, 4) for k in EXACT])
def test_alone_and_among_sixteen_a_sample_is_the_same(net, changes, block):
    settings, canvas, ids = settings_of(**changes), canvases(), torch.arange(16) * 7
    model = denoiser(net, block, guidance=settings.guidance)
    whole = draw(settings, model, canvas, ids, Streams(2), eos_id=EOS)
    for i in range(0, 16, 5):
        alone = draw(settings, model, canvas[i, None], ids[i, None], Streams(2), eos_id=EOS)
        for name in ("tokens", "calls", "fed", "lengths"):
            assert torch.equal(getattr(alone, name)[0], getattr(whole, name)[i]), name
    wanted = canvas == MASK
    assert torch.equal(whole.tokens[~wanted], canvas[~wanted])
    assert int(whole.tokens.max()) < VOCAB


@pytest.mark.parametrize("guidance", [0.0, 0.7])
@pytest.mark.parametrize("changes", [{"name": "ancestral"}, {"name": "confidence", "count": "threshold"}])
def test_the_memory_of_clean_blocks_changes_nothing(net, changes, guidance):
    """Block diffusion: keys and values of finished blocks are what a pass over everything would compute."""
    model, canvas, ids = denoiser(net, 4, guidance=guidance), canvases(), torch.arange(16)
    without = draw(settings_of(**changes), model, canvas, ids, Streams(1))
    with_it = draw(settings_of(**changes, cache="exact"), model, canvas, ids, Streams(1))
    assert torch.equal(with_it.tokens, without.tokens)
    assert torch.equal(with_it.calls, without.calls)
    assert int(with_it.fed.sum()) < 0.8 * int(without.fed.sum())


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_with_one_block_over_everything_the_approximate_memories_are_exact(net, cache):
    canvas, ids = torch.full((3, T), MASK), torch.arange(3)
    plain = draw(settings_of(), denoiser(net), canvas, ids, Streams(1))
    kept = draw(settings_of(cache=cache), denoiser(net), canvas, ids, Streams(1))
    assert torch.equal(kept.tokens, plain.tokens)
    assert torch.equal(kept.fed, plain.fed)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize(("cache", "later"), [("prefix", T - 4), ("dual", 4)])
def test_later_calls_of_a_block_see_the_memory_of_its_first(net, cache, later, shift):
    """The first call of a block is over all positions; the next has its own anew and remembers the others."""
    model, canvas, seen = denoiser(net, shift=shift), torch.full((1, T), MASK), []
    canvas[0, :4] = torch.arange(4)
    settings = settings_of(name="confidence", count="even", steps=4, block_length=4, cache=cache, temperature=0.0)
    result = draw(settings, model, canvas, torch.arange(1), Streams(0), observer=lambda step: seen.append(step.canvas))
    plain = draw(settings_of(**{**settings.model_dump(), "cache": "none"}), model, canvas, torch.arange(1), Streams(0))
    assert result.calls.tolist() == plain.calls.tolist() == [4]
    # A shift asks one position earlier; the second block's prefix call starts at 8.
    inner = [later + shift, (T - 8 if cache == "prefix" else 4) + shift]
    assert result.fed.tolist() == [2 * T + sum(inner)]
    assert torch.equal(seen[0], torch.where(seen[0] == MASK, MASK, plain.tokens)) or shift


def test_first_hitting_draws_from_the_mean_over_all_orders(net):
    """The exact distribution of the process in continuous time: every generation order equally likely."""
    n, canvas = 6000, torch.tensor([[1, MASK, 5, MASK]])
    model = denoiser(net)
    settings = settings_of(name="first_hitting")
    drawn = draw(settings, model, canvas.expand(n, -1), torch.arange(n), Streams(0))
    assert drawn.calls.unique().tolist() == [2]

    def conditional(canvas, place):
        with torch.no_grad():
            return model(canvas, canvas != MASK, torch.tensor([place]))[0, :VOCAB].softmax(0)

    expected = torch.zeros(VOCAB, VOCAB, dtype=torch.float64)
    for first, second in ((1, 3), (3, 1)):
        p = conditional(canvas, first)
        for token in range(VOCAB):
            joint = p[token] * conditional(canvas.index_fill(1, torch.tensor(first), token), second)
            expected[(token, slice(None)) if first == 1 else (slice(None), token)] += joint / 2
    code = drawn.tokens[:, 1] * VOCAB + drawn.tokens[:, 3]
    share = code.bincount(minlength=VOCAB**2).view(VOCAB, VOCAB) / n
    assert float((share - expected).abs().max()) < 5 * 0.5 / n**0.5


def test_a_sample_ends_at_the_first_end_of_text_that_it_generates(net):
    canvas, ids, steps = torch.full((64, T), MASK), torch.arange(64), []
    canvas[:, 0] = EOS  # the one in the prompt does not count
    canvas[:, T - 1] = 9
    settings = settings_of(stop_at_eos=True, block_length=2, temperature=2.0)
    result = draw(settings, denoiser(net), canvas, ids, Streams(0), observer=steps.append, eos_id=EOS)
    going_on = draw(settings, denoiser(net), canvas, ids, Streams(0))
    ended = result.lengths < T
    assert 5 < int(ended.sum()) < 60
    assert going_on.lengths.unique().tolist() == [T]
    for tokens, whole, length in zip(result.tokens, going_on.tokens, result.lengths.tolist(), strict=True):
        assert torch.equal(tokens[:length], whole[:length])
        if length < T:
            assert tokens[length - 1] == EOS
            assert (tokens[1 : length - 1] != EOS).all()
        assert tokens[T - 1] == 9
    early = result.lengths < T - 4
    assert (result.calls[early] < going_on.calls[early]).any()
    assert (result.calls <= going_on.calls).all()
    assert not (torch.stack([step.new for step in steps]).sum(0) > 1).any()


@pytest.mark.parametrize("name", ["Linear", "Cosine"])
@pytest.mark.parametrize("case", ["7_20_13_steps6", "32_5_1_steps8", "64_64_33_steps16"])
def test_rounded_counts_are_those_of_dllm(golden, name, case):
    expected = golden("schedules")[f"{name}AlphaScheduler/num_transfer_counts{case}"]
    numbers, steps = case.split("_steps")
    left = torch.tensor([int(n) for n in numbers.split("_")])
    counts, columns = RoundedCounts(unmask_chances(int(steps), SCHEDULES[name.lower()], 0.0, torch.float64)), []
    for index in range(int(steps)):
        columns.append(counts(Turn(index, index, None, left, None), left))
        left = left - columns[-1]
    ours = torch.stack(columns, dim=1)
    for row, theirs in zip(ours.tolist(), expected.tolist(), strict=True):
        # Steps that commit nothing are not taken.
        assert [n for n in row if n] == [n for n in theirs if n]


def test_even_counts_are_those_of_llada(golden):
    expected = golden("tiny_peers")
    initial = expected["num_transfer_mask_counts"]
    counts = EvenCounts(6)
    columns = [counts(Turn(i, i, None, initial, None), initial) for i in range(6)]
    assert torch.equal(torch.stack(columns, dim=1), expected["num_transfer_tokens_llada_steps6"])


def test_noise_on_the_order_draws_positions_by_their_scores(net):
    """One of two positions: chance of the better one is softmax(scores / temperature)."""
    n, temperature = 4000, 0.5
    masked = torch.tensor([[True, True]]).expand(n, -1)
    logits = torch.tensor([[2.0, 0.0], [0.3, 0.0]], dtype=torch.float64).repeat(n, 1)
    noise = StreamNoise(Streams(0), torch.arange(n), 2)
    rule = Ranked(ScheduledCounts(torch.tensor([0.5])), "confidence", temperature)
    turn = Turn(0, 0, masked, masked.sum(1), noise)
    chosen = rule.chosen(turn, masked, logits, torch.zeros(2 * n, dtype=torch.int64))
    score = logits[:2].softmax(1)[:, 0]
    assert chosen.sum(1).unique().tolist() == [1]
    assert float(chosen[:, 0].double().mean()) == pytest.approx(float((score / temperature).softmax(0)[0]), abs=0.03)


def test_a_threshold_takes_all_that_reach_it_and_at_least_the_best():
    masked = torch.tensor([[True, True, True], [True, True, False]])
    p = torch.tensor([0.9, 0.6, 0.8, 0.3, 0.4], dtype=torch.float64)
    logits = torch.stack([p, 1 - p], dim=1).log()
    chosen = Threshold(0.75).chosen(None, masked, logits, torch.zeros(5, dtype=torch.int64))
    # A probability of 0.3 for the drawn token is 0.7 for the other.
    assert chosen.tolist() == [[True, False, True], [False, True, False]]
    margins = Threshold(0.55, "margin").chosen(None, masked, logits, torch.zeros(5, dtype=torch.int64))
    assert margins.tolist() == [[True, False, True], [True, False, False]]


@pytest.mark.parametrize(
    ("changes", "block", "match"),
    [
        ({"name": "confidence", "count": "even", "steps": 13}, None, r"13 steps for \d+ masked"),
        ({"block_length": 1, "steps": 5}, None, r"for \d+ blocks"),
        ({"cache": "exact"}, None, "see those after"),
        ({"cache": "dual"}, 4, "block diffusion"),
    ],
)
def test_what_cannot_be_is_said(net, changes, block, match):
    with pytest.raises(ConfigError, match=match) as drawn:
        draw(settings_of(**changes), denoiser(net, block), canvases(3), torch.arange(3), Streams(0))
    with pytest.raises(ConfigError, match=match) as checked:
        check_settings(settings_of(**changes), denoiser(None, block), canvases(3) == MASK)
    assert str(checked.value) == str(drawn.value)


@pytest.mark.parametrize(("changes", "block"), [(k, None) for k in KINDS] + [(k, 4) for k in EXACT])
def test_what_can_be_drawn_is_not_refused_beforehand(changes, block):
    check_settings(settings_of(**changes), denoiser(None, block), canvases() == MASK)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": "threshold"},
        {"batch_coupled": True, "cache": "dual"},
        {"name": "entropy", "count": "threshold"},  # 0.9 is reached by none
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes):
    with pytest.raises((ConfigError, ValidationError)):
        SamplingConfig(**changes)


@pytest.mark.parametrize("changes", [{"name": "first_hitting"}, {"name": "margin", "count": "threshold"}])
def test_what_takes_as_many_steps_as_it_needs_is_not_asked_how_many(net, changes):
    few, many = (
        draw(settings_of(**changes, steps=n, block_length=3), denoiser(net), canvases(3), torch.arange(3), Streams(0))
        for n in (1, 12)
    )
    assert torch.equal(few.tokens, many.tokens)
    assert not (few.tokens == MASK).any()


def test_forbidden_ids_never_come_out(net):
    canvas, ids = torch.full((20, T), MASK), torch.arange(20)
    free = draw(settings_of(), denoiser(net), canvas, ids, Streams(0)).tokens
    often = free.flatten().bincount().topk(3).indices.tolist()
    without = draw(settings_of(), denoiser(net, forbidden=tuple(often)), canvas, ids, Streams(0)).tokens
    assert not set(often) & set(itertools.chain(*without.tolist()))


@pytest.mark.parametrize(
    ("forbidden", "match"),
    [([999], "no token 999"), ([-1], "no token -1"), ([MASK], "its mask token"), (list(range(VOCAB)), "all")],
)
def test_forbidden_ids_are_those_of_the_network_and_leave_some(net, forbidden, match):
    with pytest.raises(ConfigError, match=match):
        draw(settings_of(), denoiser(net, forbidden=tuple(forbidden)), canvases(2), torch.arange(2), Streams(0))
    with pytest.raises(ConfigError, match=match):
        check_settings(settings_of(), denoiser(None, forbidden=tuple(forbidden)), canvases(2) == MASK)
