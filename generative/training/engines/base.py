"""A network that is whole on every rank: one process, or DDP."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from generative.training.checkpoint import Entry
from generative.training.config import ScheduleConfig
from generative.training.ema import Ema
from generative.training.optimizers import learning_rate, moment_names

Call = Callable[..., Any]


@dataclass
class Engine:
    """One network, its optimizer, and what a strategy must answer about them.

    Other strategies are subclasses that answer otherwise; the trainer asks only what is defined here.

    Args:
        name: its name in the method.
        module: the network itself.
        wrapped: the network whose backward pass averages gradients over ranks.
        optimizer: torch's optimizer that holds the state; None for a frozen network.
        updates: optimizer steps taken.
    """

    sharded: ClassVar[bool] = False
    """Whether each rank holds only a part of the fp32 weights, the optimizer's state and the averages."""
    gathers: ClassVar[bool] = False
    """Whether no rank holds the network whole and in fp32, so that to call it alone takes a copy."""

    name: str
    module: nn.Module
    wrapped: Call
    optimizer: torch.optim.Optimizer | None = None
    schedule: ScheduleConfig | None = None
    peak_lr: float = 0.0
    clip_norm: float | None = None
    clip_parts: tuple[str, ...] = ()
    planned_updates: int = 1
    updates: int = 0
    emas: list[Ema] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters: dict[str, nn.Parameter] = dict(self.module.named_parameters())
        self._trained = {name: p for name, p in self.parameters.items() if p.requires_grad}
        # The parts, not the buffers, which may be replaced; walking the whole network at each step takes its time.
        self._buffered = [part for part in self.module.modules() if part._buffers]

    def trained_names(self) -> set[str]:
        """Parameters that an optimizer step changes."""
        return set(self._trained)

    def strategy(self) -> str:
        """What really came up, in the words of `parallel.strategy`."""
        return "ddp" if isinstance(self.wrapped, nn.parallel.DistributedDataParallel) else "none"

    # ------------------------------------------------------------------ what a loss sees

    def trained(self, second_order: bool = False) -> Call:
        """The network for a loss that trains it."""
        return self.wrapped

    def watched(self) -> Call:
        """The network for a loss that trains another one, and for validation."""
        return self.module

    def buffers(self) -> list[Tensor]:
        """What the network keeps beside its parameters, as it is now (statistics of batches, tables)."""
        return [buffer for part in self._buffered for buffer in part._buffers.values() if buffer is not None]

    # ------------------------------------------------------------------ one update

    def set_trainable(self, trainable: bool) -> None:
        """Whether the parameters take gradients in the update that follows."""
        for parameter in self._trained.values():
            parameter.requires_grad_(trainable)

    @contextlib.contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Forward and backward pass of one micro-batch; only the `last` one exchanges gradients."""
        if not last and isinstance(self.wrapped, nn.parallel.DistributedDataParallel):
            with self.wrapped.no_sync():
                yield
        else:
            yield

    def backward(self, loss: Tensor) -> None:
        """Backward pass; gradients end up averaged over ranks."""
        loss.backward()  # type: ignore[no-untyped-call]

    def unreached(self) -> list[str]:
        """Trained parameters that the backward pass gave no gradient, where the strategy can tell."""
        return [name for name, parameter in self._trained.items() if parameter.grad is None]

    def gradient_norm(self) -> float:
        """2-norm of the gradient over the whole network (NaN or inf if it is not finite)."""
        self._norm = self._norm_of(self._trained.values())
        return float(self._norm)

    def _norm_of(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """2-norm of the gradients that there are, over all ranks."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return nn.utils.get_total_norm(gradients, foreach=True)

    def step(self, lr_factor: float) -> float:
        """Clip to `clip_norm` and step, after `gradient_norm`; returns the scheduled learning rate it stepped with."""
        if self.clip_norm is not None:
            self._clip(self.clip_norm)
        lr = self.set_lr(lr_factor)
        assert self.optimizer is not None
        self.optimizer.step()
        self.updates += 1
        self.discard()
        return lr

    def _clip(self, largest: float) -> None:
        """Each of `clip_parts` by the norm of its own gradient, or the whole by that of all."""
        if not self.clip_parts:
            nn.utils.clip_grads_with_norm_(self._trained.values(), largest, self._norm, foreach=True)
        for part in self.clip_parts:
            inside = [parameter for name, parameter in self._trained.items() if name.startswith(f"{part}.")]
            nn.utils.clip_grads_with_norm_(inside, largest, self._norm_of(inside), foreach=True)

    def discard(self) -> None:
        """Forget the gradients."""
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=True)

    def set_lr(self, factor: float) -> float:
        """Set the scheduled learning rate of this update times `factor` (and, by group, its `rate`); returns it."""
        assert self.optimizer is not None
        assert self.schedule is not None
        lr = factor * learning_rate(self.schedule, self.peak_lr, self.updates, self.planned_updates)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("rate", 1.0)
        return lr

    # ------------------------------------------------------------------ what is kept

    def weights(self) -> dict[str, Entry]:
        """This rank's part of each fp32 weight, as a writable view; call `publish` after writing."""
        return {name: Entry(parameter.detach()) for name, parameter in self.parameters.items()}

    def fixed(self) -> dict[str, Tensor]:
        """Parameters that are never trained and not among `weights`; all ranks hold them alike."""
        return {}

    def moments(self) -> dict[str, dict[str, Entry]]:
        """This rank's part of the optimizer's state, {"exp_avg": {parameter: view}}; zeros before the first step."""
        assert self.optimizer is not None
        states = {name: self.state_of(parameter) for name, parameter in self._trained.items()}
        keys = moment_names(self.optimizer)
        return {key: {name: Entry(state[key]) for name, state in states.items()} for key in keys}

    def state_of(self, tensor: Tensor) -> dict[str, Tensor]:
        """What the optimizer keeps of one of its tensors, made where the first step has not been taken."""
        assert self.optimizer is not None
        state: dict[str, Tensor] = self.optimizer.state[tensor]
        if isinstance(self.optimizer, torch.optim.AdamW):
            state.setdefault("step", torch.tensor(float(self.updates), device=tensor.device))
        for key in moment_names(self.optimizer):
            if state.get(key) is None:
                state[key] = torch.zeros_like(tensor, requires_grad=False)
        return state

    def resume(self, updates: int) -> None:
        """After weights and moments were written: go on as if so many updates had been taken."""
        assert self.optimizer is not None
        self.updates = updates
        for state in self.optimizer.state.values():
            if "step" in state:
                state["step"] = torch.full_like(state["step"], float(updates))
        self.publish()

    def publish(self) -> None:
        """Let the forward pass see weights that were written through `weights`."""

    def memory(self) -> Mapping[str, int]:
        """Bytes held on this rank: parameters, gradients (now), optimizer, averages."""
        state = self.optimizer.state.values() if self.optimizer is not None else ()
        return {
            "parameters": storage_bytes(self.parameters.values()),
            "gradients": storage_bytes(p.grad for p in self.parameters.values() if p.grad is not None),
            "optimizer": storage_bytes(t for s in state for t in s.values() if isinstance(t, Tensor)),
            "ema": storage_bytes(t for ema in self.emas for t in ema.average.values()),
        }


def storage_bytes(tensors: Any) -> int:
    """Bytes of the storages behind tensors, each counted once."""
    found = {}
    for tensor in tensors:
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        storage = local.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())
