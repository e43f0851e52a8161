"""Where benchmarks keep trainings that have taken long: in a folder that a person names, else until they end.

The environment variable GENERATIVE_BENCH names it: a benchmark that was interrupted goes on from there when it is
started again. What is kept there is of the version of the code that made it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from evaluation.benchmarks.figure import Figure
from generative.training.runfolder import write_json

FOLDER = "GENERATIVE_BENCH"


@contextlib.contextmanager
def workplace(name: str) -> Iterator[Path]:
    """The folder of the benchmark of that name in the one that GENERATIVE_BENCH names, or one that is removed."""
    if kept := os.environ.get(FOLDER):
        folder = Path(kept).resolve() / name
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as made:
        yield Path(made)


def once(file: Path, measure: Callable[[], dict[str, Figure]]) -> dict[str, Figure]:
    """Figures of a part of a benchmark: measured, or read where that has been done."""
    if file.is_file():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    found = measure()
    write_json(file, found)
    return found
