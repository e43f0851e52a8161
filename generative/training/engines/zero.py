"""A network under DeepSpeed's ZeRO: optimizer (1), gradients (2) and weights (3) sharded over flat partitions.

DeepSpeed decides within its `step` whether a gradient overflowed. The trainer must decide before, from numbers that all
ranks agree on, and may refuse a step for other reasons. So the norm is asked for first, and `step` and `discard` hand
it to DeepSpeed again: the true norm, or one that makes it drop the step. These are doors inside of DeepSpeed 0.19, so
its version is bounded; the tests of this engine fail where they are gone.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from generative.training.checkpoint import Entry
from generative.training.engines.base import Call, Engine, storage_bytes
from generative.training.memory import BUCKET_ELEMENTS
from generative.training.optimizers import moment_names

INVALID = -1.0
"""What DeepSpeed takes for the norm of a gradient that is not finite."""


def import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, quiet, and on CPUs without the shared-memory kernel that it would compile at the first use.

    It would also try in each process which of its kernels a compiler could build, and ask a program for the CPU's nodes
    in each step.
    """
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "ERROR")
    # torch is renaming collectives that DeepSpeed calls; nothing that a user could change.
    warnings.filterwarnings("ignore", category=FutureWarning, message=r".*torch\.distributed\..*is deprecated.*")
    import deepspeed

    # What it would warn of is either said better by the trainer (a refused step), or nothing that a user could change.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if device.type == "cpu":
        from deepspeed import ops
        from deepspeed.utils import numa

        vars(ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
        if not hasattr(numa.get_numa_cores, "cache_info"):
            numa.get_numa_cores = functools.cache(numa.get_numa_cores)
    return deepspeed


def settings(
    stage: int,
    precision: str,
    clip_norm: float | None,
    offload: bool,
    cuda: bool,
    elements: int,
    accumulates: bool,
) -> dict[str, Any]:
    """DeepSpeed's configuration. Nothing in it is left to defaults that change the numbers.

    Args:
        elements: parameters of the network; larger buckets than that would be allocated in vain.
        accumulates: gradients of several micro-batches are added up, which takes fp32.
    """
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": cuda,
        "reduce_bucket_size": max(1, min(BUCKET_ELEMENTS, elements)),
        # Stage 3 would replace torch's linear function for the whole process.
        "memory_efficient_linear": False,
    }
    if stage == 3:
        zero["stage3_param_persistence_threshold"] = 0
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": cuda}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": cuda}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Without this key DeepSpeed clips at 1.
        "gradient_clipping": clip_norm or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 30,
        "zero_optimization": zero,
        "bf16": {"enabled": precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32" if accumulates or precision == "fp32" else "bf16"},
    }


