"""One rank of test_rank_corners.py: trains the toy as each of the jobs in ARGUMENTS asks; prints what came of them."""

import json
import pathlib
import sys
import time

import torch
import torch.distributed as dist

from generative.errors import GenerativeError
from generative.method import Loss, Mean
from generative.training import profiling
from generative.training.backend import Backend
from generative.training.config import ParallelConfig, ProfileConfig, TrainConfig
from generative.training.hooks import Hook
from generative.training.profiling import ProfileHook
from generative.training.trainer import Trainer
from generative.training.validation import ValidationHook
from tests.support.toys import Points, Regression, loaders


class Fickle(Regression):
    """On rank 1 it reports a metric more, of `size` elements."""

    size = 1

    def loss(self, update, nets, batch, context):
        loss = super().loss(update, nets, batch, context)
        curve = torch.ones(self.size)
        more = {"curve": Mean(curve, curve)} if context.collectives.rank else {}
        return Loss(loss.value, {**loss.metrics, **more})


class Curve(Regression):
    """Reports a curve of 300 points: longer than the first exchange."""

    def loss(self, update, nets, batch, context):
        loss = super().loss(update, nets, batch, context)
        places = torch.arange(300.0)
        return Loss(loss.value, {"curve": Mean(places * batch["valid"].sum(), torch.ones(300) * batch["valid"].sum())})


class Slow(Hook):
    """Takes its time on rank 0."""

    def __init__(self, rank, seconds):
        self.seconds = seconds if rank == 0 else 0

    def on_start(self, trainer):
        time.sleep(self.seconds)

    def on_end(self, trainer, state):
        time.sleep(self.seconds)


class Keep(Hook):
    """Keeps the validations and the metrics of the last record."""

    def __init__(self):
        self.validation, self.metrics = [], {}

    def on_step(self, trainer, record):
        self.metrics = record["metrics"]

    def on_validation(self, trainer, record):
        self.validation.append({"loss": record["loss"]["fit"], "metrics": record["metrics"]["fit"]})


def train(arguments, timeout):
    backend = Backend(ParallelConfig(strategy="ddp", timeout_seconds=timeout))
    settings = TrainConfig.model_validate(
        {"steps": 4, "batch_size": 10, "validation": {"every_steps": 4, "samples": arguments.get("samples", 30)}}
    )
    Fickle.size = arguments.get("size", 1)
    method = {"regression": Regression, "fickle": Fickle, "curve": Curve}[arguments.get("method", "regression")]()
    keep = Keep()
    hooks = [keep, Slow(backend.rank, arguments.get("slow", 0)), ValidationHook(settings.validation, Points(31))]
    if arguments.get("slow_trace"):
        write = profiling.cost_table
        profiling.cost_table = lambda *given: (time.sleep(arguments["slow_trace"]), write(*given))[1]
        profile = ProfileHook(ProfileConfig(steps="2"), pathlib.Path(arguments["folder"]))
        hooks = [keep, profile, profile.opener]
    batches = loaders(backend.rank, backend.world, settings.batch_size)
    trainer = Trainer(method, settings, 4, batches, backend, None, hooks)
    try:
        state = trainer.train()
    except GenerativeError as error:
        state = f"{type(error).__name__}: {error}"
    return {"state": state, "validation": keep.validation, "metrics": keep.metrics}


def main(arguments):
    torch.set_num_threads(1)
    print(json.dumps([train(job, arguments["timeout"]) for job in arguments["jobs"]]), flush=True)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
