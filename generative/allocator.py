"""Memory that a process has given back stays with it, so that the next step does not fetch it page by page again."""

from __future__ import annotations

import ctypes

# Names in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MAPPED = 32 * 2**20
"""The most that glibc takes for the second threshold."""


def keep_freed_memory() -> bool:
    """Ask glibc to hold on to freed memory: blocks up to 32 MiB come from the heap, and the heap is not cut back.

    Training on a CPU frees and takes the same activations in every step. By glibc's defaults they go back to the
    kernel, which clears each page before it hands it out again. A process then keeps its peak, which it comes back to
    anyway.

    Returns:
        Whether it was done: not on systems whose C library is another.
    """
    try:
        change = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(change(_MMAP_THRESHOLD, _LARGEST_MAPPED)) and bool(change(_TRIM_THRESHOLD, 2**31 - 1))
