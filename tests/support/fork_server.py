"""Processes from multiprocessing's fork server, which has imported what they need: spawned ones take seconds each."""

from __future__ import annotations

import functools
import multiprocessing
from multiprocessing.context import ForkServerContext

PRELOADED = ["torch", "pytest", "hypothesis", "psutil", "generative.data.loader", "generative.data.prepare"]


@functools.cache
def context() -> ForkServerContext:
    """One server for all tests of this process, with which it ends; what a process is given is pickled."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found
