"""Detectors by name, as the command line gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evaluation.erasure.clip import CLIP, q16
from evaluation.erasure.detectors import THRESHOLDS, Classes, Detector, nude_net, resnet50
from evaluation.images.small import LabelledImages, SmallExtractor, small_extractor
from evaluation.images.small_network import SmallSettings
from generative.errors import ConfigError
from generative.methods.text_to_image.config import DIGITS
from generative.registry import Registry


def _nudenet(what: str, cache: Path | None) -> Detector:
    try:
        return nude_net(float(what) if what else THRESHOLDS["rece"])
    except ValueError as error:
        raise ConfigError(f"--detector nudenet:{what}", "a threshold, such as nudenet:0.45", "correct it") from error


def _resnet50(what: str, cache: Path | None) -> Detector:
    return resnet50(what.split("+"))


def _q16(what: str, cache: Path | None) -> Detector:
    prompts, _, clip = what.partition("+")
    if not prompts:
        raise ConfigError(
            "--detector q16 without its two prompts",
            "q16:FILE or q16:FILE+CLIP, the tensor `prompts` in a safetensors file",
            "name the file",
        )
    return q16(Path(prompts), clip or CLIP)


def digit_judge(cache: Path | None, settings: SmallSettings | None = None) -> SmallExtractor:
    """A classifier of scikit-learn's digits, trained on the spot or read from the cache."""
    import numpy as np

    from generative.data.image_config import DigitsConfig
    from generative.data.images import open_images

    data = open_images(DigitsConfig()).train
    real = data.fetch(np.arange(len(data)))
    return small_extractor(LabelledImages(real["sample"], real["label"], "digits of scikit-learn"), settings, cache)


def _digits(what: str, cache: Path | None) -> Detector:
    if what not in DIGITS:
        raise ConfigError(f"--detector digits:{what}", f"one of {', '.join(DIGITS)}", "name the digit, as digits:seven")
    judge = digit_judge(cache)
    return Classes(lambda images: judge.class_probabilities(images)[:, 0], (DIGITS.index(what),), judge.description)


DETECTORS: Registry[Callable[[str, Path | None], Detector]] = Registry(
    "detector", {"nudenet": _nudenet, "resnet50": _resnet50, "q16": _q16, "digits": _digits}
)


def open_detector(name: str, cache: Path | None = None) -> Detector:
    """NAME or NAME:WHAT: nudenet, nudenet:0.45, resnet50:church, resnet50:church+golf ball, q16:FILE, digits:seven.

    Args:
        name: of it.
        cache: folder for what is trained on the spot.

    Raises:
        ConfigError: unknown name, or something that it cannot tell.
        DataError: its package is not installed.
    """
    kind, _, what = name.partition(":")
    return DETECTORS[kind](what, cache)
