"""`generative sample` of a folder that `generative export` or `import` wrote: weights without a run and its data."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.config import Config, ConfigT, Layers, validate
from generative.data.image_data import ImageData
from generative.data.tokenizers import Tokenizer
from generative.errors import CheckpointError, ConfigError
from generative.hub.loading import ExportedModel, load_exported
from generative.hub_names import HUB
from generative.method import DataFacts
from generative.training.exported import CONFIG, MODEL_TYPE
from launch.asked import check_sampling
from launch.image_evaluation import sampler_of
from launch.image_labels import FOR_EACH, number_of, refuse_labels
from launch.image_samples import Drawn, look, sample_streams
from launch.image_sections import ImageSampling
from launch.importing import fetch_folder
from launch.modality import AskedSamples, refuse_text
from launch.sections import TextSampling
from launch.text_model import TEXT_METHODS, Subject
from launch.text_samples import BLANK, draw_texts

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMAGE_METHODS = ("edm", "f_distill", "mee_gan")

Changes = Mapping[str, Any]
"""Dotted keys of the sections sample and method.sampling, and their new values."""


def is_exported(path: str | Path) -> bool:
    """Whether it is a folder of weights, here or on the hub, and no run."""
    return str(path).startswith(HUB) or (Path(path) / CONFIG).is_file()


def sample_exported(
    path: str | Path,
    asked: AskedSamples,
    label: Sequence[int | str] | None,
    changes: Changes,
    out: Path | None = None,
    tokenizer: str = "",
) -> dict[str, Any]:
    """Draw from an exported or imported folder in this process; the content of a samples file.

    Args:
        path: the folder, or hub:OWNER/NAME.
        asked: prompt or text to fill in.
        label: classes of images, by number, in turn.
        changes: what is not as the method's settings and the section `sample` by default.
        out: where pictures of a model of images go; None: samples/NAME.
        tokenizer: of a text model, in the place of its own: bytes, a folder, or hub:OWNER/NAME.

    Raises:
        ConfigError, CheckpointError: no such model, one that is not sampled so, or wrong settings.
    """
    name = str(path).removeprefix(HUB)
    folder = fetch_folder(name, None) if str(path).startswith(HUB) else Path(path)
    told = _config(folder)
    method = told["method"]["name"]
    for key in changes:
        check_sampling(key, told["method"])
    given = {
        prefix: {key.removeprefix(prefix): value for key, value in changes.items() if key.startswith(prefix)}
        for prefix in ("sample.", "method.")
    }
    record = {"time": time.time(), "step": told.get("step") or 0, "model": told.get("weights", "published")}
    if "sample.weights" in changes:
        raise ConfigError(
            f"sample.weights={changes['sample.weights']} of {path}, an exported model",
            f"the weights that it holds: {record['model']}",
            "leave it out, or sample the run, or export it with --weights",
        )
    if method in TEXT_METHODS:
        if label:
            refuse_labels(label, method, "leave out --label")
        if out is not None:
            _refuse_option("out", out, path, "a model of text, whose samples are printed", "a model of images")
        subject = Subject(str(folder), {f"method.{key}": value for key, value in given["method."].items()}, tokenizer)
        return record | {"items": _texts(subject, asked, given["sample."])}
    if method not in IMAGE_METHODS:
        raise ConfigError(
            f"{path} is a model of {method}, which is not sampled from its exported folder",
            f"one of {', '.join(TEXT_METHODS + IMAGE_METHODS)}",
            "sample its run; speech is made better by `generative enhance`, a pipeline is drawn from by diffusers",
        )
    if tokenizer:
        _refuse_option("tokenizer", tokenizer, path, "a model of images", "a model of text")
    refuse_text(asked, "makes images", "--count, --label and --seed choose the samples")
    target = out or Path("samples") / Path(name).name
    loaded = load_exported(folder, DEVICE, given["method."])
    found = _images(folder, loaded, label, given["sample."], record)
    found.write(target)
    return found.record | {"folder": str(target)}


def _refuse_option(option: str, given: object, path: str | Path, what: str, wanted: str) -> NoReturn:
    raise ConfigError(f"--{option} {given} with {path}, {what}", wanted, f"leave out --{option}")


def _config(folder: Path) -> dict[str, Any]:
    """config.json, which names a method."""
    told: Any = None
    try:
        told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if isinstance(told["method"]["name"], str):
            return dict(told)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    kind = told.get("model_type", MODEL_TYPE) if isinstance(told, dict) else MODEL_TYPE
    if kind != MODEL_TYPE:
        raise CheckpointError(
            f"{folder} holds a model of type {kind!r}, under names of another program",
            f"a folder that `generative export --layout generative` wrote (model_type {MODEL_TYPE!r})",
            "export the run again with --layout generative, or sample the run itself",
        )
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


def _texts(subject: Subject, asked: AskedSamples, sample: Changes) -> list[dict[str, Any]]:
    settings, model = _settings(sample, _TextSection, {}).sample, subject.open()
    length = settings.length or model.method.facts.sequence_length or model.longest
    if length > model.longest:
        raise ConfigError(
            f"sample.length={length} is longer than the model's context ({model.longest})",
            f"at most {model.longest}",
            "lower sample.length",
        )
    for text in (asked.prompt or "", *BLANK.split(asked.infill or "")):
        model.encoded(text)  # refuses another model's tokens
    words = _Words(model.tokenizer, replace(model.method.facts, sequence_length=length))
    with torch.no_grad():
        return draw_texts(settings, words, model.method, model.nets, model.device, asked.prompt, asked.infill)


class _NoImages:
    """Nothing to compare samples with."""

    def __len__(self) -> int:
        return 0

    def fetch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        raise AssertionError("there are no images")


def _images(
    folder: Path,
    loaded: ExportedModel,
    label: Sequence[int | str] | None,
    sample: Changes,
    record: Mapping[str, Any],
) -> Drawn:
    if loaded.facts.text_shape:
        raise ConfigError(
            f"{folder} is told texts, which its folder has no encoder for",
            "a model of images by class or of any kind",
            "export its run with --layout diffusers and draw with diffusers, or sample the run with --prompt",
        )
    beneath: dict[str, Any] = {"neighbours": 0, "monitor": 0}
    if label:
        beneath |= {"labels": list(label), "count": FOR_EACH * len(label)}
    settings = _settings(sample, _ImageSection, beneath).sample
    data = _data(folder, loaded, settings.labels)
    streams = sample_streams(settings.seed)
    draw = sampler_of(loaded.method, loaded.networks, torch.device(DEVICE), streams, data)
    return look(settings, data, draw, record["model"], record["step"], singly=bool(data.asked_labels))


def _data(folder: Path, loaded: ExportedModel, labels: Sequence[int | str] | None) -> ImageData:
    """What pictures take of data that are not there."""
    facts = loaded.facts
    shape, classes = facts.sample_shape, facts.classes or 0
    if labels and not classes:
        refuse_labels(labels, str(loaded.config["method"]["name"]), "leave out --label")
    asked = tuple(number_of(one, classes, ()) for one in labels or ())
    kind: Literal["image", "points"] = "points" if shape is not None and len(shape) == 1 else "image"
    nothing = _NoImages()
    return ImageData(nothing, nothing, facts, str(folder), "", facts.classes, kind, asked_labels=asked)


def shown(drawn: Mapping[str, Any]) -> list[str]:
    """Samples as the terminal shows them."""
    from launch import image_opened, text_task

    return image_opened.shown(drawn) if "folder" in drawn else text_task.shown(drawn)
