"""`generative sample` of a folder that `generative export` or `import` wrote: weights without a run and its data."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.config import Config, ConfigT, Layers, validate
from generative.data.image_data import ImageData
from generative.data.tokenizers import Tokenizer
from generative.errors import CheckpointError, ConfigError
from generative.hub.loading import load_exported
from generative.method import DataFacts
from generative.training.exported import CONFIG
from launch.asked import check_sampling
from launch.image_labels import FOR_EACH, number_of, refuse_labels
from launch.image_sections import ImageSampling
from launch.importing import HUB, fetch_folder
from launch.modality import AskedSamples, refuse_text
from launch.sections import TextSampling
from launch.text_model import TEXT_METHODS, Subject

IMAGE_METHODS = ("edm", "f_distill", "mee_gan")

Changes = Mapping[str, Any]
"""Dotted keys of the sections sample and method.sampling, and their new values."""


def is_exported(path: str | Path) -> bool:
    """Whether it is a folder of weights, here or on the hub, and no run."""
    return str(path).startswith(HUB) or (Path(path) / CONFIG).is_file()


def sample_exported(
    path: str | Path, asked: AskedSamples, label: Sequence[int | str] | None, changes: Changes, out: Path | None
) -> dict[str, Any]:
    """Draw from an exported or imported folder in this process; the content of a samples file.

    Args:
        path: the folder, or hub:ORGANISATION/NAME.
        asked: prompt or text to fill in.
        label: classes of images, by number, in turn.
        changes: what is not as the method's settings and the section `sample` by default.
        out: where pictures go; None: samples/NAME.

    Raises:
        ConfigError, CheckpointError: no such model, one that is not sampled so, or wrong settings.
    """
    name = str(path).removeprefix(HUB)
    folder = fetch_folder(name, None) if str(path).startswith(HUB) else Path(path)
    section = _section(folder)
    method = str(section["name"])
    for key in changes:
        check_sampling(key, section)
    given = {
        section: {key.removeprefix(section): value for key, value in changes.items() if key.startswith(section)}
        for section in ("sample.", "method.")
    }
    if method in TEXT_METHODS:
        if label:
            refuse_labels(label, method, "leave out --label")
        return _texts(folder, asked, given["sample."], given["method."])
    if method not in IMAGE_METHODS:
        raise ConfigError(
            f"{path} is a model of {method}, which is not sampled from its exported folder",
            f"one of {', '.join(TEXT_METHODS + IMAGE_METHODS)}",
            "sample its run; speech is made better by `generative enhance`, a pipeline is drawn from by diffusers",
        )
    refuse_text(asked, "makes images", "--count, --label and --seed choose the samples")
    target = out or Path("samples") / Path(name).name
    return _images(folder, method, label, given["sample."], given["method."], target)


def _section(folder: Path) -> Mapping[str, Any]:
    try:
        section = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["method"]
        if isinstance(section["name"], str):
            return dict(section)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise CheckpointError(
        f"{folder / CONFIG} does not tell of which method the model is",
        "a folder that `generative export` or `generative import` wrote",
        "give such a folder, or a run",
    )


class _ImageSection(Config):
    sample: ImageSampling


class _TextSection(Config):
    sample: TextSampling


def _settings(changes: Changes, schema: type[ConfigT], beneath: Mapping[str, Any]) -> ConfigT:
    """The section `sample` alone."""
    layers = Layers()
    layers.merge({"sample": beneath}, "what the command begins with", {})
    for key, value in changes.items():
        layers.put(["sample", *key.split(".")], value)
    return validate(layers, schema)


@dataclass(frozen=True)
class _Words:
    tokenizer: Tokenizer
    facts: DataFacts


def _texts(folder: Path, asked: AskedSamples, sample: Changes, method: Changes) -> dict[str, Any]:
    from launch.text_samples import draw_texts

    settings = _settings(sample, _TextSection, {}).sample
    model = Subject(str(folder), {f"method.{key}": value for key, value in method.items()}).open()
    words = _Words(model.tokenizer, model.method.facts)
    with torch.no_grad():
        items = draw_texts(settings, words, model.method, model.nets, model.device, asked.prompt, asked.infill)
    return _record(folder) | {"items": items}


def _record(folder: Path) -> dict[str, Any]:
    told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return {"time": time.time(), "step": told.get("step") or 0, "model": told.get("weights", "published")}


class _NoImages:
    """Nothing to compare samples with."""

    def __len__(self) -> int:
        return 0

    def fetch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        raise AssertionError("there are no images")


def _images(
    folder: Path,
    name: str,
    label: Sequence[int | str] | None,
    sample: Changes,
    method: Changes,
    target: Path,
) -> dict[str, Any]:
    from launch.image_evaluation import sampler_of
    from launch.image_samples import look, sample_streams

    beneath: dict[str, Any] = {"neighbours": 0, "monitor": 0}
    if label:
        beneath |= {"labels": list(label), "count": FOR_EACH * len(label)}
    settings = _settings(sample, _ImageSection, beneath).sample
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_exported(folder, str(device), method)
    if loaded.facts.text_shape:
        raise ConfigError(
            f"{folder} is told texts, which its folder has no encoder for",
            "a model of images by class or of any kind",
            "export its run with --layout diffusers and draw with diffusers, or sample the run with --prompt",
        )
    data = _data(folder, name, loaded.facts, settings.labels)
    draw = sampler_of(loaded.method, loaded.networks, device, sample_streams(settings.seed), data)
    told = _record(folder)
    found = look(settings, data, draw, told["model"], told["step"], singly=bool(data.asked_labels))
    found.write(target)
    return found.record | {"folder": str(target)}


def _data(folder: Path, method: str, facts: DataFacts, labels: Sequence[int | str] | None) -> ImageData:
    """What pictures take of data that are not there."""
    shape, classes = facts.sample_shape, facts.classes or 0
    if labels and not classes:
        refuse_labels(labels, method, "leave out --label")
    asked = tuple(number_of(one, classes, ()) for one in labels or ())
    kind: Literal["image", "points"] = "points" if shape is not None and len(shape) == 1 else "image"
    nothing = _NoImages()
    return ImageData(nothing, nothing, facts, str(folder), "", facts.classes, kind, asked_labels=asked)


def shown(drawn: Mapping[str, Any]) -> list[str]:
    """Samples as the terminal shows them."""
    from launch import image_opened, text_task

    return image_opened.shown(drawn) if "folder" in drawn else text_task.shown(drawn)
