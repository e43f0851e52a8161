"""From a method's network specifications to engines with weights, optimizers and averages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from generative.errors import CheckpointError, ConfigError, suggestion
from generative.hub_names import source_parts
from generative.method import Average, Method, NetworkSpec, Update
from generative.training.backend import Backend
from generative.training.checkpoint import Checkpoint
from generative.training.config import TrainConfig
from generative.training.ema import Ema
from generative.training.engines import Engine
from generative.training.exported import ExportedWeights, open_weights
from generative.training.optimizers import check_patterns
from generative.training.starts import (
    NETWORK,
    Sources,
    copied_by_frozen,
    from_outside,
    keep_copy,
    kept_copies,
    origins,
    start_of,
    started_part,
)
from generative.training.state import differences
from generative.training.strategies import check_strategy

Stored = Checkpoint | ExportedWeights
V = TypeVar("V")


def build_engines(
    method: Method,
    config: TrainConfig,
    steps: int,
    backend: Backend,
    pinned: Sources | None = None,
    copies: Path | None = None,
) -> tuple[dict[str, Engine], Sources]:
    """All networks of a method on the device, in the order of its specifications, and where they came from.

    Args:
        pinned: of a run that is resumed: trained networks will be filled from its own checkpoint, so that they need
            no source any more; frozen ones come again from their copies, or else from exactly where they came from.
        copies: folder where a new run keeps its frozen networks that come from elsewhere, so that their source may
            change or go (a run that trains on removes its older checkpoints); None keeps nothing.

    Raises:
        ConfigError, CheckpointError: see `check_networks`; or the weights to start from are damaged.
    """
    specs = method.networks()
    modules = {name: _build(name, spec, config.seed) for name, spec in specs.items()}
    check_networks(method, config, modules, resumed=pinned is not None)
    check_strategy(method, config, backend.parallel, backend.world, modules)
    sources: Sources = dict(pinned or {})
    kept = kept_copies(copies) if pinned is not None and copies is not None else {}
    wanted = copied_by_frozen(specs, config, kept)
    for name, spec in sorted(specs.items(), key=lambda item: len(origins(item[0], specs, config))):
        _, source = start_of(name, spec, config)
        if name in kept:
            initialize(modules[name], kept[name], name, modules)
        elif source and not (pinned is not None and spec.trainable and name not in wanted):
            started = started_part(modules[name], name, spec, config)
            path = initialize(started, (pinned or {}).get(name, source), name, modules)
            sources |= {name: path} if path else {}
            if copies is not None and not spec.trainable and from_outside(name, specs, config):
                with backend.patience.together():  # of large networks on a slow disk
                    if backend.rank == 0:
                        keep_copy(copies, name, modules[name])
        if config.activation_checkpointing and spec.trainable:
            modules[name].activation_checkpointing = True  # type: ignore[assignment]
    engines = {name: _engine(name, modules[name], spec, method, config, steps, backend) for name, spec in specs.items()}
    return engines, sources


def check_networks(
    method: Method, config: TrainConfig, modules: Mapping[str, nn.Module], resumed: bool = False
) -> None:
    """Find what is wrong with a method's networks and their settings without reading or making any weights.

    Args:
        modules: the networks by name; on the meta device they cost nothing.
        resumed: the run has checkpoints, so that what networks start from is not needed any more.

    Raises:
        ConfigError: a section of `train.networks` names no network, a pattern of `no_decay` or `rates` fits no
            parameter, an update trains what cannot be trained, a coupled loss meets micro-batches, a network does not
            offer activation checkpointing.
        CheckpointError: weights to start from are missing, or of other names or shapes.
    """
    specs = method.networks()
    _check_names(config, specs)
    for update in method.updates():
        _check_update(update, config, specs)
    for name, spec in specs.items():
        if spec.trainable:
            _check_training(name, modules[name], config)
        key, source = start_of(name, spec, config)
        if source and not resumed:
            _check_start(started_part(modules[name], name, spec, config), key, source, name, modules)


def _check_names(config: TrainConfig, specs: Mapping[str, NetworkSpec]) -> None:
    for name in config.networks:
        if name not in specs:
            raise ConfigError(
                f"train.networks.{name}: the method has no network of this name{suggestion(name, specs)}",
                expected=f"one of {', '.join(specs)}",
                remedy=f"correct or remove train.networks.{name}",
            )


def _check_update(update: Update, config: TrainConfig, specs: Mapping[str, NetworkSpec]) -> None:
    if update.trains not in specs or not specs[update.trains].trainable:
        trainable = ", ".join(name for name, spec in specs.items() if spec.trainable)
        raise ConfigError(
            f"update {update.name!r} of the method trains {update.trains!r}, which is not a trainable network of it",
            expected=f"one of {trainable}",
            remedy="correct the method's networks() or updates()",
        )
    if update.second_order and config.compile:
        raise ConfigError(
            f"train.compile=true, but update {update.name!r} needs gradients of gradients, which compiled code has not",
            expected="train.compile=false",
            remedy="set train.compile=false",
        )
    if update.coupled and config.micro_batch_size is not None:
        raise ConfigError(
            f"train.micro_batch_size={config.micro_batch_size}, but {update.name!r} couples the samples of a batch",
            expected="the whole share of a worker in one piece",
            remedy="set train.micro_batch_size=null, and use more workers if memory does not suffice",
        )


def _check_training(name: str, module: nn.Module, config: TrainConfig) -> None:
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigError(
            f"network {name!r} is to be trained, but has no parameters that take gradients",
            expected="at least one parameter",
            remedy="declare it with trainable=False in the method's networks(), or give it parameters",
        )
    own = config.networks.get(name)
    if own and own.optimizer:
        check_patterns(own.optimizer, module, f"train.networks.{name}.optimizer")
    else:
        check_patterns(config.optimizer, module)
    if config.activation_checkpointing and not hasattr(module, "activation_checkpointing"):
        raise ConfigError(
            f"train.activation_checkpointing=true, but network {name!r} does not offer it",
            expected="networks that can recompute their activations",
            remedy="set train.activation_checkpointing=false, or lower train.micro_batch_size to save memory",
        )


def _check_start(module: nn.Module, key: str, source: str, name: str, modules: Mapping[str, nn.Module]) -> None:
    other = source.removeprefix(NETWORK)
    if other != source:
        if other not in modules:
            raise ConfigError(
                f"{key}: the method has no network {other!r}{suggestion(other, modules)}",
                expected=f"network: and one of {', '.join(modules)}, or the path of a run or checkpoint",
                remedy=f"correct {key}",
            )
        compare_weights(module, _shapes(modules[other].state_dict()), f"{source} ({key})")
        return
    path, network, average = source_parts(source, name)
    try:
        checkpoint = open_weights(path, verify=False)
        names = weight_names(checkpoint, network, average)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error.problem}", error.expected, error.remedy or f"correct {key}") from error
    compare_weights(module, {ours: checkpoint.shape(full) for ours, full in names.items()}, f"{source} ({key})")


def _build(name: str, spec: NetworkSpec, seed: int) -> nn.Module:
    """Initial weights from a generator of their own, so that they do not depend on what was drawn before."""
    digest = hashlib.blake2b(f"{seed}/weights/{name}".encode(), digest_size=7).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest, "little"))
        return spec.build()


def _engine(
    name: str, module: nn.Module, spec: NetworkSpec, method: Method, config: TrainConfig, steps: int, backend: Backend
) -> Engine:
    if not spec.trainable:
        return backend.engine(name, module)
    own = config.networks.get(name)
    optimizer = (own.optimizer if own else None) or config.optimizer
    accumulates = config.micro_batch_size is not None
    engine = backend.engine(name, module, optimizer, compiled=config.compile, accumulates=accumulates)
    engine.schedule = (own.schedule if own else None) or config.schedule
    engine.peak_lr, engine.clip_parts = optimizer.lr, spec.clip_parts
    engine.planned_updates = sum(
        -(-steps // update.every) * update.repeats for update in method.updates() if update.trains == name
    )
    trained = engine.trained_names()
    weights = {key: entry.tensor for key, entry in engine.weights().items() if key in trained}
    engine.emas = [Ema(weights, rate, engine.publish, spec.ema_ramp, spec.ema_warmup) for rate in spec.ema]
    return engine


def initialize(module: nn.Module, source: str, name: str, modules: Mapping[str, nn.Module]) -> str | None:
    """Copy weights from another network of the method ("network:NAME"), a checkpoint or an export ("PATH[#NAME]").

    "PATH#NAME@0.999" are the averages of that name in a checkpoint.

    Returns:
        the exact checkpoint, "PATH/step_000100#NAME", or exported folder, if it was one.

    Raises:
        CheckpointError: no such checkpoint, a damaged one, or weights that do not fit.
    """
    if source.startswith(NETWORK):
        load_weights(module, modules[source.removeprefix(NETWORK)].state_dict(), source)
        return None
    path, network, average = source_parts(source, name)
    checkpoint = open_weights(path)
    load_weights(module, checkpoint_weights(checkpoint, network, average), source)
    checkpoint.close()
    return f"{checkpoint.path.absolute()}#{network}" + (f"@{average}" if average else "")


def checkpoint_weights(checkpoint: Stored, network: str, ema: Average | str | None = None) -> dict[str, torch.Tensor]:
    """State dict of a network in a checkpoint, with averaged parameters where an EMA rate or profile is given.

    Raises:
        CheckpointError: there is no such network or average; the message lists what there is.
    """
    return {ours: checkpoint.tensor(full) for ours, full in weight_names(checkpoint, network, ema).items()}


def weight_names(checkpoint: Stored, network: str, ema: Average | str | None = None) -> dict[str, str]:
    """Names in a network's state dict, and in the checkpoint; errors as `checkpoint_weights`."""
    prefixes = [f"net/{network}/buffer/", f"net/{network}/param/"]
    if ema is not None:
        # Averages are kept of what is trained; fixed parameters are as they are.
        prefixes.append(f"ema/{network}/{ema}/")
    names = {
        full.removeprefix(prefix): full for prefix in prefixes for full in checkpoint.names() if full.startswith(prefix)
    }
    if not any(full.startswith(prefixes[-1]) for full in names.values()):
        raise CheckpointError(
            f"checkpoint {checkpoint.path} has no network {network!r}" + (f" with average {ema}" if ema else ""),
            expected=f"one of {', '.join(_contents(checkpoint))}",
            remedy="name another network or average, or take another checkpoint",
        )
    return names


