"""One rank that trains a small EDM; prints its curve and weights, and those of an average, as one JSON line."""

import numpy as np
import torch

from generative.method import DataFacts
from generative.methods.edm.config import EdmConfig
from generative.methods.edm.method import Edm
from generative.training.backend import Backend
from generative.training.config import ParallelConfig, TrainConfig
from generative.training.hooks import Hook
from tests.support.rank_jobs import serve, trained

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
    curve = Curve()
    model = Edm(EdmConfig.model_validate(METHOD), DataFacts(sample_shape=(1, 8, 8), classes=3))
    trainer, _ = trained(job, model, settings, Images(), backend, curve)
    found = {"curve": curve.records}
    for weights in ("trained", "ema"):
        with trainer.evaluating(weights) as nets:
            found[weights] = {key: p.double().norm().item() for key, p in nets["net"].named_parameters()}
    return found


if __name__ == "__main__":
    serve(train)
