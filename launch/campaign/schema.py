"""The configuration of a campaign: families, budgets, sizes and seeds, and how its cells are run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from evaluation.scaling.flops import ConventionName
from generative.config import Config, load_layers, validate
from generative.config_messages import combination
from launch.sections import PlanConfig

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")


class SizeConfig(Config):
    """One size of a transformer; a name such as sizes/170m may stand in its place."""

    layers: PositiveInt
    """Number of blocks."""
    heads: PositiveInt
    """Query heads."""
    width: PositiveInt
    """Features of the residual stream."""
    ff_width: PositiveInt | None = None
    """Hidden features of the feed-forward; null: 4 x width."""

    @property
    def overrides(self) -> list[str]:
        """As settings of a run."""
        sizes = {"layers": self.layers, "heads": self.heads, "width": self.width}
        sizes["ff_width"] = self.ff_width or 4 * self.width
        return [f"method.network.{key}={value}" for key, value in sizes.items()]


Size = str | SizeConfig


def size_name(size: Size) -> str:
    """170m, or d64l4 (width and layers; with the feed-forward where it is not 4 x width)."""
    if isinstance(size, str):
        return size.rsplit("/", 1)[-1]
    own = f"f{size.ff_width}" if size.ff_width not in (None, 4 * size.width) else ""
    return f"d{size.width}l{size.layers}h{size.heads}{own}"


class NearConfig(Config):
    """Only sizes near an expected best one, N (C / at)^exponent, are run at each budget."""

    N: PositiveFloat
    """Expected best size at the compute `at`, counted as the campaign counts N."""
    at: PositiveFloat
    """FLOPs."""
    exponent: float = 0.5
    """Of N_opt over C."""
    factor: float = Field(default=8.0, gt=1)
    """Sizes within this factor of it are run; beyond 8 a parabola is biased."""


class FamilyConfig(Config):
    """One family of models: the configuration of a run, of which cells vary size, length and seed."""

    config: str
    """Name of a run's configuration, or a YAML file."""
    set: tuple[str, ...] = ()
    """Settings on top of it, such as train.optimizer.lr=2e-3."""
    budgets: tuple[PositiveFloat, ...] | None = None
    """Budgets of this family alone; null: those of the campaign."""
    sizes: tuple[Size, ...] | None = None
    """Sizes of this family alone; null: those of the campaign."""
    near: NearConfig | None = None
    """Expected best sizes of this family alone; null: those of the campaign."""


class ExtraConfig(Config):
    """A cell besides the grid: a size that brackets a minimum, a repeat with another seed, a run to be predicted."""

    family: str
    """Name of one of `families`."""
    budget: PositiveFloat
    """FLOPs of its training."""
    size: Size
    seed: int = 0
    """Seed of its training."""


class WsdConfig(Config):
    """One trunk of constant learning rate serves all budgets of a size: each branches off and decays."""

    decay: float = Field(default=0.2, gt=0, lt=1)
    """Part of a cell's steps in which its learning rate falls to 0 linearly, from the trunk's checkpoint on."""
    warmup_steps: PositiveInt | None = None
    """Warm-up of the trunk; null: about N tokens (Porian et al. 2024), at most a fifth of the shortest cell."""


class RuleConfig(Config):
    """Batch and learning rate as functions of size and length; options, told in the report."""

    name: Literal["fixed", "power", "porian", "nanochat", "marin", "mup"] = "fixed"
    """fixed: as the run's configuration says. power: lr (N / N0)^-lr_exponent, batch (N / N0)^batch_exponent, from the
    configuration's at N0. porian, nanochat, marin: see `evaluation.scaling.rules`. mup: its `mup_rates`;
    the configuration's rate is that of the base width, and all heads are equally wide."""
    N0: PositiveFloat | None = None
    """power: the size at which the configuration's learning rate and batch hold."""
    lr_exponent: float = 1 / 3
    """power: see name."""
    batch_exponent: float = 0.0
    """power: see name."""
    D0: PositiveFloat | None = None
    """nanochat: tokens of the run at which the configuration's rate and weight decay were tuned."""
    B0: PositiveInt = 2**19
    """nanochat: batch of that run, tokens."""
    steps: PositiveInt = 2**16
    """marin: steps that the batch aims at."""
    base_width: PositiveInt | None = None
    """mup: width at which the configuration's rate was tuned."""

    @model_validator(mode="after")
    def _complete(self) -> RuleConfig:
        for name, key in (("power", "N0"), ("nanochat", "D0"), ("mup", "base_width")):
            if self.name == name and getattr(self, key) is None:
                raise combination(f"rule.name={name} without {key}", f"the reference {key}", f"set rule.{key}")
        return self

    def __str__(self) -> str:
        """The rule with the settings that it reads."""
        read = {
            "power": ("N0", "lr_exponent", "batch_exponent"),
            "nanochat": ("D0", "B0"),
            "marin": ("steps",),
            "mup": ("base_width",),
        }
        told = ", ".join(f"{key} {getattr(self, key):.4g}" for key in read.get(self.name, ()))
        return f"{self.name}{f' ({told})' if told else ''}"


