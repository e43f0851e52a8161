"""How often the longest cell reads its text."""

from __future__ import annotations

import pytest

from generative.training.runfolder import write_json
from launch.campaign.opened import open_campaign
from launch.campaign.passes import DATA_FILE, passes


@pytest.mark.parametrize(("times", "told", "many"), [(0.5, "0.5", False), (4.0, "4", False), (125.0, "125", True)])
def test_passes_of_the_longest_cell(campaign_file, times, told, many):
    campaign = open_campaign(campaign_file())
    assert passes(campaign) == {}
    longest = max(cell.tokens for cell in campaign.grid.cells)
    write_json(campaign.folder / DATA_FILE, {"tokens": {"ar": longest / times}})
    text = passes(campaign)["ar"]
    assert text.startswith(f"up to {told} passes over ")
    assert ("worth less" in text) == many
