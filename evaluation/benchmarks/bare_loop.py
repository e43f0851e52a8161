"""A training loop written by hand, to compare the trainer with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from generative.training.config import TrainConfig


class BareLoop:
    """Masked diffusion trained as a person would write it out in a script: no records, guards, cursors or streams.

    Args:
        net: the network, on its device.
        batches: windows int64[B, T + 1] of each step, in host memory.
        mask_id: id of the mask token.
        config: settings of the optimizer.
    """

    def __init__(self, net: nn.Module, batches: Sequence[Tensor], mask_id: int, config: TrainConfig) -> None:
        settings = config.optimizer
        self.net, self.mask_id, self.clip_norm = net.train(), mask_id, settings.clip_norm or float("inf")
        self.device = next(net.parameters()).device
        self.optimizer = torch.optim.AdamW(
            net.parameters(),
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.losses: list[float] = []
        self._batches = itertools.cycle(batches)

    def step(self) -> None:
        """One optimizer step on the next batch."""
        ids = next(self._batches)[:, :-1].to(self.device)
        B, T = ids.shape
        t = (torch.rand((), device=self.device) + torch.arange(B, device=self.device) / B) % 1
        p = (1 - 1e-3) * t + 1e-3
        mask = torch.rand(B, T, device=self.device) < p[:, None]
        rows = mask.flatten().nonzero()[:, 0]
        total, _ = self.net(ids.masked_fill(mask, self.mask_id), rows, ids.flatten()[rows], (1 / p)[rows // T])
        loss = total / (B * T)
        self.update(loss)
        self.losses.append(loss.item())

    def update(self, loss: Tensor) -> None:
        """Backward pass and optimizer step."""
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
