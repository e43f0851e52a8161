"""The part of a plan that takes seconds: activations, operations as executed, time, and whether it all fits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.nets.linear_cross_entropy import chunks_of
from generative.training.activations import FakeRun, Numerics
from launch.machines import load_machine
from launch.modality import build_method, modality
from launch.plan import Plan, Spread, measured_flops, outline
from launch.schema import RunConfig

COUNTED_SAMPLES = 64
"""Samples over which operations are counted: enough for random masks to be near their mean."""


@dataclass(frozen=True)
class Limits:
    """What there is to run on.

    Args:
        name: of the machine.
        flops: peak operations a second of one worker.
        memory: bytes for one worker, or for all of them where they share it.
        shared: whether all workers share the memory.
        headroom: part of the memory that is to stay free.
        link: bytes a second that a worker can send; None where that is not known.
        price: of a worker for an hour, in dollars; None where nothing is paid.
    """

    name: str
    flops: float
    memory: float
    shared: bool
    headroom: float
    link: float | None
    price: float | None


@dataclass
class Activations:
    """Peaks of one micro-batch, each found by a run with fake weights when first asked for."""

    method: Any
    fake_batch: Callable[[int, int], dict[str, Tensor]]
    """(samples, global batch) -> a micro-batch."""
    _found: dict[tuple[Numerics, bool, bool, int], int] = field(default_factory=dict)

    def __call__(self, spread: Spread, exact: bool = True) -> int:
        """Bytes for the spread's micro-batch. `exact=False` puts a line through sizes 1 and 2, which is quicker where
        many sizes are asked for."""
        size = spread.micro_batch_size
        if exact or size <= 2:
            return self._run(spread, size)
        one, two = self._run(spread, 1), self._run(spread, 2)
        return one + (size - 1) * (two - one)

    def _run(self, spread: Spread, size: int) -> int:
        key = (numerics(spread), spread.checkpointing, spread.cuda, size)
        if key not in self._found:
            run = FakeRun(self.method, numerics(spread), spread.checkpointing)
            with chunks_of("cuda" if spread.cuda else "cpu"):
                peaks = run.activation_bytes(self.fake_batch(size, spread.batch_size), spread.batch_size)
            self._found[key] = max(peaks.values())
        return self._found[key]


@dataclass(frozen=True)
class Details:
    """A plan and what it takes on a machine.

    Args:
        plan: sizes and states.
        activations: peak bytes of one micro-batch; None where fake weights cannot tell.
        executed: operations of all steps as torch counts them, recomputation included; None as above.
        limits: of the machine.
        step_seconds: arithmetic of a step at the assumed MFU.
        sending_seconds: least time that the bytes of a step take on the link; None where it is not known.
        mfu: that was assumed.
    """

    plan: Plan
    activations: int | None
    executed: float | None
    limits: Limits
    step_seconds: float
    sending_seconds: float | None
    mfu: float

    @property
    def seconds(self) -> float:
        """Training time. Sending is taken to be hidden behind arithmetic as far as that lasts."""
        return self.plan.steps * max(self.step_seconds, self.sending_seconds or 0.0)

    @property
    def device_bytes(self) -> int:
        """Of one worker at its peak."""
        return self.plan.states.device + self.plan.method_state + (self.activations or 0)

    @property
    def fits(self) -> bool:
        """Whether the memory suffices with some to spare."""
        return fits(self.limits, self.plan.spread, self.device_bytes)

    @property
    def cost(self) -> float | None:
        """Dollars."""
        if self.limits.price is None:
            return None
        return self.limits.price * self.plan.spread.workers * self.seconds / 3600


def fits(limits: Limits, spread: Spread, device_bytes: int) -> bool:
    """Whether so many bytes for each worker can be had."""
    need = device_bytes * (spread.workers if limits.shared else 1)
    return need <= limits.memory * (1 - limits.headroom)


def numerics(spread: Spread) -> Numerics:
    """How the networks compute."""
    if spread.precision == "fp32":
        return "fp32"
    return "autocast" if spread.strategy in ("none", "ddp") else "bf16"


def make(config: RunConfig) -> tuple[Details, Activations]:
    """The whole plan of a configuration, and what its activations were found with.

    Raises:
        GenerativeError: a setting that cannot work, an unknown machine or vocabulary.
    """
    kind = modality(config)
    facts = kind.known_facts(config)
    method = build_method(config, facts)
    plan = outline(config, method, facts, kind.describe(config), _planned_workers(config))
    limits = limits_of(config, plan.spread)
    found = Activations(method, partial(kind.fake_batch, facts))
    return details(config, plan, limits, found), found


def details(config: RunConfig, plan: Plan, limits: Limits, found: Activations) -> Details:
    """The plan with what fake weights tell."""
    activations: int | None = None
    executed: float | None = None
    # A loss that reads numbers of its networks cannot run without them: the rest of the plan still holds.
    with contextlib.suppress(RuntimeError):
        activations = found(plan.spread)
        executed = _executed(plan, found)
    step = plan.flops / plan.steps / (config.plan.mfu * limits.flops * plan.spread.workers)
    sending = plan.sent_bytes / limits.link if limits.link else None
    return Details(plan, activations, executed, limits, step, sending, config.plan.mfu)


def _executed(plan: Plan, found: Activations) -> float:
    samples = min(COUNTED_SAMPLES, plan.spread.batch_size)
    run = FakeRun(found.method, numerics(plan.spread), plan.spread.checkpointing)
    # Large chunks are few: the count is the same, and quick.
    with chunks_of("cuda"):
        counted = run.flops(found.fake_batch(samples, plan.spread.batch_size))
    return counted / samples * plan.spread.batch_size * plan.steps


def _planned_workers(config: RunConfig) -> int | None:
    """For a machine elsewhere the workers are those that the configuration names, whatever runs them here."""
    return config.launch.workers if config.plan.machine is not None else None


def limits_of(config: RunConfig, spread: Spread) -> Limits:
    """The machine that the plan is for."""
    settings = config.plan
    if settings.machine is None:
        return _this_machine(config)
    machine = load_machine(settings.machine)
    price = machine.price_per_hour if settings.price_per_hour is None else settings.price_per_hour
    peak, memory = machine.peak_flops(spread.precision), machine.memory_gb * 1e9
    link = machine.link(spread.workers)
    return Limits(settings.machine, peak, memory, False, settings.headroom, link, price)


def _this_machine(config: RunConfig) -> Limits:
    import psutil

    headroom, price = config.plan.headroom, config.plan.price_per_hour
    if torch.cuda.is_available():
        from generative.training.throughput import peak_rate

        device = torch.device("cuda")
        peak = peak_rate(device, config.train.precision)
        if peak is None:
            raise ConfigError(
                f"the peak rate of {torch.cuda.get_device_name(device)} is not known",
                expected="a machine of a known kind",
                remedy="describe it in machines/NAME.yaml and set plan.machine=NAME",
            )
        memory = float(torch.cuda.get_device_properties(device).total_memory)
        return Limits("this machine", peak.flops, memory, False, headroom, None, price)
    if config.launch.gpus_per_worker:
        raise ConfigError(
            f"launch.gpus_per_worker={config.launch.gpus_per_worker:g}, but this machine has no GPU to plan for",
            expected="plan.machine, the kind of GPU that the run is for",
            remedy="add plan.machine=h100-80gb (see `generative config list` for others), or launch.gpus_per_worker=0",
        )
    return Limits(
        "this machine", measured_flops(config), float(psutil.virtual_memory().total), True, headroom, None, price
    )
