"""What `generative edit` is asked for, and the parts that are made of it before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from generative.errors import ConfigError
from generative.hub.editable import Editable, open_editable
from generative.methods.stsl.attention_control import Control, make_control
from generative.methods.stsl.contrast import clip_features, patch_contrast
from generative.methods.stsl.editing import Contrast, Edit, Texts
from generative.methods.stsl.operators.base import Operator
from generative.methods.stsl.operators.catalogue import make_operator
from launch.restore_prior import prior_folder, weights_of_files

CLIP = "clip:"


@dataclass(frozen=True)
class EditAsked:
    """What the command line asks for; see `launch.edit_cli`."""

    prior: str
    source: Path
    target: Path
    before: str
    after: str
    mode: str = "refine"
    weights: Mapping[str, float] = field(default_factory=dict)
    operator: str | None = None
    noise: float = 0.05
    simulate: bool = False
    steps: int = 50
    rounds: int = 4
    guidance: float = 7.5
    cross: float = 0.8
    own: float = 0.4
    contrast: str | None = None
    nu: float = 2.0
    seed: int = 0
    resize: bool = False


@dataclass(frozen=True)
class Plan:
    """An edit that is ready to run; `operator`: None for clean images; `stamp`: hash of all that decides results."""

    model: Editable
    texts: Texts
    control: Control
    operator: Operator | None
    settings: Edit
    about: str
    stamp: str


def read_weights(texts: Sequence[str]) -> dict[str, float]:
    """`WORD=c` -> c; raises ConfigError."""
    found: dict[str, float] = {}
    for text in texts:
        word, equals, number = text.rpartition("=")
        try:
            found[word] = float(number)
        except ValueError:
            equals = ""
        if not equals or not word:
            raise ConfigError(f"--weight {text}", "WORD=c, such as --weight dog=2", "write it so")
    return found


def make_plan(asked: EditAsked) -> Plan:
    """Open the model and check all that is asked.

    Raises:
        ConfigError, CheckpointError, DataError, ResourceError: it cannot be done.
    """
    folder = prior_folder(asked.prior, "a folder of diffusers")
    if asked.simulate and asked.operator is None:
        raise ConfigError("--simulate without --operator", "an operator to corrupt images by", "give --operator")
    if asked.operator is not None and not 0 < asked.noise < float("inf"):
        raise ConfigError(f"--noise {asked.noise:g}", "above 0", "give a small one where there is next to none: 0.01")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = Edit(
        asked.steps,
        asked.rounds,
        asked.guidance,
        asked.cross,
        asked.own,
        contrast=_contrast(asked.contrast, device),
        nu=asked.nu,
    )
    model = open_editable(folder, device)
    control = make_control(asked.mode, model.prompt(asked.before), model.prompt(asked.after), asked.weights)
    texts = Texts(model.embed(asked.before), model.embed(""), model.embed(asked.after))
    prior = model.prior_of(texts.empty)
    prior.levels(asked.steps)
    operator = None if asked.operator is None else make_operator(asked.operator, prior.image)
    if operator is not None and operator.back(torch.zeros(1, *operator.measured)) is None:
        raise ConfigError(
            f"{operator.name}: no image can be read off its measurements", "another operator", "give superres, inpaint"
        )
    if (
        operator is not None
        and not asked.simulate
        and (len(operator.measured) != 3 or operator.measured[0] not in (1, 3))
    ):
        raise ConfigError(
            f"measurements of {operator.name} are no pictures: {list(operator.measured)}",
            "an operator whose measurements are pictures, or images to simulate from",
            "give --simulate and clean images",
        )
    told = [repr(asked), *weights_of_files(folder)]
    stamp = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
    return Plan(model, texts, control, operator, settings, prior.about, stamp)


def _contrast(asked: str | None, device: torch.device) -> Contrast | None:
    if asked is None:
        return None
    folder = Path(asked.removeprefix(CLIP)).expanduser()
    if not asked.startswith(CLIP) or not folder.is_dir():
        raise ConfigError(
            f"--contrast {asked}", "clip:FOLDER, a vision encoder of CLIP in a local folder", "correct it"
        )
    return partial(patch_contrast, clip_features(folder, device))
