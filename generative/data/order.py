"""The order of samples within an epoch: a keyed permutation of range(n) that needs no table.

A Feistel network over the smallest power of two that holds n is a bijection whatever its round function is. Values
that fall outside range(n) are sent through it again until they fall inside (cycle walking), which keeps it a bijection
of range(n). So the place of any sample in any epoch is computed alone, in constant memory, and a checkpoint needs to
store nothing about order but the global sample counter.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_ROUNDS = 6
"""Even, so that halves of unequal width end where they began."""


def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(f"order/{seed}/{epoch}".encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A 64-bit finaliser (multiply and xor-shift): every input bit reaches the low bits that the caller keeps."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _feistel(values: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of range(2**bits); values [B], keys [rounds, B] or [rounds, 1]."""
    high, low = bits // 2, bits - bits // 2
    for key in keys:
        left, right = values >> np.uint64(low), values & np.uint64((1 << low) - 1)
        mixed = _mix(right ^ key) & np.uint64((1 << high) - 1)
        values = (right << np.uint64(high)) | (left ^ mixed)
        high, low = low, high
    return values


def permute(indices: Indices, n: int, seed: int, epoch: int) -> Indices:
    """Images of `indices` under the permutation of range(n) that belongs to (seed, epoch).

    Args:
        indices: int64[...], each in 0 .. n-1.
        n: number of samples, 1 .. 2**62.
        seed: any integer.
        epoch: any integer; each has a permutation of its own.

    Returns:
        int64[...] of the same shape; over all of range(n) every value comes once.
    """
    return _walk(np.asarray(indices).ravel(), n, _round_keys(seed, epoch)[:, None]).reshape(np.shape(indices))


def _walk(indices: Indices, n: int, keys: NDArray[np.uint64]) -> Indices:
    """Cycle walking in range(n): indices [B], keys [rounds, B] or [rounds, 1]."""
    values, bits = indices.astype(np.uint64), (n - 1).bit_length()
    if bits:
        values = _feistel(values, bits, keys)
        outside = np.flatnonzero(values >= n)
        while outside.size:
            values[outside] = _feistel(values[outside], bits, keys if keys.shape[1] == 1 else keys[:, outside])
            outside = outside[values[outside] >= n]
    return values.astype(np.int64)


class Order:
    """Global sample counter g -> index of the sample, epoch after epoch: permute(g mod n) under epoch g // n.

    Blocks of consecutive counters are computed together and the last few are kept: numpy's fixed cost per call is then
    shared by thousands of samples.
    """

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed
        self.block = min(4096, max(64, n))
        self._blocks: dict[int, Indices] = {}

    def __getitem__(self, counters: Indices) -> Indices:
        """Indices int64[B] of the samples with global counters int64[B]."""
        numbers = counters // self.block
        first, last = int(numbers.min()), int(numbers.max())
        if first == last:
            return self._block(first)[counters - first * self.block]
        result = np.empty_like(counters)
        for number in np.unique(numbers):
            here = numbers == number
            result[here] = self._block(int(number))[counters[here] - number * self.block]
        return result

    def _block(self, number: int) -> Indices:
        block = self._blocks.get(number)
        if block is None:
            if len(self._blocks) >= 4:
                self._blocks.pop(next(iter(self._blocks)))
            block = self._blocks[number] = self._compute(number * self.block)
        return block

    def _compute(self, start: int) -> Indices:
        counters = np.arange(start, start + self.block, dtype=np.int64)
        epochs, places = np.unique(counters // self.n, return_inverse=True)
        keys = np.stack([_round_keys(self.seed, epoch) for epoch in epochs.tolist()], axis=1)
        return _walk(counters % self.n, self.n, keys if len(epochs) == 1 else keys[:, places])
