"""A cell: one resolved run of a campaign, with a hash of all that changes its result."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from evaluation.scaling.flops import CONVENTIONS
from evaluation.scaling.rules import warmup_steps
from evaluation.scaling.shapes import Shape, parameters
from generative.training.config import ScheduleConfig
from launch.campaign.schema import CampaignConfig
from launch.folder import OPERATIONAL, flatten
from launch.schema import RunConfig

MEASURING = ("evaluate.windows", "evaluate.draws", "evaluate.weights")
"""Settings of the evaluation that change the measured loss."""

LATER: dict[str, Any] = {"method.network.base_width": None, "train.*optimizer.rates": {}}
"""Settings (shell patterns; also of `train.networks`) that came after campaigns had been run: at these values no hash
has them, so that old ledgers stay valid."""


@dataclass(frozen=True)
class Cell:
    """One run of a campaign.

    Args:
        family, size: names.
        budget: FLOPs that it aims at.
        seed: of weights, order and noise.
        run: its resolved configuration; `run.train.steps` spend the budget.
        shape: of its network.
        count: the convention of FLOPs and N.
        trunk: (hash of the trunk, step at which this cell branches off), or None.
    """

    family: str
    budget: float
    size: str
    seed: int
    run: RunConfig
    shape: Shape
    count: str
    trunk: tuple[str, int] | None = None

    @property
    def name(self) -> str:
        """Unique in a campaign: ar-1e12-d64l4h4-s0."""
        return f"{self.family}-{shown(self.budget)}-{self.size}-s{self.seed}"

    @property
    def hash(self) -> str:
        """Of all that changes the result; what says how, where and how closely watched it trains does not."""
        return digest(self.settings | ({"trunk": self.trunk} if self.trunk else {}))

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that `hash` is made of."""
        return settings_of(self.run)

    @property
    def steps(self) -> int:
        """Training steps, those on the trunk included."""
        assert self.run.train.steps is not None
        return self.run.train.steps

    @property
    def step_tokens(self) -> int:
        """Tokens of a step."""
        return self.run.train.batch_size * self.shape.length

    @property
    def flops_per_token(self) -> float:
        """By the campaign's convention."""
        return float(CONVENTIONS[self.count](self.shape))  # type: ignore[index]

    @property
    def tokens(self) -> int:
        """D."""
        return self.steps * self.step_tokens

    @property
    def flops(self) -> float:
        """C as it will be achieved."""
        return self.flops_per_token * self.tokens

    @property
    def N(self) -> float:  # noqa: N802
        """Parameters in the convention of the FLOPs; see `size_of`."""
        return size_of(self.shape, self.count)


def shown(number: float) -> str:
    """6e18, 1.5e12."""
    return re.sub(r"e([+-])0*", lambda m: "e" + m[1].strip("+"), f"{number:.4g}")


def size_of(shape: Shape, count: str) -> float:
    """N as a convention of FLOPs counts it: C = 6 N D holds exactly for those named six_n_*; others count the head."""
    if count.startswith("six_n"):
        return float(CONVENTIONS[count](shape)) / 6  # type: ignore[index]
    return float(parameters(shape).active_matmul + shape.head)


def digest(values: Any) -> str:
    """12 hexadecimal digits of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]


def settings_of(run: RunConfig) -> dict[str, Any]:
    """Dotted keys of a run that change its result."""
    keys = flatten(run.model_dump(mode="json"))
    counted = {key: value for key, value in keys.items() if key in MEASURING or not key.startswith(OPERATIONAL)}
    return {
        key: value
        for key, value in counted.items()
        if not any(fnmatch(key, later) and value == usual for later, usual in LATER.items())
    }


def trunk_warmup(config: CampaignConfig, cells: list[Cell]) -> int:
    """Warm-up of a trunk that serves these cells."""
    assert config.wsd is not None
    if config.wsd.warmup_steps is not None:
        return config.wsd.warmup_steps
    one, shortest = cells[0], min(cell.steps for cell in cells)
    return warmup_steps(size_of(one.shape, config.count), shortest, one.run.train.batch_size, one.shape.length)


def with_schedule(run: RunConfig, schedule: ScheduleConfig, steps: int) -> RunConfig:
    """A run of so many steps under another schedule."""
    return run.model_copy(update={"train": run.train.model_copy(update={"schedule": schedule, "steps": steps})})
