"""How a global batch is cut into ranks and micro-batches of equal shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from generative.errors import ConfigError

Arrays = dict[str, Tensor]


@dataclass(frozen=True)
class Cut:
    """How a global batch is cut: this rank's positions first .. last-1, in `count` micro-batches of `rows` rows.

    Every rank has the same count and rows. `rows` is at most the micro-batch size asked for, and smaller where that
    needs less padding (9 samples in micro-batches of at most 4 are 3 x 3).
    """

    first: int
    last: int
    count: int
    rows: int

    @staticmethod
    def of(batch_size: int, micro_batch_size: int | None, rank: int, world: int) -> Cut:
        """The cut for a rank; the parts of two ranks differ by at most one sample.

        Raises:
            ConfigError: a size below 1, or fewer samples than ranks.
        """
        for name, value in (("batch size", batch_size), ("micro-batch size", micro_batch_size), ("world size", world)):
            if value is not None and value < 1:
                raise ConfigError(f"a {name} of {value}", expected="at least 1", remedy=f"set a {name} of 1 or more")
        if world > batch_size:
            raise ConfigError(
                f"a global batch of {batch_size} cannot be spread over {world} workers",
                expected="at least one sample for each worker",
                remedy="raise the batch size or use fewer workers",
            )
        largest = math.ceil(batch_size / world)
        count = math.ceil(largest / (micro_batch_size or largest))
        return Cut(rank * batch_size // world, (rank + 1) * batch_size // world, count, math.ceil(largest / count))


@dataclass(frozen=True)
class Share:
    """A rank's part of one global batch.

    Args:
        micro_batches: each holds the source's tensors and sample_id, position, valid (see `generative.method.Batch`).
        start: counter of this rank's first sample.
        size: its number of samples, padding not counted.
    """

    micro_batches: list[Arrays]
    start: int
    size: int


def cut_share(arrays: Arrays, start: int, cut: Cut) -> Share:
    """Cut the rank's samples of the global batch at counter `start` into micro-batches, padding the last one(s)."""
    rows, position, valid = _layout(cut)
    size = cut.last - cut.first
    if len(rows) > size:
        arrays = {name: tensor[rows] for name, tensor in arrays.items()}
    arrays = {**arrays, "sample_id": position + start, "position": position, "valid": valid}
    if cut.count == 1:
        return Share([arrays], start + cut.first, size)
    micro_batches = [
        {name: tensor[first : first + cut.rows] for name, tensor in arrays.items()}
        for first in range(0, len(rows), cut.rows)
    ]
    return Share(micro_batches, start + cut.first, size)


@lru_cache(maxsize=8)
def _layout(cut: Cut) -> tuple[Tensor, Tensor, Tensor]:
    """What is the same for every batch: source row of each row of the share, place in the global batch, validity."""
    size, total = cut.last - cut.first, cut.count * cut.rows
    # A padding row repeats the last sample: real data, so that nothing in the network sees unusual values.
    rows = torch.arange(total).clamp_(max=size - 1)
    valid = torch.ones(total, dtype=torch.bool)
    valid[size:] = False
    return rows, rows + cut.first, valid
