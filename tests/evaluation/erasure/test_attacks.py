"""Attacks against models whose answers are known: what they must find, and where their bounds hold."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.erasure.probes import Probes, of_original
from evaluation.erasure.ring import GeneticSettings, direction, genetic
from evaluation.erasure.soft import SoftSettings, projected, soft_prompt
from evaluation.erasure.tokens import PrefixedText, UnlearnSettings, best_words, nearest, on_simplex, p4d, unlearn_diff
from generative.methods.rece.transform import Transform
from generative.randomness import Streams

D, L = 4, 3


def linear(matrix: torch.Tensor):
    """eps = the sum over tokens of `matrix` h, whatever the image is."""
    return lambda x, time, states: (states @ matrix.T).sum(1)


def probes_for(original, concept, count=3):
    signal = torch.linspace(0.99, 0.01, 50)
    return of_original(original, signal, torch.zeros(count, D), concept, Streams(0))


def case():
    generator = torch.Generator().manual_seed(0)
    concept = torch.randn(L, D, generator=generator)
    p = torch.randn(D, 1, generator=generator).double()
    q = -p / p.square().sum() * 0.75
    return torch.randn(D, D, generator=generator), concept, Transform(p, q)


def test_probes_are_noisy_images_at_levels_spread_evenly():
    signal = torch.linspace(0.99, 0.01, 50)
    clean = torch.randn(5, D, generator=torch.Generator().manual_seed(1))
    concept = torch.zeros(L, D)
    found, noise = (of_original(linear(torch.eye(D)), signal, x, concept, Streams(3)) for x in (clean, 0 * clean))
    assert (found.time // 10).tolist() == [0, 1, 2, 3, 4]
    kept = signal[found.time][:, None]
    torch.testing.assert_close(found.noisy, kept.sqrt() * clean + noise.noisy)
    assert 0.5 < float((noise.noisy / (1 - kept).sqrt()).std()) < 1.5


def test_without_a_bound_a_soft_prompt_undoes_a_transform_that_can_be_inverted():
    matrix, concept, transform = case()
    probes = probes_for(linear(matrix), concept)

    def edited(x, time, states):
        return linear(matrix)(x, time, transform.on_states(states))

    assert float(probes.loss(edited, concept)) > 1e-2
    found = soft_prompt(edited, probes, concept, [torch.zeros(L, D), concept], math.inf, SoftSettings(800, 0.05))
    assert found.loss < 1e-4
    inverse = torch.linalg.solve(transform.matrix.float(), concept.T).T
    assert float(probes.loss(edited, inverse)) < 1e-8


@pytest.mark.parametrize("rho", [0.3, 1.0])
def test_a_soft_prompt_keeps_its_bound_row_by_row(rho):
    matrix, concept, transform = case()
    probes = probes_for(linear(matrix), concept)

    def edited(x, time, states):
        return linear(matrix)(x, time, transform.on_states(states))

    found = soft_prompt(edited, probes, concept, [10 * concept], rho, SoftSettings(30))
    assert (found.states.norm(dim=-1) <= rho * concept.norm(dim=-1) * (1 + 1e-5)).all()


def test_the_start_with_the_least_loss_is_taken():
    concept = torch.eye(D)[:L]
    probes = probes_for(linear(torch.eye(D)), concept)
    found = soft_prompt(linear(torch.eye(D)), probes, concept, [-concept, concept], 1.0, SoftSettings(0))
    assert found.start == 1
    assert found.loss == 0


def test_projection_leaves_short_rows_alone():
    concept = torch.eye(2)
    rows = torch.tensor([[3.0, 4.0], [0.1, 0.0]])
    torch.testing.assert_close(projected(rows, concept, 1.0), torch.tensor([[0.6, 0.8], [0.1, 0.0]]))
    assert projected(rows, concept, math.inf) is rows


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_points_of_the_simplex_are_the_nearest_ones(numbers):
    row = torch.tensor([numbers], dtype=torch.float64)
    found = on_simplex(row)
    assert float(found.sum()) == pytest.approx(1, abs=1e-9)
    assert (found >= 0).all()
    # KKT: where a coordinate is above zero, it was lowered by the same amount; elsewhere by no less
    shift = (row - found)[found > 0]
    assert float(shift.max() - shift.min()) < 1e-9
    assert (row[found == 0] <= shift.mean() + 1e-9).all()
    torch.testing.assert_close(on_simplex(found), found)


class FakeText(torch.nn.Module):
    """A text encoder that gives input embeddings back."""

    def __init__(self, words: int = 7) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(words, D)
        with torch.no_grad():
            self.table.weight.copy_(torch.randn(words, D, generator=torch.Generator().manual_seed(2)))

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids):
        return type("Out", (), {"last_hidden_state": self.table(input_ids)})


def test_free_tokens_stand_before_the_content():
    model = FakeText()
    text = PrefixedText.of(model, torch.tensor([1, 4, 0, 0, 0]), 2)
    assert text.tokens.tolist() == [1, 1, 1, 4, 0]
    rows = torch.full((2, D), 9.0, requires_grad=True)
    states = text.states(rows)
    assert torch.equal(states[1:3], rows)
    assert torch.equal(states[[0, 3, 4]], model.table(torch.tensor([1, 4, 0])))
    states.sum().backward()
    assert torch.equal(rows.grad, torch.ones(2, D))
    assert torch.equal(model(torch.tensor([[1]])).last_hidden_state[0, 0], model.table.weight[1])


def known_attack():
    """The word that gives what is wanted is number 5."""
    model = FakeText()
    text = PrefixedText.of(model, torch.tensor([1, 0, 0]), 1)
    wanted = text.states(model.table.weight[5:6]).detach()
    probe = Probes(torch.zeros(1, D), torch.zeros(1).long(), wanted.sum(0, keepdim=True))
    return linear(torch.eye(D)), text, probe


def test_p4d_finds_the_word():
    edited, text, probe = known_attack()
    generator = torch.Generator().manual_seed(0)
    assert p4d(edited, text, [probe], 100, 0.1, 0.0, generator).tolist() == [5]
    assert nearest(3 * text.table[2:4], text.table).tolist() == [2, 3]


def test_p4d_compares_tokens_on_all_images():
    """On the quiet image no tokens give a large loss: what is least there says nothing of the others."""
    _, text, loud = known_attack()
    (drawn,) = torch.randint(7, (1,), generator=torch.Generator().manual_seed(0)).tolist()
    assert drawn != 5

    def edited(x, time, states):
        return (1 - 0.999 * time[:, None]) * states.sum(1)

    loud = Probes(loud.noisy, loud.time, loud.wanted + 0.2)
    quiet = Probes(
        loud.noisy, loud.time + 1, edited(None, loud.time + 1, text.states(text.table[[drawn]])[None]).detach()
    )
    found = p4d(edited, text, [quiet, loud], 200, 0.1, 0.0, torch.Generator().manual_seed(0))
    assert found.tolist() == [5]


def test_unlearn_diff_finds_the_word_and_stops_at_the_first_success():
    edited, text, probe = known_attack()
    tried = []

    def succeeded(states):
        tried.append(states)
        return bool(torch.equal(states[1], text.table[5]))

    generator = torch.Generator().manual_seed(0)
    found = unlearn_diff(
        edited, text, lambda level: [probe] * 40, 8, UnlearnSettings(40, 0.02, 0.0), generator, succeeded
    )
    assert found.tolist() == [5]
    assert len(tried) < 8


def test_the_best_words_are_found_among_all():
    model = FakeText()
    words = [str(i) for i in range(7)]

    def embed(texts):
        return torch.stack([sum(model.table.weight[int(w)] for w in text.split()).detach()[None] for text in texts])

    wanted = embed(["3 6"])[0]
    probe = Probes(torch.zeros(1, D), torch.zeros(1).long(), wanted)
    text, loss = best_words(linear(torch.eye(D)), embed, probe, words)
    assert set(text.split()) == {"3", "6"}
    assert loss == pytest.approx(0, abs=1e-10)


def test_ring_a_bell_is_the_mean_difference():
    numbers = {"a": 1.0, "b": 4.0, "c": 2.0, "d": 3.0, "p": 10.0}

    def embed(texts):
        return torch.tensor([numbers[text] for text in texts])[:, None, None].expand(-1, L, D)

    v = direction(embed, [("b", "a"), ("d", "c")])
    assert torch.equal(v, torch.full((L, D), 2.0))


def test_the_genetic_search_finds_tokens():
    table = torch.randn(6, D, generator=torch.Generator().manual_seed(4))
    wanted = table[torch.tensor([2, 5, 0])]
    found, loss = genetic(lambda t: table[t], wanted, 6, 3, GeneticSettings(40, 60), torch.Generator().manual_seed(0))
    assert found.tolist() == [2, 5, 0]
    assert loss == 0
