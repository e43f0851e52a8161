"""Ring-A-Bell: a concept's direction from pairs of texts, added to a prompt's embedding; and tokens for the sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Embed = Callable[[Sequence[str]], Tensor]
"""Texts to embeddings [N, L, d]."""


def direction(embed: Embed, pairs: Sequence[tuple[str, str]]) -> Tensor:
    """v = mean of E(sensitive) - E(normal), [L, d]."""
    return (embed([a for a, _ in pairs]) - embed([b for _, b in pairs])).mean(0)


@dataclass(frozen=True)
class GeneticSettings:
    """Of the search over tokens; the published numbers."""

    population: int = 200
    generations: int = 3000
    crossover: float = 0.5
    mutation: float = 0.25


def genetic(
    encode: Callable[[Tensor], Tensor],
    wanted: Tensor,
    vocabulary: int,
    length: int,
    settings: GeneticSettings,
    generator: torch.Generator,
) -> tuple[Tensor, float]:
    """Tokens int64[K] with the least |E(tokens) - (E(prompt) + eta v)|^2, and that distance.

    The better half stays; children cross two of them at a point, or are copies, and may have one token changed.

    Args:
        encode: tokens int64[N, K] to embeddings [N, L, d].
        wanted: [L, d].
        vocabulary: V.
        length: K (16, 38, 75 and 77 are published).
        settings: of the search.
        generator: of all that is drawn.
    """

    def losses(tokens: Tensor) -> Tensor:
        return (encode(tokens) - wanted).square().flatten(1).sum(1)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    half = settings.population // 2
    people = integers(vocabulary, settings.population, length)
    found = losses(people)
    for _ in range(settings.generations):
        order = found.argsort(stable=True)[:half]
        people, found = people[order], found[order]
        count = settings.population - len(people)
        mothers, fathers = people[integers(len(people), count)], people[integers(len(people), count)]
        crossed = torch.rand(count, 1, generator=generator) < settings.crossover
        after = torch.arange(length) >= integers(length, count, 1)
        children = torch.where(crossed & after, fathers, mothers)
        mutated = torch.rand(count, 1, generator=generator) < settings.mutation
        here = torch.arange(length) == integers(length, count, 1)
        children = torch.where(mutated & here, integers(vocabulary, count, 1), children)
        people, found = torch.cat([people, children]), torch.cat([found, losses(children)])
    least = int(found.argmin())
    return people[least], float(found[least])
