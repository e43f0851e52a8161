"""T = I + P Q^T: an edit of all readers of a text at once, W -> W T, or of the text before them, h -> h T^T."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

CHUNK = 1 << 14
"""Rows that are in float64 at a time."""


@dataclass(frozen=True)
class Transform:
    """A linear map of text embeddings near the identity.

    Args:
        p: float64[d, r].
        q: float64[d, r].
    """

    p: Tensor
    q: Tensor

    @staticmethod
    def identity(width: int) -> Transform:
        """T = I."""
        return Transform(torch.zeros(width, 0, dtype=torch.float64), torch.zeros(width, 0, dtype=torch.float64))

    @staticmethod
    def of(matrix: Tensor, floor: float = 1e-6) -> Transform:
        """From T itself, float64[d, d]; singular values of T - I below `floor` times the largest are left out."""
        change = matrix.double() - torch.eye(len(matrix), dtype=torch.float64)
        u, values, v = torch.linalg.svd(change)
        kept = int((values > floor * values.max()).sum())
        return Transform(u[:, :kept] * values[:kept], v[:kept].T)

    @property
    def width(self) -> int:
        """d."""
        return self.p.shape[0]

    @property
    def rank(self) -> int:
        """Columns of P and Q."""
        return self.p.shape[1]

    @cached_property
    def matrix(self) -> Tensor:
        """T, float64[d, d]."""
        return torch.eye(self.width, dtype=torch.float64) + self.p @ self.q.T

    def then(self, later: Transform) -> Transform:
        """T_self T_later: weights that were edited by this one and then by `later`.

        (I + P1 Q1^T)(I + P2 Q2^T) = I + P1 Q1^T + (T1 P2) Q2^T.
        """
        moved = later.p + self.p @ (self.q.T @ later.p)
        found = Transform(torch.cat([self.p, moved], 1), torch.cat([self.q, later.q], 1))
        return found.compressed()[0] if found.rank > found.width else found

    def scaled(self, strength: float) -> Transform:
        """I + strength (T - I): 0 is the base model, 1 the whole edit."""
        return Transform(self.p * strength, self.q)

    def on_states(self, states: Tensor) -> Tensor:
        """T h for each row h of states[..., d], in their own number format and on their device.

        W (T h) = (W T) h: a model that reads these in place of h answers as the edited one. The product is computed in
        float32 or better.
        """
        kind = states.dtype if states.dtype in (torch.float32, torch.float64) else torch.float32
        p, q = (part.to(states.device, kind) for part in (self.p, self.q))
        wide = states.to(kind)
        return (wide + (wide @ q) @ p.T).to(states.dtype)

    def on_weight(self, weight: Tensor, columns: slice = slice(None)) -> Tensor:
        """W T in float64, then in the number format of W.

        Args:
            weight: [o, e].
            columns: those that read the text; all others stay.
        """
        found = weight.clone()
        for first in range(0, len(weight), CHUNK):
            rows = weight[first : first + CHUNK, columns].double()
            found[first : first + CHUNK, columns] = torch.addmm(rows, rows @ self.p, self.q.T).to(weight.dtype)
        return found

    def compressed(self, rank: int | None = None) -> tuple[Transform, float]:
        """The same T - I with the least columns, and |left out|_F / |T - I|_F.

        By the singular values of P Q^T. Without a rank, what rounding has made of zeros is left out.

        Args:
            rank: most columns; None: the numerical rank.
        """
        left, upper = torch.linalg.qr(self.p)
        right, lower = torch.linalg.qr(self.q)
        u, values, v = torch.linalg.svd(upper @ lower.T, full_matrices=False)
        total = float(values.norm())
        floor = self.width * torch.finfo(torch.float64).eps * float(values.max()) if len(values) else 0.0
        kept = min(int((values > floor).sum()), len(values) if rank is None else rank)
        found = Transform(left @ (u[:, :kept] * values[:kept]), right @ v[:kept].T)
        return found, float(values[kept:].norm()) / total if total else 0.0

    def singular_values(self) -> Tensor:
        """Those of T that may differ from 1, falling: all others are 1. float64[min(d, 2 r)].

        T acts within the span of P and Q, so that they come from a small matrix.
        """
        inside = self.matrix
        if 2 * self.rank < self.width:
            basis, _ = torch.linalg.qr(torch.cat([self.p, self.q], 1))
            inside = torch.eye(basis.shape[1], dtype=torch.float64) + (basis.T @ self.p) @ (basis.T @ self.q).T
        values: Tensor = torch.linalg.svdvals(inside)
        return values

    def smallest_singular_value(self) -> float:
        """How near T is to losing a direction: 1 / |T^-1|."""
        values = self.singular_values()
        return min(1.0, float(values.min())) if len(values) else 1.0
