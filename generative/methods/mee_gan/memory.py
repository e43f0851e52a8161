"""What the entropy remembers between steps: past codes, and the balance of a relative weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.method import Batch, Context, Mean
from generative.methods.mee_gan.config import MeeGanConfig
from generative.methods.mee_gan.entropy import ShrinkingBuffer, entropy, first_codes, push
from generative.methods.mee_gan.passes import rows_that_count
from generative.nets.precision import wide

State = Mapping[str, Tensor]

BALANCE_DECAY = 0.99
"""Decay rate of the average of the ratio of gradient norms."""


@dataclass(frozen=True)
class Term:
    """The weighted entropy term of an update.

    Args:
        value: its sum over this rank's valid rows, with gradient; None while it weighs nothing.
        metrics: the term, its weight, and the mean distance to the nearest code.
        state: the memory after the update.
    """

    value: Tensor | None
    metrics: dict[str, Mean]
    state: dict[str, Tensor]


@dataclass(frozen=True)
class CodeMemory:
    """The past codes of one kind.

    Args:
        config: of the method.
        kind: "real" (compared in the discriminator's update) or "generated" (in the generator's).
    """

    config: MeeGanConfig
    kind: str

    @property
    def used(self) -> bool:
        """Whether the entropy of this kind is raised."""
        return self.config.entropy.weight > 0 and self.config.entropy.of in (self.kind, "both")

    def first(self) -> dict[str, Tensor]:
        """The state at the start."""
        if not self.used:
            return {}
        size, m = self.config.buffer_size, self.config.code
        state = {f"{self.kind}_balance": torch.zeros(())} if self.config.entropy.relative else {}
        if self.config.buffer == "fifo":
            return {f"{self.kind}_codes": first_codes(size, m)} | state
        first = ShrinkingBuffer.first(size, self.config.buffer_columns, m)
        return {f"{self.kind}_codes": first.rows, f"{self.kind}_length": first.length} | state

    def term(self, codes: Tensor, adversarial: Tensor, batch: Batch, context: Context) -> Term:
        """Entropy of codes float[B, m] against those before them, weighted; then they join the memory.

        Args:
            codes: of this rank's samples, with gradient.
            adversarial: sum of the adversarial loss over them, which a relative weight is measured against.
            batch: sample positions and validity.
            context: state, step and collectives.
        """
        if not self.used:
            return Term(None, {}, {})
        settings, valid, collectives = self.config.entropy, batch["valid"], context.collectives
        others = self._others(context, batch["position"])
        found = entropy(
            wide(codes), others, valid, collectives, settings.form, settings.neighbour, settings.norm_weight
        )
        mine = wide(codes.detach())
        if rows_that_count(batch, context) is not None:
            mine = mine[valid]
        value, state = (found.values * valid).sum(), self._joined(context, mine)
        weight = torch.as_tensor(settings.weight * self._warm(context.step), device=codes.device)
        if settings.relative:
            balance = self._balance(adversarial, value, codes, context)
            weight, state = weight * balance, state | {f"{self.kind}_balance": balance}
        count = valid.sum().to(found.term.dtype)
        metrics = {
            "entropy": Mean(found.term * count, count),
            "entropy_weight": Mean(weight * count, count),
            "nearest": Mean.of(found.nearest, valid),
        }
        # Not 0 x value: that of a batch which repeats the one before it is not finite.
        return Term(weight * value if self._warm(context.step) else None, metrics, state)

    def _warm(self, step: int) -> float:
        """Part of the weight that counts after so many steps: 0 in the first epoch, as released."""
        settings = self.config.entropy
        if not settings.warmup_batches:
            return 1.0
        risen = step * self.config.discriminator_updates // settings.warmup_every * settings.warmup_every
        return min(1.0, risen / settings.warmup_batches)

    def _shrinking(self, state: State) -> ShrinkingBuffer:
        return ShrinkingBuffer(state[f"{self.kind}_codes"], state[f"{self.kind}_length"])

    def _others(self, context: Context, position: Tensor) -> Tensor:
        if self.config.buffer == "fifo":
            return context.state[f"{self.kind}_codes"]
        if context.global_batch != self.config.buffer_columns:
            raise ConfigError(
                f"method.buffer=released with batches of {context.global_batch} and "
                f"method.buffer_columns={self.config.buffer_columns}",
                expected="a column for each sample of a batch",
                remedy=f"set method.buffer_columns={context.global_batch}, or method.buffer=fifo",
            )
        return self._shrinking(context.state).columns(position)

    def _joined(self, context: Context, mine: Tensor) -> dict[str, Tensor]:
        """The memory with the codes of all ranks, in the order of samples."""
        codes = context.collectives.gather(mine)
        if self.config.buffer == "fifo":
            return {f"{self.kind}_codes": push(context.state[f"{self.kind}_codes"], codes)}
        buffer = self._shrinking(context.state).push(codes)
        return {f"{self.kind}_codes": buffer.rows, f"{self.kind}_length": buffer.length}

    def _balance(self, adversarial: Tensor, value: Tensor, codes: Tensor, context: Context) -> Tensor:
        """Norm of the adversarial gradient on the codes over that of the entropy's, averaged over steps (spec 13)."""
        kept = context.state[f"{self.kind}_balance"]
        if not codes.requires_grad:  # validation
            return kept
        gradients = [torch.autograd.grad(part, codes, retain_graph=True)[0] for part in (adversarial, value)]
        squares = context.collectives.sum(torch.stack([wide(g).square().sum() for g in gradients]))
        now = squares[0].sqrt() / (squares[1].sqrt() + 1e-12)
        return torch.where(kept > 0, BALANCE_DECAY * kept + (1 - BALANCE_DECAY) * now, now)
