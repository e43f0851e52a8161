"""Losses and gradients that are not finite, or far off: decided from reduced numbers, so by all ranks alike."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from generative.training.config import AnomalyConfig

WINDOW = 128


class AnomalyGuard:
    """Judges each update before the optimizer step.

    Spikes are judged against the mean and standard deviation of the last 128 accepted losses of the same update.
    """

    def __init__(self, config: AnomalyConfig) -> None:
        self.config = config
        self.consecutive: dict[str, int] = {}
        self.rollbacks = 0
        self._recent: dict[str, deque[float]] = {}

    def verdict(self, update: str, loss: float, grad_norm: float) -> str | None:
        """What is wrong with this update, or None; a good one is remembered."""
        problem = self._problem(update, loss, grad_norm)
        if problem is None:
            self.consecutive[update] = 0
            self._recent.setdefault(update, deque(maxlen=WINDOW)).append(loss)
        else:
            self.consecutive[update] = self.consecutive.get(update, 0) + 1
        return problem

    def _problem(self, update: str, loss: float, grad_norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"gradient norm is {grad_norm} (loss {loss:.4g})"
        recent = self._recent.get(update, ())
        if self.config.spike_sigma is None or len(recent) < WINDOW:
            return None
        mean = sum(recent) / len(recent)
        sigma = math.sqrt(sum((x - mean) ** 2 for x in recent) / (len(recent) - 1))
        if loss > mean + self.config.spike_sigma * sigma:
            return f"loss {loss:.4g} is {(loss - mean) / max(sigma, 1e-12):.1f} sigma above its recent mean {mean:.4g}"
        return None

    def exhausted(self) -> bool:
        """Whether the policy's limit is reached, so that the run must stop."""
        if self.config.policy == "skip":
            return max(self.consecutive.values(), default=0) > self.config.limit
        return self.config.policy == "stop" or self.rollbacks >= self.config.limit

    def state(self) -> dict[str, object]:
        """For the checkpoint: JSON."""
        return {
            "consecutive": dict(self.consecutive),
            "rollbacks": self.rollbacks,
            "recent": {name: list(losses) for name, losses in self._recent.items()},
        }

    def load(self, state: dict[str, object]) -> None:
        """Go on from a checkpoint."""
        self.consecutive = dict(state["consecutive"])  # type: ignore[call-overload]
        self.rollbacks = int(state["rollbacks"])  # type: ignore[call-overload]
        recent: dict[str, Sequence[float]] = state["recent"]  # type: ignore[assignment]
        self._recent = {name: deque(losses, maxlen=WINDOW) for name, losses in recent.items()}
