"""What must be computed in fp32 or better, whatever the weights and the autocast around it are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn


def wide(tensor: Tensor) -> Tensor:
    """The tensor in fp32, or in its own type where that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def without_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[None]:
    """Products inside keep the types of their operands, on the device of `tensor`."""
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):  # the meta device
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


class WideBuffers(nn.Module):
    """A module whose floating-point buffers stay in fp32 when its weights are cast to a narrower type.

    Running averages in bf16 would not move: an update of less than 1/256 of the value is rounded away.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WideBuffers:
        kept = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in kept.items():
            new = getattr(self, name)
            if new.is_floating_point() and new.dtype.itemsize < min(4, old.dtype.itemsize):
                setattr(self, name, old.to(new.device))
        return self
