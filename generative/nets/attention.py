"""Self-attention with rotary positions, and a memory of keys and values between calls.

Shapes: B sequences, T positions of a call, S positions that are attended to, H query heads, G key/value heads, h
features of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.transformer_config import TransformerConfig

Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes a layer's keys and values [B, G, T, h] of a call; gives those that its queries attend to, [B, G, S, h]."""


def rope_tables(config: TransformerConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles at integer `positions`, fp32[*positions, h/2] (rounded to bfloat16 where the
    configuration says so)."""
    exponent = torch.arange(0, config.head_width, 2, device=positions.device, dtype=torch.float32) / config.head_width
    theta = 1.0 / config.rope_base**exponent
    angles = positions.float()[..., None] * theta
    cos, sin = angles.cos(), angles.sin()
    return (cos.bfloat16().float(), sin.bfloat16().float()) if config.rope_table_dtype == "bf16" else (cos, sin)


def rotate(x_bthf: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in half-split form, in fp32 or better: x[B, T, heads, h] -> the same shape and type.

    cos and sin are [T, h/2], or [B, T, h/2] where sequences have positions of their own.
    """
    first, second = x_bthf.to(torch.promote_types(x_bthf.dtype, torch.float32)).chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_bthf.dtype)


class Linear(nn.Linear):
    """Linear layer without bias whose weights are left for `Transformer` to draw."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Nothing: drawing a billion numbers twice takes a while."""


class Attention(nn.Module):
    """Self-attention with fused projections; rows of `qkv` are all queries, then all keys, then all values."""

    def __init__(self, config: TransformerConfig, causal: bool) -> None:
        super().__init__()
        self.heads, self.groups, self.causal = config.heads, config.groups, causal
        self.qkv = Linear(config.width, (config.heads + 2 * config.groups) * config.head_width)
        self.out = Linear(config.width, config.width)

    def forward(
        self, x_btd: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, remember: Remember | None = None
    ) -> Tensor:
        """[B, T, d] -> [B, T, d].

        Args:
            x_btd: normalised input.
            cos, sin: rotary tables of its positions.
            mask: bool, broadcast to [B, H, T, S]: what may be attended to (None: all, or all before where causal).
            remember: exchanges the keys and values for those of S positions; with it, `mask` alone holds causality.
        """
        B, T, d = x_btd.shape
        qkv = self.qkv(x_btd).view(B, T, self.heads + 2 * self.groups, -1)
        rotated = rotate(qkv[:, :, : self.heads + self.groups], cos, sin)
        q, k = rotated[:, :, : self.heads].transpose(1, 2), rotated[:, :, self.heads :].transpose(1, 2)
        v = qkv[:, :, self.heads + self.groups :].transpose(1, 2)
        if remember is not None:
            k, v = remember(k, v)
        causal = self.causal and mask is None and remember is None
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=self.groups != self.heads
        )
        out: Tensor = self.out(y.transpose(1, 2).reshape(B, T, d))
        return out


@dataclass
class Memory:
    """Keys and values of whole sequences as they were last computed, for each layer. For inference: writes in place.

    Args:
        sequences: number of sequences.
        length: positions of each.
    """

    sequences: int
    length: int
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def of_layer(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [sequences, G, length, h] of a layer, zeros at first, typed as `like` [B, G, T, h]."""
        if layer not in self.layers:
            shape = (self.sequences, like.shape[1], self.length, like.shape[3])
            self.layers[layer] = (like.new_zeros(shape), like.new_zeros(shape))
        return self.layers[layer]


@dataclass(frozen=True)
class Recall:
    """A call that sees a part of its sequences only, and a memory of the rest.

    Args:
        memory: is read, and written at the positions of the call.
        start: position of the call's first token; the others follow.
        extent: positions 0 .. extent - 1 are attended to.
        members: int64[B], which of the memory's sequences these are; None: all of them.
    """

    memory: Memory
    start: int
    extent: int
    members: Tensor | None = None

    def exchange(self, layer: int) -> Remember:
        """Of one layer."""

        def remember(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            members = slice(None) if self.members is None else self.members
            kept = self.memory.of_layer(layer, k)
            for whole, part in zip(kept, (k, v), strict=True):
                whole[members, :, self.start : self.start + part.shape[2]] = part
            return kept[0][members, :, : self.extent], kept[1][members, :, : self.extent]

        return remember
