"""Trajectories of the released sampler, replayed with the uniforms that it drew."""

from __future__ import annotations

import pytest
import torch

from generative.diffusion.categorical import gumbel_scores
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.sampler import StreamNoise, ancestral, confidence
from generative.randomness import Streams

MASK = 64


class Recorded:
    """Noise that hands out recorded uniforms in the order in which the released code drew them."""

    def __init__(self, draws, sizes):
        self.parts = list(torch.split(draws, sizes.tolist())) if len(draws) else []

    def positions(self, step, masked):
        uniform = torch.ones(masked.shape, dtype=torch.float64)
        uniform[masked] = self.parts.pop(0)
        return uniform

    def tokens(self, step, logits, chosen, temperature):
        uniform = self.parts.pop(0).view(logits.shape) if temperature > 0 else logits
        return gumbel_scores(logits, uniform, temperature).argmax(-1)


def replay(golden, net, case, sample, steps, temperature, guidance=0.0, prompt="prompt", **options):
    expected = {k.removeprefix(case + "/"): v for k, v in golden("tiny_samplers").items()}
    canvas, trajectory = expected["states"][0], []
    assert torch.equal(canvas[:, :6], expected[prompt])
    result = sample(
        Denoiser(net, MASK, guidance=guidance),
        canvas,
        Recorded(expected["draws_f64"], expected["draw_sizes"]),
        steps=steps,
        temperature=temperature,
        observer=trajectory.append,
        **options,
    )
    states = [canvas] + [step.canvas for step in trajectory]
    assert torch.equal(torch.stack(states[:-1]), expected["states"])
    assert torch.equal(result.tokens, expected["out"])
    return result


@pytest.mark.parametrize("guidance", [0.0, 0.8])
def test_confidence(golden, tiny, guidance):
    result = replay(golden, tiny(), f"greedy_T0_s6_cfg{guidance or 0}", confidence, 6, 0.0, guidance)
    assert result.calls.tolist() == [12 if guidance else 6]


def test_confidence_one_token_a_step(golden, tiny):
    replay(golden, tiny(), "greedy_T0_sL_cfg0", confidence, 18, 0.0)


def test_confidence_with_temperature(golden, tiny):
    replay(golden, tiny(), "greedy_T0.5_s4_cfg0", confidence, 4, 0.5)


def test_confidence_coupled_over_the_batch(golden, tiny):
    replay(golden, tiny(), "greedy_T0_s6_batch2_cfg0", confidence, 6, 0.0, prompt="prompt2", batch_coupled=True)


def test_each_sequence_alone_takes_the_same_path_in_a_batch(golden, tiny):
    """The reference's trajectories of single sequences must come out of a batch of two, by default."""
    expected, net = golden("tiny_samplers"), tiny()
    single, canvases = expected["greedy_T0_s6_cfg0/states"][0], expected["greedy_T0_s6_batch2_cfg0/states"][0]
    batch = torch.cat([canvases, single])
    noise = StreamNoise(Streams(0), torch.arange(3), 24)
    together = confidence(Denoiser(net, MASK), batch, noise, steps=6).tokens
    assert torch.equal(together[2], expected["greedy_T0_s6_cfg0/out"][0])


@pytest.mark.parametrize("guidance", [0.0, 0.6])
def test_ancestral(golden, tiny, guidance):
    replay(golden, tiny(), f"origin_T1_s5_cfg{guidance or 0}", ancestral, 5, 1.0, guidance)


@pytest.mark.parametrize("guidance", [0.0, 0.6])
def test_greedy_continuation(golden, tiny, guidance):
    """The harness commits one token a call; our grid of 11 steps commits none in the first and two in the last."""
    expected, steps = golden("tiny_likelihood"), []
    canvas = torch.cat([expected["prefix"], torch.full((11,), MASK)])[None]
    noise = StreamNoise(Streams(0), torch.arange(1), 20)
    result = confidence(Denoiser(tiny(), MASK, guidance=guidance), canvas, noise, steps=11, observer=steps.append)
    assert torch.equal(result.tokens[0, 9:], expected[f"greedy_suffix_cfg{guidance}"])
    order = [int(step.new[0].nonzero()) for step in steps[1:-1]]
    assert order == expected[f"greedy_order_cfg{guidance}"].tolist()[:9]
