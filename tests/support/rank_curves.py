"""What tests of trainings on real ranks share: the same curve, weights and memory whoever trains."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.groups import run_group

LIMIT = 400
"""Seconds for the jobs of one group, on a machine that does other things too."""


@dataclass(frozen=True)
class Ranks:
    """Groups of ranks that run a script's jobs.

    Args:
        script: one rank; prints {"curve", "trained", "ema", ...} of each job.
        curve: relative tolerance of what is recorded each step, and of further numbers.
        weights: relative and absolute tolerance of the norms of weights.
    """

    script: pathlib.Path
    curve: float
    weights: tuple[float, float]

    def __call__(self, world: int, *jobs: dict[str, Any]) -> list[dict[str, Any]]:
        """What each job came to; the same on every rank."""
        first, *others = run_group(self.script, world, {"jobs": list(jobs)}, timeout=LIMIT)
        for other in others:
            assert [each["curve"] for each in other] == [each["curve"] for each in first]
        return first

    def close(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        """The same numbers to the tolerances."""
        assert found.keys() == wanted.keys()
        assert len(found["curve"]) == len(wanted["curve"])
        for mine, theirs in zip(found["curve"], wanted["curve"], strict=True):
            assert mine == pytest.approx(theirs, rel=self.curve)
        relative, absolute = self.weights
        for key in found.keys() - {"curve"}:
            rel, least = (relative, absolute) if isinstance(found[key], dict) else (self.curve, None)
            assert found[key] == pytest.approx(wanted[key], rel=rel, abs=least)

    def resumed(self, world: int, store: pathlib.Path, stopped: dict[str, Any], **job: Any) -> dict[str, Any]:
        """A run that was `stopped` at a step, gone on with from its store, as one whole."""
        (rest,) = self(world, {**job, "store": str(store)})
        return {**rest, "curve": stopped["curve"] + rest["curve"]}
