"""The sections of a run's configuration that belong to the command line, not to a room of the library."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from generative.config import Config
from generative.config_messages import combination


class RunSection(Config):
    """Where the run's files go."""

    dir: str = ""
    """Run folder, seen by all workers; empty: runs/<configuration name>."""

    @field_validator("dir")
    @classmethod
    def _at_home(cls, told: str) -> str:
        """~ as in paths of data: no shell replaces it within `run.dir=~/mine`."""
        return os.path.expanduser(told)


class LaunchConfig(Config):
    """What runs the training."""

    backend: Literal["ray", "local"] = "ray"
    """ray: Ray Train with `workers` workers. local: in this process (or the processes that torchrun started)."""
    workers: PositiveInt = 1
    """Number of training workers (ranks)."""
    min_workers: PositiveInt | None = None
    """Where a restart finds fewer workers than `workers`, go on with as few as this; null: wait for all of them."""
    nodes: PositiveInt | None = None
    """Spread the workers evenly over so many nodes of the cluster; null: wherever there is room."""
    address: str | None = None
    """Ray cluster to use, "auto" or host:port; null starts a local one for the run."""
    cpus_per_worker: float = Field(default=1, gt=0)
    """Cores reserved for each worker, and its threads; a part of a core lets more workers than cores run, slowly."""
    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs reserved for each worker."""
    memory_per_worker: float | None = Field(default=None, gt=0)
    """GB of host memory reserved for each worker; null reserves none."""
    max_restarts: int = Field(default=3, ge=0)
    """How often a group that lost a worker is started again from the newest checkpoint."""
    wait_seconds: PositiveInt = 60
    """How long a start or restart waits for nodes that are missing or busy, before it goes on with fewer workers
    (`min_workers`) or gives up."""

    @model_validator(mode="after")
    def _workers_fit(self) -> LaunchConfig:
        for key, number in {"min_workers": self.min_workers, "nodes": self.nodes}.items():
            if number is not None and number > self.workers:
                raise combination(
                    f"{key}={number} is more than workers={self.workers}",
                    "at most as many as launch.workers",
                    f"lower launch.{key} or raise launch.workers",
                )
        if self.nodes is not None and self.nodes > 1 and self.address is None:
            raise combination(
                f"nodes={self.nodes} without an address",
                "a cluster to spread the workers over",
                "name it with launch.address (auto, or host:port of its head), or leave launch.nodes out",
            )
        return self


class TrackerConfig(Config):
    """Trackers besides metrics.jsonl, which is always written."""

    tensorboard: bool = False
    """Write event files into <run.dir>/tensorboard (needs tensorboardX)."""
    wandb: str | None = None
    """Project of Weights & Biases to log to (needs wandb)."""
    prometheus: int | None = Field(default=None, ge=1, le=65535)
    """Port where rank 0 serves metrics to Prometheus while it trains (needs prometheus_client)."""
    prometheus_host: str = "127.0.0.1"
    """Address that it listens at; anything but a loopback address lets other machines read."""


class TextEvaluation(Config):
    """Likelihood of held-out text."""

    at_end: bool = True
    """Evaluate when training is complete."""
    windows: PositiveInt = 96
    """Held-out windows, taken evenly over the held-out text."""
    draws: PositiveInt = 16
    """Forward passes a window for bounds that are estimated (strata of the number of masked tokens)."""
    estimator: Literal["exact_count", "monte_carlo", "chain_rule"] = "exact_count"
    """How a masked model's likelihood is estimated. exact_count: the bound, least noise; monte_carlo: the bound as in
    the released harness; chain_rule: the exact likelihood of left-to-right generation, one forward pass a token."""
    batch_size: PositiveInt = 32
    """Sequences in one forward pass; does not change results."""
    weights: Literal["ema", "trained"] = "trained"
    """Which weights are evaluated; ema takes the first average."""
    only_likelihood: bool = False
    """Leave out what stands beside it: n-gram tables, infilling, loss by noise level."""


class TextSampling(Config):
    """Text drawn from the model."""

    at_end: bool = True
    """Draw samples when training is complete."""
    count: PositiveInt = 4
    """Number of samples."""
    infill: int = Field(default=2, ge=0)
    """Number of infillings of held-out text (methods that can)."""
    length: PositiveInt | None = None
    """Tokens of a sample; null: the training length."""
    seed: int = 0
    """Seed of the samples' noise; how they are drawn is in `method.sampling`."""
    weights: Literal["ema", "trained"] = "trained"
    """Which weights are sampled; ema takes the first average."""


class PlanConfig(Config):
    """What a plan assumes (`generative plan`, and the first line of `generative train`). Nothing of the run itself."""

    machine: str | None = None
    """Machine that the plan is for: a name in configs/machines (or in the folder `machines` of the current one), or a
    YAML file; null: this one."""
    mfu: float = Field(default=0.4, gt=0, le=1)
    """Part of the peak rate of arithmetic that training is assumed to reach."""
    headroom: float = Field(default=0.1, ge=0, lt=1)
    """Part of the memory that is to stay free: for the driver, kernels' workspaces, and gaps between allocations."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """Price of one GPU for an hour, in dollars; null: the machine's, which is an assumption."""
