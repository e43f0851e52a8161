"""The residual block of EDM's U-Nets (Karras et al. 2022, appendix F); parameters have the names of released weights.

Shapes: B samples, C channels, H = W side, T features of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, addcmul, nn
from torch.nn import functional as F

from generative.nets.dropout import SampleDropout
from generative.nets.edm_layers import Init, Resample, ResampledConv, conv, linear
from generative.nets.fir import Direction
from generative.nets.ncsnpp_blocks import group_norm


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network have in common.

    Args:
        embedding: T.
        dropout: part of the features that is dropped in training.
        taps: of the resampling filter.
        adaptive_scale: the embedding scales and shifts what is normalised; else it is added before that.
        project_shortcut: resampled shortcuts have a 1x1 convolution also where the channels stay.
        skip_scale: of the sum of a branch and what it goes beside.
        eps: of normalisations.
        head_channels: channels of an attention head, with one head at least fitting in; None: a single head.
        init: of most weights.
        init_zero: of layers that end a branch.
        init_attention: of queries, keys and values.
    """

    embedding: int
    dropout: float
    taps: tuple[int, ...]
    adaptive_scale: bool
    project_shortcut: bool
    skip_scale: float
    eps: float
    head_channels: int | None
    init: Init
    init_zero: Init
    init_attention: Init

    def heads(self, channels: int) -> int:
        """Attention heads of so many channels; 0: too few for one, and there is no attention."""
        return 1 if self.head_channels is None else channels // self.head_channels


class UNetBlock(nn.Module):
    """Two convolutions beside a shortcut, the first on what is resampled; then attention, where wanted.

    h = conv1(dropout(silu(norm1(conv0(silu(norm0 x)) + embedding)))), y = (shortcut x + h) s, and with attention
    (y + proj(attention(norm2 y))) s.

    Args:
        inputs, outputs: channels, those of the skip connection among the inputs.
        style: of the network.
        number: of the block, for its dropout.
        direction: of resampling by 2; None: the size stays.
        attention: whether self-attention follows.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style: BlockStyle,
        number: int,
        direction: Direction | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.style = inputs, outputs, style
        self.heads = style.heads(outputs) if attention else 0
        self.norm0 = group_norm(inputs, style.eps)
        if direction is None:
            self.conv0 = conv(inputs, outputs, 3, style.init)
        else:
            self.conv0 = ResampledConv(inputs, outputs, 3, direction, style.taps, style.init)
        self.affine = linear(style.embedding, outputs * (1 + style.adaptive_scale), style.init)
        self.norm1 = group_norm(outputs, style.eps)
        self.dropout = SampleDropout(style.dropout, number)
        self.conv1 = conv(outputs, outputs, 3, style.init_zero)
        self.skip = _shortcut(inputs, outputs, direction, style)
        if self.heads:
            self.norm2 = group_norm(outputs, style.eps)
            self.qkv = conv(outputs, 3 * outputs, 1, style.init_attention)
            self.proj = conv(outputs, outputs, 1, style.init_zero)

    def forward(self, x: Tensor, embedding: Tensor, seeds: Tensor | None = None) -> Tensor:
        """x[B, inputs, H, W] and embedding[B, T] -> [B, outputs, H', W']; `seeds` int64[B]: of the dropout."""
        h = self.conv0(F.silu(self.norm0(x)))
        told = self.affine(embedding)[:, :, None, None].to(h.dtype)
        if self.style.adaptive_scale:
            scale, shift = told.chunk(2, dim=1)
            h = F.silu(addcmul(shift, self.norm1(h).to(h.dtype), scale + 1))
        else:
            h = F.silu(self.norm1(h + told))
        h = self.conv1(self.dropout(h, seeds))
        total: Tensor = (h + (x if self.skip is None else self.skip(x))) * self.style.skip_scale
        return (total + self._attention(total)) * self.style.skip_scale if self.heads else total

    def _attention(self, x: Tensor) -> Tensor:
        """proj(attention(norm2 x)). Queries, keys and values lie beside each other: q0, k0, v0, q1, ..."""
        B, C, H, W = x.shape
        # [B, heads, C / heads, 3, H W] -> three of [B, heads, H W, C / heads]
        q, k, v = self.qkv(self.norm2(x)).reshape(B, self.heads, C // self.heads, 3, H * W).permute(3, 0, 1, 4, 2)
        mixed = F.scaled_dot_product_attention(q, k, v)
        change: Tensor = self.proj(mixed.transpose(2, 3).reshape(B, C, H, W))
        return change

    def multiply_adds(self, positions: int) -> int:
        """Multiplications and additions of one sample with `positions` results (H' W'), in pairs."""
        count = self.affine.weight.numel() + positions * self.conv1.weight.numel()
        if isinstance(self.conv0, ResampledConv):
            count += self.conv0.multiply_adds(positions)
        else:
            count += positions * self.conv0.weight.numel()
        if isinstance(self.skip, ResampledConv):
            count += self.skip.multiply_adds(positions)
        elif isinstance(self.skip, Resample):
            count += self.skip.multiply_adds(self.inputs, positions)
        elif self.skip is not None:
            count += positions * self.skip.weight.numel()
        if self.heads:
            count += positions * (self.qkv.weight.numel() + self.proj.weight.numel())
            count += 2 * positions**2 * self.outputs
        return count


def _shortcut(
    inputs: int, outputs: int, direction: Direction | None, style: BlockStyle
) -> nn.Conv2d | Resample | ResampledConv | None:
    if direction is None:
        return None if inputs == outputs else conv(inputs, outputs, 1, style.init)
    if inputs == outputs and not style.project_shortcut:
        return Resample(direction, style.taps)
    return ResampledConv(inputs, outputs, 1, direction, style.taps, style.init)
