"""Typed settings of the trainer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from generative.config import Config
from generative.config_messages import combination

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """AdamW or SGD for one network."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=4e-4, gt=0)
    """Peak learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """AdamW's decay rates; the first is SGD's momentum."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's: added to the root of the second moment."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled for AdamW, L2 for SGD."""
    no_decay: tuple[str, ...] = ()
    """Parameters without weight decay: shell patterns on parameter names, or "1d" for all vectors and scalars."""
    rates: dict[str, PositiveFloat] = {}
    """Factors on `lr` of some parameters, by shell pattern on their names; the first that matches counts. What AdamW
    takes off a weight in a step, lr x weight_decay, stays."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Gradient norm is clipped to this over the whole network; null for no clipping."""


class ScheduleConfig(Config):
    """Learning rate as a function of the updates of its own optimizer."""

    name: Literal["cosine", "constant", "linear", "wsd", "step"] = "cosine"
    """Shape after the warm-up; wsd: constant, then linear decay over the last `decay_fraction`; step: times
    `step_factor` after every `step_updates` or `step_fraction`."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Linear warm-up from 0; null takes `warmup_fraction`."""
    warmup_fraction: float = Field(default=0.01, ge=0, lt=1)
    """Part of all updates spent on warm-up, if `warmup_steps` is null."""
    warmup_at_least: int = Field(default=0, ge=0)
    """Warm-up updates that `warmup_fraction` may not fall below."""
    min_ratio: float = Field(default=0.1, ge=0, le=1)
    """Final learning rate over the peak."""
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """Part of the updates after the warm-up in which `wsd` decays."""
    step_factor: float = Field(default=0.5, gt=0, le=1)
    """What `step` multiplies the learning rate by, again and again."""
    step_updates: PositiveInt | None = None
    """Updates after which `step` does so; null takes `step_fraction`."""
    step_fraction: float = Field(default=0.25, gt=0, le=1)
    """Part of the updates after the warm-up after which `step` does so, if `step_updates` is null."""


class CheckpointConfig(Config):
    """When checkpoints are written and which are kept."""

    every_steps: PositiveInt | None = 1000
    """Steps between checkpoints; null for none but the last."""
    keep_last: PositiveInt = 2
    """The newest so many are kept."""
    keep_every: int = Field(default=0, ge=0)
    """Steps divisible by this are kept for ever; 0 for none."""
    keep_best: bool = True
    """The checkpoint with the lowest validation loss is kept too (validation steps are then checkpoint steps)."""
    asynchronous: bool = True
    """Write in the background while training goes on."""


class AnomalyConfig(Config):
    """What to do on a loss or gradient that is not finite, or far off."""

    policy: Literal["stop", "skip", "rollback"] = "stop"
    """stop: end with a diagnosis, before the step is taken. skip: leave the step out. rollback: return to the newest
    checkpoint, leave out the samples since, and lower the learning rate."""
    spike_sigma: float | None = Field(default=None, gt=0)
    """A loss so many standard deviations above the mean of the last 128 is one too; null: only NaN and inf are."""
    limit: PositiveInt = 3
    """Consecutive skips, or rollbacks in all, after which the run stops."""
    rollback_lr: float = Field(default=0.5, gt=0, le=1)
    """Factor on the learning rate with each rollback."""


class ValidationConfig(Config):
    """Loss on held-out samples during training, always with the same samples and noise."""

    every_steps: PositiveInt | None = None
    """Steps between validations; null for none."""
    samples: PositiveInt = 64
    """Held-out samples, taken evenly over the held-out set."""
    weights: Literal["ema", "trained"] = "trained"
    """Which weights are validated; ema takes the first average of each network that has one."""


class LoaderConfig(Config):
    """How batches are fetched."""

    workers: int = Field(default=0, ge=0)
    """Processes that fetch batches ahead; 0: fetched in the training process."""
    prefetch: PositiveInt = 2
    """Batches that each worker keeps ready."""


