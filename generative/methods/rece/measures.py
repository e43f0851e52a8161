"""What an edit did, in numbers: from embeddings and G alone, before any image is drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.methods.rece.erase import SharedTransform, Task
from generative.methods.rece.tokens import Prompt, joined, pair, used


def residuals(state: SharedTransform, task: Task) -> dict[str, float]:
    """How far outputs are from what they should be, as |error| / |what there was to do|, over all matrices.

    erased: |W c - W^orig g| / |W^orig c - W^orig g|; kept: |W c_j - W^orig c_j| / |W^orig c_j|, of the texts that
    RECE's edits keep.
    """
    gram, transform = state.gram, state.total
    pairs = joined([pair("whole", c, g) for c, g in zip(task.concepts, task.guides, strict=True)])
    moved = transform.on_states(pairs.old)
    change = transform.p @ transform.q.T
    drift = torch.trace(gram @ change @ task.kept.gram @ change.T)
    return {
        "erased": _size(gram, moved - pairs.new) / max(_size(gram, pairs.old - pairs.new), 1e-300),
        "kept": float((drift.clamp_min(0) / torch.trace(gram @ task.kept.gram).clamp_min(1e-300)).sqrt()),
    }


def _size(gram: Tensor, rows: Tensor) -> float:
    """|W x| over all rows and matrices."""
    return float(((rows @ gram) * rows).sum().clamp_min(0).sqrt())


def norms(derived: Prompt, concept: Prompt) -> tuple[float, float]:
    """|c'|_F and |c'|_F / |c|_F over the rows that count."""
    sizes = [torch.cat([used(s) for s in prompt.segments]).norm() for prompt in (derived, concept)]
    return float(sizes[0]), float(sizes[0] / sizes[1])
