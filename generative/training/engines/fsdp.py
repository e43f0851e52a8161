"""A network sharded by rows of its parameters: torch's fully_shard (FSDP2)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from generative.training.checkpoint import Entry
from generative.training.engines.base import Call, Engine
from generative.training.engines.parts import repeated_parts


def shard(module: nn.Module, device: torch.device, precision: str, offload: bool) -> None:
    """Shard a module in place: its repeated parts one by one, so that only one of them is whole at a time.

    With bf16, weights are gathered as bf16 while their shards, the gradients' sums and the optimizer stay fp32; what is
    computed in which type is autocast's affair.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    # A word of caution about in-place work on a network's output, at every network that returns a view.
    warnings.filterwarnings("ignore", category=UserWarning, message=".*returned a view tensor.*")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    mixed = MixedPrecisionPolicy()
    if precision == "bf16":
        mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    # Without a GPU everything lies in host memory anyway.
    moved = CPUOffloadPolicy() if offload and device.type != "cpu" else OffloadPolicy()
    for part in [*repeated_parts(module), module]:
        fully_shard(part, mesh=mesh, mp_policy=mixed, offload_policy=moved)
    # The first forward pass would fix the types of gradients, and leave out what is frozen in it. A private door of
    # torch; where it is gone, networks that are first run while frozen fail in bf16 (a test does that).
    module._get_fsdp_state()._lazy_init()  # type: ignore[operator]


class ShardedEngine(Engine):
    """FSDP2: rank r of W holds the rows r * ceil(rows / W) to (r + 1) * ceil(rows / W) of each parameter."""

    sharded = True
    gathers = True

    def strategy(self) -> str:
        """fsdp, if every parameter is spread over all ranks."""
        from torch.distributed.fsdp import FSDPModule

        world = dist.get_world_size()
        spread = all(isinstance(p, DTensor) and p.device_mesh.size() == world for p in self.parameters.values())
        return "fsdp" if isinstance(self.module, FSDPModule) and spread else "none"

    def trained(self, second_order: bool = False) -> Call:
        """The sharded network."""
        return self.module

    def watched(self) -> Call:
        """The same: there is no other."""
        return self.trained()

    def set_trainable(self, trainable: bool) -> None:
        """As for whole networks; the outermost part is sharded again, or it would keep weights of the other kind."""
        super().set_trainable(trainable)
        self.publish()

    @contextlib.contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Gradients of all but the last micro-batch are kept whole and exchanged with it."""
        self.module.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    def _norm_of(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """2-norm over the shards of all ranks."""
        norm = super()._norm_of(parameters)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def weights(self) -> dict[str, Entry]:
        """The rows of this rank."""
        return {name: _rows(parameter.detach()) for name, parameter in self.parameters.items()}

    def moments(self) -> dict[str, dict[str, Entry]]:
        """The same rows of the optimizer's state."""
        whole = super().moments()
        return {key: {name: _rows(entry.tensor) for name, entry in part.items()} for key, part in whole.items()}

    def publish(self) -> None:
        """Drop whole weights that a forward pass left behind (the outermost part is not sharded again by itself)."""
        from torch.distributed.fsdp import FSDPModule

        for part in self.module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()


def _rows(tensor: Tensor) -> Entry:
    """The part of a sharded tensor that this rank holds, as a view."""
    assert isinstance(tensor, DTensor)
    shape, local = tuple(tensor.shape), tensor.to_local()
    rows = -(-shape[0] // dist.get_world_size()) if shape else 1
    first = min(dist.get_rank() * rows, shape[0] if shape else 1)
    row = tensor.numel() // max(shape[0], 1) if shape else 1
    return Entry(local.view(-1), first * row, shape)
