"""Attention maps of diffusers' U-Nets, seen and changed through attention processors, which are always put back.

A call of the network has equal groups of rows, one after the other: source, target without text, target. What a control
changes are the target's maps, from the source's of the same layer and call. Rows without text are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.methods.stsl.attention_control import Control

GROUPS = 3
"""Source, target without text, target."""
PLAIN = ("AttnProcessor", "AttnProcessor2_0")
"""Processors that compute softmax(Q K^T / sqrt(d)) V and nothing else."""

Change = Callable[[Tensor, bool], Tensor]
"""(maps [rows, heads, P, L], whether keys are the text's) -> maps."""


@dataclass
class Maps:
    """Running mean of the target's cross-attention over layers, heads and steps.

    Args:
        side: of the square that all are scaled to.
        total: float32[B, L, side, side].
        count: maps in the sum.
    """

    side: int
    total: Tensor | None = None
    count: int = 0

    def add(self, maps: Tensor) -> None:
        """Maps [B, heads, P, L] of a square of P pixels; others are left out."""
        side = round(maps.shape[2] ** 0.5)
        if side * side != maps.shape[2]:
            return
        one = maps.detach().float().mean(1).transpose(1, 2)
        one = one.reshape(*one.shape[:2], side, side)
        one = F.interpolate(one, (self.side, self.side), mode="bilinear", align_corners=False)
        self.total = one if self.total is None else self.total + one
        self.count += 1

    def of(self, tokens: range) -> Tensor:
        """Share of some tokens, float32[B, side, side]; zeros where nothing was seen."""
        if self.total is None:
            return torch.zeros(1, self.side, self.side)
        return self.total[:, list(tokens)].sum(1) / self.count


def changing(control: Control, cross: bool, own: bool, own_pixels: int, maps: Maps) -> Change:
    """What prompt-to-prompt does at a step.

    Args:
        control: of cross-attention.
        cross: whether it acts at this step; weights of words always do.
        own: whether self-attention of the target is the source's at this step.
        own_pixels: maps of more pixels keep their own self-attention.
        maps: where the target's are seen.
    """

    def change(found: Tensor, text: bool) -> Tensor:
        source, empty, target = found.chunk(GROUPS)
        if text:
            target = control.cross(source, target) if cross else target * control.weights.to(target)
            maps.add(target)
        elif own and found.shape[2] <= own_pixels:
            target = source
        return torch.cat([source, empty, target])

    return change


@contextmanager
def attention_changed(unet: Any, change: Change) -> Iterator[None]:
    """Maps of all transformer blocks go through `change`; the processors that were there come back, whatever happens.

    Raises:
        ConfigError: attention of another kind (LoRA of old, xformers), or none to a text.
    """
    before = dict(unet.attn_processors)
    ours = [name for name in before if ".attn1." in name or ".attn2." in name]
    other = next((type(before[name]).__name__ for name in ours if type(before[name]).__name__ not in PLAIN), None)
    if other is not None or not ours:
        raise ConfigError(
            f"a network with {'attention of kind ' + other if other else 'no attention to a text'}",
            "a U-Net of Stable Diffusion's kind with diffusers' own attention",
            "take such a model, or unload what changes its attention",
        )
    try:
        unet.set_attn_processor({name: _Seen(change) if name in ours else one for name, one in before.items()})
        yield
    finally:
        unet.set_attn_processor(before)


class _Seen:
    """Attention with its maps in the open. diffusers calls it in place of its own."""

    def __init__(self, change: Change) -> None:
        self.change = change

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        text = encoder_hidden_states
        if text is not None and attn.norm_cross:
            text = attn.norm_encoder_hidden_states(text)
        seen = hidden_states if text is None else text
        q, k, v = (
            attn.head_to_batch_dim(found) for found in (attn.to_q(hidden_states), attn.to_k(seen), attn.to_v(seen))
        )
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, seen.shape[1], len(seen))
        maps = attn.get_attention_scores(q, k, attention_mask).unflatten(0, (len(hidden_states), attn.heads))
        out = attn.batch_to_head_dim(self.change(maps, text is not None).flatten(0, 1) @ v)
        out = attn.to_out[1](attn.to_out[0](out))
        out = out + hidden_states if attn.residual_connection else out
        return out / attn.rescale_output_factor  # type: ignore[no-any-return]
