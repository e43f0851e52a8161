"""One rank that distils a small EDM; prints its curve, weights and ratio bins as one JSON line."""

from generative.config import merged
from generative.method import DataFacts
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.method import FDistill
from generative.methods.f_distill.network import parts_of
from generative.training.backend import Backend
from generative.training.config import ParallelConfig, TrainConfig
from tests.distributed.train_edm import Curve, Images
from tests.support.rank_jobs import serve, trained

METHOD = {
    "network": {"name": "song", "width": 8, "multipliers": [1, 1], "blocks": 1, "attention": [4], "dropout": 0.0},
    "classes": 3,
    "augment_labels": 9,
    "critic_updates": 2,
    "ratio": {"bins": 2, "minimum_count": 4},
    "gan_weight": 0.1,
    "levels": [0, 1],
    "ema": [0.9],
}


def train(job: dict) -> dict:
    backend = Backend(ParallelConfig(strategy=job.get("strategy", "ddp"), timeout_seconds=60))
    settings = TrainConfig.model_validate(
        {
            "steps": 5,
            "batch_size": 6,
            "optimizer": {
                "lr": 1e-3,
                "betas": [0.0, 0.99],
                "weight_decay": 0.0,
                "clip_norm": job.get("clip_norm", 10.0),
            },
            "checkpoint": {"every_steps": None},
        }
    )
    curve = Curve()
    config = FDistillConfig.model_validate(merged(METHOD, job.get("method", {})))
    model = FDistill(config, parts_of(config, DataFacts(sample_shape=(1, 8, 8), classes=3)))
    trainer, _ = trained(job, model, settings, Images(), backend, curve)
    found = {"curve": curve.records, "bins": trainer.state["ratio_means"].tolist()}
    for weights in ("trained", "ema"):
        with trainer.evaluating(weights) as nets:
            norms = {f"{name}.{key}": p.double().norm() for name in nets for key, p in nets[name].named_parameters()}
            found[weights] = {key: norm.item() for key, norm in norms.items()}
    return found


if __name__ == "__main__":
    serve(train)
