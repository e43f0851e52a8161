"""The trained network as a predictor of masked tokens, with unsupervised classifier-free guidance.

Shapes: B samples, T positions, M chosen positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Denoiser:
    """q(x0 | x_t) of the trained network; the same at every t, since the network is not told the time.

    Args:
        net: forward of the transformer.
        mask_id: id of the mask token.
        vocab_size: ids from here on (padding of the vocabulary) are never predicted; None: all ids are allowed.
        guidance: scale w of unsupervised guidance (paper, section 4): logits l_u + (1 + w)(l_c - l_u), where the prompt
            is masked for l_u. 0: none.
    """

    net: Callable[..., Any]
    mask_id: int
    vocab_size: int | None = None
    guidance: float = 0.0

    @property
    def calls(self) -> int:
        """Network evaluations for each sample of a call."""
        return 1 if self.guidance == 0.0 else 2

    def __call__(self, canvas: Tensor, known: Tensor, rows: Tensor) -> Tensor:
        """Logits [M, V] at flattened positions rows[M] of canvas int64[B, T]; `known` bool[B, T] marks the prompt."""
        logits = self._logits(canvas, known, rows)
        if self.vocab_size is not None and self.vocab_size < logits.shape[-1]:
            logits[:, self.vocab_size :] = -torch.inf
        return logits

    def _logits(self, canvas: Tensor, known: Tensor, rows: Tensor) -> Tensor:
        if self.guidance == 0.0:
            logits: Tensor = self.net(canvas, rows)
            return logits
        both = torch.cat([canvas, canvas.masked_fill(known, self.mask_id)])
        conditional, unconditional = self.net(both, torch.cat([rows, rows + canvas.numel()])).chunk(2)
        guided: Tensor = unconditional + (1.0 + self.guidance) * (conditional - unconditional)
        return guided
