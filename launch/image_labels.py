"""Classes that samples are asked for (`generative sample --label`): by number or name, dealt out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from generative.data.images import ImageData
from generative.errors import ConfigError, suggestion
from launch.image_samples import prompted

if TYPE_CHECKING:
    from launch.opened import OpenRun
    from launch.schema import RunConfig

FOR_EACH = 8
"""Samples of each class where no count is asked for."""

NAMED = 6
"""Names of classes that a message tells."""


def label_options(config: RunConfig, labels: Sequence[int | str]) -> dict[str, Any]:
    """What `--label` sets in a run's configuration: the classes, a number of each, no watch over modes.

    Raises:
        ConfigError: the run makes no images, or its model is told no classes whatever the data.
    """
    if getattr(config.method, "classes", 0) == 0:
        refuse_labels(labels, config.method.name, "leave out --label")
    return {"sample.labels": list(labels), "sample.count": FOR_EACH * len(labels), "sample.monitor": 0}


def asked_data(run: OpenRun, prompt: str | None = None) -> ImageData:
    """The data of a run with the prompts or classes that samples are asked for, where some are.

    Raises:
        ConfigError: prompts or classes for a model that is told none, or classes that it does not know.
        DataError: a file of prompts that cannot be read.
    """
    data, labels = prompted(run.data, run.config.sample, prompt), run.config.sample.labels
    if labels is None:
        return data
    classes = _classes(run.config, data)
    if not classes:
        refuse_labels(
            labels, run.config.method.name, f"leave out --label{'; --prompt tells it a text' if data.captioned else ''}"
        )
    names = data.class_names if len(data.class_names) == classes else ()
    return replace(data, asked_labels=tuple(number_of(label, classes, names) for label in labels))


def _classes(config: RunConfig, data: ImageData) -> int:
    """How many classes the model is told; 0: none."""
    wanted = getattr(config.method, "classes", 0)
    return (data.facts.classes or 0) if wanted is None else int(wanted)


def refuse_labels(labels: Sequence[int | str], method: str, remedy: str) -> NoReturn:
    """Raises ConfigError: a model of that method is told no classes."""
    raise ConfigError(
        f"{_given(labels)} with a model that is told no classes ({method})",
        expected="a generator of images that was trained with classes (edm, f_distill)",
        remedy=remedy,
    )


def _given(labels: Sequence[int | str]) -> str:
    return " ".join(f"--label {label}" for label in labels)


def number_of(label: int | str, classes: int, names: Sequence[str]) -> int:
    """The class that is meant: a text is a name first, since a folder of that name is what one sees, then a number."""
    text = str(label)
    if isinstance(label, str) and text in names:
        return names.index(text)
    number = int(text) if text.lstrip("-").isdecimal() else -1
    if not 0 <= number < classes:
        known = f"0 .. {classes - 1}{', or a name as ' + ', '.join(names[:NAMED]) if names else ''}"
        raise ConfigError(
            f"--label {text}: the model knows no such class{suggestion(text, names)}",
            expected=known,
            remedy="correct --label (sample.labels)",
        )
    return number
