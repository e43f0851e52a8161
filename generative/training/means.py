"""Adding up losses and metrics over micro-batches and ranks in one collective."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.method import Collectives, Mean


def add(into: dict[str, Mean], more: Mapping[str, Mean]) -> None:
    """Add the sums and counts of `more` to those in `into`."""
    for name, mean in more.items():
        have = into.get(name)
        total, count = mean.total.detach(), mean.count.detach()
        into[name] = Mean(total, count) if have is None else Mean(have.total + total, have.count + count)


HEAD = 256
"""Elements of the first exchange, the same on every rank: gloo aborts a process whose peer sends another number."""


def reduce(means: Mapping[str, Mean], collectives: Collectives) -> dict[str, Mean]:
    """Sums over all ranks, on the CPU in float64: one collective (two for very long curves), one copy from the device.

    Raises:
        ConfigError: the ranks have different names or shapes; all of them raise it.
    """
    if not means:
        return {}
    parts: list[Tensor] = []
    for mean in means.values():
        parts += [mean.total.double().flatten(), mean.count.double().flatten()]
    flat = torch.cat(_together(parts))
    flat = _summed(flat, means, collectives) if collectives.world > 1 else flat.cpu()
    result, at = {}, 0
    for name, mean in means.items():
        size = mean.total.numel()
        total, count = flat[at : at + size], flat[at + size : at + 2 * size]
        result[name] = Mean(total.view(mean.total.shape), count.view(mean.total.shape))
        at += 2 * size
    return result


def _summed(flat: Tensor, means: Mapping[str, Mean], collectives: Collectives) -> Tensor:
    """The sum over ranks, once the first exchange has shown that they mean the same by it."""
    code = float(zlib.crc32(_listed(means).encode()))
    first, rest = flat[: HEAD - 1], flat[HEAD - 1 :]
    head = flat.new_zeros(HEAD)
    head[0], head[1 : 1 + len(first)] = code, first
    head = collectives.sum(head).cpu()
    if float(head[0]) != code * collectives.world:
        raise _different(means, collectives.rank)
    summed = head[1 : 1 + len(first)]
    return torch.cat([summed, collectives.sum(rest).cpu()]) if len(rest) else summed


def _together(parts: Sequence[Tensor]) -> list[Tensor]:
    return [part.to(parts[0].device) for part in parts]


def _listed(means: Mapping[str, Mean]) -> str:
    return ", ".join(f"{name}{list(mean.total.shape)}" for name, mean in means.items())


def _different(means: Mapping[str, Mean], rank: int) -> ConfigError:
    return ConfigError(
        f"the ranks report different metrics; rank {rank} has {_listed(means)}",
        expected="the same names and shapes on every rank and for every batch",
        remedy="report a metric with a count of 0 (Mean) where it does not apply, instead of leaving it out",
    ).on_all_ranks()


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
