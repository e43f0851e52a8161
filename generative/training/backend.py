"""Processes, devices and strategies: the only module that knows accelerate."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from generative.allocator import keep_freed_memory
from generative.errors import ResourceError
from generative.method import Collectives
from generative.training.collectives import collectives
from generative.training.config import OptimizerConfig, ParallelConfig
from generative.training.engines import Engine
from generative.training.optimizers import build_optimizer
from generative.training.patience import Patience
from generative.training.precision import under_autocast


class Backend:
    """One process, or a group over gloo or nccl, and the strategy by which networks are spread over it.

    Args:
        parallel: strategy and time-out.
        precision: "fp32" or "bf16". Plain and DDP networks then run under autocast with fp32 weights; FSDP gathers bf16
            copies of fp32 shards; ZeRO's networks are bf16 with fp32 masters.
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

        self.parallel = parallel or ParallelConfig()
        self.strategy, self.precision = self.parallel.strategy, precision
        cuda = torch.cuda.is_available()
        asked = int(os.environ.get("WORLD_SIZE", "1"))
        timeout = timedelta(seconds=self.parallel.timeout_seconds)
        self._joined = join_group(asked, cuda, timeout, alone=self._shards)
        # accelerate keeps process-wide state from an earlier run in this process; a new run starts from nothing.
        AcceleratorState._reset_state()
        PartialState._reset_state()
        # Buffers (batch statistics) are averaged by the trainer: broadcasting rank 0's over the others in the middle of
        # a step breaks losses that run a network twice.
        ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)
        mixed = "bf16" if precision == "bf16" else "no"
        self.accelerator = Accelerator(cpu=not cuda, mixed_precision=mixed, kwargs_handlers=[ddp])
        if threads is not None:
            torch.set_num_threads(threads)
        if not cuda:
            keep_freed_memory()
        if self.accelerator.num_processes != asked:
            raise ResourceError(
                f"{asked} processes were asked for, but the process group has {self.accelerator.num_processes}",
                remedy="start the workers with launch.backend=ray or torchrun, and check that all of them come up",
            )
        self.device: torch.device = self.accelerator.device
        self.collectives: Collectives = collectives()
        self.rank, self.world = self.collectives.rank, self.collectives.world
        self.patience = Patience(self.world, self.parallel.timeout_seconds, self.parallel.patience_seconds)

    @property
    def _shards(self) -> bool:
        return self.strategy not in ("none", "ddp")

    def engine(
        self,
        name: str,
        module: nn.Module,
        optimizer: OptimizerConfig | None = None,
        *,
        compiled: bool = False,
        accumulates: bool = False,
    ) -> Engine:
        """Put a network on the device and into the strategy's hands.

        Args:
            optimizer: of a trained network; None for a frozen one.
            compiled: torch.compile it.
            accumulates: its gradients are added up over micro-batches.

        Raises:
            ResourceError: the engine that came up is not the strategy that was asked for.
        """
        if optimizer is None:
            module.requires_grad_(False)
            module.eval()
        if compiled:
            module.compile()
        if self._shards and (optimizer is not None or self.parallel.frozen == "sharded"):
            engine = self._sharded(name, under_autocast(module, self.precision, self.device), optimizer, accumulates)
        else:
            engine = self._whole(name, module, optimizer)
        engine.clip_norm = optimizer.clip_norm if optimizer else None
        self._verify(engine, trained=optimizer is not None)
        return engine

    def _whole(self, name: str, module: nn.Module, config: OptimizerConfig | None) -> Engine:
        module.to(self.device)
        optimizer = build_optimizer(config, module) if config else None
        with warnings.catch_warnings():
            # torch is renaming the option that accelerate passes on; nothing that a user could change.
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*broadcast_buffers.*")
            # In evaluation mode accelerate leaves out DDP, but not autocast.
            alone = config is None or self._shards or self.world == 1
            wrapped = self.accelerator.prepare_model(module, evaluation_mode=alone)
        return Engine(name, module, wrapped, optimizer)

    def _sharded(self, name: str, module: nn.Module, config: OptimizerConfig | None, accumulates: bool) -> Engine:
        if self.strategy == "fsdp":
            from generative.training.engines import fsdp

            fsdp.shard(module, self.device, self.precision, self.parallel.cpu_offload)
            optimizer = build_optimizer(config, module) if config else None
            return fsdp.ShardedEngine(name, module, module, optimizer)
        from generative.training.engines import zero

        stage, module = int(self.strategy[-1]), module.to(self.device)
        optimizer = build_optimizer(config, module) if config else None
        settings = zero.settings(
            stage,
            self.precision,
            config.clip_norm if config else None,
            self.parallel.cpu_offload,
            self.device.type == "cuda",
            sum(parameter.numel() for parameter in module.parameters()),
            accumulates,
        )
        fixed = {name: p.detach().clone() for name, p in module.named_parameters() if not p.requires_grad}
        timeout = timedelta(seconds=self.parallel.timeout_seconds)
        wrapped = zero.wrap(module, optimizer, settings, self.device, timeout)
        if config is None:
            return zero.FrozenZeroEngine(name, module, wrapped)
        return zero.ZeroEngine(name, module, wrapped, optimizer, precision=self.precision, fixed_weights=fixed)

    def _verify(self, engine: Engine, trained: bool) -> None:
        """Refuse to train under another strategy than the one asked for (libraries fall back without a word)."""
        found = engine.strategy()
        wanted: str = self.strategy
        if not trained and self.parallel.frozen == "plain":
            wanted = "none"
        if wanted == "ddp" and self.world == 1:
            wanted = "none"
        if found != wanted:
            raise ResourceError(
                f"network {engine.name!r} came up under {found!r} instead of parallel.strategy={wanted}",
                expected="the engine of the strategy, over all workers",
                remedy="check the installed versions of torch, accelerate and deepspeed against constraints.txt",
            )

    def begin_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Sum over ranks in the background; the function that is returned waits for it."""
        begin: Callable[[Tensor], Callable[[], Tensor]] | None = getattr(self.collectives, "begin_sum", None)
        return begin(tensor) if begin is not None else lambda: tensor

    def close(self) -> None:
        """Leave the process group, if it was joined here; for the orderly end of a program."""
        if self._joined and dist.is_initialized():
            # Nobody goes before all have come: gloo takes the loss of a peer for an error.
            dist.barrier()
            dist.destroy_process_group()

    def agree(self, number: int) -> int:
        """Rank 0's number, on every rank."""
        mine = torch.tensor([number if self.rank == 0 else 0], dtype=torch.int64, device=self.device)
        return int(self.collectives.sum(mine))


def join_group(world: int, cuda: bool, timeout: timedelta, alone: bool = False) -> bool:
    """Join the process group that RANK, WORLD_SIZE and MASTER_ADDR describe, unless the launcher has done so.

    Done here rather than by accelerate, whose own way ignores the time-out on CPUs.

    Args:
        alone: a single process gets a group of its own, which sharding engines need.

    Returns:
        whether a group was joined.

    Raises:
        ResourceError: the group did not come up in time.
    """
    if dist.is_initialized():
        return False
    backend = "nccl" if cuda else "gloo"
    if world < 2:
        if alone:
            for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
                os.environ.setdefault(name, value)
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
        return alone
    # Unset, accelerate takes it upon itself to choose a number of threads, and warns of it.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    try:
        dist.init_process_group(backend, timeout=timeout)
        return True
    except (dist.DistStoreError, dist.DistNetworkError, ValueError) as error:
        raise ResourceError(
            f"the process group of {world} workers did not come up: {error}",
            expected=f"{world} processes that start within {timeout.seconds} s, with MASTER_ADDR and MASTER_PORT set",
            remedy="start the workers with launch.backend=ray or torchrun, and check that MASTER_ADDR can be reached",
        ) from error
