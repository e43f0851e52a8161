from __future__ import annotations

import pytest
import torch

from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig, SamplingConfig
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.methods.masked_diffusion.noise import SCHEDULES
from generative.methods.masked_diffusion.sampling import draw
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig
from generative.randomness import Streams

T, VOCAB, MASK = 10, 20, 24
CONFIG = TransformerConfig(layers=1, heads=2, width=16, ff_width=16, vocab_size=VOCAB, padding_multiple=8)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = Transformer(CONFIG, causal=False, mask_row=True).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
    return net


@pytest.fixture
def denoiser(net):
    return Denoiser(net, MASK, VOCAB)


def canvases(count=5):
    canvas = torch.full((count, T), MASK)
    for i in range(count):
        canvas[i, : 2 * i % 5] = i
    canvas[1, 7:] = 3
    return canvas


SETTINGS = [
    SamplingConfig(name=name, steps=steps, temperature=temperature, token_noise=noise)
    for name in ("ancestral", "confidence", "random")
    for steps in (1, 4, 30)
    for temperature, noise in ((1.0, "inverse_cdf"), (0.7, "gumbel"), (0.0, "inverse_cdf"))
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.name}-{s.steps}-{s.temperature}")
def test_results_do_not_depend_on_the_batch(denoiser, settings):
    canvas, ids = canvases(), torch.tensor([3, 1, 4, 15, 9])
    whole = draw(settings, denoiser, canvas, ids, Streams(2))
    for rows in ([4], [0, 2], [3, 1]):
        part = draw(settings, denoiser, canvas[rows], ids[rows], Streams(2))
        assert torch.equal(part.tokens, whole.tokens[rows])
        assert torch.equal(part.calls, whole.calls[rows])


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.name}-{s.steps}-{s.temperature}")
def test_infilling_keeps_what_is_known_and_fills_the_rest_with_real_tokens(denoiser, settings):
    canvas, steps = canvases(), []
    result = draw(settings, denoiser, canvas, torch.arange(5), Streams(2), observer=steps.append)
    known = canvas != MASK
    assert torch.equal(result.tokens[known], canvas[known])
    assert int(result.tokens.max()) < VOCAB
    # A step in which nothing is masked any more is not taken.
    assert len(steps) <= settings.steps
    assert steps[-1].new.any()
    seen = torch.zeros_like(known)
    for step in steps:
        assert not (step.new & seen).any()
        seen |= step.new
        assert torch.equal(step.masked, ~known & ~seen)
        assert torch.equal(step.canvas[~step.masked], result.tokens[~step.masked])
    assert torch.equal(seen, ~known)


def test_samples_and_seeds_have_noise_of_their_own(denoiser):
    canvas, settings = torch.full((6, T), MASK), SamplingConfig(steps=5)
    first = draw(settings, denoiser, canvas, torch.arange(6), Streams(0)).tokens
    assert len({tuple(row) for row in first.tolist()}) == 6
    assert torch.equal(first, draw(settings, denoiser, canvas, torch.arange(6), Streams(0, step=9)).tokens)
    assert not torch.equal(first, draw(settings, denoiser, canvas, torch.arange(6), Streams(1)).tokens)


def test_calls_count_only_steps_that_commit_something(net):
    """Thirty steps for at most ten tokens: a sample is evaluated at most once a token, twice under guidance."""
    canvas, ids = canvases(), torch.arange(5)
    masked = (canvas == MASK).sum(1)
    for name in ("ancestral", "confidence"):
        settings, steps = SamplingConfig(name=name, steps=30), []
        result = draw(settings, Denoiser(net, MASK), canvas, ids, Streams(0), observer=steps.append)
        committing = sum(step.new.any(1).long() for step in steps)
        assert torch.equal(result.calls, committing)
        assert (result.calls <= masked).all()
        guided = draw(settings, Denoiser(net, MASK, guidance=0.5), canvas, ids, Streams(0))
        assert (guided.calls % 2 == 0).all()


def test_one_step_ancestral_draws_from_the_networks_prediction(denoiser):
    """All tokens in one step from an empty canvas: frequencies are the softmax of the logits, position by position."""
    n = 4000
    canvas = torch.full((n, 3), MASK)
    tokens = draw(SamplingConfig(steps=1), denoiser, canvas, torch.arange(n), Streams(0)).tokens
    with torch.no_grad():
        probability = denoiser(canvas[:1], canvas[:1] != MASK, torch.arange(3)).softmax(-1)
    share = torch.stack([tokens[:, i].bincount(minlength=MASK) for i in range(3)]) / n
    assert float((share - probability).abs().max()) < 5 * 0.5 / n**0.5


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ancestral_unmasks_at_the_times_of_the_schedule(denoiser, schedule):
    n, steps = 3000, []
    canvas = torch.full((n, T), MASK)
    settings = SamplingConfig(steps=4)
    draw(settings, denoiser, canvas, torch.arange(n), Streams(0), SCHEDULES[schedule], steps.append)
    for step, s in zip(steps[:3], (0.75, 0.5, 0.25), strict=True):
        expected = float(SCHEDULES[schedule].mask_probability(torch.tensor(s)))
        assert float(step.masked.float().mean()) == pytest.approx(expected, abs=0.01)


def test_confidence_takes_the_most_probable_first(denoiser):
    canvas, steps = torch.full((1, T), MASK), []
    settings = SamplingConfig(name="confidence", steps=T, temperature=0.0)
    draw(settings, denoiser, canvas, torch.arange(1), Streams(0), observer=steps.append)
    for before, step in zip([canvas, *(s.canvas for s in steps)], steps, strict=False):
        masked = before == MASK
        with torch.no_grad():
            best = denoiser(before, ~masked, torch.arange(T)).softmax(-1).amax(-1)
        worst_chosen = best[step.new[0]].min() if step.new.any() else torch.inf
        left = best[step.masked[0]]
        assert len(left) == 0 or worst_chosen >= left.max()


def test_guidance_zero_is_the_plain_network_and_suppressed_ids_are_impossible(net):
    canvas = canvases()
    rows, known = torch.arange(canvas.numel()), canvas != MASK
    with torch.no_grad():
        plain = net(canvas).flatten(0, 1)
        assert torch.equal(Denoiser(net, MASK)(canvas, known, rows), plain)
        guided = Denoiser(net, MASK, VOCAB, guidance=2.0)(canvas, known, rows)
    assert (guided[:, VOCAB:] == -torch.inf).all()
    assert guided[:, :VOCAB].isfinite().all()


def test_the_methods_sampler_fills_windows_and_canvases(net):
    method = MaskedDiffusion(MaskedDiffusionConfig(network=CONFIG), DataFacts(VOCAB, 12))
    sampler, ids = method.sampler({"net": net}), torch.arange(2)
    assert sampler({"sample_id": ids}, Streams(0)).shape == (2, 12)
    filled = sampler({"sample_id": ids, "canvas": canvases(2)}, Streams(0))
    assert torch.equal(filled[1, 7:], canvases(2)[1, 7:])
    with pytest.raises(ConfigError, match="sample id"):
        sampler({"sample_id": ids, "canvas": canvases(3)}, Streams(0))
