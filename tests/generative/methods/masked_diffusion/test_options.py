"""Several continuations of one context."""

from __future__ import annotations

import pytest
import torch

from generative.errors import ConfigError
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.likelihood import Scorer, chain_rule, exact_count
from generative.methods.masked_diffusion.options import score_options
from generative.randomness import Streams
from tests.support.sampling_cases import denoiser, sharp_net

CONTEXT = torch.tensor([4, 8, 15])
OPTIONS = [torch.tensor([16, 2, 3, 4, 5]), torch.tensor([16, 2, 9, 4, 5]), torch.tensor([1, 2])]


@pytest.fixture(scope="module")
def score():
    return Scorer(denoiser(sharp_net()))


def test_replicates_are_independent_estimates_of_each_option(score):
    found = score_options(score, CONTEXT, OPTIONS, Streams(0), 7, draws=12, replicates=3)
    assert found.replicates.shape == (3, 3)
    ids = torch.cat([CONTEXT, OPTIONS[1]]).expand(3, -1)
    target = torch.arange(8).expand(3, -1) >= 3
    own = exact_count(score, ids, target, Streams(0).within("options"), torch.arange(21, 24), 4)
    assert torch.equal(found.replicates[1], own)
    torch.testing.assert_close(found.stderr[1], own.std() / 3**0.5)
    assert found.lead_stderr[found.best] == 0


@pytest.mark.parametrize("estimator", ["exact_count", "monte_carlo"])
def test_errors_and_differences_are_those_of_many_repeats(score, estimator):
    """Standard errors are honest, and common noise makes differences of similar options less noisy."""
    kinds = {}
    for common in (True, False):
        many = [
            score_options(score, CONTEXT, OPTIONS[:2], Streams(0), q, draws=8, estimator=estimator, common=common)
            for q in range(40)
        ]
        differences = torch.stack([each.nats[0] - each.nats[1] for each in many])
        kinds[common] = float(differences.var())
        other = torch.stack([each.lead_stderr.max() for each in many])
        assert float((other**2).mean()) == pytest.approx(kinds[common], rel=0.6)
    assert kinds[True] < 0.8 * kinds[False]


def test_the_chain_rule_needs_no_replicates(score):
    found = score_options(score, CONTEXT, OPTIONS, Streams(0), 0, draws=1, estimator="chain_rule")
    ids = torch.cat([CONTEXT, OPTIONS[2]])[None]
    torch.testing.assert_close(found.nats[2], chain_rule(score, ids, torch.arange(5)[None] >= 3)[0])
    assert not found.stderr.any()


def test_a_question_is_scored_alike_with_guidance_and_in_any_order(score):
    guided = Scorer(Denoiser(score.denoiser.net, score.denoiser.mask_id, guidance=0.8))
    first = score_options(guided, CONTEXT, OPTIONS, Streams(0), 3, draws=4, replicates=2)
    back = score_options(guided, CONTEXT, OPTIONS[::-1], Streams(0), 3, draws=4, replicates=2)
    assert torch.equal(first.replicates, back.replicates.flip(0))


@pytest.mark.parametrize(
    ("options", "draws", "replicates"), [([torch.tensor([], dtype=torch.int64)], 8, 4), (OPTIONS, 2, 4)]
)
def test_what_has_no_answer_is_refused(score, options, draws, replicates):
    with pytest.raises(ConfigError):
        score_options(score, CONTEXT, options, Streams(0), 0, draws=draws, replicates=replicates)
