"""Sizes of the deep complex U-Net. Free of torch, so that configurations load quickly."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from generative.config import Config

HALVINGS = 3
"""Strides of 2 over the bins."""
LEAST_BINS = 97
"""The dilated kernel of the deepest layer is not wider than what it sees, padding included."""


class DcunetConfig(Config):
    """Size of the network; as it stands, the released one of 3.5 million parameters."""

    name: Literal["dcunet"] = "dcunet"
    """Picks this network."""
    width: PositiveInt = 32
    """Complex channels of the first layers; the deepest has eight times as many."""
    time_features: PositiveInt = 128
    """Complex features of the time embedding, an even number."""
    time_layers: PositiveInt = 1
    """Linear layers of the time embedding, each with an activation."""

    def fitting_bins(self, bins: int) -> int:
        """The number of bins F, `bins` or the next above, that the network takes: 8 n + 1, at least 97."""
        return (-(-(max(bins, LEAST_BINS) - 1) >> HALVINGS) << HALVINGS) + 1
