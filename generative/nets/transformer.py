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
from generative.nets.attention import Attention, Linear, Recall, Remember, rope_tables
from generative.nets.linear_cross_entropy import linear_cross_entropy
from generative.nets.modulated import BiasedHead, ModulatedBlock, ModulatedNorm
from generative.nets.transformer_config import TransformerConfig

Output = Tensor | tuple[Tensor, Tensor]
"""Logits, or the weighted loss with each row's negative log-likelihood."""


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x), with gate and up fused."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_up = Linear(config.width, 2 * config.ff_width)
        self.down = Linear(config.ff_width, config.width)

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

    def forward(
        self, x_btd: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, remember: Remember | None = None
    ) -> Tensor:
        """[B, T, d] -> [B, T, d]; see `Attention`."""
        x_btd = x_btd + self.attention(self.attention_norm(x_btd), cos, sin, mask, remember)
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
        # Weights of a model without a mask token may start one with it (`generative.training.networks`).
        self.optional_rows = {"embedding.weight": 1} if mask_row else {}
        self.embedding = nn.Embedding(config.padded_vocab + mask_row, config.width)
        modulated = config.family == "mdlm"
        block = ModulatedBlock if modulated else Block
        self.blocks = nn.ModuleList(block(config, causal) for _ in range(config.layers))
        self.norm = ModulatedNorm(config) if modulated else nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = BiasedHead(config) if modulated else Head(config)
        self._draw_weights()

    @torch.no_grad()
    def _draw_weights(self) -> None:
        """Normal(0, sqrt(2/(5d))), and Normal(0, 1/(sqrt(d) layers)) for the outputs of residual branches.

        With `base_width` d0 (muP): the embedding as at d0, and a head of zeros.
        """
        width, base = self.config.width, self.config.base_width
        branch_outputs = (".attention.out.weight", ".down.weight")
        for name, parameter in self.named_parameters():
            if name.endswith(branch_outputs):
                parameter.normal_(0.0, 1.0 / (math.sqrt(width) * self.config.layers))
            elif base is not None and name == "head.weight":
                parameter.zero_()
            elif parameter.ndim == 2:
                d = base if base is not None and name == "embedding.weight" else width
                parameter.normal_(0.0, math.sqrt(2.0 / (5.0 * d)))

    def forward(
        self,
        ids: Tensor,
        rows: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        visible: Tensor | None = None,
        recall: Recall | None = None,
    ) -> Output:
        """Logits, or the weighted loss, at all or some positions.

        Args:
            ids: int64[B, T], T at most `max_length`.
            rows: int64[M], flattened places (b * T + t) that the head is applied to; None: all.
            targets: int64[M], the right token at each row.
            weights: fp32[M], weight of each row's loss; rows of weight 0 are padding.
            lengths: int64[B] of 1 .. T: positions beyond are not attended to (not with `causal`, where none are).
            positions: int64[T] or [B, T], for the rotation; None: 0 .. T - 1, or those of `recall`.
            visible: bool[T, S] or [B, T, S], which place each place attends to (S = T, or the extent of `recall`);
                takes the place of `causal` and `lengths`.
            recall: attends to a memory too; for inference.

        Returns:
            ids alone: logits[B, T, V]. With rows: logits[M, V]. With targets and weights too: the scalar
            sum(weights * nll) and nll fp32[M] (nats, detached).
        """
        hidden = self.hidden(ids, lengths, positions=positions, visible=visible, recall=recall)
        if rows is None:
            output: Output = self.head(self.norm(hidden))
        else:
            output = self.head(self.norm(hidden.flatten(0, 1)[rows]), targets, weights)
        return output

    def hidden(
        self,
        ids: Tensor,
        lengths: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        visible: Tensor | None = None,
        recall: Recall | None = None,
    ) -> Tensor:
        """The residual stream after the last block, [B, T, d]."""
        first = 0 if recall is None else recall.start
        if positions is None:
            self._check_length(first + ids.shape[1])
            positions = first + torch.arange(ids.shape[1], device=ids.device)
        cos, sin = rope_tables(self.config, positions)
        mask = self._mask(positions, lengths, visible, recall)
        x: Tensor = self.embedding(ids)
        for index, block in enumerate(self.blocks):
            remember = None if recall is None else recall.exchange(index)
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, mask, remember, use_reentrant=False)
            else:
                x = block(x, cos, sin, mask, remember)
        return x

    def _mask(
        self, positions: Tensor, lengths: Tensor | None, visible: Tensor | None, recall: Recall | None
    ) -> Tensor | None:
        """bool, broadcast to [B, H, T, S]. Without a mask attention takes its fastest kernel, so there is none where
        the kernel's own causality, or a query that sees everything, will do."""
        if visible is not None:
            return visible if visible.ndim == 2 else visible[:, None]
        places = torch.arange(positions.shape[-1] if recall is None else recall.extent, device=positions.device)
        if lengths is not None:
            return (places < lengths[:, None])[:, None, None]
        if recall is not None and self.causal and positions.shape[-1] > 1:
            return places <= positions[:, None]
        return None

    def _check_length(self, length: int) -> None:
        if self.config.max_length < length:
            raise ConfigError(
                f"a sequence of {length} tokens is longer than the network's {self.config.max_length}",
                expected=f"at most {self.config.max_length} tokens",
                remedy="raise method.network.max_length or shorten the sequences (data.sequence_length)",
            )
