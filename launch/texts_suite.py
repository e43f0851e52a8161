"""Perplexity of a run on several texts (temporal shift): `generative evaluate RUN --suite temporal-shift`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evaluation.estimate import Estimate
from evaluation.harness.suite import TextsSuite
from generative.errors import ConfigError, DataError
from launch.modality import Progress, modality
from launch.opened import OpenRun, open_run, read_config, run_folder_of
from launch.sections import LaunchConfig
from launch.text_model import Subject, check_method

MADE_OF_TEXT = ("characters", "bpe")
"""Tokenizers that another text would make anew: their tokens mean something else then."""


def measure_texts(
    subject: Subject, suite: TextsSuite, launch: LaunchConfig | None, progress: Progress | None
) -> dict[str, Any]:
    """Perplexity of each text, exp(nats per token), and its ratio to that of the run's own held-out text.

    Args:
        subject: a run or checkpoint.
        suite: the texts.
        launch: workers; None measures in this process.
        progress: told the windows of a text that are done, and all.

    Raises:
        ConfigError: an exported folder; no text model; a tokenizer that is made of its text.
        DataError: a text is not there.
    """
    if subject.exported:
        raise ConfigError(
            f"{subject.path} is a folder of weights, without the text that it was trained on",
            "a run, with its own held-out text",
            "start a run from it (method.init_from), or give one that is there",
        )
    check_method(subject.path, read_config(run_folder_of(subject.path)).method.name)
    changes = {name: _changes(subject, suite, section) for name, section in suite.texts.items()}
    # All are opened before the first is measured, so that what is wrong with the last is told at once.
    runs = {name: _opened(subject, changes[name], bool(section)) for name, section in suite.texts.items()}
    found = {name: _measured(run, launch, changes[name], progress) for name, run in runs.items()}
    own = next((found[name] for name, section in suite.texts.items() if not section), None)
    return {"column": "perplexity", "tasks": {name: _entry(name, each, own, suite) for name, each in found.items()}}


def _changes(subject: Subject, suite: TextsSuite, section: Mapping[str, Any]) -> dict[str, Any]:
    """What makes of the run's configuration one for a text, by dotted keys."""
    asked = {"windows": suite.limit or suite.windows, "draws": suite.draws, "estimator": suite.estimator}
    changes = {f"evaluate.{key}": value for key, value in {**asked, "only_likelihood": True}.items()}
    return changes | {f"data.{key}": value for key, value in section.items()} | dict(subject.changes)


def _opened(subject: Subject, changes: Mapping[str, Any], other: bool) -> OpenRun:
    """The run with a text, which is prepared; `other`: it is not the run's own."""
    tokenizer = read_config(run_folder_of(subject.path), changes).data.tokenizer.name
    if other and tokenizer in MADE_OF_TEXT:
        raise ConfigError(
            f"data.tokenizer.name={tokenizer}, which is made of the text that is tokenised",
            "tokens that mean the same in all texts",
            "train with data.tokenizer.name=bytes, or a tokenizer of Hugging Face",
        )
    return open_run(subject.path, changes)


def _measured(
    run: OpenRun, launch: LaunchConfig | None, changes: Mapping[str, Any], progress: Progress | None
) -> Estimate:
    """Nats per token of a text's held-out part."""
    figures = modality(run.config).measure(run, launch, changes, progress)["figures"]
    key = next((name for name in figures if name.endswith("_nats_per_token")), None)
    if key is None:
        raise DataError(f"{run.folder} has no likelihood", "a text model", "give another run")
    return Estimate.from_json(figures[key])


def _entry(name: str, nats: Estimate, own: Estimate | None, suite: TextsSuite) -> dict[str, Any]:
    value = math.exp(nats.value)
    error = None if nats.stderr is None else value * nats.stderr  # d exp(x) = exp(x) dx
    found = Estimate(value, error, nats.n, "", nats.protocol, nats.bound).to_json()
    ratio = None if own is None else math.exp(nats.value - own.value)
    return {**found, "nats_per_token": nats.to_json(), "ratio": ratio, "published": suite.published.get(name)}
