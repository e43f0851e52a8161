"""A campaign as a command opens it: its configuration, cells, jobs and ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.campaign.grid import Grid, expand
from launch.campaign.jobs import Job, jobs_of
from launch.campaign.ledger import Entry, Ledger
from launch.campaign.schema import CampaignConfig, load_campaign


@dataclass(frozen=True)
class Campaign:
    """What is asked for, and where it stands."""

    config: CampaignConfig
    grid: Grid
    jobs: tuple[Job, ...]
    ledger: Ledger

    @property
    def folder(self) -> Path:
        """Of ledger, cells and report."""
        return self.ledger.folder

    def entries(self) -> dict[str, Entry]:
        """What the ledger says of the jobs of this campaign; those that it does not know are planned.

        Raises:
            DataError: the ledger is damaged.
            RunFolderError: it has cells of this campaign with other settings.
        """
        known = self.ledger.entries()
        self.ledger.refuse_changed(self.jobs, known)
        return {job.hash: known.get(job.hash, Entry(job.name)) for job in self.jobs}


def open_campaign(name: str, overrides: Sequence[str] = ()) -> Campaign:
    """Load a campaign; nothing is written.

    Raises:
        ConfigError: in its configuration.
    """
    config = load_campaign(name, overrides)
    grid = expand(config)
    return Campaign(config, grid, jobs_of(config, grid), Ledger(Path(config.folder).absolute()))
