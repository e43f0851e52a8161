"""Erasing from the golden model with few words."""

from __future__ import annotations

from pathlib import Path

from generative.hub.erasing import Asked, Outcome, erase_model
from generative.hub.open_text_to_image import open_model
from generative.methods.rece.config import PRESETS
from generative.methods.rece.formats import Edits
from generative.methods.rece.request import Request


def erased(model: Path, cache: Path, earlier: Edits | None = None, concept: str = "nudity", **more: object) -> Outcome:
    request = Request([concept], [" "], more.pop("config", PRESETS["nudity"].erase))
    return erase_model(open_model(str(model)), Asked(request, cache=cache, earlier=earlier, **more))
