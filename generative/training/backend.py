"""Processes, devices and wrapped networks: the only module that knows accelerate."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from generative.errors import ResourceError
from generative.method import Collectives
from generative.training.collectives import collectives
from generative.training.config import ParallelConfig, ScheduleConfig
from generative.training.ema import Ema
from generative.training.optimizers import learning_rate
from generative.training.patience import Patience


@dataclass
class Engine:
    """One network as the trainer holds it.

    Args:
        name: its name in the method.
        module: the network itself; what a loss sees while another network is trained.
        wrapped: the network whose backward pass averages gradients over ranks; what a loss sees while it is trained.
        updates: optimizer steps taken.
    """

    name: str
    module: nn.Module
    wrapped: Callable[..., Any]
    optimizer: torch.optim.Optimizer | None = None
    schedule: ScheduleConfig | None = None
    peak_lr: float = 0.0
    clip_norm: float | None = None
    planned_updates: int = 1
    updates: int = 0
    emas: list[Ema] = field(default_factory=list)

    def set_trainable(self, trainable: bool) -> None:
        """Whether the parameters take gradients in the update that follows."""
        assert self.optimizer is not None
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(trainable)

    def clip(self) -> Tensor:
        """Clip the gradient norm over the whole network; returns the norm before (scalar tensor)."""
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        return nn.utils.clip_grad_norm_(self.module.parameters(), limit, foreach=True)

    def step(self, lr_factor: float) -> float:
        """One optimizer step at the scheduled learning rate, which is returned."""
        assert self.optimizer is not None
        assert self.schedule is not None
        lr = lr_factor * learning_rate(self.schedule, self.peak_lr, self.updates, self.planned_updates)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.updates += 1
        return lr

    def zero_grad(self) -> None:
        """Forget the gradients."""
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=True)


class Backend:
    """One process, or DDP over gloo or nccl, through accelerate.

    Args:
        parallel: strategy and time-out.
        precision: "fp32" or "bf16" (autocast; weights stay fp32).
        threads: CPU threads of this process; None leaves torch's choice.

    Raises:
        ResourceError: the process group that was asked for is not the one that came up.
    """

    def __init__(
        self, parallel: ParallelConfig | None = None, precision: str = "fp32", threads: int | None = None
    ) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, PartialState
        from accelerate.utils import DistributedDataParallelKwargs

        parallel = parallel or ParallelConfig()
        self.precision = precision
        cuda = torch.cuda.is_available()
        asked = int(os.environ.get("WORLD_SIZE", "1"))
        join_group(asked, "nccl" if cuda else "gloo", timedelta(seconds=parallel.timeout_seconds))
        # accelerate keeps process-wide state from an earlier run in this process; a new run starts from nothing.
        AcceleratorState._reset_state()
        PartialState._reset_state()
        # Buffers (batch statistics) are the network's own affair: broadcasting rank 0's over the others in the middle
        # of a step breaks losses that run a network twice.
        ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)
        mixed = "bf16" if precision == "bf16" else "no"
        self.accelerator = Accelerator(cpu=not cuda, mixed_precision=mixed, kwargs_handlers=[ddp])
        if threads is not None:
            torch.set_num_threads(threads)
        if self.accelerator.num_processes != asked:
            raise ResourceError(
                f"{asked} processes were asked for, but the process group has {self.accelerator.num_processes}",
                remedy="start the workers with launch.backend=ray or torchrun, and check that all of them come up",
            )
        self.device: torch.device = self.accelerator.device
        self.collectives: Collectives = collectives()
        self.rank, self.world = self.collectives.rank, self.collectives.world
        self.patience = Patience(self.world, parallel.timeout_seconds, parallel.patience_seconds)

    def engine(self, name: str, module: nn.Module, *, trainable: bool, compiled: bool = False) -> Engine:
        """Put a network on the device and, if it is trained, into its wrapper."""
        module.to(self.device)
        if compiled:
            module.compile()
        if not trainable:
            module.requires_grad_(False)
            module.eval()
        with warnings.catch_warnings():
            # torch is renaming the option that accelerate passes on; nothing that a user could change.
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*broadcast_buffers.*")
            wrapped = self.accelerator.prepare_model(module, evaluation_mode=not trainable)
        return Engine(name, module, wrapped)

    def backward(self, loss: Tensor) -> None:
        """Backward pass of one micro-batch; over ranks gradients are averaged unless inside `local_gradients`."""
        self.accelerator.backward(loss)

    @contextlib.contextmanager
    def local_gradients(self, engine: Engine, local: bool) -> Iterator[None]:
        """Micro-batches but the last: gradients are added up here and not yet exchanged."""
        wrapped = engine.wrapped
        if local and isinstance(wrapped, nn.parallel.DistributedDataParallel):
            with wrapped.no_sync():
                yield
        else:
            yield

    def agree(self, number: int) -> int:
        """Rank 0's number, on every rank."""
        mine = torch.tensor([number if self.rank == 0 else 0], dtype=torch.int64, device=self.device)
        return int(self.collectives.sum(mine))


def join_group(world: int, backend: str, timeout: timedelta) -> None:
    """Join the process group that RANK, WORLD_SIZE and MASTER_ADDR describe, unless the launcher has done so.

    Done here rather than by accelerate, whose own way ignores the time-out on CPUs.
    """
    if world < 2 or dist.is_initialized():
        return
    # Unset, accelerate takes it upon itself to choose a number of threads, and warns of it.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    try:
        dist.init_process_group(backend, timeout=timeout)
    except (dist.DistStoreError, dist.DistNetworkError, ValueError) as error:
        raise ResourceError(
            f"the process group of {world} workers did not come up: {error}",
            expected=f"{world} processes that start within {timeout.seconds} s, with MASTER_ADDR and MASTER_PORT set",
            remedy="start the workers with launch.backend=ray or torchrun, and check that MASTER_ADDR can be reached",
        ) from error
