"""The erasure itself: UCE's edit, then RECE's epochs, on whatever holds the weights (a shared transform, or layers)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.rece.closed_form import derive, edit_directions
from generative.methods.rece.config import REFERENCE_SQUARE, EraseConfig, StepConfig
from generative.methods.rece.preserve import Kept
from generative.methods.rece.tokens import Pairs, Prompt, joined, pair
from generative.methods.rece.transform import Transform


@dataclass(frozen=True)
class Task:
    """What is erased from one stream of text.

    Args:
        concepts: with their embeddings.
        guides: one for each.
        kept_at_start: what UCE's edit keeps, with the empty text where `start.empty_text` asks for it.
        kept: what RECE's edits keep.
        targets: one for each concept, of the regulariser `standard`.
    """

    concepts: Sequence[Prompt]
    guides: Sequence[Prompt]
    kept_at_start: Kept
    kept: Kept
    targets: Sequence[Prompt] = ()

    def mean_square(self) -> float:
        """Mean |e|^2 of the rows of concepts and guides."""
        rows = torch.cat([prompt.rows for prompt in (*self.concepts, *self.guides)])
        return float(rows.square().sum(1).mean())


class State(Protocol):
    """Weights as they are after some edits."""

    def normal(self) -> tuple[Tensor, Tensor]:
        """Sums over all matrices of W^T W and W^T W^orig, float64[d, d]."""
        ...

    def mean_diagonal(self) -> float:
        """tr(G) / d of the original weights."""
        ...

    def edited(self, pairs: Sequence[Pairs], kept: Tensor, step: StepConfig) -> Self:
        """After one edit; pairs of different texts apart, `kept` with its scale, `step.lamb` as it is to be used."""
        ...


StateT = TypeVar("StateT", bound=State)


@dataclass(frozen=True)
class SharedTransform:
    """W_i = W_i^orig T_before T for all matrices, so that G = sum W_i^orig^T W_i^orig is all that is needed of them.

    Args:
        gram: G, float64[d, d].
        transform: T of this erasure.
        before: of earlier ones, the identity where there were none.
        fixed: the same sum over matrices that no edit changes, but that count in derivations; None: there are none.
    """

    gram: Tensor
    transform: Transform
    before: Transform
    fixed: Tensor | None = None

    @staticmethod
    def of(gram: Tensor, before: Transform | None = None, fixed: Tensor | None = None) -> SharedTransform:
        """Before an erasure, perhaps after others."""
        nothing = Transform.identity(len(gram))
        return SharedTransform(gram, nothing, before or nothing, fixed)

    @property
    def total(self) -> Transform:
        """T of all erasures: W_i = W_i^orig T."""
        return self.before.then(self.transform)

    def normal(self) -> tuple[Tensor, Tensor]:
        """T^T G T and T^T G, with what is fixed added to both."""
        total = self.total
        p, q = total.p, total.q
        mixed = torch.addmm(self.gram, q, (self.gram @ p).T)
        current = torch.addmm(mixed, mixed @ p, q.T)
        current = (current + current.T) / 2
        return (current, mixed) if self.fixed is None else (current + self.fixed, mixed + self.fixed)

    def mean_diagonal(self) -> float:
        """See State."""
        gram = self.gram if self.fixed is None else self.gram + self.fixed
        return float(gram.diagonal().mean())

    def edited(self, pairs: Sequence[Pairs], kept: Tensor, step: StepConfig) -> SharedTransform:
        """T A, with A = I + (G_new - C)^T Q^T from the embeddings alone.

        Raises:
            ConfigError: a technique without a common transform.
        """
        if step.technique != "replace":
            raise ConfigError(
                f"the technique {step.technique!r} has no transform that all layers share",
                expected="replace, or an edit layer by layer",
                remedy="use technique=replace, or the edit of single layers",
            )
        every = joined(pairs).merged()
        directions = edit_directions(every, kept, step.lamb, step.erase_scale)
        edit = Transform((every.new - every.old).T, directions)
        return replace(self, transform=self.transform.then(edit))


@dataclass(frozen=True)
class Epoch(Generic[StateT]):
    """After an epoch of RECE.

    Args:
        derived: C' of each concept, on its places.
        state: the weights after erasing it.
    """

    derived: Sequence[Prompt]
    state: StateT


@dataclass(frozen=True)
class Erasure(Generic[StateT]):
    """What an erasure did.

    Args:
        start: after UCE's edit.
        epochs: of RECE, in order.
    """

    start: StateT
    epochs: Sequence[Epoch[StateT]] = field(default_factory=list)

    @property
    def state(self) -> StateT:
        """The result."""
        return self.epochs[-1].state if self.epochs else self.start


def erase(
    state: StateT,
    task: Task,
    config: EraseConfig,
    on_epoch: Callable[[int, Epoch[StateT]], None] = lambda number, epoch: None,
) -> Erasure[StateT]:
    """Erase concepts. Edits of earlier erasures stay; derivations compare with the original weights.

    Args:
        state: the weights.
        task: what is erased, and what is kept.
        config: constants.
        on_epoch: told each epoch of RECE, from 0.

    Raises:
        ConfigError: the technique `tensor` on a shared transform.
        DataError: embeddings or weights that are not finite.
    """
    lamb_factor = task.mean_square() / REFERENCE_SQUARE if config.scale_free else 1.0
    lam = config.lam * (state.mean_diagonal() if config.scale_free else 1.0)
    first, start = state, _scaled(config.start, lamb_factor)
    step = _scaled(config.step, lamb_factor)
    pairs = [pair(start.variant, c, g) for c, g in zip(task.concepts, task.guides, strict=True)]
    kept_at_start, kept = task.kept_at_start.weighed(start), task.kept.weighed(step)
    found = Erasure(first.edited(_all(pairs, kept_at_start, start), kept_at_start, start))
    epochs: list[Epoch[StateT]] = []
    now = found.start
    for number in range(config.epochs):
        derived = derive_all(now, task, config, lam)
        latest = [pair(step.variant, c, g) for c, g in zip(derived, task.guides, strict=True)]
        pairs = [*pairs, *latest]
        before, erased = (first, pairs) if config.cumulative else (now, latest)
        now = before.edited(_all(erased, kept, step), kept, step)
        epochs.append(Epoch(derived, now))
        on_epoch(number, epochs[-1])
    return Erasure(found.start, epochs)


def derive_all(state: State, task: Task, config: EraseConfig, lam: float) -> list[Prompt]:
    """C' of all concepts, from the same weights."""
    current, mixed = state.normal()
    found = []
    for number, concept in enumerate(task.concepts):
        target = _target(task, number, concept) if config.regulariser == "standard" else None
        sizes = [len(segment.rows) for segment in concept.segments]
        rows = torch.cat([segment.rows for segment in concept.segments])
        changed = derive(rows, current, mixed, lam, config.regulariser, target)
        found.append(concept.with_rows(torch.split(changed, sizes)))
    return found


def _target(task: Task, number: int, concept: Prompt) -> Tensor:
    """t: all rows of the target's text."""
    if not task.targets:
        return torch.cat([segment.rows for segment in task.guides[number].segments])
    return torch.cat([segment.rows for segment in task.targets[number].segments])


def _all(pairs: Sequence[Pairs], kept: Tensor, step: StepConfig) -> Sequence[Pairs]:
    """Pairs as they count; s |W|^2 is a pair for each direction of the space, sent to zero."""
    counted = [joined(pairs).merged(once=True)] if step.distinct_rows else pairs
    if not step.shrink:
        return counted
    weight = step.shrink * kept.trace() / step.erase_scale
    every = weight.sqrt() * torch.eye(len(kept), dtype=kept.dtype)
    return [*counted, Pairs(every, torch.zeros_like(every))]


def _scaled(step: StepConfig, factor: float) -> StepConfig:
    return step.model_copy(update={"lamb": step.lamb * factor})
