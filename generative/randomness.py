"""Counter-based noise: (seed, stream name, step, sample id) -> numbers.

Philox4x64 takes a 128-bit key and a 256-bit counter. The key is a hash of (seed, stream name); the counter is
(draw, sample id, step, 0). So the noise of a sample does not depend on the rank, the micro-batch or the batch size that
it happens to be in, nor on what was drawn before it: a resumed or re-sharded run draws the same numbers, and nothing
about randomness needs to be stored in a checkpoint.

Numbers are made on the CPU and moved, so that every device sees the same ones.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHARED = 2**64 - 1
"""The sample id of noise that all samples of a step share (for example the offset of stratified times)."""

_NUMPY_FLOAT: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


def stream_key(seed: int, name: str) -> np.ndarray:
    """128-bit Philox key of a named stream, uint64[2]."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.frombuffer(digest, dtype=np.uint64)


@lru_cache(maxsize=64)
def _generator(seed: int, name: str, thread: int) -> tuple[np.random.Philox, np.random.Generator, Any]:
    """A stream's generator with the form of its state: made once a thread, since its counter is set before a draw."""
    bits = np.random.Philox(key=stream_key(seed, name))
    return bits, np.random.Generator(bits), bits.state


@dataclass(frozen=True)
class Streams:
    """All the noise of one step of a run.

    Args:
        seed: the run's seed, any integer.
        step: the step that the noise is for (0 for validation and sampling noise, which is the same at each call).
        scope: a prefix of stream names, so that two uses of one name draw different numbers.
    """

    seed: int
    step: int = 0
    scope: str = ""

    def at(self, step: int) -> Streams:
        """The same streams at another step."""
        return replace(self, step=step)

    def within(self, scope: str) -> Streams:
        """Streams of their own under `scope` (an update's name, 'validation', ...)."""
        return replace(self, scope=f"{self.scope}{scope}/")

    def uniform(
        self,
        name: str,
        samples: Tensor | Sequence[int],
        shape: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """U[0, 1) of shape [len(samples), *shape] on the device of `samples` (24 bits in fp32, 53 in fp64)."""
        kind = _NUMPY_FLOAT[dtype]
        return self._draw(name, samples, shape, kind, lambda g, out: g.random(out=out, dtype=kind))

    def normal(
        self,
        name: str,
        samples: Tensor | Sequence[int],
        shape: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """N(0, 1) of shape [len(samples), *shape] on the device of `samples`."""
        kind = _NUMPY_FLOAT[dtype]
        return self._draw(name, samples, shape, kind, lambda g, out: g.standard_normal(out=out, dtype=kind))

    def integers(self, name: str, samples: Tensor | Sequence[int], high: int, shape: Sequence[int] = ()) -> Tensor:
        """Uniform integers 0 .. high-1 (1 <= high < 2^53), int64 of shape [len(samples), *shape]."""
        return (self.uniform(name, samples, shape, torch.float64) * high).long()

    def shared_uniform(self, name: str, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """U[0, 1) of `shape` on the CPU, the same for every sample of the step."""
        return self.uniform(name, [SHARED], shape, dtype)[0]

    def _draw(
        self,
        name: str,
        samples: Tensor | Sequence[int],
        shape: Sequence[int],
        kind: type[np.floating[Any]],
        fill: Callable[[np.random.Generator, np.ndarray], object],
    ) -> Tensor:
        ids = samples.tolist() if isinstance(samples, Tensor) else list(samples)
        out = np.empty((len(ids), math.prod(shape)), dtype=kind)
        bits, generator, state = _generator(self.seed, self.scope + name, threading.get_ident())
        counter = state["state"]["counter"]
        counter[:] = (0, 0, self.step, 0)
        state["buffer_pos"], state["has_uint32"], state["uinteger"] = 4, 0, 0
        for row, sample in enumerate(ids):
            # Resetting one generator's state is ten times faster than constructing one for each sample.
            counter[1] = sample % 2**64
            bits.state = state
            fill(generator, out[row])
        tensor = torch.from_numpy(out.reshape(len(ids), *shape))
        return tensor.to(samples.device, non_blocking=True) if isinstance(samples, Tensor) else tensor