def has_network(checkpoint: Stored, network: str) -> bool:
    """Whether a checkpoint holds a network."""
    return any(name.startswith(f"net/{network}/") for name in checkpoint.names())


def _contents(checkpoint: Stored) -> list[str]:
    """Networks and averages in a checkpoint: ["net", "net with average 0.999"]."""
    parts = [name.split("/") for name in checkpoint.names()]
    networks = {part[1] for part in parts if part[0] == "net"}
    return sorted(networks | {f"{part[1]} with average {part[2]}" for part in parts if part[0] == "ema"})


def load_weights(module: nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Fill a module; `source` names the weights in messages.

    Raises:
        CheckpointError: missing, surplus or differently shaped tensors; the message lists the first.
    """
    compare_weights(module, _shapes(weights), source)
    first = _first_names(module)
    weights = _completed(module, weights)
    weights = {first.get(name, name): tensor for name, tensor in weights.items()}
    module.load_state_dict({name: weights[first.get(name, name)] for name in module.state_dict()})


def compare_weights(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Refuse weights of other names or shapes than the module's; errors as `load_weights`."""
    first = _first_names(module)
    have, wanted = (
        {first.get(name, name): shape for name, shape in table.items()}
        for table in (_completed_shapes(module, shapes), _shapes(module.state_dict()))
    )
    listed = differences(have, wanted)
    if listed:
        raise CheckpointError(
            f"weights from {source} do not fit the network ({listed})",
            expected="tensors with the names and shapes of this network",
            remedy="start from a run of the same network (method.network), or make this one the same",
        )


def _lacking(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Tensors that lack exactly the last rows that a module says weights from elsewhere may lack (`optional_rows`: a
    mask token, unknown to a model that was trained without one), with the number of these rows."""
    wanted = _shapes(module.state_dict())
    rows: Mapping[str, int] = getattr(module, "optional_rows", {})
    short = {name: (wanted[name][0] - count, *wanted[name][1:]) for name, count in rows.items()}
    return {name: rows[name] for name, shape in short.items() if shapes.get(name) == shape}


def _completed_shapes(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    shapes = _with_changes(module, shapes, _shapes(module.state_dict()))
    full = {name: (shapes[name][0] + rows, *shapes[name][1:]) for name, rows in _lacking(module, shapes).items()}
    return {**shapes, **full}


def _with_changes(module: nn.Module, found: Mapping[str, V], own: Mapping[str, V]) -> dict[str, V]:
    """Weights from elsewhere may know nothing of the changes that a module has put beside its own (`added_weights`):
    these keep their initial values, and the changed ones have other names now (`renamed_weights`)."""
    added: frozenset[str] = getattr(module, "added_weights", frozenset())
    if not added or added & found.keys():
        return dict(found)
    renamed: Mapping[str, str] = module.renamed_weights  # type: ignore[assignment]
    return {renamed.get(name, name): value for name, value in found.items()} | {name: own[name] for name in added}


def _completed(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights with the module's own initial values in the rows that they lack."""
    own = module.state_dict()
    weights = _with_changes(module, weights, own)
    full = {
        name: torch.cat([weights[name], own[name][-rows:].to(weights[name])])
        for name, rows in _lacking(module, _shapes(weights)).items()
    }
    return {**weights, **full}


def _first_names(module: nn.Module) -> dict[str, str]:
    """The name under which a checkpoint keeps each parameter: a shared one is in a state dict under all its names."""
    first: dict[nn.Parameter, str] = {}
    return {name: first.setdefault(p, name) for name, p in module.named_parameters(remove_duplicate=False)}


def _shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
