"""`generative campaign predict`: from a budget to a size, a length, a loss, and a configuration to train with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evaluation.quantities import compact
from evaluation.scaling.predict import Prediction
from generative.config import to_yaml
from generative.errors import ConfigError, suggestion
from generative.training.runfolder import atomic_write
from launch.campaign.cells import Cell, shown
from launch.campaign.grid import expand
from launch.campaign.jobs import jobs_of
from launch.campaign.opened import Campaign
from launch.campaign.proposal import nearest_size
from launch.campaign.results import laws
from launch.campaign.schema import LimitConfig


@dataclass(frozen=True)
class Predicted:
    """What to train.

    Args:
        family: name.
        prediction: with intervals.
        by: which law.
        cell: the run that comes nearest.
        path: of its configuration.
    """

    family: str
    prediction: Prediction
    by: str
    cell: Cell
    path: Path

    def lines(self) -> list[tuple[str, str]]:
        """(label, text) for a terminal."""
        told, run = self.prediction, self.cell.run.train
        size = f"N {_span(told.N.estimate.value, told.N.low, told.N.high)}"
        text = (
            f"{size} · D {_span(told.D.estimate.value, told.D.low, told.D.high)} tokens · batch {run.batch_size} · "
            f"lr {run.optimizer.lr:.3g} · loss {told.loss} nats/token · a run [{told.run.low:.4g}, {told.run.high:.4g}]"
        )
        rows = [(self.family, text), ("by", f"{self.by}; {told.loss.estimate.protocol}")]
        rows += [("warning", f"{check.name}: {check.text}") for check in told.checks if not check.ok]
        steps = f"{self.cell.steps:,} steps of N {compact(self.cell.N, ' ')}, C {shown(self.cell.flops)}"
        return [*rows, ("config", f"{self.path} · {steps}")]


def _span(value: float, low: float, high: float) -> str:
    return f"{compact(value, ' ')} [{compact(low, ' ')}, {compact(high, ' ')}]"


def predict(campaign: Campaign, flops: float, family: str | None = None, draws: int = 1000) -> list[Predicted]:
    """A prediction for each family that has a law; with one asked for by name, for that alone.

    Args:
        campaign: whose results are fitted.
        flops: to be spent on one run.
        family: None: all.
        draws: of the bootstraps.

    Raises:
        ConfigError: no such family; FLOPs that cannot be spent.
        DataError: no law could be fitted.
    """
    config = campaign.config
    if family is not None and family not in config.families:
        raise ConfigError(
            f"--family {family}: there is no such family{suggestion(family, config.families)}",
            f"one of {', '.join(config.families)}",
            "correct --family, or leave it out for all",
        )
    found: list[Predicted] = []
    for one in laws(campaign, campaign.entries(), draws, family):
        told, by = one.predict(flops)
        cell = _cell(campaign, one.name, flops, told.N.estimate.value)
        path = campaign.folder / "predicted" / f"{one.name}-{shown(flops)}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, to_yaml(cell.run))
        found.append(Predicted(one.name, told, by, cell, path))
    return found


def _cell(campaign: Campaign, family: str, flops: float, N: float) -> Cell:
    """The cell that a campaign of this one size and budget would have."""
    size = nearest_size(campaign, family, N)
    own = campaign.config.families[family].model_copy(update={"budgets": None, "sizes": None, "near": None})
    changes = {"families": {family: own}, "budgets": (flops,), "sizes": (size,), "extra": (), "near": None}
    limits = {"limit": LimitConfig(), "min_steps": 1, "tolerance": 1.0, "max_tokens": None}
    asked = campaign.config.model_copy(update=changes | limits)
    return next(job.cell for job in jobs_of(asked, expand(asked)) if job.cell is not None)
