"""Adding up losses and metrics over micro-batches and ranks in one collective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from generative.method import Collectives, Mean


def add(into: dict[str, Mean], more: Mapping[str, Mean]) -> None:
    """Add the sums and counts of `more` to those in `into`."""
    for name, mean in more.items():
        have = into.get(name)
        total, count = mean.total.detach(), mean.count.detach()
        into[name] = Mean(total, count) if have is None else Mean(have.total + total, have.count + count)


def reduce(means: Mapping[str, Mean], collectives: Collectives) -> dict[str, Mean]:
    """Sums over all ranks, on the CPU in float64: one collective, and one copy from the device."""
    if not means:
        return {}
    parts: list[Tensor] = []
    for mean in means.values():
        parts += [mean.total.double().flatten(), mean.count.double().flatten()]
    flat = torch.cat([part.to(parts[0].device) for part in parts])
    flat = (collectives.sum(flat) if collectives.world > 1 else flat).cpu()
    result, at = {}, 0
    for name, mean in means.items():
        size = mean.total.numel()
        total, count = flat[at : at + size], flat[at + size : at + 2 * size]
        result[name] = Mean(total.view(mean.total.shape), count.view(mean.total.shape))
        at += 2 * size
    return result


def value(mean: Mean) -> Any:
    """The mean as a float, or as a list with None where nothing was counted."""
    quotient = (mean.total / mean.count).tolist()
    counts = mean.count.tolist()
    if isinstance(counts, list):
        return [q if c else None for q, c in zip(quotient, counts, strict=True)]
    return quotient if counts else None


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    tensor = torch.tensor(values, dtype=torch.float64)
    return float(tensor.std() / len(values) ** 0.5)
