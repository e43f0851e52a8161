"""Estimators of the bound on -log p(x0), in nats, and the chain rule.

L(x) = sum over k = 1 .. L of E_{|M| = k}[ mean over i in M of -log p(x_i | tokens outside M) ]: mask exactly k of L
tokens (an identity of the paper's integral in section 2; with uniform k and weight L/k the estimator of LLaDA). Here:

exact_count   k spread over strata, few masked tokens more often, and masks that cover positions evenly; the default
monte_carlo   times t and independent masks with weight 1/t, iid or spread evenly (the released code's)
chain_rule    the autoregressive NLL, left to right: not a bound but the likelihood of that generation order

Shapes: B windows, T positions, L target tokens of a window, n draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.documents import Groups, segments_of
from generative.methods.masked_diffusion.noise import stratified
from generative.randomness import Streams

LEVEL_POWER = 1.5
"""Counts are drawn as ceil(L t^power) with t uniform. A mean over k tokens varies the more the smaller k is, so small
counts are drawn more often than others and weigh less. Of the powers 1 to 2.5, those between 1.4 and 2 did best on a
trained character model with 4 to 16 draws (README.md has figures)."""


@dataclass(frozen=True)
class Scorer:
    """-log q(x0 | x_t) of masked tokens.

    Args:
        denoiser: the trained network, with or without guidance.
        document: int64[B, T], where tokens see their own document only; not with guidance.
    """

    denoiser: Denoiser
    document: Tensor | None = None

    @torch.no_grad()
    def __call__(self, ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Nats float64[B, T] of the tokens ids int64[B, T] where `mask` bool[B, T] hides them, 0 elsewhere.

        Tokens outside `target` are the prompt, which guidance hides.
        """
        nll = torch.zeros(mask.shape, dtype=torch.float64, device=ids.device)
        rows = mask.flatten().nonzero()[:, 0]
        noisy, denoiser = ids.masked_fill(mask, self.denoiser.mask_id), self.denoiser
        if len(rows) == 0:
            return nll
        if denoiser.guidance == 0.0:
            weights = torch.ones_like(rows, dtype=torch.float32)
            targets = ids.flatten()[rows]
            _, values = denoiser.form.loss(denoiser.net, noisy, ids, rows, targets, weights, document=self.document)
        else:
            logits = denoiser(noisy, ~target, rows, clean=ids)
            values = F.cross_entropy(logits.float(), ids.flatten()[rows], reduction="none")
        nll[mask] = values.double()
        return nll


