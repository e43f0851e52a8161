"""What stands in a run folder's metrics.jsonl, events.jsonl and status.json: the one schema of all runs.

The writers build plain dictionaries; these models say what may be in them, and a test holds every line of a real run
against them. docs/run_folder.md is the same for people.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

VERSION = 1
"""Of the lines; raised when a field changes its meaning or goes. New fields alone do not raise it."""

Number = float | None
"""A number; null where it is not finite or not known."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Split(_Strict):
    """Where the seconds of a record went on rank 0; the parts add up to `seconds`."""

    data: float = Field(ge=0)
    """Waiting for the next batch."""
    sync: float | None = Field(ge=0)
    """In exact sums over workers, mostly waiting for a slower one. Null on GPUs, where they run beside the host; the
    exchange of gradients overlaps the backward pass and is counted as compute."""
    between: float = Field(ge=0)
    """Between steps: validation, samples, handing over a checkpoint, writing the record before."""
    compute: float = Field(ge=0)
    """The rest: forward, backward (with the exchange of gradients) and optimizer."""


class TrainLine(_Strict):
    """One line of metrics.jsonl every `train.log_every` steps; means over the steps since the line before."""

    version: Literal[1]
    kind: Literal["train"]
    step: int = Field(ge=1)
    """Training steps completed."""
    time: float
    """Seconds since 1970."""
    loss: dict[str, Number]
    """By update."""
    grad_norm: dict[str, Number]
    """By update, before clipping."""
    lr: dict[str, float]
    """By update."""
    metrics: dict[str, dict[str, Number | list[Number]]]
    """By update and name; a list is a curve, such as loss by noise level."""
    samples: int = Field(ge=0)
    """Since the beginning of the run."""
    tokens: int | None = Field(default=None, ge=0)
    """Since the beginning; only where samples are made of tokens."""
    seconds: float = Field(gt=0)
    """Since the line before."""
    split: Split
    samples_per_second: float = Field(gt=0)
    """Over all workers."""
    tokens_per_second: float | None = Field(default=None, gt=0)
    mfu: float | None = Field(ge=0)
    """Model FLOPs utilisation: FLOPs of the method's own count (forward and backward, nothing counted twice for
    recomputation) per second and worker over `peak_flops` of status.json; null where one of them is unknown."""
    eta_seconds: float | None = Field(ge=0)
    """Seconds left at the speed of the last 100 lines."""
    host_memory_gb: float = Field(gt=0)
    """Resident memory of rank 0's process, 10^9 bytes."""
    device_memory_gb: float | None = Field(gt=0)
    """Peak of what was allocated on rank 0's GPU since the start, 10^9 bytes; null on a CPU."""
    checkpoint_seconds: float = Field(ge=0)
    """That checkpoints have held up training on rank 0 since this start."""


class HeldOutLoss(_Strict):
    """A mean over held-out samples."""

    value: Number
    stderr: Number
    n: int = Field(ge=1)
    """Samples."""


class ValidationLine(_Strict):
    """One line of metrics.jsonl every `train.validation.every_steps` steps."""

    version: Literal[1]
    kind: Literal["validation"]
    step: int = Field(ge=1)
    time: float
    loss: dict[str, HeldOutLoss]
    metrics: dict[str, dict[str, Number | list[Number]]]


class MonitorLine(_Strict):
    """One line of metrics.jsonl for each measurement of samples, every `train.sample_every` steps."""

    version: Literal[1]
    kind: Literal["monitor"]
    step: int = Field(ge=1)
    time: float
    metrics: dict[str, Number]
    """By name, of the samples drawn at this step."""


EventKind = Literal[
    "start", "resume", "restart", "checkpoint", "anomaly", "rollback", "warning", "note", "evaluate", "stop", "complete"
]


class EventLine(_Strict):
    """One line of events.jsonl."""

    version: Literal[1]
    kind: EventKind
    step: int = Field(ge=0)
    time: float
    message: str


class CurveBins(_Strict):
    """What the entries of a metric that is a curve stand for; `generative.method.Bins`."""

    label: str
    """Of the axis."""
    edges: list[float]
    """Borders of the bins, ascending, one more than the curve has entries."""
    log: bool
    """Whether the axis is logarithmic."""


class Status(BaseModel):
    """status.json, replaced every two seconds (its heartbeat); fields that are not known yet are left out."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    version: Literal[1]
    state: Literal["starting", "running", "evaluating", "complete", "interrupted", "failed"]
    step: int = Field(ge=0)
    steps: int = Field(ge=1)
    config: str
    """Name of the configuration."""
    started: float
    """Seconds since 1970."""
    heartbeat: float
    """When the run last gave a sign of life."""
    attempt: int = Field(ge=1)
    """Number of this group of workers since the command was given."""
    restarts: int = Field(ge=0)
    """Of groups of workers, in the whole life of the run."""
    lost_steps: int = Field(ge=0)
    """Steps taken again after the last loss."""
    lost_seconds: float = Field(ge=0)
    """Training time that was lost with workers and taken again, in the whole life of the run."""
    world: int = Field(ge=1)
    """Workers that train."""
    host: str
    pid: int
    """Rank 0's."""
    curves: dict[str, CurveBins] | None = None
    """By name of a metric that is a curve, where the method tells."""
    loss: Number = None
    samples_per_second: Number = None
    """Over the last 100 lines, as `eta_seconds`."""
    tokens_per_second: Number = None
    mfu: Number = None
    peak_flops: float | None = None
    """FLOP/s of one worker that MFU is measured against."""
    peak_source: str | None = None
    """Where `peak_flops` comes from."""
    eta_seconds: Number = None
    host_memory_gb: Number = None
    device_memory_gb: Number = None
    checkpoint: str | None = None
    """Newest checkpoint that was handed to the writer."""
    message: str = ""
    """Why the run ended, where it failed."""


METRICS_LINE: TypeAdapter[TrainLine | ValidationLine | MonitorLine] = TypeAdapter(
    TrainLine | ValidationLine | MonitorLine
)


def event_line(kind: str, step: int, message: str) -> dict[str, Any]:
    """A line of events.jsonl, of now."""
    return {"version": VERSION, "time": time.time(), "kind": kind, "step": step, "message": message}
