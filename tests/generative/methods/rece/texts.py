"""Made-up embeddings and weights: near rows of padding, as CLIP gives them, of any width."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.methods.rece.closed_form import gram
from generative.methods.rece.erase import SharedTransform, Task
from generative.methods.rece.preserve import Kept
from generative.methods.rece.tokens import Prompt, Segment


def prompt(text: str, width: int = 12, length: int = 7, content: int = 2, seed: int = 0, scale: float = 1.0) -> Prompt:
    """Of a CLIP-like encoder: a common start row, content, and padding that changes little from row to row."""
    draw = torch.Generator().manual_seed(seed + sum(map(ord, text)))
    common = torch.Generator().manual_seed(99)
    rows = torch.randn(length, width, generator=draw, dtype=torch.float64)
    rows[content + 1 :] = rows[content + 1] + 0.1 * rows[content + 1 :]
    rows[0] = torch.randn(width, generator=common, dtype=torch.float64)
    return Prompt(text, (Segment(scale * rows, content + 2),), content)


def weights(width: int = 12, seed: int = 0, scale: float = 0.3) -> dict[str, Tensor]:
    """K and V of a few layers, float64."""
    draw = torch.Generator().manual_seed(seed)
    sizes = {"down.to_k": 8, "down.to_v": 8, "mid.to_k": 16, "mid.to_v": 16}
    return {k: scale * torch.randn(o, width, generator=draw, dtype=torch.float64) for k, o in sizes.items()}


def task(width: int = 12, scale: float = 1.0, keep: tuple[str, ...] = ("", "tree")) -> Task:
    """Two concepts with guides of their own."""
    made = {t: prompt(t, width, content=0 if not t else 2, scale=scale) for t in ("church", "golf", "art", *keep)}
    empty = prompt("", width, content=0, scale=scale)
    kept = Kept.of("whole", [made[t] for t in keep], width)
    return Task([made["church"], made["golf"]], [empty, made["art"]], kept, kept)


def shared(matrices: dict[str, Tensor]) -> SharedTransform:
    width = next(iter(matrices.values())).shape[1]
    return SharedTransform.of(gram(matrices.values(), width))
