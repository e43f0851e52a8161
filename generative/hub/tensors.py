"""What an export writes: each tensor is one interval of a tensor in a checkpoint, under a name of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from generative.training.checkpoint import Checkpoint

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Number formats that weights can be exported in."""

_CONVERTED = (torch.float32, torch.bfloat16, torch.float16)


class Source(Protocol):
    """Where the values of an export are: a checkpoint, or `InMemory`."""

    def read(self, name: str, start: int = 0, numel: int | None = None) -> Tensor:
        """The elements [start, start + numel) of a flattened tensor, on the CPU; None: to the end."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Tensors by name as a source."""

    tensors: Mapping[str, Tensor]

    def read(self, name: str, start: int = 0, numel: int | None = None) -> Tensor:
        """See Source."""
        return self.tensors[name].reshape(-1)[start : None if numel is None else start + numel]

    def saved(self) -> list[SavedTensor]:
        """All of them as they are."""
        return [SavedTensor(name, name, tuple(t.shape), t.dtype) for name, t in self.tensors.items()]


@dataclass(frozen=True)
class WithZeros:
    """A source in which one tensor goes on with zeros after its first `numel` elements."""

    source: Source
    name: str
    numel: int

    def read(self, name: str, start: int = 0, numel: int | None = None) -> Tensor:
        """See Source."""
        if name != self.name or numel is None:
            return self.source.read(name, start, numel)
        inside = max(min(start + numel, self.numel) - start, 0)
        found = self.source.read(name, min(start, self.numel), inside)
        return torch.cat([found, found.new_zeros(numel - inside)])


@dataclass(frozen=True)
class SavedTensor:
    """One tensor of the exported files.

    Args:
        name: in the exported files.
        source: in the checkpoint.
        shape: in the exported files.
        dtype: in the exported files.
        start: first element in the flattened source.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int = 0

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in the exported files."""
        return self.numel * self.dtype.itemsize

    def rows(self, name: str, first: int, count: int) -> SavedTensor:
        """The rows [first, first + count) of a matrix, under another name."""
        columns = math.prod(self.shape[1:])
        return replace(self, name=name, shape=(count, *self.shape[1:]), start=self.start + first * columns)


def whole_tensors(checkpoint: Checkpoint, names: Mapping[str, str], dtype: torch.dtype) -> list[SavedTensor]:
    """Tensors of a network as the checkpoint has them.

    Args:
        checkpoint: where they are.
        names: in the network, and in the checkpoint.
        dtype: for weights of 32 bits or fewer; others (counters, float64) stay as they are.
    """

    def stored(full: str) -> torch.dtype:
        kept = checkpoint.dtype(full)
        return dtype if kept in _CONVERTED else kept

    return [SavedTensor(ours, full, checkpoint.shape(full), stored(full)) for ours, full in names.items()]
