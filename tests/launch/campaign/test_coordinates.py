"""`generative campaign coordinates` on a campaign of two widths."""

from __future__ import annotations

from generative.training.runfolder import write_json
from launch.campaign.coordinates import FILE, check_coordinates, coordinates_text
from launch.campaign.opened import open_campaign
from launch.console import Console

RULE = {"name": "mup", "base_width": 8}


def test_each_activation_is_told_and_kept_for_the_report(campaign_file):
    campaign = open_campaign(campaign_file(rule=RULE))
    assert coordinates_text(campaign) == ""
    lines = check_coordinates(campaign, Console())
    assert [label for label, _ in lines] == ["ar"] * 4 + ["check"]
    assert all("at widths [8, 16]" in text for label, text in lines if label == "ar")
    assert lines[-1][1] == coordinates_text(campaign)
    assert coordinates_text(open_campaign(campaign_file(rule={"name": "fixed"}))) == ""


def test_a_slope_that_is_no_number_is_not_flat(campaign_file):
    campaign = open_campaign(campaign_file(rule=RULE))
    coordinates = [{"name": "logits", "change": [], "slope": float("nan")}]
    families = {"ar": {"widths": [8, 16], "coordinates": coordinates}}
    write_json(campaign.folder / FILE, {"rule": str(campaign.config.rule), "families": families})
    assert "not flat: ar logits" in coordinates_text(campaign)
