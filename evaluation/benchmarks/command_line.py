"""How long a person waits for the command line to answer: whole processes, from start to exit."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from evaluation.benchmarks.figure import Figure, figure
from evaluation.benchmarks.timing import timed
from evaluation.estimate import bootstrap_median

STARTS, QUICK_STARTS = 30, 5


def run(quick: bool) -> dict[str, Figure]:
    """Wall time of `generative --help`."""
    return {"help_seconds": help_seconds(command(), QUICK_STARTS if quick else STARTS)}


def command() -> list[str]:
    """The installed command of this environment, or the module behind it where only the packages are there."""
    script = Path(sysconfig.get_path("scripts"), "generative")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "launch.cli"]


def help_seconds(words: Sequence[str], starts: int) -> Figure:
    """Median time of `--help` in fresh processes, one after the other; a first start fills caches and is left out.

    Args:
        words: the command without its options.
        starts: how many are timed.

    Raises:
        CalledProcessError: the command fails.
    """

    def start() -> None:
        subprocess.run([*words, "--help"], check=True, stdout=subprocess.DEVNULL)

    start()
    seconds = [timed(start) for _ in range(starts)]
    measured = bootstrap_median(seconds, "s", "wall time of `generative --help` in a fresh process, after one warm-up")
    return figure(measured, "<= 0.5", values=seconds)
