"""Whether two runs are one and the same: every training step, every validation, the final weights."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.training.runfolder import read_lines
from launch.folder import flatten

COMPARED = ("loss", "lr", "samples")
"""What must be the same in a line of metrics.jsonl; the rest is about time and memory."""
EXACTLY = (*COMPARED, "grad_norm")
"""And where bits are compared: norms of gradients magnify differences of rounding."""
RELATIVE = 1e-5
"""Allowed difference where the number of workers changed on the way: sums over workers are rounded differently."""


@dataclass(frozen=True)
class Comparison:
    """How two runs compare.

    Args:
        equal: whether they are the same: bit for bit, or to RELATIVE where the number of workers changed.
        exact: whether bits were compared.
        steps: training steps compared.
        validations: validations compared.
        difference: largest relative difference of any number.
        weights: sha256 of the final weights of both runs.
        problem: what differs first; empty where nothing does.
    """

    equal: bool
    exact: bool
    steps: int
    validations: int
    difference: float
    weights: tuple[str, str]
    problem: str

    def sentence(self) -> str:
        """For a person."""
        if not self.equal:
            return f"NOT EQUAL: {self.problem}"
        how = "bit for bit" if self.exact else f"to {RELATIVE:g} (largest difference {self.difference:.1e})"
        weights = f", weights {self.weights[0][:12]}" if self.exact else ""
        return f"equal {how}: {self.steps} steps, {self.validations} validations{weights}"


def compare(calm: Path, stormy: Path, exact: bool) -> Comparison:
    """Compare the run folders of two complete runs.

    Args:
        calm: the undisturbed run.
        stormy: the other one.
        exact: compare bits; otherwise numbers to RELATIVE.
    """
    fields = EXACTLY if exact else COMPARED
    ours, theirs = _lines(calm, fields), _lines(stormy, fields)
    difference, problem = _first_problem(ours, theirs, 0.0 if exact else RELATIVE)
    weights = weights_hash(calm), weights_hash(stormy)
    if exact and not problem and weights[0] != weights[1]:
        problem = f"the final weights differ (sha256 {weights[0][:12]} and {weights[1][:12]})"
    kinds = Counter(kind for kind, _, _ in ours)
    return Comparison(not problem, exact, kinds["train"], kinds["validation"], difference, weights, problem)


def _lines(folder: Path, fields: Sequence[str]) -> list[tuple[str, int, dict[str, Any]]]:
    """(kind, step, numbers by name) of each line, in the order of the steps."""
    lines = [
        (str(line["kind"]), int(line["step"]), flatten({key: line.get(key) for key in fields}))
        for line in read_lines(folder / "metrics.jsonl")
    ]
    return sorted(lines, key=lambda line: (line[1], line[0]))


def _first_problem(ours: list[Any], theirs: list[Any], allowed: float) -> tuple[float, str]:
    """The largest relative difference, and in words what first went beyond what is allowed."""
    steps = [[(kind, step) for kind, step, _ in lines] for lines in (ours, theirs)]
    if steps[0] != steps[1]:
        odd = Counter(steps[0])
        odd.subtract(Counter(steps[1]))
        (kind, step), count = next((item for item in odd.items() if item[1]), (steps[0][0], 0))
        return math.inf, f"{kind} of step {step} is there {'less' if count > 0 else 'more'} often than in the calm run"
    largest, problem = 0.0, ""
    for kind, step, name, a, b in _pairs(ours, theirs):
        gap = 0.0 if a == b else _gap(a, b)
        largest = max(largest, gap)
        if gap > allowed and not problem:
            problem = f"{name} of {kind} step {step} is {b!r} instead of {a!r}"
    return largest, problem


def _pairs(ours: list[Any], theirs: list[Any]) -> Iterator[tuple[str, int, str, Any, Any]]:
    for (kind, step, numbers), (_, _, others) in zip(ours, theirs, strict=True):
        for name in numbers | others:
            yield kind, step, name, numbers.get(name), others.get(name)


def _gap(a: Any, b: Any) -> float:
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b))


def weights_hash(folder: Path) -> str:
    """sha256 over names and contents of all tensors of the newest checkpoint, however it is cut into files."""
    from generative.training.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(folder)
    digest = hashlib.sha256()
    for name in sorted(checkpoint.names()):
        digest.update(name.encode())
        digest.update(checkpoint.tensor(name).contiguous().numpy().tobytes())
    return digest.hexdigest()
