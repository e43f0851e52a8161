"""What published files hold: networks under our names, with the configuration that builds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from generative.config import Config
from generative.errors import ConfigError
from generative.method import DataFacts


@dataclass(frozen=True)
class Published:
    """What published files hold.

    Args:
        method: configuration of the method, with the sizes of these networks.
        facts: what else builds them.
        networks: state dicts by the networks' names in the method.
        build: makes each of them.
        task: what they are for, in the hub's words.
        trained: where `networks` are averages: the weights as trained.
    """

    method: Config
    facts: DataFacts
    networks: Mapping[str, Mapping[str, Tensor]]
    build: Mapping[str, Callable[[], nn.Module]] = field(repr=False)
    task: str
    trained: Mapping[str, Mapping[str, Tensor]] | None = None

    def as_trained(self) -> Published:
        """With the weights as trained instead of their averages.

        Raises:
            ConfigError: the files hold one set of weights only.
        """
        if self.trained is None:
            raise ConfigError(
                f"weights of {self.kind} that come in one set only",
                "a checkpoint with averages beside the weights",
                "leave out --as-trained",
            )
        return dataclasses.replace(self, networks=self.trained, trained=None)

    @property
    def kind(self) -> str:
        """Name of the method."""
        return str(self.method.model_dump()["name"])

    def modules(self) -> dict[str, nn.Module]:
        """The networks on the meta device: names and shapes only."""
        with torch.device("meta"):
            return {name: self.build[name]() for name in self.networks}
