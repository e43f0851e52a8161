"""Malformed inputs over all verbs: no traceback, nothing half-written, no hang, and each message says what to do.

Configurations with mistakes, checkpoints and records of runs cut or altered at random places, hostile pickles, damaged
images, recordings, token files and ledgers; each command runs in a process of its own. SEED decides everything.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.estimate import Estimate
from launch.robustness.attempts import Verdict, attempt
from launch.robustness.cases import makers
from launch.robustness.material import make

SEED = 0
TRIED, QUICK_TRIED = 1040, 30
SECONDS = 120.0
"""After which a command counts as hanging: many times what the slowest takes."""

IMPORTED = (
    "torch",
    "numpy",
    "accelerate",
    "safetensors.torch",
    "launch.cli",
    "launch.worker",
    "launch.schema",
    "launch.run",
    "generative.methods.catalogue",
)
"""What a process has before it is forked for each command."""

TOLD_EVERY = 50


def run(quick: bool) -> dict[str, Figure]:
    """How many were tried, and what was found wrong."""
    for name in IMPORTED:
        importlib.import_module(name)
    count = QUICK_TRIED if quick else TRIED
    with tempfile.TemporaryDirectory(prefix="robustness-") as folder:
        verdicts = try_all(Path(folder), count)
    return figures(verdicts)


def try_all(folder: Path, count: int) -> list[Verdict]:
    """Make the material and attempt `count` commands, in the proportions of `makers`; what went wrong is told."""
    started = time.monotonic()
    kinds = makers(make(folder / "material", SECONDS))
    say(f"material made in {time.monotonic() - started:.0f} s")
    total, verdicts = sum(share for share, _ in kinds.values()), list[Verdict]()
    for kind, (share, maker) in kinds.items():
        for number in range(max(1, round(count * share / total))):
            place = folder / "attempt"
            verdict = attempt(maker(place, Random(f"{SEED} {kind} {number}")), SECONDS)
            verdicts.append(verdict)
            for problem in problems(verdict):
                say(f"{problem}: {kind} {number}: generative {' '.join(verdict.attempt.words)}\n{_end(verdict.told)}")
            shutil.rmtree(place, ignore_errors=True)
            if len(verdicts) % TOLD_EVERY == 0:
                say(f"{len(verdicts)} of about {count} tried, {time.monotonic() - started:.0f} s")
    return verdicts


PROBLEMS: dict[str, Callable[[Verdict], bool]] = {
    "tracebacks": lambda verdict: verdict.fault,
    "half_written": lambda verdict: bool(verdict.halves),
    "hangs": lambda verdict: verdict.code is None,
    "without_remedy": lambda verdict: verdict.mute,
    "executed": lambda verdict: verdict.executed,
}
TEXTS = {
    "tracebacks": "commands that met an exception nobody foresaw, or crashed",
    "half_written": "commands that left an unfinished file",
    "hangs": f"commands that had not ended after {SECONDS:g} s",
    "without_remedy": "commands that failed without saying what to do",
    "executed": "commands that ran code of their input",
}


def problems(verdict: Verdict) -> list[str]:
    """Names of what is wrong with it."""
    return [name for name, found in PROBLEMS.items() if found(verdict)]


def figures(verdicts: Sequence[Verdict]) -> dict[str, Figure]:
    """Counts."""
    kinds = Counter(verdict.attempt.kind for verdict in verdicts)
    refused = sum(verdict.code != 0 for verdict in verdicts)
    told = f"{refused} refused; " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    found = {"tried": figure(_count(len(verdicts), told), ">= 1000" if len(verdicts) >= TRIED // 2 else None)}
    for name, text in TEXTS.items():
        wrong = sum(PROBLEMS[name](verdict) for verdict in verdicts)
        found[name] = figure(_count(wrong, f"{text}, of {len(verdicts)}"), "<= 0")
    return found


def _count(value: int, protocol: str) -> Estimate:
    return Estimate(float(value), None, 1, "", protocol)


def _end(told: str) -> str:
    return "\n".join(f"    {line}" for line in told.strip().splitlines()[-6:])