class ProfileConfig(Config):
    """Traces of chosen steps with torch.profiler, in <run.dir>/profile. Traced steps are slower; the others are not."""

    steps: str | None = None
    """Training steps to trace, from 1 on: "10-12", "10-12,500" or a list; null for none."""
    ranks: tuple[NonNegativeInt, ...] | None = (0,)
    """Workers that trace; null for all."""
    memory: bool = False
    """Trace allocations too."""

    @field_validator("steps", mode="before")
    @classmethod
    def _as_text(cls, steps: Any) -> Any:
        parts = steps if isinstance(steps, list | tuple) else [steps]
        return steps if steps is None else ",".join(map(str, parts))

    @field_validator("steps")
    @classmethod
    def _readable(cls, steps: str | None) -> str | None:
        parse_steps(steps)
        return steps

    def chosen(self) -> list[int]:
        """The steps, ascending."""
        return parse_steps(self.steps)


def parse_steps(steps: str | None) -> list[int]:
    """ "10-12,500" as [10, 11, 12, 500].

    Raises:
        ValueError: it is no such text.
    """
    found: set[int] = set()
    for part in (steps or "").split(",") if steps is not None else ():
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not (first.isdigit() and (last.isdigit() or not dash)) or not 1 <= int(first) <= int(last or first):
            raise combination(
                f"{part.strip()!r} names no training steps",
                "steps from 1 on, such as 10, 10-12 or 10-12,500",
                "correct it, or set it to null",
            )
        found |= set(range(int(first), int(last or first) + 1))
    return sorted(found)


class NetworkTraining(Config):
    """Settings of one network that differ from the common ones."""

    optimizer: OptimizerConfig | None = None
    schedule: ScheduleConfig | None = None
    init_from: str | None = None
    """Start from the weights of a run folder, checkpoint or export (optionally "#NETWORK") instead of fresh ones."""


class TrainConfig(Config):
    """Everything about the training loop."""

    steps: PositiveInt | None = None
    """Training steps; null computes them from `flops`."""
    flops: float | None = Field(default=None, gt=0)
    """Compute budget C = 6 N D; the method turns it into steps."""
    seed: int = 0
    """Seed of initial weights, data order and noise."""
    batch_size: PositiveInt = 256
    """Samples in a global batch, over all workers and micro-batches."""
    micro_batch_size: PositiveInt | None = None
    """Samples that one worker runs at a time; null: its whole share of the batch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs forward and backward under autocast; weights and optimizer stay fp32."""
    compile: bool = False
    """torch.compile the trained networks."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory (networks that offer it)."""
    threads: PositiveInt | None = None
    """CPU threads of each worker; null: the cores that it has been given."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    networks: dict[str, NetworkTraining] = {}
    """Settings by network name where they differ from `optimizer` and `schedule`."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    anomaly: AnomalyConfig = AnomalyConfig()
    loader: LoaderConfig = LoaderConfig()
    profile: ProfileConfig = ProfileConfig()
    log_every: PositiveInt = 1
    """Steps between lines in metrics.jsonl (means over the steps in between)."""
    sample_every: PositiveInt | None = None
    """Steps between samples drawn during training; null: only at the end."""

    @model_validator(mode="after")
    def _steps_or_flops(self) -> TrainConfig:
        if (self.steps is None) == (self.flops is None):
            both = "null" if self.steps is None else "set"
            raise combination(
                f"steps and flops are both {both}",
                "a number of steps or a budget, and null for the other",
                "give one of train.steps and train.flops, and set the other to null",
            )
        return self


Strategy = Literal["none", "ddp", "fsdp", "zero1", "zero2", "zero3"]


class ParallelConfig(Config):
    """How one training step is spread over workers. Results are the same for all strategies."""

    strategy: Strategy = "ddp"
    """none: one process. ddp: every worker holds everything; gradients are averaged. fsdp (torch's fully_shard) and
    zero3 (DeepSpeed): weights, gradients and optimizer are sharded over the workers. zero1: only the optimizer and the
    averages are. zero2: gradients too."""
    frozen: Literal["plain", "sharded"] = "plain"
    """Networks that are not trained: whole on every worker, or sharded like the others (fsdp, zero3)."""
    cpu_offload: bool = False
    """Hold the optimizer's state (fsdp, zero3: weights too) in host memory instead of on the GPU."""
    timeout_seconds: PositiveInt = 300
    """How long a collective may wait for a worker before the group is ended (and started again)."""
    patience_seconds: PositiveInt = 3600
    """How long workers wait for one that is busy outside of training steps (drawing samples, writing a checkpoint to a
    slow disk) and gives signs of life."""
