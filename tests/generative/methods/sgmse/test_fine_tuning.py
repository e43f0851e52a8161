from __future__ import annotations

import pytest
import torch

from generative.methods.sgmse.bridges import BBED
from generative.methods.sgmse.fine_tuning import corrected_reverse
from generative.methods.sgmse.noise import StreamNoise
from generative.methods.sgmse.processes import OUVE, spread
from generative.methods.sgmse.samplers.common import time
from generative.methods.sgmse.samplers.predictor_corrector import predictor_corrector
from generative.methods.sgmse.wrapping import score_of
from generative.randomness import Streams


@pytest.mark.parametrize("process", [OUVE(), BBED()], ids=["ouve", "bbed"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_last_step_is_that_of_the_sampler(process, steps, complex_noise) -> None:
    x0, y = complex_noise(2, 1, 3, 4), complex_noise(2, 1, 3, 4, seed=1)
    noise = StreamNoise(Streams(1), torch.tensor([4, 2]), y)
    score = score_of(process, lambda *_: x0 + 0.1)
    loss, calls = corrected_reverse(score, process, x0, y, noise, steps=steps)
    sampled = predictor_corrector(score, process, y, noise, steps=steps, start=0.5, corrector="none")
    torch.testing.assert_close(loss, 0.5 * (sampled.estimate - x0).abs().square().sum((1, 2, 3)))
    assert calls.tolist() == [steps, steps]


def test_only_the_last_step_has_a_gradient(complex_noise) -> None:
    """d loss / d score = g^2 dt (mean - target) of the last step alone."""
    process, y = OUVE(), complex_noise(1, 1, 2, 3)
    noise = StreamNoise(Streams(1), torch.tensor([4]), y)
    answers = []

    def score(x, y, t):
        assert torch.is_grad_enabled() == (len(answers) == 2)
        answers.append((0.1 * x).requires_grad_())
        return answers[-1]

    loss, _ = corrected_reverse(score, process, torch.zeros_like(y), y, noise, steps=3, start=0.6, step_rule="uniform")
    loss.sum().backward()
    assert [answer.grad is None for answer in answers] == [True, True, False]
    # Uniform steps of 0.2 from the last time, t_eps, reach beyond 0: the target is x0 = 0 there.
    g = process.diffusion(time(0.03)).square()
    gradient = answers[2].grad / spread(0.2 * g, y)
    torch.testing.assert_close(0.5 * gradient.abs().square().sum((1, 2, 3)), loss.detach())
