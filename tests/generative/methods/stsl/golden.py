"""The golden cases of posterior samplers: arrays and settings by file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from generative.methods.stsl.levels import Level, level_of, linear_alphas
from generative.methods.stsl.mixtures import Mixture
from generative.methods.stsl.operators.base import Operator, matrix_operator
from generative.methods.stsl.operators.catalogue import make_operator
from generative.methods.stsl.operators.masks import masked
from generative.methods.stsl.problem import Draws, Problem

FOLDER = Path(__file__).parents[3] / "golden" / "stsl"


@lru_cache
def arrays(name: str) -> dict[str, Tensor]:
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@lru_cache
def settings(name: str) -> dict[str, Any]:
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["json"])


def relative(found: Tensor, wanted: Tensor) -> float:
    """Greatest difference over the greatest magnitude of what is wanted."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny))


@dataclass(frozen=True)
class Recorded:
    """Draws from a recording: the same for every step."""

    values: dict[str, Tensor]

    def __call__(self, name: str, step: int, shape: Sequence[int]) -> Tensor:
        return self.values[name]

    def rows(self, index: Tensor) -> Recorded:
        return Recorded({name: value[index] for name, value in self.values.items()})


def tiny_network(weights: dict[str, Tensor], prefix: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Convolution, an embedding of the time, SiLU, convolution."""

    def network(x: Tensor, times: Tensor) -> Tensor:
        def take(name: str) -> Tensor:
            return weights[f"{prefix}{name}"]

        told = torch.stack([(times / 100).sin(), (times / 100).cos()], 1) @ take("te.weight").T + take("te.bias")
        hidden = F.silu(F.conv2d(x, take("c1.weight"), take("c1.bias"), padding=1) + told[:, :, None, None])
        return F.conv2d(hidden, take("c2.weight"), take("c2.bias"), padding=1)

    return network


def operator_of(name: str, mask: Tensor | None, image: Sequence[int] = (3, 16, 16)) -> Operator:
    """The operator of a case of the released code."""
    if name == "inp":
        assert mask is not None
        return masked(image, mask[0, 0], "inpaint")
    return make_operator(
        {"blur": "gaussian_blur:size=9,std=1.5", "sr": "superres:factor=4,kernel=bicubic"}[name], image
    )


PROBLEMS = ("gauss4", "ring2", "gmm2", "gmm8")
TIMES = (20, 100, 250, 400, 600, 800, 950)
MIXTURES = "gmm_toy_s3"


@dataclass(frozen=True)
class Toy:
    """A mixture with its measurement, and what is recorded at one time."""

    name: str
    time: int

    @property
    def mixture(self) -> Mixture:
        told = arrays(MIXTURES)
        return Mixture(*(told[f"{self.name}.{part}"] for part in ("pi", "mu", "Sigma")))

    @property
    def level(self) -> Level:
        return level_of(float(linear_alphas()[self.time]), self.time)

    def told(self, what: str) -> Tensor:
        return arrays(MIXTURES)[f"{self.name}.t{self.time}.{what}"]

    @property
    def matrix(self) -> Tensor:
        return arrays(MIXTURES)[f"{self.name}.A"]

    @property
    def y(self) -> Tensor:
        return arrays(MIXTURES)[f"{self.name}.y"]

    @property
    def sigma(self) -> float:
        return float(arrays(MIXTURES)[f"{self.name}.sigma_y"])

    def problem(self, draws: Draws | None = None) -> Problem:
        y = self.y.expand(len(self.told("x")), -1)
        return Problem(self.mixture.prior(), matrix_operator(self.matrix), y, self.sigma, draws or Recorded({}))
