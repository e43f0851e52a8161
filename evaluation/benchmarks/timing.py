"""Timings that can be compared: taken in turns in one process, on one thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from evaluation.estimate import Estimate, Ratio


def timed(action: Callable[[], object], device: torch.device | None = None) -> float:
    """Seconds that `action` takes, the work that it left to a GPU included."""
    start = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device | None) -> None:
    """Wait until a GPU has done what it was given."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def interleave(
    first: Callable[[], object],
    second: Callable[[], object],
    pairs: int,
    warmup: int = 3,
    device: torch.device | None = None,
) -> tuple[list[float], list[float]]:
    """Seconds of both, in turns; see `in_turns`."""
    a, b = in_turns([first, second], pairs, warmup, device)
    return a, b


def in_turns(
    actions: Sequence[Callable[[], object]], rounds: int, warmup: int = 3, device: torch.device | None = None
) -> list[list[float]]:
    """Seconds of each action, measured in turns (A B C A B C ...), so that a drift of the machine is shared."""
    taken = [[timed(action, device) for action in actions] for _ in range(warmup + rounds)][warmup:]
    return [[seconds[i] for seconds in taken] for i in range(len(actions))]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on one thread: what other processes do to the other cores then matters less."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def grouped_ratio_of_medians(
    groups: Sequence[tuple[Sequence[float], Sequence[float]]], resamples: int = 2000, seed: int = 0
) -> Ratio:
    """Median of all first parts over the median of all second parts; whole groups are drawn for the interval.

    For timings that come in bouts of unequal length, such as the steps during and after the writing of a checkpoint.

    Raises:
        ValueError: fewer than two groups, or one that lacks a part.
    """
    parts = [(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)) for a, b in groups]
    if len(parts) < 2 or any(not a.size or not b.size for a, b in parts):
        raise ValueError(f"need two or more groups with both parts, got sizes {[(a.size, b.size) for a, b in parts]}")

    def ratio(chosen: Sequence[int]) -> float:
        above, below = (np.concatenate([parts[i][side] for i in chosen]) for side in (0, 1))
        return float(np.median(above) / np.median(below))

    draws = [ratio(row) for row in np.random.default_rng(seed).integers(0, len(parts), (resamples, len(parts)))]
    low, high = np.quantile(draws, [0.025, 0.975])
    count = sum(a.size for a, _ in parts)
    note = f"{count} and {sum(b.size for _, b in parts)} timings in {len(parts)} bouts, 95 % bootstrap over bouts"
    value = ratio(range(len(parts)))
    return Ratio(Estimate(value, float(np.std(draws, ddof=1)), count, "", note), float(low), float(high))
