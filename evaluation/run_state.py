"""What became of a run, from its files: the same answer in `generative status` and in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALIVE = ("starting", "running", "evaluating")

LOST_AFTER = 30.0
"""Seconds without a heartbeat after which a run that should be alive counts as lost."""


def run_state(status: Mapping[str, Any], outcome: Mapping[str, Any], now: float) -> str:
    """State of a run: what outcome.json says, else status.json, else "unknown"; "lost" for a run that fell silent.

    Args:
        status: status.json.
        outcome: outcome.json, which is written when the workers have ended by themselves and removed at a new start.
        now: seconds since 1970.
    """
    states = [source["state"] for source in (outcome, status) if _is_text(source.get("state"))]
    state = states[0] if states else "unknown"
    return "lost" if state in ALIVE and silence(status, now) > LOST_AFTER else state


def silence(status: Mapping[str, Any], now: float) -> float:
    """Seconds since the last heartbeat; since 1970 where there was none."""
    beat = status.get("heartbeat")
    return now - float(beat) if isinstance(beat, int | float) else now


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
