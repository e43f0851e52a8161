"""A copy of one rank's tensors in host memory, laid out as the file will be.

The copy is one block of bytes that is kept and used again for the next checkpoint. The writer thread then only passes
this block on, chunk by chunk, to calls that release Python's interpreter lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.training.checkpoint.entries import Entry
from generative.training.checkpoint.format import CODES, file_header

_Key = tuple[tuple[str, torch.dtype, int], ...]


class Snapshot:
    """The kept block. `take` fills it; after that, `header`, `data` and `tensors` describe the file."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8, device="cpu")
        self._key: _Key = ()
        self._views: list[Tensor] = []
        self.header = b""
        self.tensors: dict[str, tuple[list[int], str, int, int]] = {}
        """{name: (full shape, dtype code, start, numel)}"""

    def take(self, entries: Mapping[str, Entry]) -> None:
        """Copies the entries. Memory is allocated only where names, types or sizes differ from the last time.

        Raises:
            ValueError: a reserved name, or an element type that the format does not know.
        """
        # Wide elements first, so that every view of the block is aligned.
        ordered = sorted(entries.items(), key=lambda item: -item[1].tensor.itemsize)
        self._lay_out(tuple((name, entry.tensor.dtype, entry.tensor.numel()) for name, entry in ordered), ordered)
        self.tensors = {
            name: (list(entry.full_shape), CODES[entry.tensor.dtype], entry.start, entry.tensor.numel())
            for name, entry in ordered
        }
        for view, (_, entry) in zip(self._views, ordered, strict=True):
            view.copy_(entry.tensor.detach().reshape(-1), non_blocking=True)
        for device in {entry.tensor.device for _, entry in ordered if entry.tensor.is_cuda}:
            torch.cuda.current_stream(device).synchronize()

    @property
    def data(self) -> memoryview:
        """The bytes of all tensors, in the order of the header."""
        return self._block[: self._size].numpy().data

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return len(self.header) + self._size

    @property
    def _size(self) -> int:
        return sum(view.nbytes for view in self._views)

    def _lay_out(self, key: _Key, ordered: list[tuple[str, Entry]]) -> None:
        if key == self._key and self.header:
            return
        for name, dtype, _ in key:
            if dtype not in CODES or name == "__metadata__":
                raise ValueError(f"a checkpoint cannot hold the tensor {name!r} of type {dtype}")
        sizes = [entry.tensor.nbytes for _, entry in ordered]
        if sum(sizes) > self._block.numel():
            self._forget()  # the smaller block is given back before the larger one is asked for
            self._block = _host_memory(sum(sizes), any(entry.tensor.is_cuda for _, entry in ordered))
        self._views, offset = [], 0
        for (_, dtype, _), size in zip(key, sizes, strict=True):
            self._views.append(self._block[offset : offset + size].view(dtype))
            offset += size
        held = [(name, CODES[dtype], numel, size) for (name, dtype, numel), size in zip(key, sizes, strict=True)]
        self.header = file_header(item for item in held if item[2])
        self._key = key


def _host_memory(size: int, pinned: bool) -> Tensor:
    """A block of bytes; page-locked where tensors come from a GPU and the system grants it (copies are faster)."""
    if pinned:
        with contextlib.suppress(RuntimeError):
            return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
    try:
        return torch.empty(size, dtype=torch.uint8, device="cpu")
    except RuntimeError as error:
        raise CheckpointError(
            f"no host memory for a checkpoint: its copy takes {size / 1e6:,.1f} MB on this rank",
            "as much free host memory as this rank's parameters, optimizer state and averages take",
            "start fewer workers on a machine, or shard the state over more workers",
        ) from error
