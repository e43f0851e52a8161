"""What an edit did, in numbers: from embeddings and G alone, before any image is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.methods.rece.config import EraseConfig
from generative.methods.rece.erase import SharedTransform, Task
from generative.methods.rece.tokens import Prompt, joined, pair, preserved, used


def residuals(state: SharedTransform, task: Task, config: EraseConfig) -> dict[str, float]:
    """How far outputs are from what they should be, as |error| / |what there was to do|, over all matrices.

    erased: |W c - W^orig g| / |W^orig c - W^orig g|; kept: |W c_j - W^orig c_j| / |W^orig c_j|. Rows are paired, and
    texts kept, as the last edit has it (RECE's; UCE's where there are no epochs): its aim is no other.
    """
    gram, transform = state.gram, state.total
    variant, kept = (config.step.variant, task.kept) if config.epochs else (config.start.variant, task.kept_at_start)
    pairs = joined([pair(variant, c, g) for c, g in zip(task.concepts, task.guides, strict=True)])
    moved = transform.on_states(pairs.old)
    change = transform.p @ transform.q.T
    drift = torch.trace(gram @ change @ kept.gram @ change.T)
    return {
        "erased": _size(gram, moved - pairs.new) / max(_size(gram, pairs.old - pairs.new), 1e-300),
        "kept": float((drift.clamp_min(0) / torch.trace(gram @ kept.gram).clamp_min(1e-300)).sqrt()),
    }


def _size(gram: Tensor, rows: Tensor) -> float:
    """|W x| over all rows and matrices."""
    return float(((rows @ gram) * rows).sum().clamp_min(0).sqrt())


def norms(derived: Prompt, concept: Prompt) -> tuple[float, float]:
    """|c'|_F and |c'|_F / |c|_F over the rows that count."""
    sizes = [torch.cat([used(s) for s in prompt.segments]).norm() for prompt in (derived, concept)]
    return float(sizes[0]), float(sizes[0] / sizes[1])


@dataclass(frozen=True)
class Neighbour:
    """A text beside the concepts.

    Args:
        text: of it.
        near: the concept that it is nearest to.
        similarity: cosine of their last content tokens.
        change: |W T c - W c| / |W c| of its last content token, over all matrices: 0 where the edit leaves it.
    """

    text: str
    near: str
    similarity: float
    change: float


def neighbours(
    state: SharedTransform, concepts: Sequence[Prompt], others: Sequence[Prompt], count: int
) -> list[Neighbour]:
    """Those of `others` that are nearest to a concept, nearest first, and what the edit does to them."""
    if not others:
        return []
    rows, targets = (torch.cat([preserved("last", prompt) for prompt in group]) for group in (others, concepts))
    pieces = len(others[0].segments)
    rows, targets = rows[::pieces], targets[::pieces]  # of several segments, the first
    cosine = torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(targets, dim=1).T
    best = cosine.max(1)
    found = []
    for i in best.values.argsort(descending=True)[:count].tolist():
        row = rows[i : i + 1]
        moved = state.total.on_states(row) - row
        change = _size(state.gram, moved) / max(_size(state.gram, row), 1e-300)
        found.append(Neighbour(others[i].text, concepts[int(best.indices[i])].text, float(best.values[i]), change))
    return found
