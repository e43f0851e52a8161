"""How long a person waits for the command line to answer: whole processes, from start to exit."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from evaluation.benchmarks.figure import Figure, figure
from evaluation.benchmarks.timing import timed
from evaluation.estimate import bootstrap_median

STARTS, QUICK_STARTS = 30, 5
STARTS_OF_EACH, QUICK_STARTS_OF_EACH = 5, 2

COMMAND = re.compile(r"^  ([a-z][\w-]*)  +\S", re.MULTILINE)
"""A line of `--help` that names a command of the list."""


def run(quick: bool) -> dict[str, Figure]:
    """Wall time of `generative --help`, and of the slowest command's help."""
    program = command()
    return {
        "help_seconds": help_seconds(program, QUICK_STARTS if quick else STARTS),
        "slowest_command_help_seconds": slowest_help(program, QUICK_STARTS_OF_EACH if quick else STARTS_OF_EACH),
    }


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
    help_of(words)
    seconds = _times(words, starts)
    measured = bootstrap_median(seconds, "s", "wall time of `generative --help` in a fresh process, after one warm-up")
    return figure(measured, "<= 0.5", values=seconds)


def slowest_help(program: Sequence[str], starts: int) -> Figure:
    """Median time of `--help` of the command that takes longest, commands of groups (`config show`) among them.

    Args:
        program: the command line without commands.
        starts: how many of each command are timed; listing the commands fills the caches.

    Raises:
        CalledProcessError: a command fails.
    """
    seconds = {words: _times([*program, *words], starts) for words in commands(program) if words}
    slowest = max(seconds, key=lambda words: float(np.median(seconds[words])))
    of_many = f"the slowest of {len(seconds)} commands, in a fresh process"
    protocol = f"wall time of `generative {' '.join(slowest)} --help`, {of_many}"
    return figure(bootstrap_median(seconds[slowest], "s", protocol), "<= 1", values=seconds[slowest])


def commands(program: Sequence[str], words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """`words` and what `--help` lists below them, as deep as it goes."""
    yield words
    listed = help_of([*program, *words]).partition("\nCommands:\n")[2]
    for name in COMMAND.findall(listed):
        yield from commands(program, (*words, name))


def help_of(words: Sequence[str]) -> str:
    """What a command's `--help` prints."""
    return subprocess.run([*words, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout


def _times(words: Sequence[str], starts: int) -> list[float]:
    return [timed(lambda: help_of(words)) for _ in range(starts)]
