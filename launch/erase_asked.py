"""What `generative erase` is asked for, as a request: a preset's constants, and what was changed of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from generative.config_messages import explain
from generative.errors import ConfigError, DataError
from generative.methods.rece.config import PRESETS, EraseConfig, StepConfig
from generative.methods.rece.preserve import read_texts
from generative.methods.rece.request import Request
from launch.sections import LaunchConfig

OF_EDITS = tuple(StepConfig.model_fields)
"""Of UCE's edit and of RECE's, which are changed together."""
MANY = 10_000
"""Texts to keep that are held in memory, for neighbours; those beyond are looked through as they are summed."""


@dataclass(frozen=True)
class EraseAsked:
    """What the command line asks for; see `launch.erase_cli`."""

    model: str
    concepts: Sequence[str]
    guides: Sequence[str] | None = None
    preset: str = "nudity"
    method: str | None = None
    preserve: Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    strength: float = 1.0
    include: str | None = None
    exclude: str | None = None
    text: str | None = None
    revision: str | None = None
    images: int = 0
    seed: int = 0
    edited: Path | None = None
    base: str | None = None
    launch: LaunchConfig | None = None

    @property
    def erases(self) -> bool:
        """Whether there are concepts: given, or the preset's own; raises ConfigError."""
        return bool(self.concepts or PRESETS[self.preset].concepts)

    def request(self) -> Request:
        """With the preset's constants and what was changed of them; raises ConfigError, DataError (--preserve)."""
        if not math.isfinite(self.strength):
            raise ConfigError(f"--strength {self.strength}", "a finite number: 0 nothing, 1 all of it", "correct it")
        preset = PRESETS[self.preset]
        keep = [] if self.preserve is None else list(islice(read_texts(self.preserve), MANY))
        if self.preserve is not None and not keep:
            raise DataError(f"{self.preserve} has no texts", "texts to keep, one a line", "correct --preserve")
        guides = list(self.guides) if self.guides else [preset.guide]
        return Request(list(self.concepts) or list(preset.concepts), guides, self._config(preset.erase), keep=keep)

    def _config(self, base: EraseConfig) -> EraseConfig:
        values = base.model_dump()
        for key, value in self.changes.items():
            if value is not None:
                for place in (values["start"], values["step"]) if key in OF_EDITS else (values,):
                    place[key] = value
        if self.method == "uce":
            if self.changes.get("epochs"):
                raise ConfigError(
                    f"--method uce with --epochs {self.changes['epochs']}", "no epochs, or RECE", "leave one out"
                )
            values["epochs"] = 0
        elif self.method == "rece" and values["epochs"] == 0:
            raise ConfigError(
                f"--method rece with no epochs (--preset {self.preset})",
                expected="one epoch or more",
                remedy="give --epochs 1 or more, or another preset",
            )
        try:
            return EraseConfig.model_validate(values)
        except ValidationError as error:
            raise explain(error.errors()[0], values, lambda key: "", ()) from error


def check_undo(others: object) -> None:
    """Refuse what an undo would pass over: it takes back the last erasure, whatever that was of.

    Raises:
        ConfigError: something to erase is given with it.
    """
    if others:
        raise ConfigError(
            "--undo with a concept, guide, edit or texts to keep",
            expected="--undo alone: it takes back the last erasure of MODEL",
            remedy="leave them out; to erase again, give the folder that --undo wrote",
        )
