"""Types of what goes into and comes out of a network that computes in bf16."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def fp32_outputs(network: Callable[..., Any]) -> Callable[..., Any]:
    """A network whose bf16 outputs come as fp32: what a loss does with them, sums above all, is done in that."""

    def out(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value

    def call(*arguments: Any, **named: Any) -> Any:
        return tree_map(out, network(*arguments, **named))

    return call


def under_autocast(module: torch.nn.Module, precision: str, device: torch.device) -> torch.nn.Module:
    """The module, from now on computing as it is trained: for "bf16" under autocast, with outputs in fp32."""
    if precision == "bf16":
        autocast = torch.autocast(device.type, torch.bfloat16)
        # Bound to the module, so that a deep copy calls itself and not the original.
        module.forward = MethodType(fp32_outputs(autocast(type(module).forward)), module)
    return module
