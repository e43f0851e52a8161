"""Exported folders as networks that sample, in a few lines:

model = load_exported("models/one-step")
images = model.sample(16, seed=0)  # float32[16, *shape]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generative.config import Layers, validate
from generative.errors import CheckpointError, ConfigError
from generative.method import DataFacts, Method
from generative.methods.catalogue import METHODS
from generative.randomness import Streams
from generative.training.exported import CONFIG, MODEL_TYPE
from generative.training.networks import initialize


class Held(dict[str, nn.Module]):
    """The networks of a folder by name, which may be fewer than its method has.

    Raises:
        ConfigError: one that the folder does not hold is looked up.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> nn.Module:
        raise ConfigError(
            f"{self.folder} holds the network {', '.join(self)}, by which no samples are drawn",
            f"the network {name}",
            f"export that one: generative export RUN --out DIR --network {name}",
        )


@dataclass(frozen=True)
class ExportedModel:
    """A method with the networks of a folder.

    Args:
        method: as it was trained.
        networks: by name, in eval mode.
        config: config.json.
        facts: of the data that it was trained on.
    """

    method: Method
    networks: Mapping[str, nn.Module]
    config: Mapping[str, Any]
    facts: DataFacts

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0, label: Tensor | None = None, text: Tensor | None = None) -> Tensor:
        """float32[count, *shape]: samples 0 .. count - 1 of a seed.

        Args:
            count: how many.
            seed: of their noise.
            label: int64[count] where the model knows classes; drawn where it is not given.
            text: float[count, L, D] where it is told texts: their embeddings.

        Raises:
            ConfigError: the folder holds another network than the one that draws.
        """
        given = {name: told for name, told in (("label", label), ("text", text)) if told is not None}
        drawn = self.method.sampler(self.networks)
        return drawn({"sample_id": torch.arange(count), **given}, Streams(seed).within("samples"))


def load_exported(folder: str | Path, device: str = "cpu", changes: Mapping[str, Any] | None = None) -> ExportedModel:
    """The model in a folder that `generative export` or `generative import` wrote.

    Args:
        folder: that.
        device: where the networks shall be.
        changes: settings of the method that are not as they were trained: {"sampling.steps": 8}.

    Raises:
        CheckpointError: it is damaged, or in a layout for other programs.
        ConfigError: a change that the method does not know.
    """
    path = Path(folder)
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        section, facts = config["method"], DataFacts(**_facts(config["facts"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path / CONFIG} does not tell how the networks were made",
            f"a folder of model type {MODEL_TYPE!r}, as `generative export` writes it",
            "export the run again",
        ) from error
    entry = METHODS[str(section["name"])]
    layers = Layers()
    layers.merge(section, str(path / CONFIG), {})
    for key, value in (changes or {}).items():
        layers.put(key.split("."), value)
    method = entry.build(validate(layers, entry.config()), facts)
    names = [config["network"]] if "network" in config else list(config["networks"])
    specs, networks = method.networks(), Held(path)
    for name in names:
        module = specs[name].build()
        initialize(module, f"{path}#{name}", name, {})
        networks[name] = module.to(device).eval()
    return ExportedModel(method, networks, config, facts)


def _facts(told: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with shapes as tuples, which JSON does not know."""
    shape = told.get("sample_shape")
    return {**told, "sample_shape": tuple(shape) if shape else None}
