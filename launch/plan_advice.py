"""What to change where a plan does not fit: settings that were tried on paper and do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from launch.machines import load_machine, machine_names
from launch.plan import Spread
from launch.plan_details import Activations, Details, fits

MOST_WORKERS = 4096
TOLD = 4


@dataclass(frozen=True)
class Remedy:
    """Settings that fit, with the bytes that a worker then needs."""

    settings: dict[str, str]
    device_bytes: int

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.settings.items())


def remedies(told: Details, found: Activations) -> list[Remedy]:
    """Settings that make a plan fit, those first that change least; none where nothing that is tried does.

    None of them changes the results of the run. Tried are: the largest micro-batch that fits, alone and with recomputed
    activations; sharding over the workers there are; offloading; sharding over more workers; another machine.
    """
    if told.activations is None:
        return []
    start = told.plan.spread
    results: list[Remedy] = []
    for settings, spread in _variants(start, told):
        remedy = _with_micro_batch(settings, spread, told, found)
        if remedy is not None and not any(r.settings.items() <= remedy.settings.items() for r in results):
            results.append(remedy)
        if len(results) == TOLD:
            return results
    machine = _machine(told)
    return [*results, machine] if machine else results


def _variants(start: Spread, told: Details) -> Iterator[tuple[dict[str, str], Spread]]:
    """Settings to try, the least change first; the micro-batch is chosen for each."""
    offers = all(network.checkpointing for network in told.plan.networks if network.moments is not None)
    recomputed = [False, True] if offers and not start.checkpointing else [start.checkpointing]

    def with_recomputation(settings: dict[str, str], spread: Spread) -> Iterator[tuple[dict[str, str], Spread]]:
        for again in recomputed:
            added = {"train.activation_checkpointing": "true"} if again != start.checkpointing else {}
            yield {**settings, **added}, replace(spread, checkpointing=again)

    yield from with_recomputation({}, start)
    if start.workers > 1:
        for strategy in ("zero2", "fsdp"):
            yield from with_recomputation({"parallel.strategy": strategy}, replace(start, strategy=strategy))
    if start.cuda and not start.offload and start.strategy.startswith(("zero", "fsdp")):
        yield from with_recomputation({"parallel.cpu_offload": "true"}, replace(start, offload=True))
    world = 2 * start.workers
    while world <= min(MOST_WORKERS, start.batch_size) and not told.limits.shared:
        sharded = replace(start, strategy="fsdp", workers=world)
        sharded = replace(sharded, micro_batch_size=min(start.micro_batch_size, sharded.share))
        yield from with_recomputation({"parallel.strategy": "fsdp", "launch.workers": str(world)}, sharded)
        world *= 2
    if told.limits.shared and start.workers > 1:
        yield {"launch.workers": "1"}, replace(start, workers=1)


def _with_micro_batch(settings: dict[str, str], spread: Spread, told: Details, found: Activations) -> Remedy | None:
    """The variant with the largest micro-batch that fits: the present one, or a power of two below it."""
    plan = replace(told.plan, spread=spread)
    states = plan.states.device + plan.method_state
    if not fits(told.limits, spread, states):
        return None
    for size in _sizes(spread.micro_batch_size):
        tried = replace(spread, micro_batch_size=size)
        plan = replace(told.plan, spread=tried)
        states = plan.states.device + plan.method_state
        # Most sizes are ruled out by a line through two points; what is told is found out exactly.
        if fits(told.limits, tried, states + found(tried, exact=False)):
            need = states + found(tried)
            if fits(told.limits, tried, need):
                smaller = {"train.micro_batch_size": str(size)} if size != told.plan.spread.micro_batch_size else {}
                return Remedy({**settings, **smaller}, need) if settings or smaller else None
    return None


def _sizes(largest: int) -> list[int]:
    powers = [2**k for k in range(largest.bit_length()) if 2**k < largest]
    return [largest, *reversed(powers)]


def _machine(told: Details) -> Remedy | None:
    """The smallest known machine that the plan fits on as it is."""
    if told.limits.shared:
        return None
    machines = {name: load_machine(name).memory_gb * 1e9 for name in machine_names()}
    large = {n: size for n, size in machines.items() if told.device_bytes <= size * (1 - told.limits.headroom)}
    if not large:
        return None
    return Remedy({"plan.machine": min(large, key=lambda name: large[name])}, told.device_bytes)
