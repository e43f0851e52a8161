"""One rank that trains small GANs, one job after the other; prints what each came to as one JSON line."""

import numpy as np
import torch

from generative.errors import GenerativeError
from generative.method import DataFacts
from generative.methods.mee_gan.config import MeeGanConfig
from generative.methods.mee_gan.method import MeeGan
from generative.training.backend import Backend
from generative.training.config import ParallelConfig, TrainConfig
from generative.training.hooks import Hook
from tests.support.rank_jobs import serve, trained

NETWORKS = {
    "mlp": {"network": {"name": "mlp", "generator": [16, 16], "discriminator": [16, 16]}},
    "dcgan": {"network": {"name": "dcgan", "width": 4}},
}


class Images:
    """Map-style source of images that come from four places."""

    def __len__(self) -> int:
        return 53

    def fetch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        rows = [torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(int(i))) / 4 for i in indices]
        places = torch.as_tensor(indices % 4).view(-1, 1, 1, 1) / 2 - 0.75
        return {"sample": (torch.stack(rows) + places).clamp(-1, 1)}


class Curve(Hook):
    def __init__(self) -> None:
        self.records = []

    def on_step(self, trainer, record):
        self.records.append({"loss": record["loss"], "metrics": record["metrics"], "norms": record["grad_norm"]})


def train(job: dict) -> dict:
    parallel = ParallelConfig(strategy=job.get("strategy", "ddp"), timeout_seconds=60)
    backend = Backend(parallel, job.get("precision", "fp32"))
    method = {"latent": 5, "code": 3, "buffer_size": 20, "entropy": {"weight": 0.1}} | NETWORKS[job["network"]]
    config = MeeGanConfig.model_validate(method | job.get("method", {}))
    settings = TrainConfig.model_validate(
        {
            "steps": job.get("steps", 5),
            "batch_size": 10,
            "precision": job.get("precision", "fp32"),
            "optimizer": {"lr": 1e-3, "betas": [0.5, 0.99], "weight_decay": 0.0, "clip_norm": None},
            "checkpoint": {"every_steps": None},
        }
    )
    curve = Curve()
    model = MeeGan(config, DataFacts(sample_shape=(1, 8, 8)))
    trainer, state = trained(job, model, settings, Images(), backend, curve)
    with trainer.evaluating("trained") as nets:
        buffers = {f"{name}.{key}": b.double().sum().item() for name, n in nets.items() for key, b in n.named_buffers()}
        weights = {
            f"{name}.{key}": p.double().norm().item() for name, n in nets.items() for key, p in n.named_parameters()
        }
    memory = {key: tensor.double().sum().item() for key, tensor in trainer.state.items()}
    return {"state": state, "curve": curve.records, "buffers": buffers, "weights": weights, "memory": memory}


def told(job: dict) -> dict:
    try:
        return train(job)
    except GenerativeError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    serve(told)
