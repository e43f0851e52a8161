"""One rank of test_downgrade.py: breaks a library as ARGUMENTS say, prints what the backend says of it."""

import json
import sys

import torch
import torch.distributed as dist

from generative.errors import ResourceError
from generative.training.backend import Backend
from generative.training.config import OptimizerConfig, ParallelConfig
from generative.training.engines import fsdp, zero
from tests.support.toys import Net


def downgraded(strategy):
    """The network under a strategy whose library quietly does something else."""
    backend = Backend(ParallelConfig(strategy=strategy, timeout_seconds=60))
    backend.accelerator.prepare_model = lambda module, **_: module
    try:
        backend.engine("net", Net(), OptimizerConfig())
    except ResourceError as error:
        return error.problem
    return "trains"


if __name__ == "__main__":
    torch.set_num_threads(1)
    fsdp.shard = lambda *arguments: None
    settings = zero.settings
    zero.settings = lambda stage, *others: settings(2 if stage == 1 else 1, *others)
    print(json.dumps([downgraded(strategy) for strategy in json.loads(sys.argv[1])["strategies"]]), flush=True)
    dist.barrier()
    dist.destroy_process_group()