@dataclass
class ZeroEngine(Engine):
    """DeepSpeed's engine. In bf16 its weights are bf16 and the masters fp32."""

    precision: str = "fp32"
    fixed_weights: dict[str, Tensor] = field(default_factory=dict)
    sharded = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._reached: set[str] = set()
        # DeepSpeed moves gradients away as they come; until the first step their arrival is noted.
        self._watchers = [
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: self._reached.add(name))  # type: ignore[no-untyped-call]
            for name, parameter in self._trained.items()
        ]
        self._zero: Any = self.wrapped.optimizer  # type: ignore[attr-defined]
        self.stage: int = self.wrapped.zero_optimization_stage()  # type: ignore[attr-defined]
        self.gathers = self.stage == 3 or self.precision == "bf16"  # type: ignore[misc]

    def strategy(self) -> str:
        """zero1 to zero3, if DeepSpeed shards over all ranks in the precision asked for."""
        engine: Any = self.wrapped
        if engine.dp_world_size != dist.get_world_size():
            return f"zero{self.stage} over {engine.dp_world_size} ranks"
        if engine.bfloat16_enabled() != (self.precision == "bf16"):
            return f"zero{self.stage} in another precision"
        return f"zero{self.stage}"

    # ------------------------------------------------------------------ what a loss sees

    def trained(self, second_order: bool = False) -> Call:
        """DeepSpeed's engine; its hooks on outputs cannot be differentiated twice, so then the module below it."""
        return self.module if second_order else self.wrapped

    def watched(self) -> Call:
        """The module below the engine, which prepares a backward pass of its own network at every call."""
        return self.module

    # ------------------------------------------------------------------ one update

    @contextlib.contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Tells DeepSpeed whether an optimizer step follows."""
        self.wrapped.set_gradient_accumulation_boundary(last)  # type: ignore[attr-defined]
        yield

    def backward(self, loss: Tensor) -> None:
        """Through DeepSpeed, which reduces and shards the gradients on the way."""
        self.wrapped.backward(loss, scale_wrt_gas=False)  # type: ignore[attr-defined]

    def unreached(self) -> list[str]:
        """Those whose gradient never came before the first step."""
        for watcher in self._watchers:
            watcher.remove()
        return [name for name in self._trained if name not in self._reached]

    def gradient_norm(self) -> float:
        """2-norm over all partitions, kept for the step."""
        if self.stage == 3:
            self._norm = self._zero._get_norm_groups()
            groups = [float(norm) for norm in self._norm]
        else:
            self._zero._wait_for_offload_copies()
            self._norm = self._zero.scaled_global_norm()
            groups = [float(self._norm)]
        return math.nan if min(groups, default=0.0) < 0 else math.sqrt(sum(norm**2 for norm in groups))

    def step(self, lr_factor: float) -> float:
        """Clip and step, with the norm that `gradient_norm` found."""
        lr = self.set_lr(lr_factor)
        if self.clip_norm is not None and self.clip_parts:
            self._clip(self.clip_norm)
        self._step_with(self._norm)
        self.updates += 1
        return lr

    @torch.no_grad()
    def _clip(self, largest: float) -> None:
        """Each of `clip_parts` by the norm of its own gradient, of which every rank has pieces; DeepSpeed then clips
        nothing. Pieces of bf16 are rounded once more where they are scaled."""
        self._zero.clip_grad = 0.0
        pieces = [[piece for name, piece in self._pieces() if name.startswith(f"{p}.")] for p in self.clip_parts]
        device = self._flats()[0].device
        squares = torch.stack(
            [sum((piece.float().square().sum() for piece in part), torch.zeros((), device=device)) for part in pieces]
        )
        dist.all_reduce(squares)
        for part, factor in zip(pieces, (largest / (squares.sqrt() + 1e-6)).clamp(max=1.0), strict=True):
            for piece in part:
                piece.mul_(factor.to(piece.dtype))

    def _pieces(self) -> Iterator[tuple[str, Tensor]]:
        """This rank's part of each gradient, after the reduction."""
        names, zero = {id(parameter): name for name, parameter in self._trained.items()}, self._zero
        for group, parameters in enumerate(zero.fp16_groups if self.stage == 3 else zero.params_in_partition):
            pieces = [g for g in zero.averaged_gradients[group] if not getattr(g, "_zero_padding", False)]
            yield from ((names[id(p)], piece) for p, piece in zip(parameters, pieces, strict=False))

    def discard(self) -> None:
        """Drop the gradients the way DeepSpeed does where they overflow."""
        invalid = torch.tensor(INVALID, device=self.wrapped.device)  # type: ignore[attr-defined]
        self._step_with([invalid] if self.stage == 3 else invalid)

    def _step_with(self, norm: Any) -> None:
        zero, name = self._zero, "_get_norm_groups" if self.stage == 3 else "scaled_global_norm"
        checked = getattr(zero, "check_grad_overflow", None)
        setattr(zero, name, lambda *_, **__: norm)
        try:
            if checked is not None:
                # Only so does bf16 heed an invalid norm; the pass over all gradients that comes with it is left out.
                zero.check_grad_overflow, zero.check_overflow = True, lambda *_, **__: None
            self.wrapped.step()  # type: ignore[attr-defined]
        finally:
            delattr(zero, name)
            if checked is not None:
                zero.check_grad_overflow = checked
                del zero.check_overflow

    # ------------------------------------------------------------------ what is kept

    def weights(self) -> dict[str, Entry]:
        """This rank's interval of each fp32 master."""
        flats = self._flats()
        return {
            name: Entry(flats[group].detach()[start : start + count], first, shape)
            for name, (group, start, count, first, shape) in self._places().items()
        }

    def fixed(self) -> dict[str, Tensor]:
        """Parameters without an optimizer, in fp32; DeepSpeed leaves them whole (stage 3 is refused with them)."""
        return self.fixed_weights

    def moments(self) -> dict[str, dict[str, Entry]]:
        """The same intervals of the optimizer's state."""
        assert self.optimizer is not None
        states = [self.state_of(flat) for flat in self._flats()]
        return {
            key: {
                name: Entry(states[group][key].view(-1)[start : start + count], first, shape)
                for name, (group, start, count, first, shape) in self._places().items()
            }
            for key in moment_names(self.optimizer)
        }

    def _flats(self) -> list[Tensor]:
        """The flat fp32 partitions that the optimizer steps on."""
        zero = self._zero
        flats: list[Tensor] = (
            zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups
        )
        return flats

    def _places(self) -> dict[str, tuple[int, int, int, int, tuple[int, ...]]]:
        """{parameter: (flat, start in it, count, first element of the parameter, its shape)} on this rank."""
        find = self._place_3 if self.stage == 3 else self._place_12
        return {name: find(parameter) for name, parameter in self._trained.items()}

    def _place_12(self, parameter: Any) -> tuple[int, int, int, int, tuple[int, ...]]:
        mapping, shape = parameter._hp_mapping, tuple(parameter.shape)
        if mapping is None:
            return 0, 0, 0, 0, shape
        inside, whole = mapping.get_hp_fragment_address(), mapping.lp_fragment_address
        return mapping.param_group_index, inside.start, inside.numel, whole.start, shape

    def _place_3(self, parameter: Any) -> tuple[int, int, int, int, tuple[int, ...]]:
        group, start, _ = self._zero.grad_position[self._zero.get_param_id(parameter)]
        first, count = _interval_3(parameter)
        return group, start, count, first, tuple(parameter.ds_shape)

    @torch.no_grad()
    def publish(self) -> None:
        """Masters to the weights of the forward pass."""
        if self.stage == 3:
            # What a forward pass has gathered and not let go of would be used again.
            self._zero._partition_all_parameters()
            for group in range(len(self._flats())):
                self._zero._reassign_or_swap_out_partitioned_parameters(group)
        else:
            self._zero.update_lp_params()
        for name, weight in self.fixed_weights.items():
            self.parameters[name].copy_(weight)

    def memory(self) -> Mapping[str, int]:
        """Bytes held on this rank; the fp32 masters count as optimizer."""
        flats = self._flats()
        weights = [getattr(parameter, "ds_tensor", parameter) for parameter in self.parameters.values()]
        return {
            "parameters": storage_bytes(weights),
            "gradients": self._gradient_bytes(),
            "optimizer": self._optimizer_bytes(flats),
            "ema": storage_bytes(t for ema in self.emas for t in ema.average.values()),
        }

    def _gradient_bytes(self) -> int:
        if self.stage == 3:
            return storage_bytes([self._zero.grad_partitions_flat_buffer])
        groups = [*self._zero.averaged_gradients.values(), *self._zero.all_grad_tensors.values()]
        kept = [gradient for group in groups for gradient in group or ()]
        for parameter in self.parameters.values():
            own = (parameter.grad, getattr(parameter, "grad_accum", None))
            kept += [gradient for gradient in own if gradient is not None]
        return storage_bytes(kept)

    def _optimizer_bytes(self, flats: list[Tensor]) -> int:
        assert self.optimizer is not None
        kept = [t for state in self.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        return storage_bytes([*flats, *kept])


def _interval_3(parameter: Any) -> tuple[int, int]:
    """First element and number of elements that this rank holds of a parameter under stage 3 (padding left out)."""
    part, total = parameter.ds_tensor.ds_numel, parameter.ds_numel
    first = min(dist.get_rank() * part, total)
    return first, min(part, total - first)


class FrozenZeroEngine(Engine):
    """A frozen network whose weights are sharded by ZeRO-3."""

    sharded = True
    gathers = True

    def strategy(self) -> str:
        """zero3: there is no other for frozen networks."""
        return f"zero{self.wrapped.zero_optimization_stage()}"  # type: ignore[attr-defined]

    def weights(self) -> dict[str, Entry]:
        """This rank's interval of each weight (bf16 in bf16)."""
        result = {}
        for name, parameter in self.parameters.items():
            first, count = _interval_3(parameter)
            part: Tensor = parameter.ds_tensor  # type: ignore[attr-defined]
            shape: tuple[int, ...] = tuple(parameter.ds_shape)  # type: ignore[attr-defined]
            result[name] = Entry(part.detach()[:count], first, shape)
        return result

    def watched(self) -> Call:
        """DeepSpeed's engine, which gathers the weights."""
        return self.wrapped


def wrap(
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    config: Mapping[str, Any],
    device: torch.device,
    timeout: timedelta,
) -> Any:
    """DeepSpeed's engine around a network.

    Args:
        timeout: of its collectives.
    """
    deepspeed = import_deepspeed(device)
    _own_group(timeout)
    from deepspeed.runtime.engine import DeepSpeedEngine

    check = DeepSpeedEngine._do_optimizer_sanity_check
    # For stage 1 with sums in fp32 it would choose another optimizer, which knows no norm before the step.
    DeepSpeedEngine._do_optimizer_sanity_check = lambda *arguments: "zero_optimization"
    try:
        engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=dict(config), dist_init_required=False
        )
    finally:
        DeepSpeedEngine._do_optimizer_sanity_check = check
    return engine


_groups: list[Any] = [None, None]
"""torch's default group, and the one made for DeepSpeed within it."""


def _own_group(timeout: timedelta) -> None:
    """The group of all ranks for DeepSpeed, which would make one with a time-out of half an hour, and once for ever."""
    from deepspeed.utils import groups

    default = dist.group.WORLD
    if _groups[0] is not default:
        _groups[:] = [default, dist.new_group(timeout=timeout)]
    groups._WORLD_GROUP = _groups[1]
