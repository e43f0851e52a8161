"""The nearest-neighbour entropy of codes (RB-MaEM), and the buffers of past codes that they are compared with.

Shapes: B samples of this rank, m entries of a code, S codes in a buffer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.method import Collectives

Form = Literal["log_mean", "mean_log", "cosine"]

SMALLEST = 1e-12
"""Added to distances before a logarithm: a code that is in the buffer already gives a large finite number."""


@dataclass(frozen=True)
class Entropy:
    """The entropy term of one batch, to be minimised.

    Args:
        values: float[B], whose sum over the valid rows of all ranks, divided by their number, has the gradient of the
            term.
        term: scalar, the term itself over the global batch, without gradient.
        nearest: float[B], squared distance (mean over m entries) to the k-th nearest code, or similarity to it.
    """

    values: Tensor
    term: Tensor
    nearest: Tensor


def entropy(
    codes: Tensor,
    others: Tensor,
    valid: Tensor,
    collectives: Collectives,
    form: Form = "log_mean",
    neighbour: int = 1,
    norm_weight: float = 0.0,
) -> Entropy:
    """The term L_ent of spec 2.2: -log mean n, -mean log n, or mean of cos + lambda |V| (eq. 8, 9, 11).

    n_i is the mean over the m entries of the squared difference to the k-th nearest of the other codes. Only `codes`
    take a gradient. The mean within log_mean is over the global batch: each rank's rows then carry -n_i / mean n, whose
    mean has the gradient of -log mean n.

    Args:
        codes: float[B, m] with gradient.
        others: float[S, m], or float[B, S, m] where each sample has codes of its own to be compared with.
        valid: bool[B], False for rows that weigh nothing.
        collectives: of all ranks.
        form: which of the three.
        neighbour: k, 1 .. S.
        norm_weight: lambda, weight of the codes' norms (cosine only).
    """
    if form == "cosine":
        nearest = F.cosine_similarity(codes, pick(codes, others, neighbour, cosine=True), dim=1)
        values = nearest + norm_weight * torch.linalg.vector_norm(codes, dim=1)
        return Entropy(values, global_mean(values, valid, collectives), nearest.detach())
    nearest = (codes - pick(codes, others, neighbour)).square().mean(1)
    if form == "mean_log":
        values = -(nearest + SMALLEST).log()
        return Entropy(values, global_mean(values, valid, collectives), nearest.detach())
    mean = global_mean(nearest, valid, collectives).clamp(min=SMALLEST)
    return Entropy(-nearest / mean, -mean.log(), nearest.detach())


@torch.no_grad()
def pick(codes: Tensor, others: Tensor, neighbour: int, cosine: bool = False) -> Tensor:
    """The k-th nearest (or most similar) of the other codes to each code, float[B, m]; shapes as in `entropy`."""
    if cosine:
        codes, compared = F.normalize(codes, dim=-1), F.normalize(others, dim=-1)
    else:
        compared = others
    if others.dim() == 3:
        scores = torch.einsum("bm,bsm->bs", codes, compared) if cosine else (codes[:, None] - compared).square().sum(2)
    else:
        # Not by the scalar product: its rounding confuses near neighbours.
        exact = "donot_use_mm_for_euclid_dist"
        scores = codes @ compared.T if cosine else torch.cdist(codes, compared, compute_mode=exact)
    if neighbour == 1:
        index = scores.argmax(1) if cosine else scores.argmin(1)
    else:
        index = scores.topk(neighbour, dim=1, largest=cosine).indices[:, -1]
    return others[torch.arange(len(codes), device=codes.device), index] if others.dim() == 3 else others[index]


def global_mean(values: Tensor, valid: Tensor, collectives: Collectives) -> Tensor:
    """Mean over the valid rows of all ranks, without gradient; scalar."""
    kept = values.detach() * valid
    total, count = collectives.sum(torch.stack([kept.sum(), valid.sum().to(kept.dtype)])).unbind()
    return total / count.clamp(min=1)


def differential_entropy(points: Tensor, neighbour: int = 1) -> Tensor:
    """Kozachenko and Leonenko's estimate of the entropy of points float[N, m], in nats; float64 scalar.

    H = psi(N) - psi(k) + log V_m + m/N sum_i log r_i, r_i the distance to the k-th nearest of the other points and V_m
    the volume of the unit ball.
    """
    points = points.detach().double()
    count, m = points.shape
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    radii = distances.fill_diagonal_(math.inf).topk(neighbour, largest=False).values[:, -1]
    ball = 0.5 * m * math.log(math.pi) - math.lgamma(0.5 * m + 1)
    psi = torch.digamma(torch.tensor([float(count), float(neighbour)], dtype=torch.float64))
    return psi[0] - psi[1] + ball + m * (radii + SMALLEST).log().mean()


# ---------------------------------------------------------------------- buffers


def first_codes(size: int, m: int) -> Tensor:
    """What a buffer holds before any code has come: U(-1, 1), float[S, m]."""
    return 2 * torch.rand(size, m, generator=torch.Generator().manual_seed(0)) - 1


def push(buffer: Tensor, codes: Tensor) -> Tensor:
    """A true queue: the newest S of old and new codes, float[S, m]; `codes` float[N, m] in global sample order."""
    return torch.cat((buffer, codes.to(buffer.dtype)))[-len(buffer) :]


@dataclass(frozen=True)
class ShrinkingBuffer:
    """The released code's buffer, which drops as many rows as a batch has samples and gains one: it soon holds nothing
    but the batch before. Sample i is compared with column i only. For reproduction alone.

    Args:
        rows: float[S, N, m], N samples in a global batch; the first `length` rows count.
        length: int64 scalar.
    """

    rows: Tensor
    length: Tensor

    @staticmethod
    def first(size: int, batch: int, m: int) -> ShrinkingBuffer:
        """The same random code in all columns of a row."""
        rows = first_codes(size, m)[:, None].repeat(1, batch, 1)
        return ShrinkingBuffer(rows, torch.tensor(size))

    def columns(self, position: Tensor) -> Tensor:
        """What the samples at int64[B] of the global batch are compared with: float[B, length, m]."""
        return self.rows[: int(self.length), position].transpose(0, 1)

    def push(self, codes: Tensor) -> ShrinkingBuffer:
        """After a batch float[N, m]."""
        kept = self.rows[codes.shape[0] : int(self.length)]
        rows = torch.zeros_like(self.rows)
        rows[: len(kept)], rows[len(kept)] = kept, codes
        return ShrinkingBuffer(rows, torch.full_like(self.length, len(kept) + 1))
