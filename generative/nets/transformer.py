"""Llama-style transformer, bidirectional or causal: RMSNorm before, rotary positions, SwiGLU, no biases, untied head.

Source: "Scaling up Masked Diffusion Models on Text" (arXiv 2410.18514) and its released TransEncoder: no dropout, no
time input; the head has no row for the mask token, so that the mask can never be predicted.

Shapes: B sequences, T positions, d width, H query heads, G key/value heads, h features of a head,
V vocabulary padded to a multiple, M rows chosen for the head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from generative.errors import ConfigError
from generative.nets.linear_cross_entropy import linear_cross_entropy
from generative.nets.transformer_config import TransformerConfig

Output = Tensor | tuple[Tensor, Tensor]
"""Logits, or the weighted loss with each row's negative log-likelihood."""


def rope_tables(config: TransformerConfig, length: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, fp32[T, h/2] (rounded to bfloat16 where the configuration says so)."""
    exponent = torch.arange(0, config.head_width, 2, device=device, dtype=torch.float32) / config.head_width
    theta = 1.0 / config.rope_base**exponent
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * theta
    cos, sin = angles.cos(), angles.sin()
    return (cos.bfloat16().float(), sin.bfloat16().float()) if config.rope_table_dtype == "bf16" else (cos, sin)


def rotate(x_bthf: Tensor, cos_tf: Tensor, sin_tf: Tensor) -> Tensor:
    """Rotary positions in half-split form, in fp32 or better: x[B, T, heads, h] -> the same shape and type."""
    first, second = x_bthf.to(torch.promote_types(x_bthf.dtype, torch.float32)).chunk(2, dim=-1)
    cos, sin = cos_tf[:, None], sin_tf[:, None]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_bthf.dtype)


class _Linear(nn.Linear):
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
        self.qkv = _Linear(config.width, (config.heads + 2 * config.groups) * config.head_width)
        self.out = _Linear(config.width, config.width)

    def forward(self, x_btd: Tensor, cos_tf: Tensor, sin_tf: Tensor, keys: Tensor | None) -> Tensor:
        """[B, T, d] -> [B, T, d]; `keys` bool[B, 1, 1, T] says which positions may be attended to (None: all)."""
        B, T, d = x_btd.shape
        qkv = self.qkv(x_btd).view(B, T, self.heads + 2 * self.groups, -1)
        rotated = rotate(qkv[:, :, : self.heads + self.groups], cos_tf, sin_tf)
        q, k = rotated[:, :, : self.heads].transpose(1, 2), rotated[:, :, self.heads :].transpose(1, 2)
        v = qkv[:, :, self.heads + self.groups :].transpose(1, 2)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=keys, is_causal=self.causal, enable_gqa=self.groups != self.heads
        )
        out: Tensor = self.out(y.transpose(1, 2).reshape(B, T, d))
        return out


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x), with gate and up fused."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_up = _Linear(config.width, 2 * config.ff_width)
        self.down = _Linear(config.ff_width, config.width)

    def forward(self, x_btd: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        gate, up = self.gate_up(x_btd).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return out


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: TransformerConfig, causal: bool) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config, causal)
        self.feed_forward_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x_btd: Tensor, cos_tf: Tensor, sin_tf: Tensor, keys: Tensor | None) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        x_btd = x_btd + self.attention(self.attention_norm(x_btd), cos_tf, sin_tf, keys)
        out: Tensor = x_btd + self.feed_forward(self.feed_forward_norm(x_btd))
        return out


class Head(nn.Module):
    """The output layer: logits, or the loss without ever holding all logits. A module, since sharding engines gather
    a layer's weights when its `forward` is called."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.padded_vocab, config.width))

    def forward(self, hidden: Tensor, targets: Tensor | None = None, weights: Tensor | None = None) -> Output:
        """hidden[..., d] -> logits[..., V]; with targets and weights: see `linear_cross_entropy`."""
        if targets is None or weights is None:
            return F.linear(hidden, self.weight)
        loss: tuple[Tensor, Tensor] = linear_cross_entropy(hidden, self.weight, targets, weights)
        return loss


class Transformer(nn.Module):
    """The network of masked diffusion (`causal=False, mask_row=True`) and of its autoregressive baseline.

    Args:
        config: sizes; `vocab_size` must be set.
        causal: whether a position sees only itself and those before it.
        mask_row: whether the embedding has one more row, the mask token, with id `config.padded_vocab`.
    """

    def __init__(self, config: TransformerConfig, *, causal: bool, mask_row: bool) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.activation_checkpointing = False
        self.embedding = nn.Embedding(config.padded_vocab + mask_row, config.width)
        self.blocks = nn.ModuleList(Block(config, causal) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = Head(config)
        self._draw_weights()

    @torch.no_grad()
    def _draw_weights(self) -> None:
        """Normal(0, sqrt(2/(5d))), and Normal(0, 1/(sqrt(d) layers)) for the outputs of residual branches."""
        branch_outputs = (".attention.out.weight", ".feed_forward.down.weight")
        for name, parameter in self.named_parameters():
            if name.endswith(branch_outputs):
                parameter.normal_(0.0, 1.0 / (math.sqrt(self.config.width) * self.config.layers))
            elif parameter.ndim == 2:
                parameter.normal_(0.0, math.sqrt(2.0 / (5.0 * self.config.width)))

    def forward(
        self,
        ids: Tensor,
        rows: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Output:
        """Logits, or the weighted loss, at all or some positions.

        Args:
            ids: int64[B, T], T at most `max_length`.
            rows: int64[M], flattened positions (b * T + t) that the head is applied to; None: all.
            targets: int64[M], the right token at each row.
            weights: fp32[M], weight of each row's loss; rows of weight 0 are padding.
            lengths: int64[B] of 1 .. T: positions beyond are not attended to (not with `causal`, where none are).

        Returns:
            ids alone: logits[B, T, V]. With rows: logits[M, V]. With targets and weights too: the scalar
            sum(weights * nll) and nll fp32[M] (nats, detached).
        """
        hidden = self.hidden(ids, lengths)
        if rows is None:
            output: Output = self.head(self.norm(hidden))
        else:
            output = self.head(self.norm(hidden.flatten(0, 1)[rows]), targets, weights)
        return output

    def hidden(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The residual stream after the last block, [B, T, d]."""
        T = ids.shape[1]
        if self.config.max_length < T:
            raise ConfigError(
                f"a sequence of {T} tokens is longer than the network's {self.config.max_length}",
                expected=f"at most {self.config.max_length} tokens",
                remedy="raise method.network.max_length or shorten the sequences (data.sequence_length)",
            )
        cos, sin = rope_tables(self.config, T, ids.device)
        keys = None if lengths is None else (torch.arange(T, device=ids.device) < lengths[:, None])[:, None, None]
        x: Tensor = self.embedding(ids)
        for block in self.blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, keys, use_reentrant=False)
            else:
                x = block(x, cos, sin, keys)
        return x
