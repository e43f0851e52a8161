"""Small networks for cases whose answer is known."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


def perceptron(inputs: int, outputs: int, width: int, layers: int, generator: torch.Generator) -> nn.Sequential:
    """`layers` hidden layers with SiLU; weights and biases from U(-1, 1) / sqrt(fan in), drawn from `generator`."""
    sizes = [inputs, *[width] * layers]
    parts: list[nn.Module] = []
    for a, b in pairwise(sizes):
        parts += [_linear(a, b, generator), nn.SiLU()]
    return nn.Sequential(*parts, _linear(width, outputs, generator))


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * inputs**-0.5)
    return layer
