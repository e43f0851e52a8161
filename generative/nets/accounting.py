"""Parameters and floating-point operations of the transformer, from its sizes alone."""

from __future__ import annotations

from generative.nets.transformer_config import TransformerConfig


def attention_parameters(width: int, heads: int, groups: int, head_width: int) -> int:
    """Weights of one attention: queries and output for each head, keys and values for each group."""
    return width * head_width * (2 * heads + 2 * groups)


def feed_forward_parameters(width: int, ff_width: int, gated: bool = True) -> int:
    """Weights of one feed-forward; three matrices where it is gated (SwiGLU), else two."""
    return (3 if gated else 2) * width * ff_width


def matrix_parameters(config: TransformerConfig) -> int:
    """Weights of all matrices in the blocks."""
    attention = attention_parameters(config.width, config.heads, config.groups, config.head_width)
    gated = config.family == "llama"
    return config.layers * (attention + feed_forward_parameters(config.width, config.ff_width, gated))


def non_embedding_parameters(config: TransformerConfig) -> int:
    """N of the scaling laws: all parameters but embedding and head (norms included)."""
    return matrix_parameters(config) + (2 * config.layers + 1) * config.width


def total_parameters(config: TransformerConfig, mask_row: bool) -> int:
    """All parameters; `mask_row`: whether the embedding has a row for the mask token."""
    return non_embedding_parameters(config) + (2 * config.padded_vocab + mask_row) * config.width


def training_flops(config: TransformerConfig, length: int, head_rows: float, causal: bool) -> int:
    """Operations of forward and backward on one sequence (recomputation of checkpointed blocks not counted).

    Matrices: 6 per weight and token. Attention: 12 layers d T^2 (half of it when causal). Head: 6 d V for each of
    `head_rows` rows. The embedding is a look-up and costs nothing; norms and element-wise operations are left out.
    """
    matrices = 6 * matrix_parameters(config) * length
    attention = 12 * config.layers * config.width * length**2 // (2 if causal else 1)
    head = 6 * config.width * config.padded_vocab * head_rows
    return int(matrices + attention + head)


def steps_for_flops(config: TransformerConfig, flops: float, batch_size: int, average_length: float) -> int:
    """Training steps of a budget under C = 6 N D, rounded down (paper, appendix B.2)."""
    return int(flops / (6 * non_embedding_parameters(config) * batch_size * average_length))
