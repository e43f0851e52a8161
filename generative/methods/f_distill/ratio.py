"""Density ratios of teacher and student from the discriminator's logits, and the weights h of samples.

Source: Xu et al. 2025 (arXiv 2502.15681), two-stage normalisation. A discriminator that is trained on real = 1 and
fake = 0 has the logit l = log(p/q), so r = exp(l). First stage: E_q[r] = 1 at every time, so r is divided by its mean
in the bin of its time. Second stage: h(r) is divided by its mean over the global batch, so that f does not change the
size of a step.

The means of bins are memory between steps; a bin is renewed when `minimum_count` samples have come to it. All sums are
over the valid samples of all ranks and in float64. Each stage needs one exchange, since the second depends on the
outcome of the first. Shapes: B samples of this rank, K heads, n bins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from generative.method import Collectives, Context, Mean
from generative.methods.f_distill.calibration import FITS, Recalibration
from generative.methods.f_distill.config import RatioConfig
from generative.methods.f_distill.divergences import Divergence
from generative.methods.f_distill.logits import by_bin, density_ratio, joint_logit
from generative.nets.precision import wide

SMALLEST = 1e-6
"""Added to every divisor, as released."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """What becomes of the logits of one batch.

    Args:
        h: float32[B], weight of each sample, of mean 1 over the global batch; without gradient.
        state: the memory after the batch.
        metrics: see `RatioWeights`.
    """

    h: Tensor
    state: dict[str, Tensor]
    metrics: dict[str, Mean]


@dataclass(frozen=True)
class RatioWeights:
    """From logits to weights.

    Metrics, to be added up over ranks: `ratio`, the mean of r as it comes from the discriminator, near 1 where it is
    calibrated; `ratio_by_time` the same in each bin; `ess` and `ess_by_time`, effective sample size
    (sum h)^2 / (n sum h^2) of the global batch and of each bin; `weight_fallback`, part of the updates without weights.

    Args:
        config: bounds, bins, and when to give up.
        divergence: whose h is wanted.
        edges: float64[n - 1], inner borders of the bins of times, ascending.
    """

    config: RatioConfig
    divergence: Divergence
    edges: Tensor

    @cached_property
    def recalibration(self) -> Recalibration | None:
        """What corrects the logits first."""
        config = self.config.recalibration
        return None if config is None else Recalibration(config, self.edges)

    def follow(
        self, logits: Sequence[Tensor], t: Sequence[Tensor], valid: Tensor, context: Context
    ) -> dict[str, Tensor]:
        """The memory after a batch of the discriminator, before it is trained on it; empty without recalibration.

        Args:
            logits: [B, K] of the student's samples and of real ones.
            t: float64[B], their times.
            valid: bool[B], of both.
            context: of the update.
        """
        if self.recalibration is None or FITS not in context.state:  # reverse KL asks for no ratio
            return {}
        fake, real = ((joint_logit(each, self.config), at) for each, at in zip(logits, t, strict=True))
        return self.recalibration.follow(real, fake, valid, context.state, context.collectives)

    def first(self) -> dict[str, Tensor]:
        """The memory at the start: `ratio_means` float64[n], all 1, what waits to renew them, and whether the last
        update fell back, so that a person is told once.
        """
        told = {"ratio_fallback": torch.zeros((), dtype=torch.float64)}
        told |= self.recalibration.first() if self.recalibration is not None else {}
        if not self.config.normalise:
            return told
        empty = torch.zeros(len(self.edges) + 1, dtype=torch.float64)
        return {"ratio_means": torch.ones_like(empty), "ratio_sums": empty, "ratio_counts": empty.clone()} | told

    @torch.no_grad()
    def __call__(
        self, logits: Tensor, t: Tensor, valid: Tensor, state: Mapping[str, Tensor], collectives: Collectives
    ) -> Weights:
        """Weights of the noised samples of the student that the logits [B, K] are of.

        Args:
            logits: of the discriminator, real = 1.
            t: float64[B], their times.
            valid: bool[B], False for rows that weigh nothing.
            state: the memory, as `first` and every call return it.
            collectives: of all ranks, which must all call.
        """
        n, counted = len(self.edges) + 1, valid.double()
        bins = torch.bucketize(t.double(), self.edges.to(t.device), right=True)
        finite = logits.isfinite().all(1)
        # A logit that is not a number must not reach the memory; the weights fall back to 1 on all ranks.
        logit = joint_logit(logits, self.config)
        if self.recalibration is not None:
            logit = self.recalibration(logit, t, state)
        ratios = torch.where(finite, density_ratio(logit, self.config), 1.0)
        broken = (~finite & valid).sum().double()
        sums = collectives.sum(torch.cat([by_bin(counted, bins, n), by_bin(ratios * counted, bins, n), broken.view(1)]))
        counts, totals, broken = sums[:n], sums[n : 2 * n], sums[-1]
        after = self._renewed(state, counts, totals) if self.config.normalise else {}
        normal = ratios / (after["ratio_means"][bins] + SMALLEST) if self.config.normalise else ratios
        h = self.divergence.h(normal)
        spread = collectives.sum(
            torch.cat([by_bin(h * counted, bins, n), by_bin(h.square() * counted, bins, n)]).view(2, n)
        )
        number = counts.sum()
        ess = effective(spread[0].sum(), spread[1].sum(), number)
        # Decided on the device. Only the rank that tells it reads a number, for which its host waits; plans, whose
        # tensors hold none, are of another.
        fallen_back = (broken > 0) | ~(ess >= self.config.minimum_ess)
        if collectives.rank == 0:
            self._tell(fallen_back & (state["ratio_fallback"] == 0), ess, broken)
        h = torch.where(fallen_back, 1.0, h / (spread[0].sum() / number + SMALLEST))
        # What a broken discriminator says of other samples is not remembered either.
        after = {name: torch.where(broken > 0, state[name], value) for name, value in after.items()}
        after["ratio_fallback"] = fallen_back.double()
        metrics = {
            "ratio": Mean((ratios * counted).sum(), counted.sum()),
            "ratio_by_time": Mean(by_bin(ratios * counted, bins, n), by_bin(counted, bins, n)),
            **_of_global("ess", ess, collectives),
            **_of_global("ess_by_time", effective(spread[0], spread[1], counts), collectives, counts > 0),
            **_of_global("weight_fallback", fallen_back.double(), collectives),
        }
        return Weights(h.to(wide(logits).dtype), after, metrics)

    def _renewed(self, state: Mapping[str, Tensor], counts: Tensor, totals: Tensor) -> dict[str, Tensor]:
        """Bins that enough samples have come to: beta old + (1 - beta) mean ratio of those samples."""
        counts, totals = state["ratio_counts"] + counts, state["ratio_sums"] + totals
        full = counts >= self.config.minimum_count
        beta = self.config.decay
        renewed = beta * state["ratio_means"] + (1 - beta) * totals / (counts + SMALLEST)
        return {
            "ratio_means": torch.where(full, renewed, state["ratio_means"]),
            "ratio_sums": totals.masked_fill(full, 0.0),
            "ratio_counts": counts.masked_fill(full, 0.0),
        }

    def _tell(self, begins: Tensor, ess: Tensor, broken: Tensor) -> None:
        """A warning where the weights begin to be 1."""
        if not begins:
            return
        if broken:
            problem = f"{float(broken):.0f} samples have logits that are not finite"
        else:
            limit = self.config.minimum_ess
            problem = f"the effective sample size is {float(ess):.3g} of the batch, less than minimum_ess={limit}"
        _LOG.warning("all weights h are 1 until the density ratio tells something: %s", problem)


def effective(total: Tensor, squares: Tensor, count: Tensor) -> Tensor:
    """(sum h)^2 / (n sum h^2), from 1/n (one sample has all the weight) to 1 (all the same); 1 where there are none."""
    return torch.where(squares > 0, total.square() / (count * squares).clamp(min=1e-300), torch.ones_like(total))


def _of_global(name: str, value: Tensor, collectives: Collectives, there: Tensor | None = None) -> dict[str, Mean]:
    """A figure of the global batch as a metric: rank 0 alone reports it, since metrics are added up over ranks.

    `there`: where there is a figure; None: everywhere.
    """
    count = torch.full_like(value, float(collectives.rank == 0)) * (1.0 if there is None else there)
    return {name: Mean(value * count, count)}
