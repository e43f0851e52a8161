"""One rank that trains a toy method; prints its curve and a digest of the weights as one JSON line."""

import hashlib
import json
import os
import signal
import sys
import time

import torch
import torch.distributed as dist

from generative.errors import GenerativeError
from generative.training.backend import Backend
from generative.training.checkpoint import writer
from generative.training.config import ParallelConfig, TrainConfig
from generative.training.hooks import Hook
from generative.training.trainer import Trainer
from generative.training.validation import ValidationHook
from tests.support.rank_jobs import store_of
from tests.support.toys import Awkward, Duel, Gpt, Penalty, Points, Regression, loaders

SILENCE = 8.0
METHODS = {"regression": Regression, "duel": Duel, "gpt": Gpt, "penalty": Penalty, "awkward": Awkward}


class Curve(Hook):
    """Keeps the losses; the last rank may kill itself, or fall silent, after a step."""

    def __init__(self, kill_after: int | None, silent_after: int | None) -> None:
        self.losses, self.norms, self.validation = [], [], []
        self.kill_after, self.silent_after = kill_after, silent_after

    def on_step(self, trainer, record):
        self.losses.append(record["loss"])
        self.norms.append(record["grad_norm"])
        if trainer.backend.rank < trainer.backend.world - 1:
            return
        if self.kill_after == trainer.step:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.silent_after == trainer.step:
            time.sleep(SILENCE)
            os._exit(0)

    def on_validation(self, trainer, record):
        self.validation.append(record["loss"])


def slowly(write, seconds: float):
    """The same, on a disk that takes its time."""

    def written(*arguments):
        time.sleep(seconds)
        write(*arguments)

    return written


def train(arguments: dict) -> dict:
    """One run under a strategy; what it came to."""
    parallel = ParallelConfig.model_validate({"timeout_seconds": 60, **arguments.get("parallel", {})})
    backend = Backend(parallel, arguments.get("precision", "fp32"))
    settings = TrainConfig.model_validate(
        {
            "steps": arguments.get("steps", 8),
            "batch_size": arguments.get("batch_size", 10),
            "precision": arguments.get("precision", "fp32"),
            "micro_batch_size": arguments.get("micro"),
            "optimizer": {"lr": 0.05, "clip_norm": 0.7},
            "schedule": {"name": "cosine", "warmup_steps": 2},
            "checkpoint": {"every_steps": arguments.get("every"), "keep_last": 5},
            "validation": {"every_steps": 4, "samples": 30},
            **arguments.get("train", {}),
        }
    )
    store = store_of(arguments, backend, keep_last=5)
    if arguments.get("slow_disk") and backend.rank == backend.world - 1:
        writer.write_part = slowly(writer.write_part, arguments["slow_disk"])
    curve = Curve(arguments.get("kill_after"), arguments.get("silent_after"))
    trainer = Trainer(
        METHODS[arguments["method"]](**arguments.get("options", {})),
        settings,
        settings.steps,
        loaders(backend.rank, backend.world, settings.batch_size, arguments.get("micro")),
        backend,
        store,
        [curve, ValidationHook(settings.validation, Points(31))],
    )
    stop_at = arguments.get("stop_at")
    trainer._stop = lambda: stop_at is not None and trainer.step >= stop_at and backend.rank == 0
    state = trainer.train()
    with trainer.evaluating(arguments.get("weights", "trained")) as nets:
        parts = [p.detach().float().numpy().tobytes() for m in nets.values() for p in m.parameters()]
        probe = float(METHODS[arguments["method"]].probe(nets))
    return {
        "state": state,
        "step": trainer.step,
        "engines": {name: engine.strategy() for name, engine in trainer.engines.items()},
        "memory": {name: dict(engine.memory()) for name, engine in trainer.engines.items()},
        "losses": curve.losses,
        "norms": curve.norms,
        "validation": curve.validation,
        "weights": hashlib.sha256(b"".join(parts)).hexdigest(),
        "probe": probe,
        "mean": float(trainer.state.get("mean", torch.zeros(()))),
    }


def told(run, job: dict) -> dict:
    """What a run came to, or, where the job says so, the error that it was refused with."""
    if not job.get("refused"):
        return run(job)
    try:
        return run(job)
    except GenerativeError as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main(arguments: dict) -> None:
    """One run, or the list under "jobs" one after the other in this group."""
    torch.set_num_threads(1)
    results = [told(train, job) for job in arguments.get("jobs", [arguments])]
    print(json.dumps(results if "jobs" in arguments else results[0]), flush=True)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
