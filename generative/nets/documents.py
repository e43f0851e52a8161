"""Windows that hold several documents: what each place sees, and its position in its own document.

Shapes: B windows, T places; documents int64[B, T] are numbers that rise along a window.
"""

from __future__ import annotations

import torch
from torch import Tensor


def first_places(document: Tensor) -> Tensor:
    """bool[B, T], True where a document begins (or goes on from the window before)."""
    first = torch.ones_like(document, dtype=torch.bool)
    first[:, 1:] = document[:, 1:] != document[:, :-1]
    return first


def positions_within(document: Tensor) -> Tensor:
    """int64[B, T]: 0, 1, .. from the first place of each document on."""
    places = torch.arange(document.shape[1], device=document.device)
    starts = torch.where(first_places(document), places, 0).cummax(1).values
    return places - starts


def same_document(document: Tensor, causal: bool = False) -> Tensor:
    """bool[B, T, T], which place each place attends to: those of its document, up to itself where causal."""
    same = document[:, :, None] == document[:, None, :]
    return same.tril() if causal else same
