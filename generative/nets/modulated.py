"""Blocks of MDLM's diffusion transformer (kuleshov-group/mdlm) without time: LayerNorm with a fixed shift and scale, a
GELU feed-forward with biases, gated branches.

There shift, scale and gate are linear in an embedding of the noise level (adaLN). Models that are not told the time are
given sigma = 0, so that they are constants, and are weights here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.attention import Attention, Remember
from generative.nets.linear_cross_entropy import linear_cross_entropy
from generative.nets.transformer_config import TransformerConfig


class ModulatedNorm(nn.Module):
    """LN(x) weight (1 + scale) + shift, the statistics in fp32 or better."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.ones(config.width))
        self.scale = nn.Parameter(torch.zeros(config.width))
        self.shift = nn.Parameter(torch.zeros(config.width))

    def forward(self, x_btd: Tensor) -> Tensor:
        """[..., d] -> [..., d], in x's type."""
        x = x_btd.to(torch.promote_types(x_btd.dtype, torch.float32))
        normed = F.layer_norm(x, x.shape[-1:], eps=self.eps) * self.weight
        return (normed * (1.0 + self.scale) + self.shift).to(x_btd.dtype)


class ModulatedBlock(nn.Module):
    """x + gate1 attention(norm1(x)), then x + gate2 down(gelu(up(norm2(x))))."""

    def __init__(self, config: TransformerConfig, causal: bool) -> None:
        super().__init__()
        self.attention_norm = ModulatedNorm(config)
        self.attention = Attention(config, causal)
        self.attention_gate = nn.Parameter(torch.ones(config.width))
        self.feed_forward_norm = ModulatedNorm(config)
        self.up = nn.Linear(config.width, config.ff_width)
        self.down = nn.Linear(config.ff_width, config.width)
        self.feed_forward_gate = nn.Parameter(torch.ones(config.width))

    def forward(
        self, x_btd: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, remember: Remember | None = None
    ) -> Tensor:
        """[B, T, d] -> [B, T, d]; see `Attention`."""
        attended = self.attention(self.attention_norm(x_btd), cos, sin, mask, remember)
        x_btd = x_btd + self.attention_gate * attended
        hidden = F.gelu(self.up(self.feed_forward_norm(x_btd)), approximate="tanh")
        out: Tensor = x_btd + self.feed_forward_gate * self.down(hidden)
        return out


class BiasedHead(nn.Module):
    """The output layer with a bias; see `transformer.Head`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.padded_vocab, config.width))
        self.bias = nn.Parameter(torch.zeros(config.padded_vocab))

    def forward(
        self, hidden: Tensor, targets: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """hidden[..., d] -> logits[..., V]; with targets and weights: see `linear_cross_entropy`."""
        if targets is None or weights is None:
            return F.linear(hidden, self.weight, self.bias)
        # The bias is one more column of weights, for an input that is always one.
        longer = torch.cat([hidden, torch.ones_like(hidden[..., :1])], dim=-1)
        loss: tuple[Tensor, Tensor] = linear_cross_entropy(
            longer, torch.cat([self.weight, self.bias[:, None]], dim=1), targets, weights
        )
        return loss
