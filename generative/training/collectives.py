"""Exact sums and gathers over the ranks of a torch.distributed group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from generative.method import Alone, Collectives


class Distributed:
    """Collectives over the default process group (gloo on CPU, nccl on CUDA)."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks, without gradient."""
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def begin_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """The same in the background: the function that is returned waits for it. All ranks must begin it in order."""
        total = tensor.detach().clone()
        work = dist.all_reduce(total, async_op=True)

        def wait() -> Tensor:
            if work is not None:
                work.wait()
            return total

        return wait

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenation along the first axis in rank order; shares may be of unequal length."""
        local = tensor.detach().contiguous()
        lengths = torch.zeros(self.world, dtype=torch.int64, device=local.device)
        lengths[self.rank] = len(local)
        dist.all_reduce(lengths)
        longest = int(lengths.max())
        padded = local.new_zeros((longest, *local.shape[1:]))
        padded[: len(local)] = local
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(length)] for part, length in zip(parts, lengths, strict=True)])


@dataclass
class Apart:
    """A rank that knows its place but exchanges nothing: for its share of work that is put together afterwards."""

    rank: int
    world: int

    def sum(self, tensor: Tensor) -> Tensor:
        """This rank's own."""
        return tensor.detach().clone()

    def gather(self, tensor: Tensor) -> Tensor:
        """This rank's own."""
        return tensor.detach().clone()


def collectives() -> Collectives:
    """Those of the process group, where there is one; otherwise of this process alone."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return Distributed()
    return Alone()
