"""Peak memory of an action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def peak_bytes(action: Callable[[], object], clear: Callable[[], object]) -> int:
    """Most bytes of CPU tensors that `action` holds at a time beyond what is left by `clear`, by torch's profiler."""
    clear()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        action()
    # Every allocation and release is an event with a positive or negative size; the operators' own sums hide the peak.
    assert profile.profiler is not None
    events: list[Any] = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(np.cumsum(sizes).max(initial=0))


def gpu_peak_bytes(action: Callable[[], object], clear: Callable[[], object]) -> int:
    """Most bytes that `action` holds on the GPU at a time beyond what is left by `clear`."""
    clear()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action()
    return torch.cuda.max_memory_allocated() - before
