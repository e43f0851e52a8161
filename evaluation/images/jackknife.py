"""Standard errors by leaving out one group of samples after the other.

The delete-group jackknife (Shao and Wu 1989) leaves out group g of both sets at once: the pairs of groups are
independent and alike, so the spread of the figures without them tells the error of the figure, whatever it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GROUPS = 20
"""Groups that are left out in turn; the error itself is then known to about 16 %."""


def groups_for(*counts: int) -> int:
    """Groups for sets of these sizes: at most `GROUPS`, each with two or more samples of each; else 0 (no error)."""
    groups = min(GROUPS, min(counts) // 2)
    return groups if groups > 1 else 0


def membership(count: int, groups: int) -> Tensor:
    """The group of each row, int64[count]: runs of nearly equal length, for rows in random order."""
    return torch.arange(count) * max(groups, 1) // count


def left_out(group: Tensor, groups: int) -> Tensor:
    """Which rows are left out: bool[1 + groups, N]; the first row leaves out none."""
    return torch.cat([torch.zeros(1, len(group), dtype=torch.bool), group == torch.arange(groups)[:, None]])


def jackknife(values: Tensor) -> tuple[float, float | None]:
    """The figure and its standard error from the figure of all samples and those without each group.

    Args:
        values: float64[1 + G], the figure of all samples first.

    Returns:
        Value and sqrt((G - 1) / G * sum (v_g - mean v)^2); no error where G is 0.
    """
    value, rest = float(values[0]), values[1:]
    if len(rest) < 2:
        return value, None
    return value, math.sqrt((len(rest) - 1) * float(rest.var(correction=0)))
