from __future__ import annotations

import pytest
import torch

from generative.errors import ConfigError
from generative.methods.rece.config import StepConfig
from generative.methods.rece.debias import RATE, ROUNDS, TOLERANCE, Debiased, debias, raised
from generative.methods.rece.erase import SharedTransform
from generative.methods.rece.preserve import Kept
from tests.generative.methods.rece.texts import prompt, shared, weights

STEP = StepConfig(variant="last", lamb=1e-6, preserve_scale=1.0)
DOCTOR = Debiased(prompt("doctor"), [prompt("woman"), prompt("man")])


def test_one_round() -> None:
    """The rarer attribute is added to the concept, the other taken off."""
    seen: list[SharedTransform] = []

    def shares(state: SharedTransform, numbers: list[int]) -> list[torch.Tensor]:
        seen.append(state)
        return [torch.tensor([0.1, 0.9], dtype=torch.float64)]

    state = shared(weights())
    found, alphas = debias(state, [DOCTOR], Kept.nothing(12), STEP, shares, rounds=1)
    assert seen == [state]
    torch.testing.assert_close(alphas[0], torch.tensor([RATE * 0.4, -RATE * 0.4], dtype=torch.float64))
    row, woman, man = (p.segments[0].rows[2] for p in (DOCTOR.concept, *DOCTOR.attributes))
    torch.testing.assert_close(found.transform.on_states(row), row + 0.04 * (woman - man), rtol=1e-5, atol=1e-5)


def test_ends_when_the_shares_are_near() -> None:
    """A model whose share rises by as much as alpha: rounds go on until it is within the tolerance."""
    rounds = 0
    alpha = torch.zeros(2, dtype=torch.float64)

    def shares(state: SharedTransform, numbers: list[int]) -> list[torch.Tensor]:
        nonlocal rounds, alpha
        rounds += 1
        share = torch.tensor([0.2, 0.8], dtype=torch.float64) + alpha
        alpha = raised(alpha, share, DOCTOR.shares)
        return [share]

    _, alphas = debias(shared(weights()), [DOCTOR], Kept.nothing(12), STEP, shares)
    assert abs(0.3 - float(alphas[0][0])) <= TOLERANCE < abs(0.3 - float(alphas[0][0])) / (1 - RATE)
    assert 1 < rounds < ROUNDS


def test_concepts_are_edited_together_and_apart_in_their_ends() -> None:
    nurse = Debiased(prompt("nurse"), [prompt("woman"), prompt("man")], (0.3, 0.7))
    asked: list[list[int]] = []

    def shares(state: SharedTransform, numbers: list[int]) -> list[torch.Tensor]:
        asked.append(list(numbers))
        good, bad = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
        return [good if i == 0 else bad for i in numbers]

    _, alphas = debias(shared(weights()), [DOCTOR, nurse], Kept.nothing(12), STEP, shares, rounds=3)
    assert asked == [[0, 1], [1], [1]]
    assert not alphas[0].any()
    torch.testing.assert_close(alphas[1], torch.tensor([-0.21, 0.21], dtype=torch.float64))


def test_five_points_of_twenty_images_are_near_enough() -> None:
    state = shared(weights())
    shares = torch.bincount(torch.tensor([0] * 11 + [1] * 9)).double() / 20
    found, alphas = debias(state, [DOCTOR], Kept.nothing(12), STEP, lambda now, numbers: [shares])
    assert found is state
    assert not alphas[0].any()


def test_shares_that_cannot_be() -> None:
    for shares in ((1.5, -0.5), (float("nan"), 0.5)):
        with pytest.raises(ConfigError, match="from 0 on"):
            Debiased(prompt("doctor"), [prompt("woman"), prompt("man")], shares)
    with pytest.raises(ConfigError, match="add up to 1"):
        Debiased(prompt("doctor"), [prompt("woman"), prompt("man")], (0.5, 0.6))
    with pytest.raises(ConfigError):
        Debiased(prompt("doctor"), [prompt("woman")])
