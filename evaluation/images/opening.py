"""Feature extractors by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from evaluation.images.extractors import FeatureExtractor, PixelExtractor, missing_weights
from evaluation.images.published import KEY, BackboneExtractor, InceptionExtractor
from evaluation.images.small import LabelledImages, small_extractor
from evaluation.images.small_network import SmallSettings
from generative.errors import ConfigError, suggestion

EXTRACTORS = ("inception", "transformers", "small", "pixels")


def open_extractor(
    name: str,
    *,
    weights: str | None = None,
    revision: str | None = None,
    training: LabelledImages | None = None,
    settings: SmallSettings | None = None,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> FeatureExtractor:
    """The extractor that a configuration names.

    Args:
        name: inception (published FID), transformers (any vision backbone), small (trained on the spot) or pixels.
        weights: file, folder or hub id of the first two.
        revision: branch, tag or commit on the hub.
        training: images that `small` learns from; real ones, never generated.
        settings: of `small`.
        cache: folder of classifiers that were trained before.
        device: where the network runs.
        progress: told how many steps of the training of `small` are done, and all.

    Raises:
        ConfigError: an unknown name, or `small` without images.
        DataError: weights or images that cannot be used.
    """
    if name not in EXTRACTORS:
        raise ConfigError(
            f"unknown extractor {name!r}{suggestion(name, EXTRACTORS)}",
            expected=f"one of {', '.join(EXTRACTORS)}",
            remedy="correct evaluate.extractor",
        )
    if name == "pixels":
        return PixelExtractor()
    if name == "small":
        if training is None:
            raise ConfigError(
                "evaluate.extractor=small without images to train on",
                expected="training data of real images",
                remedy="name the data set, or use evaluate.extractor=pixels",
            )
        extractor = small_extractor(training, settings, cache, progress)
        extractor.net.to(device)
        return extractor
    if weights is None:
        raise missing_weights(f"evaluate.extractor={name} without weights", KEY)
    kind = InceptionExtractor if name == "inception" else BackboneExtractor
    return kind(weights, revision, device)
