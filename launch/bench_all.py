"""All benchmarks one after the other, each in a process of its own, and one table of their figures.

A benchmark that fails or is killed is told, and the next one follows. With GENERATIVE_BENCH=FOLDER, finished ones are
kept there with what they were measured with, and are not run again as long as that is the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from evaluation.benchmarks.kept import FOLDER, workplace
from generative.errors import ConfigError
from launch.bench_table import Measured, Outcome, text, write_table
from launch.environment import measured_on
from launch.folder import read_json, write_output
from launch.stopping import INTERRUPTED

ORDER = (
    # seconds to minutes: closed forms and times of single steps
    "command_line",
    "f_distill_exact",
    "stsl_exact",
    "rece_speed",
    "f_distill_speed",
    "stsl_speed",
    "trainer",
    "parallel",
    "masked_diffusion",
    # trainings, some of hours
    "masked_reverse",
    "stsl_digits",
    "stsl_latent",
    "f_distill_modes",
    "shakespeare",
    "rece",
    "sgmse",
    "mee_gan",
    "f_distill",
    "f_distill_cifar10",
    "sgmse_long",
    # whole runs that are harmed on purpose
    "robustness",
    "chaos",
    "scaling",
)
IN_PARTS = {"stsl": ("stsl_exact", "stsl_speed", "stsl_digits", "stsl_latent")}
"""Benchmarks that are nothing but others together, which stand in `ORDER`."""

KEPT = "all"
"""The folder of finished benchmarks in the one that GENERATIVE_BENCH names."""

MACHINE = ("host", "machine", "gpus")
"""What an environment tells of the machine itself."""

SECONDS_TO_END = 30.0
"""That a benchmark has after Ctrl-C before it is killed."""


def run_all(
    quick: bool, json: Path | None, table: Path | None, names: Sequence[str] = ORDER, kept: bool = False
) -> int:
    """Run them, print the table, write what was asked for; the exit code.

    Args:
        quick: as in `generative bench --quick`.
        json: file of the figures.
        table: file or page of the table.
        names: of benchmarks.
        kept: run nothing, and take what this machine has measured before, whatever the revision; the table tells it.

    Returns:
        0 when all ran (whatever their goals) or none was to run, 1 when one failed, 75 when one was interrupted, or the
        whole.

    Raises:
        ConfigError: `kept`, and no folder is named.
    """
    environment = measured_on()
    found: list[Outcome] = []
    if not os.environ.get(FOLDER):
        if kept:
            raise ConfigError("--kept", f"{FOLDER} to name a folder", f"give {FOLDER}=FOLDER, the one of earlier runs")
        _say(f"{FOLDER} is not set: whatever is interrupted begins anew")
    with workplace(KEPT) as folder:
        try:
            for outcome in (of_before if kept else run_each)(names, quick, folder, environment):
                found.append(outcome)
        except KeyboardInterrupt:
            found.append(Outcome(names[len(found)], "interrupted", problem="Ctrl-C"))
            _say(f"stopped; {len(names) - len(found)} are not run")
    outcomes = [*found, *(Outcome(name, "not run") for name in names[len(found) :])]
    measured = Measured(outcomes, environment, quick)
    print(text(measured))
    write_output(json, as_json(measured))
    write_table(table, measured)
    return 0 if kept else exit_code(outcomes)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Of the command."""
    states = {one.state for one in outcomes}
    return 1 if "failed" in states else INTERRUPTED if states - {"done"} else 0


def as_json(measured: Measured) -> dict[str, Any]:
    """The whole as `--json` writes it."""
    told = {
        one.name: {"state": one.state, "seconds": one.seconds, "time": one.time, "problem": one.problem or None}
        | {"figures": one.figures}
        for one in measured.outcomes
    }
    return {"name": KEPT, "quick": measured.quick, "environment": dict(measured.environment), "benchmarks": told}


