"""What torch's profiler knows of memory."""

from __future__ import annotations

from typing import Any

import torch


def allocation_peak(prof: Any) -> int:
    """Highest sum of the allocations that the profiler saw."""

    def allocations(events):
        for event in events:
            if event.tag == torch._C._profiler._EventType.Allocation:
                yield event.start_time_ns, event.extra_fields.alloc_size
            yield from allocations(event.children)

    now = peak = 0
    for _, size in sorted(allocations(prof.profiler.kineto_results.experimental_event_tree())):
        now += size
        peak = max(peak, now)
    return peak
