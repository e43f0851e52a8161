"""What scripts that are one rank of a training share: jobs, a store where a job wants one, the training itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from generative.data.loader import Loader
from generative.data.sources import Source
from generative.method import Method
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.hooks import Hook
from generative.training.trainer import Trainer


def serve(run: Callable[[Any], Any]) -> None:
    """Run the jobs of the command line in this group, one after the other, and print what each came to as one line."""
    torch.set_num_threads(1)
    print(json.dumps([run(job) for job in json.loads(sys.argv[1])["jobs"]]), flush=True)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def store_of(job: Mapping[str, Any], backend: Backend, **options: Any) -> CheckpointStore | None:
    """Of the folder that the job names, with one attempt for all ranks."""
    if not job.get("store"):
        return None
    attempt = f"{backend.agree(int.from_bytes(os.urandom(5), 'little')):x}"
    return CheckpointStore(job["store"], backend.rank, backend.world, attempt, **options)


def trained(
    job: Mapping[str, Any], method: Method, settings: TrainConfig, data: Source, backend: Backend, curve: Hook
) -> tuple[Trainer, str]:
    """Train on a source, until the step that the job may stop at; the trainer, and how it ended."""

    def batches(state: Mapping[str, Any] | None) -> Loader:
        size = settings.batch_size
        return Loader(data, batch_size=size, seed=0, rank=backend.rank, world=backend.world, state=state)

    trainer = Trainer(method, settings, settings.steps, batches, backend, store_of(job, backend), [curve])
    trainer._stop = lambda: trainer.step >= job.get("stop_at", 1 << 30) and backend.rank == 0
    return trainer, trainer.train()
