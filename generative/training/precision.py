"""Types of what goes into and comes out of a network that computes in bf16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def converting(
    network: Callable[..., Any], inputs: torch.dtype | None = None, outputs: bool = False
) -> Callable[..., Any]:
    """A network that takes its floating-point inputs as `inputs`, and gives its outputs as fp32.

    Sums over a batch, and what a loss does with an output, are then done in fp32.
    """

    def into(value: Any) -> Any:
        return value.to(inputs) if isinstance(value, Tensor) and value.is_floating_point() else value

    def out(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value

    def call(*arguments: Any, **named: Any) -> Any:
        if inputs is not None:
            arguments, named = tree_map(into, (arguments, named))
        result = network(*arguments, **named)
        return tree_map(out, result) if outputs else result

    return call


def under_autocast(module: torch.nn.Module, precision: str, device: torch.device) -> torch.nn.Module:
    """The module, from now on computing as it is trained: for "bf16" under autocast, with outputs in fp32."""
    if precision == "bf16":
        autocast = torch.autocast(device.type, torch.bfloat16)
        module.forward = converting(autocast(module.forward), outputs=True)
    return module
