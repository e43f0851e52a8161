"""The trained network as a predictor of masked tokens, with classifier-free guidance.

Shapes: B samples, T positions, M chosen positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.methods.masked_diffusion.blocks import block_causal
from generative.methods.masked_diffusion.form import PLAIN, NetworkForm, sources
from generative.nets.attention import Memory, Recall


@dataclass(frozen=True)
class Denoiser:
    """q(x0 | x_t) of the trained network; the same at every t, since the network is not told the time.

    Args:
        net: forward of the transformer.
        mask_id: id of the mask token.
        vocab_size: ids from here on (padding of the vocabulary) are never predicted; None: all ids are allowed.
        guidance: scale w of guidance (paper, section 4): logits l_u + (1 + w)(l_c - l_u), where the prompt is masked
            for l_u. Called supervised where training dropped prompts, unsupervised where it did not. 0: none.
        form: blocks (tokens see their own and those before it) and shift.
        forbidden: further ids that are never predicted.
    """

    net: Callable[..., Any]
    mask_id: int
    vocab_size: int | None = None
    guidance: float = 0.0
    form: NetworkForm = PLAIN
    forbidden: tuple[int, ...] = ()

    @property
    def calls(self) -> int:
        """Network evaluations for each sample of a call."""
        return 1 if self.guidance == 0.0 else 2

    def memory(self, samples: int, length: int) -> Memory:
        """Room for the keys and values of canvases [samples, length], twice under guidance."""
        return Memory(samples * self.calls, length)

    def __call__(
        self, canvas: Tensor, known: Tensor, rows: Tensor, recall: Recall | None = None, clean: Tensor | None = None
    ) -> Tensor:
        """Logits [M, V] at flattened places rows[M] of canvas int64[B, T]; `known` bool[B, T] marks the prompt.

        Args:
            canvas, known, rows: see above.
            recall: canvas is a part of the positions, beside a memory; its members are those of unguided samples.
            clean: int64[B, T], for models trained by block diffusion: what the tokens of later blocks see in place of
                canvas, so that all blocks can be asked at once.
        """
        if self.guidance == 0.0:
            logits = self._ask(canvas, rows, recall, clean)
        else:
            unknown = canvas.masked_fill(known, self.mask_id)
            beside = None if clean is None else torch.cat([clean, clean.masked_fill(known, self.mask_id)])
            both = torch.cat([rows, rows + canvas.numel()])
            conditional, unconditional = self._ask(torch.cat([canvas, unknown]), both, recall, beside).chunk(2)
            logits = unconditional + (1.0 + self.guidance) * (conditional - unconditional)
        if self.vocab_size is not None and self.vocab_size < logits.shape[-1]:
            logits[:, self.vocab_size :] = -torch.inf
        if self.forbidden:
            logits[:, list(self.forbidden)] = -torch.inf
        return logits

    def _ask(self, canvas: Tensor, rows: Tensor, recall: Recall | None, clean: Tensor | None) -> Tensor:
        if clean is not None:
            inputs, options = self.form.ask(canvas, clean, rows)
        else:
            rows = sources(rows, torch.arange(canvas.shape[1], device=rows.device)) if self.form.shift else rows
            inputs, options = (canvas, rows), self._seen(canvas, recall)
        logits: Tensor = self.net(*inputs, **options)
        return logits

    def _seen(self, canvas: Tensor, recall: Recall | None) -> dict[str, Any]:
        """What the positions of a canvas see of it and of a memory, as arguments of the network."""
        options: dict[str, Any] = {}
        first, extent = (0, canvas.shape[1]) if recall is None else (recall.start, recall.extent)
        if self.form.block_size is not None:
            places = torch.arange(extent, device=canvas.device)
            queries = places[first : first + canvas.shape[1]]
            options["visible"] = block_causal(queries, places, self.form.block_size)
        if recall is not None:
            members = recall.members
            if self.calls == 2 and members is not None:
                members = torch.cat([members, members + recall.memory.sequences // 2])
            options["recall"] = Recall(recall.memory, recall.start, recall.extent, members)
        return options
