"""Sizes of a transformer, and its parameters in every convention that scaling laws count them by."""

from __future__ import annotations

from dataclasses import dataclass

from generative.nets.accounting import attention_parameters, feed_forward_parameters
from generative.nets.transformer_config import TransformerConfig


@dataclass(frozen=True)
class Shape:
    """Sizes of a transformer.

    Args:
        layers: L.
        width: d, of the residual stream.
        ff_width: of the feed-forward.
        heads: h.
        head_width: k.
        vocab: V, rows of the output head.
        length: T, tokens in a sequence.
        groups: key/value heads; None for h.
        gated: SwiGLU (three matrices) or plain (two).
        causal: whether half of the attention square is masked.
        window: of sliding-window attention, tokens; None for all.
        experts: feed-forwards of a block.
        active: of these, how many a token passes.
        mask_row: whether the embedding has a row more than the head.
    """

    layers: int
    width: int
    ff_width: int
    heads: int
    head_width: int
    vocab: int
    length: int
    groups: int | None = None
    gated: bool = True
    causal: bool = False
    window: int | None = None
    experts: int = 1
    active: int = 1
    mask_row: bool = False

    @property
    def context(self) -> int:
        """Tokens that a position may attend to: T, or the window."""
        return self.length if self.window is None else min(self.length, self.window)

    @property
    def attention_width(self) -> int:
        """h k."""
        return self.heads * self.head_width

    def matrices(self, feed_forwards: int) -> int:
        """Weights of the blocks' matrices with this many feed-forwards in each."""
        attention = attention_parameters(self.width, self.heads, self.groups or self.heads, self.head_width)
        router = self.width * self.experts if self.experts > 1 else 0
        return self.layers * (
            attention + router + feed_forwards * feed_forward_parameters(self.width, self.ff_width, self.gated)
        )

    @property
    def head(self) -> int:
        """Weights of the output head."""
        return self.vocab * self.width


def shape_of(config: TransformerConfig, length: int, *, causal: bool, mask_row: bool | None = None) -> Shape:
    """The shape of this library's transformer; `mask_row` is that of masked diffusion where it is not given."""
    return Shape(
        layers=config.layers,
        width=config.width,
        ff_width=config.ff_width,
        heads=config.heads,
        head_width=config.head_width,
        vocab=config.padded_vocab,
        length=length,
        groups=config.groups,
        causal=causal,
        mask_row=not causal if mask_row is None else mask_row,
    )


@dataclass(frozen=True)
class Parameters:
    """Counts from which every published N follows. Stored with each run.

    Args:
        embedding: input embedding.
        lm_head: output head.
        matmul: matrices of the blocks (all experts).
        active_matmul: those that a token passes.
        scalar: gains of norms.
    """

    embedding: int
    lm_head: int
    matmul: int
    active_matmul: int
    scalar: int

    @property
    def total(self) -> int:
        """All parameters: N of Hoffmann et al."""
        return self.embedding + self.lm_head + self.matmul + self.scalar

    @property
    def non_embedding(self) -> int:
        """Blocks with their norms: N of Kaplan, Henighan and SMDM."""
        return self.matmul + self.scalar

    @property
    def with_head(self) -> int:
        """Matrices and output head: N of Porian and nanochat."""
        return self.matmul + self.lm_head

    def to_json(self) -> dict[str, int]:
        """Names as stored with a run."""
        return {
            "params_total": self.total,
            "params_embedding": self.embedding,
            "params_lm_head": self.lm_head,
            "params_matmul": self.matmul,
            "params_active_matmul": self.active_matmul,
            "params_scalar": self.scalar,
        }


def parameters(shape: Shape) -> Parameters:
    """Counts of a pre-norm transformer without biases and with an untied head: two norms a block and a last one."""
    return Parameters(
        embedding=shape.head + shape.mask_row * shape.width,
        lm_head=shape.head,
        matmul=shape.matrices(shape.experts),
        active_matmul=shape.matrices(shape.active),
        scalar=(2 * shape.layers + 1) * shape.width,
    )
