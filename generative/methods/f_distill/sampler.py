"""Samples of a distilled student: one call of the network, or a few, each from less noise than the one before.

A student of several steps is called at noise levels s_0 > s_1 > ...: x_0 = G(s_0 z), then x_k = G(x_{k-1} + s_k z_k,
s_k) with fresh noise (DMD2's sampler). In training it is called once with gradient, at one of its levels: from what it
gave itself on the way there (backward simulation), or from noised real samples. Every draw of an update is at the same
level in the first case, since only then is no call in vain; each sample is at a level of its own in the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.method import Batch, Context
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.denoiser import Call, DenoiserParts
from generative.methods.f_distill.times import noised
from generative.randomness import Streams


@dataclass(frozen=True)
class Steps:
    """The levels that a student is called at.

    Args:
        levels: s_0 > s_1 > ...
        shape: of a sample.
    """

    levels: Sequence[float]
    shape: tuple[int, ...]

    @staticmethod
    def of(config: FDistillConfig, parts: DenoiserParts) -> Steps:
        """As configured."""
        return Steps((config.student_sigma, *config.steps.levels), parts.shape)

    def start(self, streams: Streams, ids: Tensor) -> Tensor:
        """s_0 z, [B, *shape]."""
        return self.levels[0] * streams.normal("z", ids, self.shape)

    def again(self, x: Tensor, step: int, streams: Streams, ids: Tensor) -> Tensor:
        """x + s_k z_k: a sample noised to the level of step k, at least 1."""
        noise = streams.normal(f"z.{step}", ids, self.shape)
        return noised(x, noise, self._level(step, ids).double())

    def call(self, student: Call, x: Tensor, step: int, labels: Tensor | None) -> Tensor:
        """G(x, s_k)."""
        found: Tensor = student(x, self._level(step, x), labels)
        return found

    def until(self, student: Call, step: int, streams: Streams, ids: Tensor, labels: Tensor | None) -> Tensor:
        """The student's input at step k when it draws by itself, after k calls."""
        x = self.start(streams, ids)
        for k in range(step):
            x = self.again(self.call(student, x, k, labels), k + 1, streams, ids)
        return x

    def _level(self, step: int, like: Tensor) -> Tensor:
        return torch.full((len(like),), self.levels[step], device=like.device)


def training_samples(
    config: FDistillConfig, parts: DenoiserParts, student: Call, batch: Batch, context: Context
) -> Tensor:
    """What the student makes of an input of one of its steps, [B, *shape]; the last call takes a gradient.

    Args:
        config: levels and kind of input.
        parts: the kind of network.
        student: the network.
        batch: classes or texts, and real samples for `input: noised_data`.
        context: of the noise.
    """
    steps, ids, labels = Steps.of(config, parts), batch["sample_id"], parts.labels(batch)
    streams, number = context.streams, len(steps.levels)
    if number == 1:
        return steps.call(student, steps.start(streams, ids), 0, labels)
    if config.steps.input == "simulated":
        step = int(streams.shared_uniform("step", dtype=torch.float64) * number)
        with torch.no_grad():
            x = steps.until(student, step, streams, ids, labels)
        return steps.call(student, x, step, labels)
    levels = torch.tensor(steps.levels, dtype=torch.float64, device=ids.device)
    which = streams.integers("step", ids, number)
    # The first input is pure noise, as when it draws, not data at its noise.
    kept = (which > 0).view(-1, *[1] * len(parts.shape)) * batch["sample"].float()
    t = levels[which]
    found: Tensor = student(noised(kept, streams.normal("z", ids, parts.shape), t), t.float(), labels)
    return found


@dataclass(frozen=True)
class StudentSampler:
    """Draws with the student.

    Args:
        student: the trained network.
        parts: its kind.
        levels: of noise that it is called at, from that which it starts from.
    """

    student: nn.Module
    parts: DenoiserParts
    levels: tuple[float, ...]

    @property
    def calls(self) -> int:
        """Of the network for each sample."""
        return len(self.levels)

    @torch.no_grad()
    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """A sample for each row; `label` int64[B] where the student knows classes, drawn uniformly where not given."""
        ids, labels = asked_for(condition, streams, self.parts, next(self.student.parameters()).device)
        steps, last = Steps(self.levels, self.parts.shape), len(self.levels) - 1
        return steps.call(self.student, steps.until(self.student, last, streams, ids, labels), last, labels)


def asked_for(
    condition: Batch, streams: Streams, parts: DenoiserParts, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Sample ids int64[B], and what the network is told of each (classes drawn uniformly where not given), there."""
    ids = condition["sample_id"].to(device)
    given = dict(condition)
    if parts.classes and "label" not in given:
        given["label"] = streams.integers("label", ids, parts.classes)
    labels = parts.labels(given)
    return ids, None if labels is None else labels.to(device)
