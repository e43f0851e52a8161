"""Operations that are counted as they are called, by the formulas of torch's FlopCounterMode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of matrix products, convolutions and attention while it is active: `total`.

    As torch's FlopCounterMode does, which first asks of each other operation whether it has parts, and asking takes as
    long as a pass without numbers. Outside of inference mode what arrives here has none.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry

        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self._formulas: dict[Any, Callable[..., int]] = {**flop_registry, **_formulas()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it takes."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = self._formulas.get(func.overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=out))
        return out


def _formulas() -> dict[Any, Callable[..., int]]:
    """Of operations that torch's counter leaves out: 2 for each product."""
    aten = torch.ops.aten
    return {
        aten.addmm_: lambda into, left, right, **_: 2 * left.shape[0] * left.shape[1] * right.shape[1],
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: _attention_flops(q, k, v),
        # The plain products that it stands for: two for each of the two of the forward pass.
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda grad, q, k, v, *_, **__: 2 * _attention_flops(q, k, v)
        ),
    }


def _attention_flops(queries: Tensor, keys: Tensor, values: Tensor) -> int:
    """Of both products of attention, each a whole square: queries [..., heads, Q, d], keys [..., K, d]."""
    return 2 * queries.shape[:-1].numel() * keys.shape[-2] * (queries.shape[-1] + values.shape[-1])
