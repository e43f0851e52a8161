"""Attacks that stay within the vocabulary: UnlearnDiffAtk, P4D, and all prompts of one or two words.

Free tokens stand before the prompt's content (a prefix). Protocols as in the repository Diffusion-MU-Attack, whose P4D
is a re-implementation of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation.erasure.probes import Predict, Probes


@dataclass(frozen=True)
class PrefixedText:
    """A prompt with k free tokens before its content.

    Args:
        model: CLIPTextModel, in eval mode.
        tokens: int64[L] of the prompt with k place holders after the start token.
        free: k.
    """

    model: Any
    tokens: Tensor
    free: int

    @staticmethod
    def of(model: Any, tokens: Tensor, free: int) -> PrefixedText:
        """From the prompt's own tokens int64[L]; what no longer fits is cut before the last token."""
        length = len(tokens)
        longer = torch.cat([tokens[:1], tokens[:1].repeat(free), tokens[1:]])[:length].clone()
        longer[-1] = tokens[-1]
        return PrefixedText(model, longer, free)

    @property
    def table(self) -> Tensor:
        """Input embeddings of the vocabulary, [V, d_in], on the CPU, where the search is."""
        found: Tensor = self.model.get_input_embeddings().weight.detach().float().cpu()
        return found

    def states(self, rows: Tensor) -> Tensor:
        """E with input embeddings [k, d_in] in the free places, [L, d]; differentiable in them."""
        with self._replaced(rows):
            found: Tensor = self.model(input_ids=self.tokens[None]).last_hidden_state[0]
        return found

    @torch.no_grad()
    def encoded(self, tokens: Tensor) -> Tensor:
        """E of several choices of the free tokens, int64[N, k] to float32[N, L, d] on the CPU."""
        rows = self.tokens.repeat(len(tokens), 1)
        rows[:, 1 : 1 + self.free] = tokens.to(rows.device)
        found: Tensor = self.model(input_ids=rows).last_hidden_state
        return found.float().cpu()

    @contextmanager
    def _replaced(self, rows: Tensor) -> Iterator[None]:
        def hook(module: Any, args: Any, out: Tensor) -> Tensor:
            return torch.cat([out[:, :1], rows[None].to(out), out[:, 1 + len(rows) :]], 1)

        handle = self.model.get_input_embeddings().register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def on_simplex(rows: Tensor) -> Tensor:
    """The nearest points of the probability simplex, row by row (exact, by sorting; Duchi et al. 2008)."""
    falling = rows.sort(-1, descending=True).values
    excess = falling.cumsum(-1) - 1
    counts = torch.arange(1, rows.shape[-1] + 1, dtype=rows.dtype, device=rows.device)
    held = (falling * counts > excess).sum(-1, keepdim=True)
    return (rows - excess.gather(-1, held - 1) / held).clamp_min(0)


class _Sampled(torch.autograd.Function):
    """One token a row by its probabilities; backward: the gradient, cut to [-1, 1] (straight through)."""

    @staticmethod
    def forward(context: Any, rows: Tensor, drawn: Tensor) -> Tensor:
        return F.one_hot(drawn, rows.shape[-1]).to(rows)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return F.hardtanh(gradients[0]), None


@dataclass(frozen=True)
class UnlearnSettings:
    """Of UnlearnDiffAtk: 50 noise levels from low to high, 40 steps of Adam at each, weight decay 0.1."""

    steps: int = 40
    rate: float = 0.01
    decay: float = 0.1


def unlearn_diff(
    edited: Predict,
    text: PrefixedText,
    probes: Callable[[int], Sequence[Probes]],
    levels: int,
    settings: UnlearnSettings,
    generator: torch.Generator,
    succeeded: Callable[[Tensor], bool] = lambda states: False,
) -> Tensor:
    """Tokens int64[k] that bring the concept back, or the last ones tried.

    The variable is [k, V] on the simplex, from 1/V; each step draws a token a row. After each level the most probable
    tokens are tried, and the first success ends it.

    Args:
        edited: under attack.
        text: the prompt.
        probes: of a level's number (0 first), one for each step: fresh noise on one image.
        levels: number of noise levels.
        settings: of the search.
        generator: draws tokens.
        succeeded: whether images of these states [L, d] show the concept.
    """
    table = text.table
    variable = torch.full((text.free, len(table)), 1 / len(table), requires_grad=True)
    optimizer = torch.optim.Adam([variable], settings.rate, weight_decay=settings.decay)
    best = variable.detach().argmax(-1)
    for level in range(levels):
        for probe in probes(level)[: settings.steps]:
            drawn = torch.multinomial(variable.detach(), 1, generator=generator)[:, 0]
            rows = _Sampled.apply(variable, drawn) @ table  # type: ignore[no-untyped-call]
            (variable.grad,) = torch.autograd.grad(probe.loss(edited, text.states(rows)), variable)
            optimizer.step()
            with torch.no_grad():
                variable.copy_(on_simplex(variable))
        best = variable.detach().argmax(-1)
        with torch.no_grad():
            if succeeded(text.states(table[best])):
                break
    return best


def nearest(rows: Tensor, table: Tensor) -> Tensor:
    """Tokens int64[k] whose embeddings have the largest cosine with rows [k, d_in]."""
    return (F.normalize(rows, dim=-1) @ F.normalize(table, dim=-1).T).argmax(-1)


def p4d(
    edited: Predict,
    text: PrefixedText,
    probes: Sequence[Probes],
    steps: int,
    rate: float,
    decay: float,
    generator: torch.Generator,
) -> Tensor:
    """Tokens int64[k] by P4D (hard prompts): the gradient at the nearest tokens moves continuous embeddings.

    After each round of the probes the tokens are compared on all of them: how large the loss on one image is depends
    on its noise level more than on the tokens.

    Args:
        edited: under attack.
        text: the prompt; embeddings begin at random tokens.
        probes: one noisy image each, with the original model's prediction as what is wanted; steps go round them.
        steps: of AdamW.
        rate: of AdamW (0.1 in P4D).
        decay: weight decay (0.1 there).
        generator: draws the first tokens.
    """
    table = text.table
    drawn = torch.randint(len(table), (text.free,), generator=generator)
    variable = table[drawn].clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([variable], rate, weight_decay=decay)
    best, least = drawn, float("inf")
    for number in range(steps):
        rows = table[nearest(variable.detach(), table)].clone().requires_grad_(True)
        loss = probes[number % len(probes)].loss(edited, text.states(rows))
        (variable.grad,) = torch.autograd.grad(loss, rows)
        optimizer.step()
        if (number + 1) % len(probes) == 0 or number + 1 == steps:
            tokens = nearest(variable.detach(), table)
            with torch.no_grad():
                states = text.states(table[tokens])
                whole = sum(float(probe.loss(edited, states)) for probe in probes)
            if whole < least:
                best, least = tokens, whole
    return best


@torch.no_grad()
def best_words(
    edited: Predict, embed: Callable[[Sequence[str]], Tensor], probes: Probes, words: Sequence[str], most: int = 2
) -> tuple[str, float]:
    """The prompt of one to `most` words of a (small) vocabulary with the least loss: exact, since all are tried."""
    texts = [" ".join(some) for count in range(1, most + 1) for some in product(words, repeat=count)]
    losses = [float(probes.loss(edited, states)) for states in embed(texts)]
    least = min(range(len(texts)), key=losses.__getitem__)
    return texts[least], losses[least]
