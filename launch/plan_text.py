"""A plan as people read it."""

from __future__ import annotations

from collections.abc import Iterator

from evaluation.quantities import compact, duration
from generative.training.memory import StateBytes
from launch.formats import sizes, unit
from launch.plan import Plan
from launch.plan_advice import Remedy
from launch.plan_details import Details
from launch.plan_networks import Network

PARTS = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "ema": "EMA",
    "buffers": "buffers",
}
SHARDED = {
    "fsdp": ("parameters", "gradients", "optimizer", "ema"),
    "zero1": ("optimizer", "ema"),
    "zero2": ("gradients", "optimizer", "ema"),
    "zero3": ("parameters", "gradients", "optimizer", "ema"),
}
FEW = 4
"""Samples of a rank below which a warning is due: small matrices, and much to send for little to do."""


def lines(told: Details, remedies: list[Remedy]) -> list[tuple[str, str]]:
    """(label, text) of everything that a plan tells."""
    plan = told.plan
    rows = [("plan", f"{plan.name} · {_engine(told)}"), ("data", plan.description)]
    rows += [(f"network {network.name}", _network(plan, network)) for network in plan.networks]
    rows += [("steps", _steps(plan)), ("memory per rank", _memory(told))]
    if plan.states.host:
        rows.append(("host memory", f"{_amount(plan.states.host)} a rank (parallel.cpu_offload)"))
    rows += [("arithmetic", _arithmetic(told)), ("time", _time(told))]
    if plan.sent_bytes:
        rows.append(("communication", _communication(told)))
    if told.cost is not None:
        rows.append(("cost", f"about ${told.cost:,.0f} at ${told.limits.price:.2f} a GPU and hour (an assumption)"))
    rows += [("warning", text) for text in warnings(told)]
    return rows if told.fits else [*rows, *_advice(remedies)]


def render(rows: list[tuple[str, str]]) -> str:
    """Labels in a column."""
    return "\n".join(f"{label:<17} {text}".rstrip() for label, text in rows)


def _amount(count: float) -> str:
    return f"{sizes(count)[0]} {unit(count)}"


def _engine(told: Details) -> str:
    spread = told.plan.spread
    many = "s" if spread.workers > 1 else ""
    extra = [" · activations recomputed"] if spread.checkpointing else []
    return f"{spread.strategy} {spread.precision} · {spread.workers} worker{many} on {told.limits.name}{''.join(extra)}"


def _network(plan: Plan, network: Network) -> str:
    parts = [f"{compact(network.parameters, ' ')} parameters"]
    if network.moments is None:
        parts.append("frozen, sharded" if plan.spread.layout(network).strategy != "none" else "frozen")
    else:
        parts.append("trained")
    if network.averages:
        parts.append(f"{network.averages} average{'s' if network.averages > 1 else ''}")
    if len(plan.networks) > 1:
        state = plan.state(network)
        parts.append(f"{_states(plan, state, (network,))} {unit(state.device)} a rank")
    return " · ".join(parts)


def _steps(plan: Plan) -> str:
    spread = plan.spread
    share = f"{spread.share} a rank" if spread.workers > 1 else ""
    passes = f"{spread.micro_batches} micro-batches of {spread.micro_batch_size}" if spread.micro_batches > 1 else ""
    detail = " in ".join(filter(None, (share, passes)))
    noun = "sequences" if plan.tokens else "samples"
    whole = f"{plan.steps:,} of {spread.batch_size:,} {noun}{f' ({detail})' if detail else ''}"
    samples = f"{compact(plan.steps * spread.batch_size, ' ')} {noun}"
    return " · ".join([whole, ", ".join([samples, *([f"{compact(plan.tokens, ' ')} tokens"] if plan.tokens else [])])])


def _states(plan: Plan, state: StateBytes, networks: tuple[Network, ...], scale: float = 0.0) -> str:
    """The parts of a state, those that are sharded marked; in the unit of `scale`, or of their sum."""
    found = {name: getattr(state, name) for name in PARTS}
    numbers = sizes(max(scale, state.device), *found.values())[1:]
    parts = []
    for (name, size), number in zip(found.items(), numbers, strict=True):
        if size:
            parts.append(f"{PARTS[name]} {number}{_mark(plan, name, networks)}")
    return " · ".join(parts)


