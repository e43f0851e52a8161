"""How the network is asked for the losses of masked tokens: plainly, shifted by one, or with clean blocks beside it.

Shapes: B samples, T positions, M masked positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.methods.masked_diffusion.blocks import doubled_rows, noisy_and_clean
from generative.nets.documents import positions_within, same_document


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
        document: Tensor | None = None,
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
            document: int64[B, T], see `ask`; says where samples are cut too.
        """
        outputs, found = self.ask(noisy, clean, rows, document)
        lengths = lengths if document is None else None
        result: tuple[Tensor, Tensor] = net(outputs[0], outputs[1], targets, weights, lengths, **found)
        return result

    def ask(
        self, noisy: Tensor, clean: Tensor, rows: Tensor, document: Tensor | None = None
    ) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
        """The network's ids and rows, and its further arguments, for what it says of flattened places `rows`.

        `document` int64[B, T]: others than a place's own are not seen by it, and positions count from its start.
        """
        T = noisy.shape[1]
        positions = torch.arange(T, device=noisy.device) if document is None else positions_within(document)
        if self.shift:
            rows = sources(rows, positions)
        if self.block_size is None:
            return (noisy, rows), _within(document, positions)
        options = {
            "positions": torch.cat([positions, positions], dim=-1),
            "visible": noisy_and_clean(positions // self.block_size, document),
        }
        return (torch.cat([noisy, clean], dim=1), doubled_rows(rows, T)), options


PLAIN = NetworkForm()
"""x_t alone, each position predicting its own token."""


def _within(document: Tensor | None, positions: Tensor) -> dict[str, Any]:
    return {} if document is None else {"positions": positions, "visible": same_document(document)}


def sources(rows: Tensor, positions: Tensor) -> Tensor:
    """Places whose output predicts the tokens at flattened places `rows` under a shift by one; the first of a text
    (positions [T] or [B, T] say which) has no other than its own."""
    first = positions[rows % len(positions)] if positions.ndim == 1 else positions.flatten()[rows]
    return torch.where(first == 0, rows, rows - 1)
