"""One rank of the benchmark of strategies: `python -m evaluation.benchmarks.parallel_worker JSON`.

A step of the trainer and one of the loop that uses the strategy's library directly, in turns, in one process and
thread. Rank 0 writes what it found to a file.
"""

from __future__ import annotations

import copy
import itertools
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.benchmarks.direct_loops import direct_loop
from evaluation.benchmarks.step_clock import TakeTurns
from generative.data.config import BuiltinTextConfig
from generative.data.loader import Loader
from generative.data.text import open_text
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.nets.transformer_config import TransformerConfig
from generative.training.backend import Backend
from generative.training.config import ParallelConfig, TrainConfig
from generative.training.hooks import Hook, Record
from generative.training.trainer import Trainer

WARMUP = 5
WEIGHED = 3
"""Steps that memory is measured in, which are not timed: nothing is held after them that was not before."""


@dataclass(frozen=True)
class Job:
    """What one group measures.

    Args:
        strategy: parallel.strategy.
        pairs: steps of each loop that are timed; 0 measures memory only.
        batch_size: samples over all ranks.
        width, layers, length: of the network.
        cache: folder for prepared text.
        out: file for the result.
    """

    strategy: str
    pairs: int
    batch_size: int
    width: int
    layers: int
    length: int
    cache: str
    out: str

    def text(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


class Held(Hook):
    """The most that the engine held at the end of a backward pass, by part, in bytes."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {}

    def on_start(self, trainer: Trainer) -> None:
        """Look at the engine each time that it is asked for the norm of its gradients."""
        engine = trainer.engines["net"]
        ask = engine.gradient_norm

        def asked() -> float:
            self._look(engine.memory())
            return ask()

        engine.gradient_norm = asked  # type: ignore[method-assign]

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        """What the optimizer holds is there only after the first step."""
        engine = trainer.engines["net"]
        if trainer.step <= WEIGHED:
            self._look({"optimizer": engine.memory()["optimizer"]})
        if trainer.step == WEIGHED:
            del engine.gradient_norm  # the class's own is back

    def _look(self, held: Mapping[str, int]) -> None:
        for part, size in held.items():
            self.most[part] = max(self.most.get(part, 0), size)


def measure(job: Job) -> Mapping[str, Any]:
    """Seconds of both loops, and the bytes that this rank holds."""
    torch.set_num_threads(1)
    data = open_text(BuiltinTextConfig(sequence_length=job.length, max_bytes=1_000_000, cache=Path(job.cache)))
    network = TransformerConfig(
        layers=job.layers, heads=4, width=job.width, ff_width=4 * job.width, max_length=job.length
    )
    method = MaskedDiffusion(MaskedDiffusionConfig(network=network), data.facts)
    config = TrainConfig.model_validate(
        {
            "steps": WARMUP + job.pairs if job.pairs else WEIGHED,
            "batch_size": job.batch_size,
            "checkpoint": {"every_steps": None},
        }
    )
    backend = Backend(ParallelConfig(strategy=job.strategy), threads=1)

    def loader(state: Mapping[str, Any] | None) -> Loader:
        return Loader(
            data.train, batch_size=job.batch_size, seed=0, rank=backend.rank, world=backend.world, state=state
        )

    net = method.networks()["net"].build()
    assert config.steps is not None
    trainer = Trainer(method, config, config.steps, loader, backend)
    held = Held()
    trainer.hooks.append(held)
    result: dict[str, Any] = {}
    if job.pairs:
        shares = itertools.islice(loader(None), WARMUP + job.pairs)
        windows = [share.micro_batches[0]["tokens"] for share in shares]
        direct = direct_loop(job.strategy, copy.deepcopy(net).to(backend.device), windows, method.mask_id, config)
        turns = TakeTurns(direct.step, backend.device)
        trainer.hooks.append(turns)
        trainer.train()
        result["ours"] = np.array(turns.trainer_seconds)[WARMUP:, 0].tolist()
        result["direct"] = np.array(turns.other_seconds)[WARMUP:, 0].tolist()
    else:
        trainer.train()
    result["memory"] = held.most
    result["rank"] = backend.rank
    backend.close()
    return result


def main() -> None:
    """Measure; rank 0 writes the file."""
    job = Job(**json.loads(sys.argv[1]))
    found = measure(job)
    if found["rank"] == 0:
        Path(job.out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
