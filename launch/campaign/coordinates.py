"""`generative campaign coordinates`: whether a campaign's rule of learning rates holds for all its widths."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import numpy as np
from torch import Tensor

from evaluation.scaling.coordinates import FLAT, Coordinate, coordinate_check
from generative.data.shards import WindowSource
from generative.errors import ConfigError
from generative.nets.transformer_config import fit_to_data
from generative.training.runfolder import check_writable, write_json
from launch.campaign.cells import Cell
from launch.campaign.opened import Campaign
from launch.console import Console, bar_progress
from launch.folder import read_json

FILE = "coordinates.json"
SEEDS, SEQUENCES = 3, 16


def check_coordinates(campaign: Campaign, console: Console) -> list[tuple[str, str]]:
    """Train one network of each width for a few steps, with the rates that its cells have; lines of what was seen.

    All networks of a family have the depth of its shallowest, so that width alone differs. Writes coordinates.json.

    Raises:
        ConfigError: a family of one width.
        GenerativeError: its data, or a folder that cannot be written.
    """
    check_writable(campaign.folder)
    found: dict[str, dict[str, object]] = {}
    lines: list[tuple[str, str]] = []
    for family in campaign.config.families:
        cells = _by_width(campaign, family)
        told = _of_family(cells, bar_progress(console, family))
        console.end_progress()
        widths = [cell.shape.width for cell in cells]
        lines += [(family, _line(one, widths)) for one in told]
        found[family] = {"widths": widths, "coordinates": [asdict(one) for one in told]}
    write_json(campaign.folder / FILE, {"rule": str(campaign.config.rule), "families": found})
    return [*lines, ("check", coordinates_text(campaign))]


def coordinates_text(campaign: Campaign) -> str:
    """What the last check of this campaign's rule found, in a line; "" where there was none."""
    kept = read_json(campaign.folder / FILE)
    if kept.get("rule") != str(campaign.config.rule):
        return ""
    slopes = {
        f"{family} {one['name']}": math.nan if one["slope"] is None else one["slope"]
        for family, told in kept["families"].items()
        for one in told["coordinates"]
    }
    steep = ", ".join(f"{name} {slope:+.2f}" for name, slope in slopes.items() if not abs(slope) <= FLAT)
    span = (
        f"changes of activations over width, log-log: slopes {min(slopes.values()):+.2f} to {max(slopes.values()):+.2f}"
    )
    return f"{span}; " + (f"not flat: {steep}" if steep else "flat: widths learn alike")


def _by_width(campaign: Campaign, family: str) -> list[Cell]:
    """One cell of each width."""
    cells = {cell.shape.width: cell for cell in campaign.grid.cells if cell.family == family}
    if len(cells) < 2:
        raise ConfigError(
            f"families.{family} has one width alone: {next(iter(cells), 'none')}",
            "sizes of two widths or more",
            "add sizes of other widths",
        )
    return [cells[width] for width in sorted(cells)]


def _of_family(cells: list[Cell], progress: Callable[[int, int], None]) -> list[Coordinate]:
    from launch.modality import modality

    run = cells[0].run
    data = modality(run).open_data(run)
    layers = min(cell.shape.layers for cell in cells)
    networks = []
    for cell in cells:
        network = fit_to_data(cast("Any", cell.run.method).network, data.facts.vocab_size, None)
        networks.append((network.model_copy(update={"layers": layers}), cell.run.train.optimizer))
    return coordinate_check(networks, _tokens(data.train), causal=cells[0].shape.causal, progress=progress)


def _tokens(source: WindowSource) -> Tensor:
    """int64[seeds, sequences, T], spread over the training text; windows have one token more."""
    places = np.linspace(0, len(source) - 1, SEEDS * SEQUENCES).astype(np.int64)
    return source.fetch(places)["tokens"][:, :-1].reshape(SEEDS, SEQUENCES, -1)


def _line(one: Coordinate, widths: list[int]) -> str:
    changes = ", ".join(f"{change:.3g}" for change in one.change)
    told = "flat" if one.flat else "NOT flat"
    return f"{one.name}: slope {one.slope:+.2f}, {told} · RMS of the change at widths {widths}: {changes}"