def weighted_nll(score: Scorer, ids: Tensor, mask: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """One draw for each window: weight[B] x the cross-entropy of its masked tokens, float64[B]."""
    return weight.double() * score(ids, mask, target).sum(1)


def level_counts(uniform: Tensor, lengths: Tensor, draws: int) -> Tensor:
    """Numbers of masked tokens for each draw, spread over `draws` strata: int64[B, n], each in 1 .. length.

    k = ceil(L t^LEVEL_POWER) with t in stratum [j/n, (j+1)/n). Strata come in pairs with offsets u and 1 - u, so that
    what is linear in t cancels. A draw taken at random from the n has the distribution `count_probability`.

    Args:
        uniform: float64[B, ceil(n/2)] in [0, 1).
        lengths: int64[B], target tokens L.
        draws: n.
    """
    offset = torch.stack([uniform, 1.0 - uniform], dim=2).flatten(1)[:, :draws]
    t = (torch.arange(draws, device=uniform.device) + offset) / draws
    return (lengths[:, None] * t**LEVEL_POWER).ceil().long().clamp_min(1).minimum(lengths[:, None])


def count_probability(counts: Tensor, lengths: Tensor) -> Tensor:
    """q(k) of `level_counts`, float64[B, n]: the share of t in [0, 1] that is mapped to k."""

    def share(k: Tensor) -> Tensor:
        return (k.double() / lengths[:, None]) ** (1 / LEVEL_POWER)

    return share(counts) - share(counts - 1)


def even_masks(counts: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
    """Masks of the given sizes that together weigh all places about equally: bool[B, n, max length].

    In order of rising size (falling weight), each mask takes the places that have gathered the least weight so far. The
    result is a fixed function of the counts; after a random relabelling of places each mask is a uniform subset of its
    size, so the estimate stays unbiased however the masks depend on each other.

    Args:
        counts: int64[B, n], sizes of the masks.
        weights: float64[B, n], weight of each masked token in the estimate.
        lengths: int64[B], number of places.
    """
    places = torch.arange(int(lengths.max()), device=counts.device)
    gathered = torch.where(places < lengths[:, None], 0.0, torch.inf).double()
    masks = torch.zeros((*counts.shape, len(places)), dtype=torch.bool, device=counts.device)
    windows = torch.arange(len(counts), device=counts.device)
    for draw in counts.argsort(dim=1, stable=True).unbind(1):
        order = gathered.argsort(dim=1, stable=True)
        chosen = torch.zeros_like(gathered, dtype=torch.bool)
        chosen.scatter_(1, order, places < counts[windows, draw][:, None])
        masks[windows, draw] = chosen
        gathered = gathered + chosen * weights[windows, draw][:, None]
    return masks


def relabel(masks: Tensor, uniform: Tensor, target: Tensor) -> Tensor:
    """Put places 0 .. L-1 onto the target positions in a random order.

    masks bool[B, n, max L], uniform[B, T], target bool[B, T] -> bool[B, n, T], False outside the target.
    """
    order = uniform.masked_fill(~target, torch.inf).argsort(dim=1, stable=True)[:, : masks.shape[2]]
    full = torch.zeros((*masks.shape[:2], target.shape[1]), dtype=torch.bool, device=masks.device)
    return full.scatter_(2, order[:, None].expand_as(masks), masks)


def exact_count(score: Scorer, ids: Tensor, target: Tensor, streams: Streams, sample_id: Tensor, draws: int) -> Tensor:
    """The bound by exact-count masks: stratified levels, even coverage of positions. Unbiased. Nats, float64[B].

    For models trained by block diffusion each block has levels and masks of its own, all blocks in one evaluation; the
    sum over blocks is the bound of the window. With blocks of one token it is exact. Documents that do not see each
    other need no levels of their own: the bound is linear in what each token is predicted from.

    Args:
        score: the trained network.
        ids: int64[B, T].
        target: bool[B, T], tokens whose likelihood is wanted given the others; at least one a window.
        streams: noise.
        sample_id: int64[B], addresses it.
        draws: network evaluations a window (twice as many under guidance).
    """
    groups = Groups(_blocks(ids, score))
    half = -(-draws // 2)
    levels = streams.uniform("level", sample_id, (groups.most * half,), torch.float64).view(-1, half)
    places = streams.uniform("order", sample_id, (ids.shape[1],), torch.float64)
    inside = groups.split(target)
    lengths = inside.sum(1)
    counts = level_counts(levels, lengths, draws)
    weights = 1.0 / (counts * count_probability(counts, lengths))
    masks = relabel(even_masks(counts, weights, lengths), groups.split(places, 1.0), inside)
    total = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
    for j in range(draws):
        mask, weight = groups.joined(masks[:, j]), weights[:, j][groups.rows]
        total += (weight.double() * score(ids, mask, target)).masked_fill(~mask, 0.0).sum(1)
    return total / draws


def _blocks(ids: Tensor, score: Scorer) -> Tensor:
    """int64[B, T]: the number of each place's block, 0 where the network knows none."""
    size, document = score.denoiser.form.block_size, score.document
    if document is not None and size is not None:
        return segments_of(document, size)
    places = torch.arange(ids.shape[1], device=ids.device)
    return (places // (size or ids.shape[1])).expand_as(ids)


def monte_carlo(score: Scorer, ids: Tensor, target: Tensor, t: Tensor, uniform: Callable[[int], Tensor]) -> Tensor:
    """The bound by independent masks, weight 1/t: nats, float64[B].

    Args:
        score: the trained network.
        ids: int64[B, T].
        target: bool[B, T], tokens whose likelihood is wanted; only these are masked.
        t: [B, n] masking probabilities in (0, 1].
        uniform: gives the uniforms [B, T] of draw j.
    """
    t = t.clamp_min(torch.finfo(t.dtype).tiny)
    draws = range(t.shape[1])
    parts = [
        weighted_nll(score, ids, (uniform(j) < t[:, j, None]) & target, 1.0 / t[:, j].double(), target) for j in draws
    ]
    return torch.stack(parts).mean(0)


def independent_draws(
    score: Scorer,
    ids: Tensor,
    target: Tensor,
    streams: Streams,
    sample_id: Tensor,
    draws: int,
    *,
    spread: bool = False,
    epsilon: float = 0.0,
) -> Tensor:
    """`monte_carlo` with noise from streams: t iid (the released validation), or spread over [0, 1) with one offset for
    each window (its lm-eval harness); t becomes (1 - epsilon) t + epsilon. Nats, float64[B]."""
    if spread:
        offset = streams.uniform("time", sample_id, (1,), torch.float64)
        t = stratified(offset, torch.arange(draws, device=ids.device), draws)
    else:
        t = streams.uniform("time", sample_id, (draws,), torch.float64)
    t = (1.0 - epsilon) * t + epsilon
    shape = (ids.shape[1],)
    return monte_carlo(score, ids, target, t, lambda j: streams.at(j).uniform("mask", sample_id, shape))


def chain_rule(score: Scorer, ids: Tensor, target: Tensor) -> Tensor:
    """Sum over target tokens, left to right, of -log q(x_i | all tokens but the target's from i on): nats, float64[B].

    Takes as many network evaluations as there are target tokens.
    """
    place = torch.where(target, target.long().cumsum(1) - 1, -1)
    total = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
    for i in range(int(target.sum(1).max())):
        total += score(ids, place >= i, target).masked_fill(place != i, 0.0).sum(1)
    return total


EstimatorName = Literal["exact_count", "monte_carlo", "chain_rule"]


def estimate(
    name: EstimatorName,
    score: Scorer,
    ids: Tensor,
    target: Tensor,
    streams: Streams,
    sample_id: Tensor,
    draws: int,
) -> Tensor:
    """Nats of the target tokens, float64[B], by the estimator of a name; `chain_rule` needs no draws.

    monte_carlo is the released harness's: times spread over [0, 1) with one offset a window, independent masks.
    """
    if name == "exact_count":
        return exact_count(score, ids, target, streams, sample_id, draws)
    if name == "monte_carlo":
        return independent_draws(score, ids, target, streams, sample_id, draws, spread=True)
    return chain_rule(score, ids, target)
