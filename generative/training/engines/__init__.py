"""One network as the trainer holds it, under each strategy.

none, ddp    `base.Engine`: whole on every rank; DDP averages the gradients
fsdp         `fsdp.ShardedEngine`: weights, gradients and optimizer sharded by rows (torch's fully_shard)
zero1-zero3  `zero.ZeroEngine`: DeepSpeed
"""

from generative.training.engines.base import Engine

__all__ = ["Engine"]
