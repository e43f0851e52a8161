"""How the threads of torch's operations wait for each other."""

from __future__ import annotations

import os

SPINS = "GOMP_SPINCOUNT"
BRIEFLY = "10000"
"""Looks at the flag that a thread waits for, before it sleeps: some ten microseconds, which small operations need."""
CHOSEN = (SPINS, "OMP_WAIT_POLICY")
"""What an environment may say about it."""


def spin_briefly() -> None:
    """Threads that wait for others soon sleep, unless the environment says something of it; before torch is loaded.

    GNU's OpenMP looks some 300,000 times. Where another program has one of the cores, the others then spin for as long
    as the operating system lets it run, at the end of each of hundreds of small operations. A small convolutional
    network on two cores, one of them taken: 1.7 s a step, with this 0.3; on free cores 0.06 both ways, and 0.09 with
    threads that never spin (OMP_WAIT_POLICY=passive).
    """
    if not any(name in os.environ for name in CHOSEN):
        os.environ[SPINS] = BRIEFLY
