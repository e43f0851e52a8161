"""How often the cells of a campaign read their data: laws of fresh data do not hold for many passes."""

from __future__ import annotations

from typing import Any

from evaluation.quantities import compact
from generative.data.shards import WindowSource
from launch.campaign.opened import Campaign
from launch.folder import read_json

DATA_FILE = "data.json"

MANY = 4.0
"""Passes up to which repeated text is about as good as new text (Muennighoff et al. 2023)."""


def unique_tokens(source: Any) -> int | None:
    """Tokens of a training text; None where its windows are not cut from one."""
    return len(source.tokens) if isinstance(source, WindowSource) else None


def passes(campaign: Campaign) -> dict[str, str]:
    """A line for each family whose text has been opened by `campaign run`: passes of its longest cell."""
    tokens = read_json(campaign.folder / DATA_FILE).get("tokens", {})
    found: dict[str, str] = {}
    for family in campaign.config.families:
        longest = max((cell.tokens for cell in campaign.grid.cells if cell.family == family), default=0)
        if family in tokens and longest:
            times = longest / tokens[family]
            beyond = f"; beyond {MANY:g} repeated text is worth less than new text" if times > MANY else ""
            found[family] = f"up to {compact(times)} passes over {compact(tokens[family], ' ')} tokens of text{beyond}"
    return found
