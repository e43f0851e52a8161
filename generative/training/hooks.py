"""What watches a training run: metrics, validation, samples. Hooks are called on every rank, in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generative.training.trainer import Trainer

Record = dict[str, Any]
"""One line of metrics.jsonl."""


class Hook:
    """A watcher that does nothing; override what is of interest.

    `on_start`, `on_rewind` and `on_end` may take long on one rank, up to parallel.patience_seconds. In the others, what
    may take longer than parallel.timeout_seconds on some rank belongs into `trainer.backend.patience.together()`, which
    all ranks must enter.
    """

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step (after a resume)."""

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        """After each step; `record` is there every `log_every` steps."""

    def on_validation(self, trainer: Trainer, record: Record) -> None:
        """After a validation."""

    def on_measurement(self, trainer: Trainer, record: Record) -> None:
        """A watcher has measured samples (`Trainer.measured`)."""

    def on_checkpoint(self, trainer: Trainer, step: int) -> None:
        """A checkpoint of this step has been handed to the writer."""

    def on_rewind(self, trainer: Trainer, step: int) -> None:
        """The run went back to this step (rollback, or a resume behind what was logged)."""

    def on_event(self, trainer: Trainer, kind: str, message: str) -> None:
        """Something to tell a person: resume, anomaly, warning."""

    def on_end(self, trainer: Trainer, state: str) -> None:
        """After the last step: "complete" or "interrupted"; not after a failure."""
