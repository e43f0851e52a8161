"""Where the seconds of a step go, measured from outside of the loop at the cost of a few clock readings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from generative.training.trainer import Trainer


class StepClock:
    """Splits the time of steps into waiting for data, sums over workers, what lies between steps, and the rest.

    Args:
        now: seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._data = self._sync = self._between = 0.0
        self._ended: float | None = None
        self._syncs = True

    def attach(self, trainer: Trainer) -> None:
        """Measure this trainer's batches and sums from now on."""
        assert trainer.batches is not None
        trainer.batches = _TimedBatches(trainer.batches, self)
        # A sum on a GPU returns before it is done: its time cannot be told from here.
        self._syncs = trainer.backend.device.type == "cpu"
        if self._syncs and trainer.backend.world > 1:
            trainer.backend.collectives = _TimedCollectives(trainer.backend.collectives, self)

    def step_ended(self) -> None:
        """The step is over; what follows until the next batch is asked for lies between steps."""
        self._ended = self._now()

    def restart(self) -> None:
        """Forget what was measured: the run went back."""
        self._data = self._sync = self._between = 0.0
        self._ended = None

    def take(self, seconds: float) -> dict[str, float | None]:
        """The parts of the last `seconds`, of which they are never more; then begin anew."""
        found = [self._data, self._sync, self._between]
        self._data = self._sync = self._between = 0.0
        scale = min(1.0, seconds / sum(found)) if any(found) else 1.0
        data, sync, between = (scale * part for part in found)
        compute = max(0.0, seconds - data - sync - between)
        return {"data": data, "sync": sync if self._syncs else None, "between": between, "compute": compute}

    def waited_for_data(self, began: float) -> None:
        """A batch that was asked for at `began` is there."""
        if self._ended is not None:
            self._between += began - self._ended
            self._ended = None
        self._data += self._now() - began

    def waited_for_others(self, began: float) -> None:
        """A sum that was begun at `began` is done; between steps it is a part of what lies there."""
        if self._ended is None:
            self._sync += self._now() - began

    def reading(self) -> float:
        """The clock."""
        return self._now()


class _TimedBatches:
    """Batches whose waiting time is known."""

    def __init__(self, batches: Any, clock: StepClock) -> None:
        self._batches, self._clock = batches, clock

    def __next__(self) -> Any:
        began = self._clock.reading()
        share = next(self._batches)
        self._clock.waited_for_data(began)
        return share

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def state(self, collectives: Any) -> Any:
        """See Batches."""
        return self._batches.state(collectives)


class _TimedCollectives:
    """Collectives whose time is known."""

    def __init__(self, collectives: Any, clock: StepClock) -> None:
        self._collectives, self._clock = collectives, clock
        self.rank, self.world = collectives.rank, collectives.world

    def sum(self, tensor: Tensor) -> Tensor:
        """See Collectives."""
        return self._timed(self._collectives.sum, tensor)

    def begin_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Only the waiting counts."""
        wait = self._collectives.begin_sum(tensor)
        return lambda: self._timed(lambda _: wait(), tensor)

    def gather(self, tensor: Tensor) -> Tensor:
        """See Collectives."""
        return self._timed(self._collectives.gather, tensor)

    def _timed(self, run: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
        began = self._clock.reading()
        result = run(tensor)
        self._clock.waited_for_others(began)
        return result