class LimitConfig(Config):
    """Where a campaign stops, whatever is left to do."""

    flops: float | None = Field(default=None, gt=0)
    """Training FLOPs in all, lost work included; no cell is started that would go beyond. null: no limit."""
    hours: float | None = Field(default=None, gt=0)
    """Wall-clock of one `campaign run`: then running cells save and it ends."""


class CampaignLaunch(Config):
    """What runs the cells. What a cell takes is in its family's launch.cpus_per_worker, gpus_per_worker, ..."""

    backend: Literal["ray", "local"] = "ray"
    """ray: cells side by side, each in a Ray worker. local: in this process, one after the other."""
    address: str | None = None
    """Ray cluster, "auto" or host:port; null starts a local one."""
    slots: PositiveInt | None = None
    """Most cells at once; null: as many as there is room for."""
    retries: int = Field(default=2, ge=0)
    """How often a cell is tried again after its worker died, in one `campaign run`."""


class CampaignConfig(Config):
    """A campaign."""

    name: str = ""
    """Set from the configuration's name."""
    dir: str = ""
    """Folder of the campaign; empty: runs/<name>."""
    families: dict[str, FamilyConfig] = Field(min_length=1)
    """By name, from the one that needs most compute on."""
    set: tuple[str, ...] = ()
    """Settings of all families, below their own."""
    budgets: tuple[PositiveFloat, ...] = ()
    """Training FLOPs of one cell, 4 to 6 values a factor of 2 to 3 apart."""
    sizes: tuple[Size, ...] = ()
    """6 to 9 a budget, in even factors."""
    seeds: tuple[int, ...] = (0,)
    """Each cell is run with each."""
    near: NearConfig | None = None
    extra: tuple[ExtraConfig, ...] = ()
    count: ConventionName = "six_n_head"
    """How FLOPs, and N, are counted. All conventions are stored with each result."""
    min_steps: PositiveInt = 500
    """Cells of fewer steps are left out."""
    max_tokens: PositiveFloat | None = None
    """Unique tokens of the data: longer cells are left out. null: not looked at."""
    tolerance: float = Field(default=0.01, gt=0)
    """How far a cell's FLOPs may be off its budget (whole steps), as a fraction."""
    wsd: WsdConfig | None = None
    """null: the schedule of the run's configuration, matched to the length of each cell."""
    rule: RuleConfig = RuleConfig()
    limit: LimitConfig = LimitConfig()
    launch: CampaignLaunch = CampaignLaunch()
    plan: PlanConfig = PlanConfig()

    @field_validator("families")
    @classmethod
    def _plain_names(cls, families: dict[str, FamilyConfig]) -> dict[str, FamilyConfig]:
        for name in families:
            if not NAME.fullmatch(name):
                raise combination(
                    f"the family's name {name!r} cannot name a folder", "letters, digits, _ and .", "rename the family"
                )
        return families

    @model_validator(mode="after")
    def _grid(self) -> CampaignConfig:
        for name, family in self.families.items():
            for key in ("budgets", "sizes"):
                if not (getattr(self, key) if getattr(family, key) is None else getattr(family, key)):
                    raise combination(
                        f"the family {name} has no {key}", "at least one", f"set {key}, or families.{name}.{key}"
                    )
        for one in self.extra:
            if one.family not in self.families:
                raise combination(
                    f"extra names the family {one.family!r}",
                    f"one of {', '.join(self.families)}",
                    "correct extra.family",
                )
        return self

    @property
    def folder(self) -> str:
        """Where ledger, cells and report are."""
        return self.dir or f"runs/{self.name}"


def load_campaign(name: str, overrides: Sequence[str] = ()) -> CampaignConfig:
    """Load, check and name a campaign's configuration.

    Raises:
        ConfigError: with file, line and remedy.
    """
    config = validate(load_layers(name, overrides), CampaignConfig)
    stem = name.removesuffix(".yaml").split("/configs/")[-1].removeprefix("configs/").lstrip("./")
    return config if config.name else config.model_copy(update={"name": stem})
