"""The networks of a method by their shapes, as far as a plan needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from generative.training.config import OptimizerConfig
from generative.training.engines.parts import repeated_parts
from generative.training.memory import Groups, count
from generative.training.optimizers import decays
from launch.schema import RunConfig


@dataclass(frozen=True)
class Network:
    """One network of a method, by shapes.

    Args:
        name: in the method.
        groups: shapes of its parameters in the optimizer's groups (one group where it is frozen).
        gathered: elements of each part that fsdp gathers by itself, the root's first.
        averages: moving averages that are kept of it.
        moments: tensors that the optimizer keeps for each parameter; None for a frozen network.
        updates: optimizer steps in a training step (a part of one where an update is not due in every step).
        checkpointing: whether it offers to recompute its activations.
    """

    name: str
    groups: Groups
    gathered: tuple[int, ...]
    averages: int
    moments: int | None
    updates: float
    checkpointing: bool

    @property
    def parameters(self) -> int:
        """All elements."""
        return sum(count(group) for group in self.groups)


def describe_network(name: str, module: nn.Module, method: Any, config: RunConfig) -> Network:
    """A network of a method; `module` may be on the meta device."""
    spec = method.networks()[name]
    own = config.train.networks.get(name)
    optimizer = (own.optimizer if own else None) or config.train.optimizer
    due = [update.repeats / update.every for update in method.updates() if update.trains == name]
    return Network(
        name=name,
        groups=_groups(module, optimizer) if spec.trainable else [_shapes(module)],
        gathered=gathered_parts(module),
        averages=len(spec.ema),
        moments=_moments(optimizer) if spec.trainable else None,
        updates=sum(due),
        checkpointing=hasattr(module, "activation_checkpointing"),
    )


def _moments(optimizer: OptimizerConfig) -> int:
    if optimizer.name == "adamw":
        return 2
    return 1 if optimizer.betas[0] else 0


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in module.parameters()]


def _groups(module: nn.Module, optimizer: OptimizerConfig) -> Groups:
    named = dict(module.named_parameters())
    chosen = {name: decays(name, parameter, optimizer.no_decay) for name, parameter in named.items()}
    return [[tuple(p.shape) for name, p in named.items() if chosen[name] == with_decay] for with_decay in (True, False)]


def gathered_parts(module: nn.Module) -> tuple[int, ...]:
    """Elements of the root and of each repeated part that fsdp gathers by itself."""
    parts = [count(_shapes(part)) for part in repeated_parts(module)]
    return (count(_shapes(module)) - sum(parts), *parts)
