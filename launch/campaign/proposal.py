"""A shape for a number of parameters, like those that a campaign has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from evaluation.scaling.shapes import Shape
from generative.errors import ConfigError
from launch.campaign.cells import size_of
from launch.campaign.opened import Campaign
from launch.campaign.schema import SizeConfig

CLOSE, FAR = 0.25, 0.7
"""A size is near another, or far from it, where the logs of N differ by so much."""

MOST = 256
"""Heads, or multiples of the narrowest width, that are looked at."""


def nearest_size(campaign: Campaign, family: str, N: float, budget: float | None = None) -> SizeConfig:
    """Integers (width, layers, heads) whose N is nearest, in the family's own proportions.

    Depth and number of heads are kept where sizes of several widths have the same; else depth goes with width, and
    heads have the width that they have in the nearest size, or a narrower one where none comes near (not under muP).

    Args:
        campaign: whose grid says what shapes the family has.
        family: name.
        N: wanted, counted as the campaign counts it.
        budget: sizes that are in the grid there are not proposed again; None: any will do.

    Raises:
        ConfigError: no shape comes near.
    """
    cells = [cell for cell in campaign.grid.cells if cell.family == family]
    near = min(cells, key=lambda cell: abs(np.log(cell.N / N)))
    halved = campaign.config.rule.name != "mup"
    taken = {(c.shape.layers, c.shape.width) for c in cells if c.budget == budget}
    best: tuple[float, SizeConfig] | None = None
    for sizes in _stages([cell.shape for cell in cells], near.shape, halved):
        for size in sizes:
            shape = _resized(near.shape, *size)
            if shape is None or (shape.layers, shape.width) in taken:
                continue
            off = float(abs(np.log(size_of(shape, near.count) / N)))
            if best is None or off < best[0]:
                own = {name: getattr(shape, name) for name in ("layers", "heads", "width", "ff_width")}
                best = (off, SizeConfig(**own))
        if best is not None and best[0] <= CLOSE:
            break
    if best is None or best[0] > FAR:
        raise ConfigError(
            f"{family}: no shape like those of the campaign has N {N:.3g}",
            f"a size in the proportions of {near.size}, which is the nearest of the campaign",
            "ask for a budget nearer to those of the campaign, or run some of its cells with other shapes",
        )
    return best[1]


def _resized(near: Shape, heads: int, width: int, layers: int) -> Shape | None:
    """The shape with other sizes, in its proportions; None where its key/value heads do not divide so many heads."""
    groups = heads if near.groups in (None, near.heads) else near.groups
    ff_width = round(near.ff_width / near.width * width)
    if not groups or heads % groups or not ff_width:
        return None
    return replace(
        near, layers=layers, width=width, ff_width=ff_width, heads=heads, head_width=width // heads, groups=groups
    )


def _stages(family: Sequence[Shape], near: Shape, halved: bool) -> Iterator[list[tuple[int, int, int]]]:
    """(heads, width, layers) to look at; then with heads of half the width, again and again, where they may be."""
    one_width = len({shape.width for shape in family}) == 1
    one_depth = not one_width and len({shape.layers for shape in family}) == 1
    few_heads = not one_width and len({shape.heads for shape in family}) == 1

    def depths(width: int) -> set[int]:
        deep = width * near.layers / near.width
        return {near.layers} if one_depth else {max(1, int(deep)), int(deep) + 1}

    if few_heads:
        widths = [2 * near.heads * k for k in range(1, MOST + 1)]
        yield [(near.heads, width, layers) for width in widths for layers in depths(width)]
    head = near.head_width
    while head >= 2 and head % 2 == 0:
        yield [(heads, heads * head, layers) for heads in range(1, MOST + 1) for layers in depths(heads * head)]
        head = head // 2 if halved else 0