def _mark(plan: Plan, part: str, networks: tuple[Network, ...]) -> str:
    spread = plan.spread
    strategies = {spread.layout(network).strategy for network in networks}
    whole_sums = part == "gradients" and spread.strategy == "fsdp" and spread.micro_batches > 1
    sharded = all(part in SHARDED.get(strategy, ()) for strategy in strategies) and not whole_sums
    return f" (sharded /{spread.workers})" if sharded and spread.workers > 1 else ""


def _memory(told: Details) -> str:
    plan, total = told.plan, told.device_bytes
    parts = [_states(plan, plan.states, plan.networks, scale=total)]
    if plan.method_state:
        parts.append(f"memory of the method {sizes(total, plan.method_state)[1]}")
    parts.append("activations " + ("unknown" if told.activations is None else sizes(total, told.activations)[1]))
    return f"{' · '.join(parts)} = {_verdict(told)}"


def _verdict(told: Details) -> str:
    limits, workers, need = told.limits, told.plan.spread.workers, told.device_bytes
    if limits.shared:
        total = f"{_amount(need)}, {workers} worker{'s' if workers > 1 else ''} {_amount(need * workers)}"
        text = f"{total} of {_amount(limits.memory)}"
    elif unit(need) == "GB":
        text = f"{sizes(need)[0]} of {limits.memory / 1e9:g} GB"
    else:
        text = f"{_amount(need)} of {limits.memory / 1e9:g} GB"
    return f"{text} · " + ("fits" if told.fits else f"does not fit (plan.headroom keeps {limits.headroom:.0%} free)")


def _arithmetic(told: Details) -> str:
    text = f"{exponent(told.plan.flops)} FLOP by the paper's convention"
    if told.executed is not None:
        again = ", activations recomputed" if told.plan.spread.checkpointing else ""
        text += f" · {exponent(told.executed)} as executed (matrix products counted by torch{again})"
    return text


def exponent(value: float) -> str:
    """3.31e21."""
    return f"{value:.3g}".replace("e+", "e")


def _time(told: Details) -> str:
    limits, workers = told.limits, told.plan.spread.workers
    many = f"{workers} worker{'s' if workers > 1 else ''}"
    where = f"{many} on these cores" if limits.shared else f"{workers} x {limits.name}"
    rate = f"{told.mfu:.0%} MFU (plan.mfu) of {compact(limits.flops, ' ')}FLOP/s"
    hours = told.seconds / 3600 * workers
    return f"about {duration(told.seconds)} on {where} at {rate}" + (
        f" · {hours:,.0f} GPU-hours" if not limits.shared and hours >= 1 else ""
    )


def _communication(told: Details) -> str:
    text = f"{_amount(told.plan.sent_bytes)} sent by each rank in a step"
    if told.sending_seconds is None:
        return text
    return f"{text} · at least {duration(told.sending_seconds)}, next to {duration(told.step_seconds)} of arithmetic"


def warnings(told: Details) -> Iterator[str]:
    """What is allowed but seldom wanted."""
    spread = told.plan.spread
    if told.sending_seconds is not None and told.sending_seconds > told.step_seconds:
        times = told.sending_seconds / told.step_seconds
        yield f"sending takes {times:.1f} times as long as arithmetic: take fewer workers, or a larger train.batch_size"
    if spread.workers > 1 and spread.share <= FEW:
        yield f"few sequences a rank: train.batch_size={spread.batch_size} leaves {spread.share} to each"
    if spread.batch_size % spread.workers:
        yield f"train.batch_size={spread.batch_size} does not divide over {spread.workers} workers: some ranks pad"
    elif spread.micro_batches > 1 and spread.share % spread.micro_batch_size:
        best = max(d for d in range(1, spread.micro_batch_size + 1) if spread.share % d == 0)
        yield (
            f"{spread.share} sequences a rank do not divide into micro-batches of {spread.micro_batch_size}: the last "
            f"is padded (not so with train.micro_batch_size={best})"
        )
    if told.activations is None:
        yield "activations are not known: the loss reads numbers that its networks put out"


def _advice(remedies: list[Remedy]) -> Iterator[tuple[str, str]]:
    if not remedies:
        yield "to fix", "nothing that was tried fits: take a smaller network (method.network) or another machine"
    for number, remedy in enumerate(remedies):
        yield ("to fix" if number == 0 else "  or"), f"{remedy}  ({_amount(remedy.device_bytes)} a rank)"
