"""The bare loop under each strategy, by direct use of its library: what the trainer's engines are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from evaluation.benchmarks.bare_loop import BareLoop
from generative.training.config import TrainConfig


def direct_loop(
    strategy: str, net: nn.Module, batches: Sequence[Tensor], mask_id: int, config: TrainConfig
) -> BareLoop:
    """A loop over the process group, written as the library's manual has it."""
    if strategy == "fsdp":
        return BareLoop(_fully_sharded(net), batches, mask_id, config)
    if strategy.startswith("zero"):
        return DeepSpeedLoop(int(strategy[-1]), net, batches, mask_id, config)
    loop = BareLoop(net, batches, mask_id, config)
    loop.net = nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
    return loop


def _fully_sharded(net: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(net.parameters()).device.type, (dist.get_world_size(),))
    blocks: Any = net.get_submodule("blocks")
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)
    return net


class DeepSpeedLoop(BareLoop):
    """The same through DeepSpeed, whose engine clips, steps and forgets the gradients."""

    def __init__(
        self, stage: int, net: nn.Module, batches: Sequence[Tensor], mask_id: int, config: TrainConfig
    ) -> None:
        super().__init__(net, batches, mask_id, config)
        import deepspeed

        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_clipping": config.optimizer.clip_norm or 0.0,
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 1 << 30,
            "zero_optimization": {
                "stage": stage,
                "overlap_comm": torch.cuda.is_available(),
                "memory_efficient_linear": False,
                "stage3_param_persistence_threshold": 0,
            },
        }
        self.engine, *_ = deepspeed.initialize(
            model=net, optimizer=self.optimizer, config=settings, dist_init_required=False
        )
        self.net = self.engine

    def update(self, loss: Tensor) -> None:
        """Backward pass and optimizer step."""
        self.engine.backward(loss)
        self.engine.step()
