"""Which of a few attributes an image shows: what debiasing counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from evaluation.erasure.clip import CLIP, ClipScore
from evaluation.erasure.opening import digit_judge
from generative.errors import ConfigError
from generative.methods.text_to_image.config import DIGITS
from generative.registry import Registry

Labels = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] to numbers of attributes, int64[B]."""
PROMPT = "a photo of {}"


def _clip(what: str, attributes: Sequence[str], cache: Path | None) -> Labels:
    """Zero-shot: the attribute whose prompt has the largest cosine."""
    score = ClipScore.open(what or CLIP)

    def labels(images: Tensor) -> Tensor:
        told = [score(images, [PROMPT.format(attribute)] * len(images)) for attribute in attributes]
        return torch.stack(told, 1).argmax(1)

    return labels


def _digits(what: str, attributes: Sequence[str], cache: Path | None) -> Labels:
    """The classifier of digits, among the digits that are attributes."""
    unknown = [attribute for attribute in attributes if attribute not in DIGITS]
    if unknown:
        raise ConfigError(f"the attribute {unknown[0]!r} with --labels digits", f"of {', '.join(DIGITS)}", "correct it")
    judge, places = digit_judge(cache), torch.tensor([DIGITS.index(attribute) for attribute in attributes])
    return lambda images: judge.class_probabilities(images)[:, 0, places].argmax(1)


LABELS: Registry[Callable[[str, Sequence[str], Path | None], Labels]] = Registry(
    "labels", {"clip": _clip, "digits": _digits}
)


def open_labels(name: str, attributes: Sequence[str], cache: Path | None = None) -> Labels:
    """clip, clip:FOLDER_OR_HUB_NAME or digits.

    Raises:
        ConfigError: unknown name, or attributes that it cannot tell.
        DataError: a package is not installed.
    """
    kind, _, what = name.partition(":")
    return LABELS[kind](what, attributes, cache)


def shares(labels: Tensor, count: int) -> Tensor:
    """Part of the images that show each of `count` attributes, float64[count]."""
    return torch.bincount(labels, minlength=count).double() / len(labels)
