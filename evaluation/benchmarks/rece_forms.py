"""UCE and one epoch of RECE in other forms than ours, on synthetic matrices: what `rece_speed` compares with.

released: as the published code computes it. For every layer it projects the embeddings by all layers, sums outer
products token by token, inverts the d x d matrix of that layer, all in float32, and copies the layers before each edit.
It also runs the text encoder within the loop, which is left out here. plain: each layer's own sums once, as matrix
products, and an inverse for each layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from generative.methods.rece.closed_form import gram
from generative.methods.rece.config import EraseConfig, StepConfig
from generative.methods.rece.erase import SharedTransform, Task, erase
from generative.methods.rece.preserve import Kept
from generative.methods.rece.tokens import Prompt, Segment, pair

CONFIG = EraseConfig(
    start=StepConfig(preserve_scale=1.0),
    epochs=1,
    step=StepConfig(variant="whole", lamb=0.1, preserve_scale=0.1),
)
"""The published settings for nudity, one epoch."""

Edit = Callable[[Sequence[Tensor], Tensor, Tensor, Tensor, StepConfig], list[Tensor]]
"""(weights, old [n, d], new [n, d], kept [m, d], constants) -> weights."""


@dataclass(frozen=True)
class Shapes:
    """Key and value matrices of a model.

    Args:
        name: of the model.
        width: d.
        rows: o of each matrix.
        length: tokens of a text.
    """

    name: str
    width: int
    rows: tuple[int, ...]
    length: int = 77


SD14 = Shapes("SD 1.4", 768, (320,) * 10 + (640,) * 10 + (1280,) * 12)
SDXL = Shapes("SDXL", 2048, (640,) * 20 + (1280,) * 120)


@dataclass(frozen=True)
class Case:
    """Weights float32[o, d] each, and embeddings of a concept, a guide and the text that stays."""

    weights: Sequence[Tensor]
    concept: Prompt
    guide: Prompt
    kept: Prompt

    @property
    def task(self) -> Task:
        """For ours."""
        kept = Kept.of("whole", [self.kept], self.kept.segments[0].rows.shape[1])
        return Task([self.concept], [self.guide], kept, kept)


def case(shapes: Shapes, seed: int = 0) -> Case:
    """Normal weights, and rows like CLIP's: norm near 28 at d = 768, a common first row, near-equal padding."""
    draw = torch.Generator().manual_seed(seed)
    weights = [0.03 * torch.randn(o, shapes.width, generator=draw) for o in shapes.rows]
    first = torch.randn(1, shapes.width, generator=draw)

    def prompt(text: str, content: int) -> Prompt:
        rows = torch.randn(shapes.length, shapes.width, generator=draw)
        end = rows[content + 1]
        padding = end + 0.15 * rows[content + 1 :]
        together = torch.cat([first, rows[1 : content + 1], padding])
        return Prompt(text, (Segment(together.double(), content + 2),), max(content, 1))

    empty = prompt("", 0)
    return Case(weights, prompt("concept", 1), empty, empty)


def ours(given: Case) -> list[Tensor]:
    """The shared transform in float64, and its products with all matrices, as float32."""
    state = SharedTransform.of(gram(given.weights, given.weights[0].shape[1]))
    transform = erase(state, given.task, CONFIG).state.transform
    return [transform.on_weight(weight) for weight in given.weights]


def plain(given: Case) -> list[Tensor]:
    """Layer by layer, each layer's sums once, in float32."""
    return _form(given, torch.float32, _plain_edit)


def exact(given: Case) -> list[Tensor]:
    """The same in float64, but for the inverse, which is one for all layers: the reference."""
    return _form(given, torch.float64, _exact_edit)


def released(given: Case, every: int = 1) -> list[Tensor]:
    """Layer by layer as published.

    Args:
        given: what is edited.
        every: only each such layer, without the derivation: for times of models that would take too long.
    """
    edit = partial(_released_edit, every=every)
    if every == 1:
        return _form(given, torch.float32, edit)
    weights, kept = list(given.weights), given.kept.segments[0].rows.float()
    for step in (CONFIG.start, CONFIG.step):
        pairs = pair(step.variant, given.concept, given.guide)
        weights = edit(weights, pairs.old.float(), pairs.new.float(), kept, step)
    return weights


def _form(given: Case, dtype: torch.dtype, edit: Edit) -> list[Tensor]:
    """UCE, the derivation, and one epoch of RECE."""
    originals = [weight.to(dtype) for weight in given.weights]
    kept = given.kept.segments[0].rows.to(dtype)
    start = pair("suffix", given.concept, given.guide)
    weights = edit(originals, start.old.to(dtype), start.new.to(dtype), kept, CONFIG.start)
    concept, guide = given.concept.segments[0].rows.to(dtype), given.guide.segments[0].rows.to(dtype)
    current = CONFIG.lam * torch.eye(concept.shape[1], dtype=dtype)
    mixed = torch.zeros_like(current)
    for weight, original in zip(weights, originals, strict=True):
        current += weight.T @ weight
        mixed += weight.T @ original
    derived = concept @ (torch.inverse(current) @ mixed).T
    return edit(weights, derived, guide, kept, CONFIG.step)


def _plain_edit(weights: Sequence[Tensor], old: Tensor, new: Tensor, kept: Tensor, step: StepConfig) -> list[Tensor]:
    return [_left(weight, old, new, kept, step) @ torch.inverse(_right(old, kept, step)) for weight in weights]


def _exact_edit(weights: Sequence[Tensor], old: Tensor, new: Tensor, kept: Tensor, step: StepConfig) -> list[Tensor]:
    inverse = torch.inverse(_right(old, kept, step))
    return [_left(weight, old, new, kept, step) @ inverse for weight in weights]


def _left(weight: Tensor, old: Tensor, new: Tensor, kept: Tensor, step: StepConfig) -> Tensor:
    return step.lamb * weight + (new @ weight.T).T @ old + step.preserve(1) * (kept @ weight.T).T @ kept


def _right(old: Tensor, kept: Tensor, step: StepConfig) -> Tensor:
    return step.lamb * torch.eye(old.shape[1], dtype=old.dtype) + old.T @ old + step.preserve(1) * kept.T @ kept


def _released_edit(
    weights: Sequence[Tensor], old: Tensor, new: Tensor, kept: Tensor, step: StepConfig, every: int = 1
) -> list[Tensor]:
    found = copy.deepcopy(list(weights))
    for number in range(0, len(found), every):
        left = step.lamb * found[number]
        right = step.lamb * torch.eye(old.shape[1])
        for context, wanted, scale in ((old, new, 1.0), (kept, kept, step.preserve(1))):
            values = [wanted @ weight.T for weight in found][number]  # of all layers, and one is used
            left = left + scale * (values[:, :, None] @ context[:, None, :]).sum(0)
            right = right + scale * (context[:, :, None] @ context[:, None, :]).sum(0)
        found[number] = left @ torch.inverse(right)
    return found


def deviation(found: Sequence[Tensor], reference: Sequence[Tensor], originals: Sequence[Tensor]) -> float:
    """|W - W_reference|_F / |W_reference - W_original|_F over all matrices."""
    missed = sum(float((a.double() - b).square().sum()) for a, b in zip(found, reference, strict=True))
    whole = sum(float((a - b.double()).square().sum()) for a, b in zip(reference, originals, strict=True))
    return float((missed / whole) ** 0.5)
