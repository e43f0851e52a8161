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


def reduce(means: Mapping[str, Mean], collectives: Collectives) -> dict[str, Mean]:
    """Sums over all ranks, on the CPU in float64: one collective, and one copy from the device.

    Raises:
        ConfigError: the ranks have different names or shapes; all of them raise it (if the number of elements differs
            too, the process group raises an error of its own).
    """
    if not means:
        return {}
    code = float(zlib.crc32(_listed(means).encode()))
    parts: list[Tensor] = []
    for mean in means.values():
        parts += [mean.total.double().flatten(), mean.count.double().flatten()]
    flat = torch.cat([torch.tensor([code], dtype=torch.float64, device=parts[0].device), *_together(parts)])
    flat = (collectives.sum(flat) if collectives.world > 1 else flat).cpu()
    if float(flat[0]) != code * collectives.world:
        raise _different(means, collectives.rank)
    result, at = {}, 1
    for name, mean in means.items():
        size = mean.total.numel()
        total, count = flat[at : at + size], flat[at + size : at + 2 * size]
        result[name] = Mean(total.view(mean.total.shape), count.view(mean.total.shape))
        at += 2 * size
    return result


def _together(parts: Sequence[Tensor]) -> list[Tensor]:
    return [part.to(parts[0].device) for part in parts]


def _listed(means: Mapping[str, Mean]) -> str:
    return ", ".join(f"{name}{list(mean.total.shape)}" for name, mean in means.items())


def _different(means: Mapping[str, Mean], rank: int) -> ConfigError:
    return ConfigError(
        f"the ranks report different metrics; rank {rank} has {_listed(means)}",
        expected="the same names and shapes on every rank and for every batch",
        remedy="report a metric with a count of 0 (Mean) where it does not apply, instead of leaving it out",
    )


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
