"""How the network is asked for the losses of masked tokens: plainly, shifted by one, or with clean blocks beside it.

Shapes: B samples, T positions, M masked positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.methods.masked_diffusion.blocks import doubled_positions, doubled_rows, noisy_and_clean


@dataclass(frozen=True)
class NetworkForm:
    """What a trained network expects.

    Args:
        block_size: block diffusion: the input is [x_t ; x_0]; None: x_t alone.
        shift: the output at position i - 1 predicts token i (the first position its own).
    """

    block_size: int | None = None
    shift: bool = False

    def loss(
        self,
        net: Callable[..., Any],
        noisy: Tensor,
        clean: Tensor,
        rows: Tensor,
        targets: Tensor,
        weights: Tensor,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Weighted sum of the cross-entropies at some places, and each of them in nats, fp32[M].

        Args:
            net: forward of the transformer.
            noisy: int64[B, T], x_t.
            clean: int64[B, T], x_0 as blocks see it.
            rows: int64[M], flattened places.
            targets: int64[M], the right tokens there.
            weights: fp32[M].
            lengths: int64[B], where samples are cut, or None; not with blocks.
        """
        outputs, found = self.ask(noisy, clean, rows)
        result: tuple[Tensor, Tensor] = net(outputs[0], outputs[1], targets, weights, lengths, **found)
        return result

    def ask(self, noisy: Tensor, clean: Tensor, rows: Tensor) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
        """The network's ids and rows, and its further arguments, for what it says of flattened places `rows`."""
        T = noisy.shape[1]
        if self.shift:
            rows = sources(rows, T)
        if self.block_size is None:
            return (noisy, rows), {}
        options = {
            "positions": doubled_positions(T, noisy.device),
            "visible": noisy_and_clean(T, self.block_size, noisy.device),
        }
        return (torch.cat([noisy, clean], dim=1), doubled_rows(rows, T)), options


PLAIN = NetworkForm()
"""x_t alone, each position predicting its own token."""


def sources(rows: Tensor, length: int) -> Tensor:
    """Places whose output predicts the tokens at flattened places `rows` under a shift by one; the first has no
    other than its own."""
    return torch.where(rows % length == 0, rows, rows - 1)
