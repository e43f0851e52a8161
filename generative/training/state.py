"""The trainer's state as checkpoint entries, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.training.checkpoint import Checkpoint, Entry, shares
from generative.training.engines import Engine


def engine_entries(engine: Engine) -> Iterator[tuple[str, Entry]]:
    """This rank's part of a trained network's weights, optimizer and averages, as views to write to and read from."""
    weights = engine.weights()
    for name, entry in weights.items():
        yield f"net/{engine.name}/param/{name}", entry
    for key, entries in engine.moments().items():
        for name, entry in entries.items():
            yield f"optim/{engine.name}/{key}/{name}", entry
    for ema in engine.emas:
        for name, average in ema.average.items():
            yield f"ema/{engine.name}/{ema.rate}/{name}", Entry(average, weights[name].start, weights[name].full_shape)


def replicated(engines: Mapping[str, Engine], state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """What every rank holds alike under every strategy: buffers, fixed parameters, the method's memory."""
    for engine in engines.values():
        if engine.optimizer is not None:
            for name, tensor in engine.fixed().items():
                yield f"net/{engine.name}/param/{name}", tensor
            for name, buffer in persistent_buffers(engine.module):
                yield f"net/{engine.name}/buffer/{name}", buffer
    for name, tensor in state.items():
        yield f"state/{name}", tensor


def persistent_buffers(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffers that belong to the state dict (those made anew from the configuration do not)."""
    left_out = {
        f"{prefix}.{name}" if prefix else name
        for prefix, child in module.named_modules()
        for name in child._non_persistent_buffers_set
    }
    for name, tensor in module.named_buffers():
        if name not in left_out:
            yield name, tensor


def _views(engines: Mapping[str, Engine], state: Mapping[str, Tensor]) -> dict[str, Entry]:
    """Every tensor of a run, as far as this rank holds it. Frozen networks are left out: they come from elsewhere."""
    views = {name: Entry(tensor) for name, tensor in replicated(engines, state)}
    for engine in engines.values():
        if engine.optimizer is not None:
            views |= dict(engine_entries(engine))
    return views


def entries(engines: Mapping[str, Engine], state: Mapping[str, Tensor], rank: int, world: int) -> dict[str, Entry]:
    """What this rank writes: its own part of what is sharded, and an agreed share of what all hold."""
    common = dict(replicated(engines, state))
    own: dict[str, Entry] = {}
    for engine in engines.values():
        if engine.optimizer is None:
            continue
        if engine.sharded:
            own |= dict(engine_entries(engine))
        else:
            common |= {name: entry.tensor for name, entry in engine_entries(engine)}
    return {**shares(common, rank, world), **own}


def restore(checkpoint: Checkpoint, engines: Mapping[str, Engine], state: Mapping[str, Tensor]) -> None:
    """Fill every tensor from a checkpoint of any strategy and number of workers; `Engine.resume` must follow.

    Each rank reads only the intervals that it holds.

    Raises:
        CheckpointError: the checkpoint belongs to another model; the differing names and shapes are listed.
    """
    wanted = _views(engines, state)
    compare(checkpoint, {name: entry.full_shape for name, entry in wanted.items()})
    with torch.no_grad():
        for name, entry in wanted.items():
            values = checkpoint.read(name, entry.start, entry.tensor.numel())
            entry.tensor.copy_(values.view(entry.tensor.shape))


def compare(checkpoint: Checkpoint, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a checkpoint whose tensors are not those of the model.

    Raises:
        CheckpointError: other tensors, or the state of another optimizer.
    """
    have = {name: tuple(checkpoint.shape(name)) for name in checkpoint.names()}
    listed = differences(have, wanted)
    if listed and all(name.startswith("optim/") for name in set(have) ^ set(wanted)) and _agree(have, wanted):
        raise CheckpointError(
            f"checkpoint {checkpoint.path} holds the state of another optimizer ({listed})",
            expected="the optimizer that the run was begun with",
            remedy="set train.optimizer as it was, or start a new run with train.networks.NAME.init_from",
        )
    if listed:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} belongs to another model ({listed})",
            expected="the tensors of this configuration",
            remedy="use the configuration that the checkpoint was made with, or another run.dir",
        )


def _agree(have: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> bool:
    return all(have[name] == wanted[name] for name in set(have) & set(wanted))


def differences(have: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], most: int = 3) -> str:
    """What sets two tables of tensor shapes apart, the first `most` differences in words; "" for equal ones."""
    unequal = [n for n in sorted(set(wanted) & set(have)) if have[n] != wanted[n]]
    found = [f"{name} is {list(have[name])} instead of {list(wanted[name])}" for name in unequal]
    found += [f"{name} is missing" for name in sorted(set(wanted) - set(have))]
    found += [f"{name} is surplus" for name in sorted(set(have) - set(wanted))]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
