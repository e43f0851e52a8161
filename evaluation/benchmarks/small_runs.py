"""Small text models that benchmarks train for themselves, in this process and without a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors.torch import load, save
from torch import nn

from generative.config import Config, ConfigT, load_layers, validate
from generative.data.config import TextDataConfig
from generative.data.loader import Loader
from generative.data.text import TextData
from generative.methods.autoregressive.config import AutoregressiveConfig
from generative.methods.catalogue import METHODS
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.training.backend import Backend
from generative.training.config import TrainConfig
from generative.training.runfolder import replace_file
from generative.training.trainer import Trainer


class SmallRun(Config):
    """The sections of a run's configuration that say what is trained."""

    method: Annotated[MaskedDiffusionConfig | AutoregressiveConfig, Field(discriminator="name")]
    data: TextDataConfig
    train: TrainConfig


def load_run(name: str, overrides: Sequence[str]) -> SmallRun:
    """Those sections of a named configuration, after overrides."""
    return load_sections(name, overrides, SmallRun)


def load_sections(name: str, overrides: Sequence[str], schema: type[ConfigT]) -> ConfigT:
    """The sections of a named configuration that a schema has, after overrides."""
    layers = load_layers(name, overrides)
    for section in set(layers.values) - set(schema.model_fields):
        layers.remove((section,))
    return validate(layers, schema)


@dataclass(frozen=True)
class Trained:
    """A method with its trained networks, in eval mode."""

    method: Any
    nets: Mapping[str, nn.Module]
    backend: Backend


def train_once(run: SmallRun, data: TextData, file: Path) -> Trained:
    """`train`; the weights stay in a file of safetensors, and are read where it is there."""
    if file.is_file():
        method = METHODS[run.method.name].build(run.method, data.facts)
        backend = Backend(precision=run.train.precision, threads=1)
        nets = {name: spec.build().to(backend.device).eval() for name, spec in method.networks().items()}
        weights = load(file.read_bytes())
        for name, net in nets.items():
            net.load_state_dict({key: weights[f"{name}.{key}"] for key in net.state_dict()})
        return Trained(method, nets, backend)
    trained = train(run, data)
    tensors = {f"{name}.{key}": value for name, net in trained.nets.items() for key, value in net.state_dict().items()}
    replace_file(file, save({key: value.contiguous().cpu() for key, value in tensors.items()}))
    return trained


def train(run: SmallRun, data: TextData) -> Trained:
    """Train on this process's device (one CPU thread), without checkpoints, validation and records."""
    method = METHODS[run.method.name].build(run.method, data.facts)
    backend = Backend(precision=run.train.precision, threads=1)
    settings = run.train
    assert settings.steps is not None

    def batches(state: Mapping[str, Any] | None) -> Loader:
        return Loader(data.train, batch_size=settings.batch_size, seed=settings.seed, state=state)

    trainer = Trainer(method, settings, settings.steps, batches, backend)
    trainer.train()
    with trainer.evaluating() as nets:
        return Trained(method, nets, backend)
