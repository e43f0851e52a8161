"""The benchmark of strategies, and how long a run on two Ray workers takes to its first step, split by cause."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from evaluation.benchmarks import parallel
from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.estimate import mean_estimate
from generative.training.runfolder import read_lines
from launch.chaos_bench import SMALL
from launch.ray_worker import WORKERS

REPEATS, QUICK_REPEATS = 5, 1
LIMIT_SECONDS = 300

CAUSES = {
    "command": "imports and checks of the command",
    "cluster": "a local Ray cluster",
    "prepare": "data and plan, beyond the time of the cluster",
    "workers": "Ray's controller, worker processes, process group",
    "build": "imports of the workers, data, networks, engines",
    "first_step": "the first step",
}
"""What each part of the start is spent on, in order."""


def run(quick: bool) -> Mapping[str, Figure]:
    """All figures of `evaluation.benchmarks.parallel`, and those of the start."""
    return {**parallel.run(quick), **starts(QUICK_REPEATS if quick else REPEATS)}


def starts(repeats: int) -> dict[str, Figure]:
    """Seconds from the command to the end of the first step, in all and by cause."""
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        # The first run prepares the data, and is left out.
        for number in range(repeats + 1):
            spans = _start(Path(folder), number)
            say(" · ".join(f"{cause} {seconds:.1f} s" for cause, seconds in spans.items()))
            found += [spans] if number else []
    sums = [sum(spans.values()) for spans in found]
    figures = {"start": _figure(sums, "2 Ray workers on this machine, command to first step")}
    return figures | {f"start_{cause}": _figure([s[cause] for s in found], what) for cause, what in CAUSES.items()}


def _figure(seconds: Sequence[float], what: str) -> Figure:
    return figure(mean_estimate(list(seconds), "s", f"{what}; over starts"))


def _start(folder: Path, number: int) -> dict[str, float]:
    """One run of two steps."""
    run_folder = folder / str(number)
    settings = [*SMALL, "train.steps=2", f"run.dir={run_folder}", f"data.cache={folder / 'cache'}"]
    command = [sys.executable, "-m", "launch.cli", "train", "masked_diffusion/quickstart", *settings]
    began = time.time()
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_SECONDS)
    return spans(began, run_folder)


def spans(began: float, folder: Path) -> dict[str, float]:
    """Seconds by cause, from what a run has left in its folder."""
    log = (folder / "logs" / "ray.log").read_text(errors="replace")
    moments = [
        began,
        _moment(log, "starting or joining the cluster"),
        _moment(log, "cluster is up"),
        _moment(log, "preparation is done"),
        min(float(line["time"]) for line in read_lines(folder / WORKERS)),
        float(next(line["time"] for line in read_lines(folder / "events.jsonl") if line["kind"] == "start")),
        float(next(line["time"] for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "train")),
    ]
    return {cause: after - before for cause, before, after in zip(CAUSES, moments[:-1], moments[1:], strict=True)}


def _moment(log: str, words: str) -> float:
    found = re.search(rf"^(\S+ \S+) INFO launch\.ray: {re.escape(words)}", log, flags=re.MULTILINE)
    assert found is not None, words
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()
