"""Supervised fine-tuning: the response is noised and learned, the prompt is kept (paper, appendix B.4; released sft/).

Shapes: B samples, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from generative.method import Batch, Context
from generative.methods.masked_diffusion.config import AnswerConfig
from generative.methods.masked_diffusion.losses import Masking


@dataclass(frozen=True)
class Answers:
    """Which tokens are answers.

    Args:
        places: bool[B, T], response and ends of text after it.
        lengths: int64[B], how many, at least 1.
    """

    places: Tensor
    lengths: Tensor

    @staticmethod
    def of(batch: Batch) -> Answers | None:
        """Of a batch that says where prompts end (prompt_length int64[B], in 0 .. T - 1); None of plain text."""
        if "prompt_length" not in batch:
            return None
        places = torch.arange(batch["tokens"].shape[1] - 1, device=batch["tokens"].device)
        inside = places >= batch["prompt_length"][:, None]
        return Answers(inside, inside.sum(1))


def divisor_of(config: AnswerConfig, answers: Answers, valid: Tensor) -> Tensor:
    """What the summed loss is divided by: answer tokens, or answers where each counts the same."""
    return valid.sum() if config.normalisation == "answers" else (valid * answers.lengths).sum()


def mask_answers(
    config: AnswerConfig, answers: Answers, masking: Masking, batch: Batch, context: Context
) -> tuple[Masking, Tensor]:
    """The masking with prompts restored, and the prompt tokens bool[B, T] that are hidden without being learned.

    Prompts are hidden in a share of the samples, each drawn by itself, for supervised guidance: the model learns what
    responses look like without them. The released code hides those of whole micro-batches.
    """
    weight = masking.weight
    if config.normalisation == "answers":
        weight = weight / (answers.lengths if weight.ndim == 1 else answers.lengths[:, None])
    chance = context.streams.uniform("prompt", batch["sample_id"])
    hidden = (chance < config.prompt_dropping)[:, None] & ~answers.places
    return replace(masking, mask=masking.mask & answers.places, weight=weight), hidden
