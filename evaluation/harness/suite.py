"""What a suite asks, with which settings: a YAML file, say configs/suite/paper-zero-shot.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field, PositiveInt, model_validator

from evaluation.harness.jobs import Rules
from evaluation.harness.tokens import Begin
from generative.config import Config, load_layers, validate
from generative.config_messages import combination
from generative.data.config import AbsolutePath
from generative.methods.masked_diffusion.likelihood import EstimatorName

FOLDER = "suite"
"""Of the configurations: `--suite NAME` is suite/NAME.yaml there, or else a file."""


class SuiteTask(Config):
    """One task of the harness. What is null is as the suite has it."""

    name: str
    """Name in the harness."""
    metric: str = "acc"
    """Which of the task's figures stands in the table; all are in the JSON file."""
    estimator: EstimatorName | None = None
    """How a masked model's likelihoods are estimated."""
    guidance: float | None = Field(default=None, ge=0.0)
    """Scale w of guidance for a masked model; the context is its prompt."""
    published: float | None = None
    """The published figure, as the comment in the suite's file explains."""


class SuiteConfig(Config):
    """Tasks of the harness, and how they are scored."""

    protocol: Literal["harness"] = "harness"
    """What kind of suite this is."""

    tasks: list[SuiteTask] = Field(min_length=1)
    """What is asked."""
    begin: Begin = "bos"
    """What stands before each context: the token that begins texts, or nothing (none)."""
    draws: PositiveInt = 128
    """Network evaluations of each continuation, for bounds that are estimated."""
    replicates: int = Field(default=8, ge=2)
    """Independent estimates that the draws are shared out over, for standard errors; all are computed at once."""
    estimator: EstimatorName | None = None
    """One estimator for all tasks, in place of each task's own."""
    guidance: float | None = Field(default=None, ge=0.0)
    """One scale for all tasks, in place of each task's own; 0 turns guidance off. Where no scale is said, likelihoods
    have none, and text is written with that of method.sampling."""
    examples: int | None = Field(default=None, ge=0)
    """Solved examples before each question; null: as each task says, or none."""
    limit: PositiveInt | None = None
    """Only the first so many questions of each task; null: all."""
    new_tokens: PositiveInt = 256
    """Tokens to write at most where a task wants text and does not say how many."""
    published_by: str = ""
    """Whose figures stand in the column `published`."""

    @model_validator(mode="after")
    def _enough_draws(self) -> SuiteConfig:
        if self.replicates > self.draws:
            raise combination(
                f"replicates={self.replicates} of draws={self.draws}",
                "at least one draw for each replicate",
                "raise suite.draws, or lower suite.replicates",
            )
        return self

    def rules(self, name: str) -> Rules:
        """How a task is scored; one that is not named (a part of a group) as the suite says."""
        own = next((task for task in self.tasks if task.name == name), SuiteTask(name=name))
        estimator = self.estimator or own.estimator or "exact_count"
        return Rules(estimator, self.draws, self.replicates, self.told_guidance(name) or 0.0)

    def told_guidance(self, name: str) -> float | None:
        """Scale w for a task; None where neither the suite nor the task says one."""
        own = next((task.guidance for task in self.tasks if task.name == name), None)
        return own if self.guidance is None else self.guidance


class ReversalSuite(Config):
    """Questions about people in both orders (reversal curse), of models trained with data.name=reversal."""

    protocol: Literal["reversal"]
    """What kind of suite this is."""
    path: AbsolutePath | None = None
    """Folder of the published files; null: the run's own questions."""
    guidance: float = Field(default=0.0, ge=0.0)
    """Scale w for a masked model; the question is its prompt."""
    steps: PositiveInt = 32
    """Steps of a masked model's sampler (most confident first, without chance)."""
    length: PositiveInt | None = None
    """Tokens of question and answer together; null: the length of training."""
    limit: PositiveInt | None = None
    """Only the first so many questions of each kind; null: all."""
    published: dict[str, float] = {}
    """Published figures by what is asked, for the column."""
    published_by: str = ""
    """Whose they are."""


class TextsSuite(Config):
    """Perplexity of a run on several texts, say of later dates than its training text."""

    protocol: Literal["texts"]
    """What kind of suite this is."""
    texts: dict[str, dict[str, Any]] = Field(min_length=2)
    """Section `data` of each text by a name; {} is the run's own held-out text, with which the others are compared. All
    are encoded as the training text was; what is measured is their held-out part (validation_fraction)."""
    windows: PositiveInt = 512
    """Windows of each text at most."""
    draws: PositiveInt = 128
    """Network evaluations of a window, for bounds."""
    estimator: EstimatorName = "exact_count"
    """How a masked model's bound is estimated."""
    limit: PositiveInt | None = None
    """Fewer windows, by --limit."""
    published: dict[str, float] = {}
    """Published perplexities by the texts' names."""
    published_by: str = ""
    """Whose they are."""


Suite = SuiteConfig | ReversalSuite | TextsSuite

SuiteT = TypeVar("SuiteT", bound=Suite)


class SuiteKeys(Config, Generic[SuiteT]):
    """The keys of a suite as the command line has them: suite.KEY=VALUE."""

    suite: SuiteT
    """What `generative evaluate MODEL --suite NAME` asks; its file has these keys without the word suite."""


SCHEMAS: dict[str, type[SuiteKeys[Any]]] = {
    "harness": SuiteKeys[SuiteConfig],
    "reversal": SuiteKeys[ReversalSuite],
    "texts": SuiteKeys[TextsSuite],
}
"""By `protocol`."""


def load_suite(name: str, overrides: Sequence[str] = ()) -> Suite:
    """The suite of a name or file, with `a.b=c` on top (the keys of the file, without `suite.`).

    Raises:
        ConfigError: there is none, or a setting that is not valid, by its name on the command line.
    """
    known = name if Path(name).is_file() or "/" in name else f"{FOLDER}/{name}"
    layers = load_layers(known, overrides)
    keys = SCHEMAS.get(str(layers.values.get("protocol")), SuiteKeys[SuiteConfig])
    found: Suite = validate(layers.within("suite"), keys).suite
    return found