def run_each(names: Sequence[str], quick: bool, folder: Path, now: Mapping[str, Any]) -> Iterator[Outcome]:
    """What becomes of each, as soon as it is known.

    Args:
        names: of benchmarks.
        quick: as in `generative bench --quick`.
        folder: where results are kept.
        now: what this process would measure with.

    Raises:
        KeyboardInterrupt: Ctrl-C; the benchmark that ran has ended.
    """
    for number, name in enumerate(names, 1):
        file = _file(folder, name, quick)
        kept = read_json(file)
        if kept and comparable(kept.get("environment") or {}, now):
            outcome = Outcome.of(kept)
            _say(f"{number} of {len(names)}: {name}: kept from before: {outcome.counts()}")
        else:
            file.unlink(missing_ok=True)
            _say(f"{number} of {len(names)}: {name}")
            outcome = run_apart(name, command(name, quick, file), file)
            _say(f"{name}: {outcome.ended()}{f': {outcome.counts()}' if outcome.state == 'done' else ''}")
        yield outcome


def of_before(names: Sequence[str], quick: bool, folder: Path, now: Mapping[str, Any]) -> Iterator[Outcome]:
    """What this machine keeps of each, with whatever revision it was measured; arguments as of `run_each`."""
    for name in names:
        kept = read_json(_file(folder, name, quick))
        about = (kept or {}).get("environment") or {}
        elsewhere = [key for key in MACHINE if about.get(key) != now.get(key)]
        if kept and elsewhere:
            _say(f"{name}: left out, since it was measured on another machine ({', '.join(elsewhere)})")
        yield Outcome.of(kept) if kept and not elsewhere else Outcome(name, "not run")


def _file(folder: Path, name: str, quick: bool) -> Path:
    return folder / f"{name}{'_quick' if quick else ''}.json"


def comparable(kept: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether figures were measured with this code on this machine; never with changes that are not committed."""
    same = all(kept.get(key) == now.get(key) for key in (*MACHINE, "versions", "git", "cores"))
    return same and not (now.get("git") or {}).get("dirty")


def command(name: str, quick: bool, file: Path) -> list[str]:
    """The words that run one benchmark and leave its result in a file."""
    words = [sys.executable, "-m", "launch.cli", "bench", name, "--json", str(file)]
    return [*words, "--quick"] if quick else words


def run_apart(name: str, words: Sequence[str], file: Path) -> Outcome:
    """Run one benchmark in a process of its own; its messages go on to standard error, its table is dropped."""
    began = time.monotonic()
    said: deque[str] = deque(maxlen=3)
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    )
    # A process that outlives the benchmark may hold the pipe, so it is not read by this thread.
    reader = threading.Thread(target=_pass_on, args=(process.stderr, said), daemon=True)
    reader.start()
    try:
        code = process.wait()
    except BaseException:
        _end(process)
        raise
    reader.join(timeout=5)
    seconds = round(time.monotonic() - began, 3)
    result = read_json(file)
    if code == 0 and result:
        return Outcome.of(result)
    interrupted = code < 0 or code in (INTERRUPTED, 128 + signal.SIGINT)
    return Outcome(name, "interrupted" if interrupted else "failed", seconds, time.time(), {}, _why(code, list(said)))


def _why(code: int, said: Sequence[str]) -> str:
    """The problem of an error in three lines, or else the last line that a process has said."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    if code == 0:
        return "exit code 0, and no result"
    last = next((i for i, line in enumerate(said) if line.startswith("expected: ")), len(said))
    return f"exit code {code}{f': {said[last - 1]}' if last else ''}"


def _pass_on(stream: IO[str], said: deque[str]) -> None:
    for line in stream:
        sys.stderr.write(line)
        sys.stderr.flush()
        if line.strip():
            said.append(line.strip())


def _end(process: subprocess.Popen[str]) -> None:
    """Ctrl-C in a terminal has reached it too; a signal to this process alone has not."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _say(line: str) -> None:
    print(f"bench all: {line}", file=sys.stderr, flush=True)
