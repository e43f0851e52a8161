"""Block diffusion (BD3LM, arXiv 2503.09573): blocks left to right, each by diffusion given clean blocks before it.

A training input is [x_t ; x_0], 2T places with the positions repeated: a noisy token sees its own noisy block and the
clean blocks before it, a clean one its own clean block and those before it.

Shapes: B samples, T positions, b block size, K = ceil(T / b) blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def block_causal(queries: Tensor, keys: Tensor, block_size: int) -> Tensor:
    """bool[T, S]: whether the block of a key position [S] is that of the query position [T], or one before."""
    return keys // block_size <= (queries // block_size)[:, None]


def noisy_and_clean(blocks: Tensor, document: Tensor | None = None) -> Tensor:
    """bool[..., 2T, 2T], what each place of [x_t ; x_0] attends to.

    Args:
        blocks: int64[..., T], the number of each place's block.
        document: int64[..., T], the number of its document, where others are not seen.
    """
    query, key = blocks[..., :, None], blocks[..., None, :]
    seen = torch.ones_like(query == key) if document is None else document[..., :, None] == document[..., None, :]
    noisy = torch.cat([seen & (query == key), seen & (key < query)], dim=-1)
    clean = torch.cat([torch.zeros_like(seen), seen & (key <= query)], dim=-1)
    return torch.cat([noisy, clean], dim=-2)


def doubled_rows(rows: Tensor, length: int) -> Tensor:
    """Flattened places in [B, T] as those in the first halves of [B, 2T]."""
    return rows + rows // length * length


def split_blocks(values: Tensor, block_size: int, fill: float = 0) -> Tensor:
    """[B, T, ...] -> [B * K, b, ...] in order, the last block filled up."""
    K = -(-values.shape[1] // block_size)
    room = K * block_size - values.shape[1]
    padded = F.pad(values, [0, 0] * (values.ndim - 2) + [0, room], value=fill)
    return padded.reshape(len(values) * K, block_size, *values.shape[2:])
