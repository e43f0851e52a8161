"""One rank that trains a small EDM; prints its curve and weights, and those of an average, as one JSON line."""

import json
import os
import sys

import numpy as np
import torch
import torch.distributed as dist

from generative.data.loader import Loader
from generative.method import DataFacts
from generative.methods.edm.config import EdmConfig
from generative.methods.edm.method import Edm
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import ParallelConfig, TrainConfig
from generative.training.hooks import Hook
from generative.training.trainer import Trainer

METHOD = {
    "network": {"name": "song", "width": 8, "multipliers": [1, 1], "blocks": 1, "attention": [4], "dropout": 0.2},
    "label_dropout": 0.2,
    "augmentation": {"probability": 0.5},
    "ema": [],
    "ema_power": [0.2],
}


class Images:
    """Map-style source of labelled images."""

    def __len__(self) -> int:
        return 53

    def fetch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        rows = [torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(int(i))) * 2 - 1 for i in indices]
        return {"sample": torch.stack(rows), "label": torch.as_tensor(indices % 3)}


class Curve(Hook):
    def __init__(self) -> None:
        self.records = []

    def on_step(self, trainer, record):
        self.records.append([*record["loss"].values(), *record["grad_norm"].values()])


def train(job: dict) -> dict:
    backend = Backend(ParallelConfig(strategy=job.get("strategy", "ddp"), timeout_seconds=60))
    settings = TrainConfig.model_validate(
        {
            "steps": 5,
            "batch_size": 6,
            "micro_batch_size": job.get("micro"),
            "optimizer": {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.0, "clip_norm": None},
            "checkpoint": {"every_steps": None},
            "activation_checkpointing": job.get("recompute", False),
        }
    )
    store = None
    if job.get("store"):
        attempt = f"{backend.agree(int.from_bytes(os.urandom(5), 'little')):x}"
        store = CheckpointStore(job["store"], backend.rank, backend.world, attempt)

    def batches(state):
        return Loader(Images(), batch_size=6, seed=0, rank=backend.rank, world=backend.world, state=state)

    curve = Curve()
    model = Edm(EdmConfig.model_validate(METHOD), DataFacts(sample_shape=(1, 8, 8), classes=3))
    trainer = Trainer(model, settings, settings.steps, batches, backend, store, [curve])
    trainer._stop = lambda: trainer.step >= job.get("stop_at", 1 << 30) and backend.rank == 0
    trainer.train()
    found = {"curve": curve.records}
    for weights in ("trained", "ema"):
        with trainer.evaluating(weights) as nets:
            found[weights] = {key: p.double().norm().item() for key, p in nets["net"].named_parameters()}
    return found


def main(arguments: dict) -> None:
    torch.set_num_threads(1)
    print(json.dumps([train(job) for job in arguments["jobs"]]), flush=True)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
