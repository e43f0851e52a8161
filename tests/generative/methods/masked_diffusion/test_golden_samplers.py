"""Trajectories of the released sampler, replayed with the uniforms that it drew."""

from __future__ import annotations

import pytest
import torch

from generative.diffusion.categorical import gumbel_scores
from generative.methods.masked_diffusion.canvas import Canvas
from generative.methods.masked_diffusion.config import SamplingConfig
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.noise import SCHEDULES
from generative.methods.masked_diffusion.policies import Ancestral, Ranked, ScheduledCounts, unmask_chances
from generative.methods.masked_diffusion.sampler import Block, StreamNoise, TokenPolicy, fill
from generative.methods.masked_diffusion.sampling import draw
from generative.randomness import Streams

MASK = 64


class Recorded:
    """Noise that hands out recorded uniforms in the order in which the released code drew them."""

    def __init__(self, draws, sizes, temperature):
        self.temperature = temperature
        self.parts = list(torch.split(draws, sizes.tolist())) if len(draws) else []

    def positions(self, step, masked):
        uniform = torch.ones(masked.shape, dtype=torch.float64)
        uniform[masked] = self.parts.pop(0)
        return uniform

    def tokens(self, step, logits, chosen):
        uniform = self.parts.pop(0).view(logits.shape) if self.temperature > 0 else logits
        return gumbel_scores(logits, uniform, self.temperature).argmax(-1)


def ancestral(steps):
    return Ancestral(unmask_chances(steps, SCHEDULES["linear"]))


def confidence(steps, **options):
    return Ranked(ScheduledCounts(unmask_chances(steps, SCHEDULES["linear"])), **options)


def filled(denoiser, canvas, noise, rule, steps, observer=None):
    everything = torch.ones(canvas.shape[1], dtype=torch.bool)
    block = Block(everything, 0, len(everything), rule, steps)
    return fill(Canvas(denoiser, canvas, observer=observer), noise, [block])


def replay(golden, net, case, sample, steps, temperature, guidance=0.0, prompt="prompt", **options):
    expected = {k.removeprefix(case + "/"): v for k, v in golden("tiny_samplers").items()}
    canvas, trajectory = expected["states"][0], []
    assert torch.equal(canvas[:, :6], expected[prompt])
    result = filled(
        Denoiser(net, MASK, guidance=guidance),
        canvas,
        Recorded(expected["draws_f64"], expected["draw_sizes"], temperature),
        sample(steps, **options),
        steps,
        trajectory.append,
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
    noise = StreamNoise(Streams(0), torch.arange(3), 24, TokenPolicy(temperature=0.0))
    together = filled(Denoiser(net, MASK), batch, noise, confidence(6), 6).tokens
    assert torch.equal(together[2], expected["greedy_T0_s6_cfg0/out"][0])


@pytest.mark.parametrize("guidance", [0.0, 0.6])
def test_ancestral(golden, tiny, guidance):
    replay(golden, tiny(), f"origin_T1_s5_cfg{guidance or 0}", ancestral, 5, 1.0, guidance)


@pytest.mark.parametrize("guidance", [0.0, 0.6])
def test_greedy_continuation(golden, tiny, guidance):
    """The harness commits one token a call; our grid of 11 steps commits none in the first and two in the last."""
    expected, steps = golden("tiny_likelihood"), []
    canvas = torch.cat([expected["prefix"], torch.full((11,), MASK)])[None]
    noise = StreamNoise(Streams(0), torch.arange(1), 20, TokenPolicy(temperature=0.0))
    denoiser = Denoiser(tiny(), MASK, guidance=guidance)
    result = filled(denoiser, canvas, noise, confidence(11), 11, steps.append)
    assert torch.equal(result.tokens[0, 9:], expected[f"greedy_suffix_cfg{guidance}"])
    order = [int(step.new[0].nonzero()) for step in steps[1:-1]]
    assert order == expected[f"greedy_order_cfg{guidance}"].tolist()[:9]


@pytest.mark.parametrize(("case", "block", "steps"), [("block8_s16", 8, 16), ("full_s4", 16, 4), ("block4_s8", 4, 8)])
def test_blocks_of_llada(golden, tiny, case, block, steps):
    expected, trajectory = golden("tiny_peers"), []
    states = expected[f"llada_{case}/states"]
    settings = SamplingConfig(name="confidence", count="even", temperature=0.0, steps=steps, block_length=block)
    result = draw(settings, Denoiser(tiny(), MASK), states[:1], torch.arange(1), Streams(0), observer=trajectory.append)
    assert torch.equal(torch.cat([states[:1], *(step.canvas for step in trajectory[:-1])]), states)
    assert torch.equal(result.tokens, expected[f"llada_{case}/out"])


@pytest.mark.parametrize("level", [0.2, 0.4])
def test_threshold_of_fast_dllm(golden, tiny, level):
    expected, trajectory = golden("tiny_peers"), []
    out, states = expected[f"fast_gen_thr{level}/out"], expected[f"fast_gen_thr{level}/states"]
    settings = SamplingConfig(name="confidence", count="threshold", threshold=level, temperature=0.0, block_length=8)
    result = draw(settings, Denoiser(tiny(), MASK), states[:1], torch.arange(1), Streams(0), observer=trajectory.append)
    assert torch.equal(torch.cat([states[:1], *(step.canvas for step in trajectory[:-1])]), states)
    assert torch.equal(result.tokens, out)
    assert result.calls.tolist() == [int(expected[f"fast_gen_thr{level}/nfe"])]


@pytest.mark.parametrize("level", [0.15, 0.3, 0.5])
def test_first_choice_of_fast_dllm(golden, tiny, level):
    expected, trajectory = golden("tiny_peers"), []
    canvas = torch.cat([expected["prompt"], torch.full((1, 16), MASK)], dim=1)
    settings = SamplingConfig(name="confidence", count="threshold", threshold=level, temperature=0.0)
    draw(settings, Denoiser(tiny(), MASK), canvas, torch.arange(1), Streams(0), observer=trajectory.append)
    assert torch.equal(trajectory[0].new, expected[f"fast_thr{level}/transfer"])
    taken = trajectory[0].new
    assert torch.equal(trajectory[0].canvas[taken], expected[f"fast_thr{level}/x0"][taken])
