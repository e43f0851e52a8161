"""What one rank hands to a checkpoint: contiguous intervals of flattened tensors.

In every strategy a rank owns one interval of each flattened tensor: an agreed share of a replicated tensor (DDP), whole
rows (FSDP2), a slice of the flat partition (ZeRO). So one format serves all of them, and no tensor is ever gathered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """The elements [start, start + tensor.numel()) of a flattened tensor of `shape`.

    Args:
        tensor: those elements, in row-major order, on any device and of any dtype of the format.
        start: where they begin in the flattened full tensor.
        shape: shape of the full tensor; None where `tensor` is the full one.
    """

    tensor: Tensor
    start: int = 0
    shape: Sequence[int] | None = None

    def __post_init__(self) -> None:
        end = self.start + self.tensor.numel()
        if self.start < 0 or end > math.prod(self.full_shape):
            raise ValueError(f"elements {self.start} to {end} of a tensor of shape {self.full_shape}")

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Shape of the full tensor."""
        return tuple(self.tensor.shape if self.shape is None else self.shape)


def _interval(tensor: Tensor, start: int, end: int) -> Entry:
    return Entry(tensor.detach().reshape(-1)[start:end], start, tuple(tensor.shape))


def shares(tensors: Mapping[str, Tensor], rank: int, world: int) -> dict[str, Entry]:
    """This rank's share of tensors that all ranks hold (the same names and shapes everywhere).

    The tensors are laid end to end in the order of their names and cut into `world` parts of equal bytes (to one
    element), so that at most world - 1 tensors are split at all and small ones go whole to some rank.
    """
    ordered = sorted(tensors.items())
    total = sum(tensor.nbytes for _, tensor in ordered)
    begin, end = total * rank // world, total * (rank + 1) // world
    offset, taken = 0, {}
    for name, tensor in ordered:
        # An element belongs to the part in which its first byte lies.
        low, high = (_elements(cut - offset, tensor) for cut in (begin, end))
        if low < high or (tensor.numel() == 0 and rank == 0):
            taken[name] = _interval(tensor, low, high)
        offset += tensor.nbytes
    return taken


def _elements(size: int, tensor: Tensor) -> int:
    """Elements of `tensor` that begin within its first `size` bytes."""
    return min(max(0, math.ceil(size / tensor.itemsize)), tensor.numel())
