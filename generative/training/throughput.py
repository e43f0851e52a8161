"""Speed, memory and the share of the machine's arithmetic that a method makes use of."""

from __future__ import annotations

import functools
import os
import time

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


def peak_flops(device: torch.device, precision: str) -> float | None:
    """FLOP per second that MFU is measured against.

    The published rate of a GPU (None if it is not in the table), or the rate of a matrix product measured on this CPU
    with the threads of this process.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((v for (part, p), v in PEAK_FLOPS.items() if part in name and p == precision), None)
    return measured_matmul_flops()


def measured_matmul_flops(size: int = 768, repeats: int = 5) -> float:
    """Best rate of an fp32 matrix product on the CPU, FLOP per second."""
    a = torch.ones(size, size)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def host_memory_gb() -> float:
    """Resident memory of this process."""
    return float(_process(os.getpid()).memory_info().rss) / 2**30


@functools.lru_cache(maxsize=1)
def _process(pid: int) -> psutil.Process:
    """Looked up once: making the object reads half a dozen files of /proc."""
    return psutil.Process(pid)


def device_memory_gb(device: torch.device) -> float | None:
    """Peak memory allocated on the GPU since the start; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
