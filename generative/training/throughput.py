"""Speed, memory and the share of the machine's arithmetic that a method makes use of."""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from dataclasses import dataclass

import psutil
import torch

PEAK_FLOPS = {  # dense, per second, by (part of the device's name, precision)
    ("H200", "bf16"): 989e12,
    ("H100", "bf16"): 989e12,
    ("A100", "bf16"): 312e12,
    ("H200", "fp32"): 67e12,
    ("H100", "fp32"): 67e12,
    ("A100", "fp32"): 19.5e12,
    ("L40S", "bf16"): 362e12,
    ("L4", "bf16"): 121e12,
}
"""Published dense rates of common accelerators."""


WINDOW = 100
"""Records that the speed for the ETA is taken over: some validations and checkpoints are among them."""


class Pace:
    """Speed over the last records, and what it means for the time left."""

    def __init__(self, window: int = WINDOW) -> None:
        self._records: deque[tuple[int, float]] = deque(maxlen=window)
        self._first = True

    def add(self, samples: int, seconds: float) -> None:
        """One more record. The first of a start, with its allocations and compilations, gives way to the second."""
        if len(self._records) == 1 and self._first:
            self._records.clear()
            self._first = False
        self._records.append((samples, seconds))

    @property
    def samples_per_second(self) -> float | None:
        """None before the first record."""
        samples, seconds = (sum(column) for column in zip(*self._records, strict=True)) if self._records else (0, 0.0)
        return samples / seconds if samples and seconds else None

    def seconds_for(self, samples: int) -> float | None:
        """Time that so many samples take; None before the first record."""
        speed = self.samples_per_second
        return samples / speed if speed else None


@dataclass(frozen=True)
class Peak:
    """What MFU is measured against: FLOP per second of one worker, and where the number comes from."""

    flops: float
    source: str


def peak_rate(device: torch.device, precision: str) -> Peak | None:
    """The published dense rate of a GPU (None if it is not in the table), or a rate measured on this CPU.

    On a CPU it is that of an fp32 matrix product with the threads of this process.
    """
    if device.type != "cuda":
        source = f"measured: fp32 matrix product, {torch.get_num_threads()} thread(s) of this CPU"
        return Peak(measured_matmul_flops(), source)
    name = torch.cuda.get_device_name(device)
    for (part, kind), flops in PEAK_FLOPS.items():
        if part in name and kind == precision:
            return Peak(flops, f"published: dense {precision} rate of {part}")
    return None


def measured_matmul_flops() -> float:
    """Best rate of an fp32 matrix product on the CPU, FLOP per second; measured once for each number of threads."""
    return _best_rate(torch.get_num_threads())


@functools.cache
def _best_rate(threads: int, size: int = 768, repeats: int = 5) -> float:
    """With the threads that torch is set to, whose number only tells rates apart."""
    a = torch.ones(size, size)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def host_memory_gb() -> float:
    """Resident memory of this process, 10^9 bytes."""
    return float(_process(os.getpid()).memory_info().rss) / 1e9


@functools.lru_cache(maxsize=1)
def _process(pid: int) -> psutil.Process:
    """Looked up once: making the object reads half a dozen files of /proc."""
    return psutil.Process(pid)


def device_memory_gb(device: torch.device) -> float | None:
    """Peak memory allocated on the GPU since the start, 10^9 bytes; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
