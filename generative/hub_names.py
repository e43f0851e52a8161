"""How a repository on the Hugging Face hub is named where a path could stand too: hub:OWNER/NAME."""

from __future__ import annotations

HUB = "hub:"


def repository(name: str) -> str:
    """OWNER/NAME of `hub:OWNER/NAME`; any other name as it is, for a bare one may be on the hub too."""
    return name.removeprefix(HUB)
