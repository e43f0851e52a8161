"""What a configuration amounts to before anything starts: sizes, work, memory of each rank, bytes sent.

One account serves `generative plan` and the first line of `generative train`. It needs no data, no weights and no
cores: networks are built on the meta device. What takes longer (activations, advice) is in `launch.plan_details`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import torch

from generative.method import DataFacts, Method
from generative.nets.shapes import shapes_only
from generative.training.communication import frozen_sent_bytes, sent_bytes
from generative.training.config import Strategy
from generative.training.memory import Layout, StateBytes, frozen_bytes, trained_bytes
from generative.training.networks import check_networks
from generative.training.strategies import check_strategy
from generative.training.throughput import measured_matmul_flops
from launch.modality import modality
from launch.plan_networks import Network, describe_network
from launch.schema import RunConfig


@dataclass(frozen=True)
class Spread:
    """How a run is spread; what a plan may vary to make it fit."""

    strategy: Strategy
    workers: int
    batch_size: int
    micro_batch_size: int
    precision: str
    frozen: str
    offload: bool
    checkpointing: bool
    cuda: bool

    @property
    def share(self) -> int:
        """Samples of the global batch on the rank that has most."""
        return -(-self.batch_size // self.workers)

    @property
    def micro_batches(self) -> int:
        """Forward and backward passes of a rank in one update."""
        return -(-self.share // self.micro_batch_size)

    def layout(self, network: Network) -> Layout:
        """How one network is spread."""
        sharded = network.moments is not None or (self.frozen == "sharded" and self.strategy in ("fsdp", "zero3"))
        strategy = "none" if self.workers == 1 and self.strategy == "ddp" else self.strategy
        return Layout(
            strategy=strategy if sharded else "none",
            world=self.workers,
            precision="bf16" if self.precision == "bf16" else "fp32",
            moments=network.moments or 0,
            averages=network.averages,
            micro_batches=self.micro_batches,
            offload=self.offload and self.cuda,
            cuda=self.cuda,
        )


@dataclass(frozen=True)
class Plan:
    """What is about to be done.

    Args:
        name: of the configuration.
        spread: over how many workers, and how.
        networks: of the method.
        steps: training steps.
        flops: of all steps by the method's own count (the paper's convention).
        tokens: of all steps; 0 where the data has none.
        method_state: bytes of the method's memory between steps.
        description: the data in a few words.
        seconds: guess of the training time, where the speed of the machine is known.
    """

    name: str
    spread: Spread
    networks: tuple[Network, ...]
    steps: int
    flops: float
    tokens: int
    method_state: int
    description: str
    seconds: float | None = None

    @property
    def parameters(self) -> int:
        """Trainable parameters of all networks."""
        return sum(network.parameters for network in self.networks if network.moments is not None)

    def state(self, network: Network) -> StateBytes:
        """Bytes of one network on the first rank, which holds the largest shards."""
        layout = self.spread.layout(network)
        if network.moments is None:
            return frozen_bytes(network.groups[0], layout, network.gathered)
        return trained_bytes(network.groups, layout, network.gathered)

    @property
    def states(self) -> StateBytes:
        """Of all networks."""
        return sum((self.state(network) for network in self.networks), StateBytes())

    @property
    def memory_bytes(self) -> int:
        """Weights, gradients, optimizer, averages and buffers of one worker (activations come on top)."""
        return self.states.device + self.states.host + self.method_state

    @property
    def sent_bytes(self) -> int:
        """Bytes that a rank sends in a training step."""
        total = 0.0
        for network in self.networks:
            layout, size = self.spread.layout(network), network.parameters
            if network.moments is None:
                total += frozen_sent_bytes(size, layout)
            else:
                total += network.updates * sent_bytes(size, layout, network.gathered)
        return round(total)


def workers(config: RunConfig) -> int:
    """Number of training workers."""
    return config.launch.workers if config.launch.backend == "ray" else int(os.environ.get("WORLD_SIZE", 1))


def outline(
    config: RunConfig, method: Any, facts: DataFacts, description: str, world: int | None = None, resumed: bool = False
) -> Plan:
    """The plan of a method for data of these facts.

    Args:
        world: number of workers; None: see `workers`.
        resumed: the run has checkpoints already.

    Raises:
        ConfigError, CheckpointError: the networks and their settings do not go together, see `check_networks`.
        ConfigError, ResourceError: the strategy cannot do what is asked for, see `check_strategy`.
    """
    with shapes_only():
        modules = {name: spec.build() for name, spec in method.networks().items()}
    check_networks(method, config.train, modules, resumed)
    world = world or workers(config)
    check_strategy(method, config.train, config.parallel, world, modules)
    steps = modality(config).steps(config, method, facts)
    return Plan(
        name=config.name,
        spread=spread(config, world),
        networks=tuple(describe_network(name, module, method, config) for name, module in modules.items()),
        steps=steps,
        flops=float(step_flops(config, method, facts)) * steps,
        tokens=steps * config.train.batch_size * (facts.sequence_length or 0),
        method_state=sum(tensor.nbytes for tensor in method.state().values()),
        description=description,
    )


def here(config: RunConfig, plan: Plan) -> Plan:
    """The plan with a guess of its time on this machine's cores; unchanged where it runs elsewhere or on GPUs."""
    if config.launch.gpus_per_worker or config.launch.address is not None:
        return plan
    return replace(plan, seconds=plan.flops / (config.plan.mfu * measured_flops(config) * plan.spread.workers))


def measured_flops(config: RunConfig) -> float:
    """Matrix products of one worker on this machine's cores, FLOP a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    rate = measured_matmul_flops()
    torch.set_num_threads(before)
    return rate


def step_flops(config: RunConfig, method: Method, facts: DataFacts) -> int:
    """FLOPs of one training step over the global batch, by the method's own count."""
    size = config.train.batch_size
    return method.flops(modality(config).fake_batch(facts, size, size))


def spread(config: RunConfig, world: int) -> Spread:
    """What the configuration says of how the run is spread."""
    share = -(-config.train.batch_size // world)
    return Spread(
        strategy=config.parallel.strategy,
        workers=world,
        batch_size=config.train.batch_size,
        micro_batch_size=min(config.train.micro_batch_size or share, share),
        precision=config.train.precision,
        frozen=config.parallel.frozen,
        offload=config.parallel.cpu_offload,
        checkpointing=config.train.activation_checkpointing,
        cuda=config.plan.machine is not None or torch.cuda.is_available(),
    )
