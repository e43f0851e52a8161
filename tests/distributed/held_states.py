"""One rank that trains a network of awkward shapes under a strategy; prints the bytes that it really holds, as JSON."""

import gc
import json
import os
import sys
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from generative.training.engines import zero

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "ERROR")
warnings.filterwarnings("ignore")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width + 1),
            nn.Linear(3 * width + 1, width),
        )

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Net(nn.Module):
    """Nothing divides evenly: 53 rows, width 37, 112 hidden features; a vector of one element."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(53, 37)
        self.blocks = nn.ModuleList(Block(37) for _ in range(3))
        self.head = nn.Linear(37, 53)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, ids):
        hidden = self.embedding(ids)
        for block in self.blocks:
            hidden = block(hidden)
        return F.cross_entropy((self.head(hidden) * self.scale).flatten(0, 1).float(), ids.flatten())


def groups(parameters):
    """Matrices and vectors, as the trainer's optimizers have them."""
    matrices = [p for p in parameters if p.ndim > 1]
    return [{"params": matrices}, {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]


def held(tensors) -> int:
    """Bytes of the storages behind tensors, each counted once."""
    found = {}
    for tensor in tensors:
        storage = (tensor.to_local() if hasattr(tensor, "to_local") else tensor).untyped_storage()
        found[storage.data_ptr() if storage.nbytes() else id(storage)] = storage.nbytes()
    return sum(found.values())


class Held:
    """A network in the hands of a strategy, with the settings that the trainer's engines have."""

    def __init__(self, strategy: str, precision: str, optimizer: str, build=Net, passes: int = 1, **settings) -> None:
        torch.manual_seed(0)
        self.net, self.strategy, self.passes, self.zero_settings = build(), strategy, passes, settings
        self.make = (lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True)) if optimizer == "adamw" else sgd
        getattr(self, "_" + strategy.rstrip("123"))(precision)

    def _none(self, precision):
        self.call, self.optimizer = self.net, self.make(groups(list(self.net.parameters())))

    def _ddp(self, precision):
        self.call = nn.parallel.DistributedDataParallel(self.net, gradient_as_bucket_view=True)
        self.optimizer = self.make(groups(list(self.net.parameters())))

    def _fsdp(self, precision):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        bf16 = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32} if precision == "bf16" else {}
        for part in [*self.net.blocks, self.net]:
            fully_shard(
                part, mesh=init_device_mesh("cpu", (dist.get_world_size(),)), mp_policy=MixedPrecisionPolicy(**bf16)
            )
        self._none(precision)

    def _zero(self, precision):
        elements = sum(parameter.numel() for parameter in self.net.parameters())
        stage = int(self.strategy[-1])
        settings = zero.settings(stage, precision, None, False, False, elements, self.passes > 1)
        settings["zero_optimization"] |= self.zero_settings
        optimizer = self.make(groups(list(self.net.parameters())))
        self.call = zero.wrap(self.net, optimizer, settings, torch.device("cpu"), timedelta(seconds=60))
        self.zero = self.call.optimizer
        self.optimizer = optimizer

    def backward(self, last: bool) -> None:
        ids = torch.randint(0, 53, (2, 5))
        if self.strategy.startswith("zero"):
            self.call.set_gradient_accumulation_boundary(last)
            self.call.backward(self.call(ids))
            return
        if self.strategy == "fsdp":
            self.net.set_requires_gradient_sync(last)
        self.call(ids).backward()

    def step(self) -> None:
        if self.strategy.startswith("zero"):
            self.call.step()
        else:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def parameters(self) -> int:
        return held(p.ds_tensor if self.strategy == "zero3" else p for p in self.net.parameters())

    def gradients(self) -> int:
        if self.strategy == "zero3":
            return held([self.zero.grad_partitions_flat_buffer])
        if self.strategy.startswith("zero"):
            kept = [*self.zero.averaged_gradients.values(), *self.zero.all_grad_tensors.values()]
            averaged = [t for part in kept for t in part or []]
            own = [g for p in self.net.parameters() for g in (p.grad, getattr(p, "grad_accum", None)) if g is not None]
            return held([*averaged, *own])
        found = [p.grad for p in self.net.parameters() if p.grad is not None]
        if self.strategy == "fsdp":
            found += unsharded(self.net)
        return held(found)

    def optimizer_state(self) -> int:
        kept = [t for state in self.optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
        if self.strategy == "zero3":
            kept += self.zero.fp32_partitioned_groups_flat
        elif self.strategy.startswith("zero"):
            kept += self.zero.single_partition_of_fp32_groups
        return held(kept)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


def unsharded(net: nn.Module) -> list[torch.Tensor]:
    """Whole gradients that fully_shard keeps between micro-batches."""
    found = []
    for module in net.modules():
        state = getattr(module, "_get_fsdp_state", lambda: None)()
        for group in getattr(state, "_fsdp_param_groups", []):
            for parameter in group.fsdp_params:
                whole = getattr(parameter, "_unsharded_param", None)
                found += [parameter.unsharded_accumulated_grad, None if whole is None else whole.grad]
    return [gradient for gradient in found if gradient is not None]


def measure(strategy: str, precision: str, optimizer: str, passes: int) -> dict:
    """Two steps; gradients are measured after the last but one backward pass, or the only one."""
    run = Held(strategy, precision, optimizer, passes=passes)
    for _ in range(2):
        for index in range(passes):
            run.backward(index == passes - 1)
            if index == max(passes - 2, 0):
                gc.collect()
                gradients = run.gradients()
        run.step()
    return {"parameters": run.parameters(), "gradients": gradients, "optimizer": run.optimizer_state()}


def main(arguments: dict) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    print(json.dumps([measure(*case) for case in arguments["cases"]]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
