"""The trainer's state as checkpoint entries, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.training.backend import Engine
from generative.training.checkpoint import Checkpoint, Entry, shares
from generative.training.optimizers import MOMENTS

Place = tuple[str, Tensor]


def _moments(engine: Engine) -> tuple[str, ...]:
    return MOMENTS["adamw" if isinstance(engine.optimizer, torch.optim.AdamW) else "sgd"]


def _optimizer_places(engine: Engine) -> Iterator[Place]:
    """The optimizer's tensors, made on the spot where the first step has not been taken."""
    assert engine.optimizer is not None
    for name, parameter in engine.module.named_parameters():
        state = engine.optimizer.state[parameter]
        if isinstance(engine.optimizer, torch.optim.AdamW):
            state.setdefault("step", torch.tensor(float(engine.updates), device=parameter.device))
        for key in _moments(engine):
            if state.get(key) is None:
                state[key] = torch.zeros_like(parameter)
            yield f"optim/{engine.name}/{key}/{name}", state[key]


def network_places(engine: Engine) -> Iterator[Place]:
    """Parameters and buffers of a network under their names in the checkpoint."""
    for name, parameter in engine.module.named_parameters():
        yield f"net/{engine.name}/param/{name}", parameter.detach()
    for name, buffer in persistent_buffers(engine.module):
        yield f"net/{engine.name}/buffer/{name}", buffer


def persistent_buffers(module: torch.nn.Module) -> Iterator[Place]:
    """Buffers that belong to the state dict (those made anew from the configuration do not)."""
    parameters = dict(module.named_parameters())
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name not in parameters and isinstance(tensor, Tensor):
            yield name, tensor


def places(engines: Mapping[str, Engine], state: Mapping[str, Tensor]) -> Iterator[Place]:
    """Every tensor of a run with its name. Frozen networks are left out: they come from where they came from."""
    for engine in engines.values():
        if engine.optimizer is None:
            continue
        yield from network_places(engine)
        yield from _optimizer_places(engine)
        for ema in engine.emas:
            for name, average in ema.average.items():
                yield f"ema/{engine.name}/{ema.rate}/{name}", average
    for name, tensor in state.items():
        yield f"state/{name}", tensor


def entries(engines: Mapping[str, Engine], state: Mapping[str, Tensor], rank: int, world: int) -> dict[str, Entry]:
    """This rank's share of everything."""
    return shares(dict(places(engines, state)), rank, world)


def restore(checkpoint: Checkpoint, engines: Mapping[str, Engine], state: Mapping[str, Tensor]) -> None:
    """Fill every tensor from a checkpoint written with any number of workers, and set the optimizers' step counts.

    Raises:
        CheckpointError: the checkpoint belongs to another model; the differing names and shapes are listed.
    """
    wanted = dict(places(engines, state))
    compare(checkpoint, {name: tuple(tensor.shape) for name, tensor in wanted.items()})
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(checkpoint.tensor(name))
    updates: dict[str, Any] = checkpoint.meta["updates"]
    for engine in engines.values():
        if engine.optimizer is None:
            continue
        engine.updates = int(updates[engine.name])
        if isinstance(engine.optimizer, torch.optim.AdamW):
            for parameter in engine.module.parameters():
                engine.optimizer.state[parameter]["step"] = torch.tensor(float(engine.updates), device=parameter.device)


def compare(checkpoint: Checkpoint, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a checkpoint whose tensors are not those of the model."""
    have = {name: tuple(checkpoint.shape(name)) for name in checkpoint.names()}
    listed = differences(have, wanted)
    if listed:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} belongs to another model ({listed})",
            expected="the tensors of this configuration",
            remedy="use the configuration that the checkpoint was made with, or another run.dir",
        )


def differences(have: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], most: int = 3) -> str:
    """What sets two tables of tensor shapes apart, the first `most` differences in words; "" for equal ones."""
    unequal = [n for n in sorted(set(wanted) & set(have)) if have[n] != wanted[n]]
    found = [f"{name} is {list(have[name])} instead of {list(wanted[name])}" for name in unequal]
    found += [f"{name} is missing" for name in sorted(set(wanted) - set(have))]
    found += [f"{name} is surplus" for name in sorted(set(have) - set(wanted))]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
