"""From a method's network specifications to engines with weights, optimizers and averages."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from generative.errors import CheckpointError, ConfigError, nearest
from generative.method import Method, NetworkSpec
from generative.training.backend import Backend, Engine, set_activation_checkpointing
from generative.training.checkpoint import Checkpoint, open_checkpoint
from generative.training.config import TrainConfig
from generative.training.ema import Ema
from generative.training.optimizers import build_optimizer


def build_engines(method: Method, config: TrainConfig, steps: int, backend: Backend) -> dict[str, Engine]:
    """All networks of a method on the device, in the order of its specifications.

    Raises:
        ConfigError: a section of `train.networks` names no network, an update trains a frozen one, or a coupled loss
            meets micro-batches.
        CheckpointError: weights to start from are missing or do not fit.
    """
    specs = method.networks()
    _check(method, specs, config)
    modules = {name: _build(name, spec, config.seed) for name, spec in specs.items()}
    for name, spec in specs.items():
        own = config.networks.get(name)
        source = (own.init_from if own else None) or spec.init_from
        if source:
            initialize(modules[name], source, name, modules)
    if config.activation_checkpointing:
        set_activation_checkpointing((n, m) for n, m in modules.items() if specs[n].trainable)
    return {name: _engine(name, modules[name], spec, method, config, steps, backend) for name, spec in specs.items()}


def _check(method: Method, specs: dict[str, NetworkSpec] | object, config: TrainConfig) -> None:
    names = dict(method.networks())
    for name in config.networks:
        if name not in names:
            raise ConfigError(
                f"train.networks.{name}: the method has no network of this name.{nearest(name, names)}",
                expected=f"one of {', '.join(names)}",
                remedy="correct the name",
            )
    for update in method.updates():
        if update.trains not in names or not names[update.trains].trainable:
            raise ConfigError(f"update {update.name!r} trains {update.trains!r}, which is not a trainable network")
        if update.coupled and config.micro_batch_size is not None:
            raise ConfigError(
                f"update {update.name!r} couples the samples of a batch, and train.micro_batch_size is set",
                expected="the whole share of a worker in one piece",
                remedy="set train.micro_batch_size=null, and use more workers if memory does not suffice",
            )


def _build(name: str, spec: NetworkSpec, seed: int) -> nn.Module:
    """Initial weights from a generator of their own, so that they do not depend on what was drawn before."""
    digest = hashlib.blake2b(f"{seed}/weights/{name}".encode(), digest_size=7).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest, "little"))
        return spec.build()


def _engine(
    name: str, module: nn.Module, spec: NetworkSpec, method: Method, config: TrainConfig, steps: int, backend: Backend
) -> Engine:
    engine = backend.engine(name, module, trainable=spec.trainable, compiled=config.compile)
    if not spec.trainable:
        return engine
    own = config.networks.get(name)
    optimizer = (own.optimizer if own else None) or config.optimizer
    engine.schedule = (own.schedule if own else None) or config.schedule
    engine.optimizer = build_optimizer(optimizer, module)
    engine.peak_lr, engine.clip_norm = optimizer.lr, optimizer.clip_norm
    engine.planned_updates = sum(
        -(-steps // update.every) * update.repeats for update in method.updates() if update.trains == name
    )
    engine.emas = [Ema(module, rate) for rate in spec.ema]
    return engine


def initialize(module: nn.Module, source: str, name: str, modules: dict[str, nn.Module]) -> None:
    """Copy weights from another network of the method ("network:NAME") or from a checkpoint ("PATH" or "PATH#NAME")."""
    if source.startswith("network:"):
        other = source.removeprefix("network:")
        if other not in modules:
            raise ConfigError(f"network {name!r} starts from {source!r}, but there is no network {other!r}")
        load_weights(module, modules[other].state_dict(), source)
        return
    path, _, other = source.partition("#")
    checkpoint = open_checkpoint(path)
    load_weights(module, checkpoint_weights(checkpoint, other or name), source)


def checkpoint_weights(checkpoint: Checkpoint, network: str, ema: float | None = None) -> dict[str, torch.Tensor]:
    """State dict of a network in a checkpoint, with averaged parameters where an EMA rate is given.

    Raises:
        CheckpointError: there is no such network or average; the message lists what there is.
    """
    prefixes = [f"net/{network}/param/", f"net/{network}/buffer/"]
    if ema is not None:
        prefixes[0] = f"ema/{network}/{ema}/"
    weights = {
        name.removeprefix(prefix): checkpoint.tensor(name)
        for prefix in prefixes
        for name in checkpoint.names()
        if name.startswith(prefix)
    }
    if not weights:
        have = sorted(
            {"/".join(n.split("/")[:3]) if n.startswith("ema") else n.split("/")[1] for n in checkpoint.names()}
        )
        raise CheckpointError(
            f"checkpoint {checkpoint.path} has no network {network!r}" + (f" with average {ema}" if ema else ""),
            expected=f"one of {', '.join(have)}",
            remedy="name another one after '#'",
        )
    return weights


def load_weights(module: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Fill a module, refusing missing, surplus or differently shaped tensors."""
    try:
        missing, surplus = module.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"weights from {source} do not fit: {error}") from error
    if missing or surplus:
        raise CheckpointError(
            f"weights from {source} do not fit: missing {list(missing)[:3]}, surplus {list(surplus)[:3]}",
            expected="the same network",
            remedy="start from a run of the same network configuration",
        )
