"""Holds what a run has written against the schema."""

from __future__ import annotations

import json
from pathlib import Path

from generative.training.records import METRICS_LINE, EventLine, Status


def check_lines(folder: Path) -> tuple[int, int]:
    """Numbers of lines in metrics.jsonl and events.jsonl, each of which is as the schema says."""
    metrics, events = ((folder / name).read_text().splitlines() for name in ("metrics.jsonl", "events.jsonl"))
    for line in metrics:
        METRICS_LINE.validate_json(line)
    for line in events:
        EventLine.model_validate_json(line)
    return len(metrics), len(events)


def check_status(folder: Path) -> Status:
    """status.json, which is as the schema says and has no fields besides."""
    status = Status.model_validate(json.loads((folder / "status.json").read_text()))
    assert not status.model_extra, f"fields that the schema does not know: {sorted(status.model_extra)}"
    return status
