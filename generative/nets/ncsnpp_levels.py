"""Levels of NCSN++: what is computed at one size, and the step to the next.

Each level runs in its own `forward`, since sharding engines gather a part's weights when that is called.

Shapes: B samples, C channels, F frequency bins, K frames, T features of the time embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from generative.nets.fir import FirResample
from generative.nets.ncsnpp_blocks import Block, ReadOut, conv
from generative.nets.ncsnpp_config import NcsnppConfig
from generative.nets.recomputation import recomputed

CHANNELS = 4
"""Re x, Im x, Re y, Im y: of the network's input, and of what its levels read out."""


class DownLevel(nn.Module):
    """Blocks, then, but on the last level, half the size: `resample`, and `combine` with the input of that size.

    Args:
        inputs: channels from the level before.
        config: sizes; the variant 48k has no `combine`.
        level: 0 is the largest.
    """

    def __init__(self, inputs: int, config: NcsnppConfig, level: int) -> None:
        super().__init__()
        outputs, time = config.width * config.multipliers[level], 4 * config.width
        last = level == len(config.multipliers) - 1
        attention = level in config.attention_levels
        widths = [inputs, *[outputs] * (config.res_blocks - 1)]
        self.blocks = nn.ModuleList(Block(width, outputs, time, attention=attention) for width in widths)
        self.resample = None if last else Block(outputs, outputs, time, "down")
        self.combine = None if last or config.variant == "48k" else conv(CHANNELS, outputs, 1)
        self.shrink = None if self.combine is None else FirResample("down")

    def forward(self, h: Tensor, x: Tensor, time: Tensor, recompute: bool) -> tuple[list[Tensor], Tensor]:
        """One level further down.

        Args:
            h: [B, C, F, K], features.
            x: [B, 4, F, K], the network's input at this size.
            time: [B, T].
            recompute: whether the backward pass computes activations again.

        Returns:
            What the way up will need, the last being the next level's features; and its x.
        """
        found = []
        for block in self.blocks:
            h = recomputed(recompute, block, h, time)
            found.append(h)
        if self.resample is not None:
            h = recomputed(recompute, self.resample, h, time)
            if self.combine is not None and self.shrink is not None:
                x = self.shrink(x)
                h = h + self.combine(x)
            found.append(h)
        return found, x

    def multiply_adds(self, positions: int) -> int:
        """Multiplications and additions of one sample with `positions` = F K, in pairs."""
        count = sum(block.multiply_adds(positions) for block in blocks_of(self.blocks))
        if self.resample is not None:
            count += self.resample.multiply_adds(positions)
        if self.combine is not None and self.shrink is not None:
            count += self.shrink.multiply_adds(CHANNELS, positions) + positions // 4 * self.combine.weight.numel()
        return count


class UpLevel(nn.Module):
    """Blocks on skip connections, what they read out of the output, then, but on level 0, twice the size: `resample`.

    Attention, where the level has it, follows the last of the blocks.

    Args:
        inputs: channels from the level below.
        skips: channels of the skip connections, in the order in which they are taken.
        config: sizes; the variant 48k reads out on level 0 only.
        level: 0 is the largest.
    """

    def __init__(self, inputs: int, skips: Sequence[int], config: NcsnppConfig, level: int) -> None:
        super().__init__()
        outputs, time = config.width * config.multipliers[level], 4 * config.width
        widths = [inputs, *[outputs] * (len(skips) - 1)]
        attends = [False] * (len(skips) - 1) + [level in config.attention_levels]
        self.blocks = nn.ModuleList(
            Block(width + skip, outputs, time, attention=attention)
            for width, skip, attention in zip(widths, skips, attends, strict=True)
        )
        self.read_out = ReadOut(outputs, CHANNELS) if level == 0 or config.variant != "48k" else None
        self.grow = FirResample("up") if level < len(config.multipliers) - 1 and config.variant != "48k" else None
        self.resample = Block(outputs, outputs, time, "up") if level else None

    def forward(
        self, h: Tensor, skips: Sequence[Tensor], read: Tensor | None, time: Tensor, recompute: bool
    ) -> tuple[Tensor, Tensor | None]:
        """One level further up.

        Args:
            h: [B, C, F, K], features.
            skips: [B, C', F, K] each, one for each block.
            read: [B, 4, F/2, K/2], what the levels below have read out; None below the first that does.
            time: [B, T].
            recompute: whether the backward pass computes activations again.

        Returns:
            Features of the next level, and what has been read out so far, [B, 4, F, K].
        """
        for block, skip in zip(self.blocks, skips, strict=True):
            h = recomputed(recompute, block, h, time, skip)
        if self.read_out is not None:
            here = recomputed(recompute, self.read_out, h)
            read = here if read is None or self.grow is None else self.grow(read) + here
        if self.resample is not None:
            h = recomputed(recompute, self.resample, h, time)
        return h, read

    def multiply_adds(self, positions: int) -> int:
        """Multiplications and additions of one sample with `positions` = F K, in pairs."""
        count = sum(block.multiply_adds(positions) for block in blocks_of(self.blocks))
        if self.read_out is not None:
            count += self.read_out.multiply_adds(positions)
        if self.grow is not None:
            count += self.grow.multiply_adds(CHANNELS, positions // 4)
        if self.resample is not None:
            count += self.resample.multiply_adds(positions)
        return count


def blocks_of(part: nn.ModuleList) -> list[Block]:
    """Members of a list of blocks."""
    return [cast("Block", block) for block in part]


def stacked_down(config: NcsnppConfig) -> tuple[nn.ModuleList, list[int]]:
    """All levels of the way down, and the channels of the skip connections that begin before and in them."""
    levels, skips = nn.ModuleList(), [config.width]
    for level, multiplier in enumerate(config.multipliers):
        levels.append(DownLevel(skips[-1], config, level))
        last = level == len(config.multipliers) - 1
        skips += [config.width * multiplier] * (config.res_blocks + (not last))
    return levels, skips


def stacked_up(config: NcsnppConfig, skips: Sequence[int]) -> nn.ModuleList:
    """All levels of the way up, level 0, which is run last, first."""
    left, levels, inputs = list(skips), [], skips[-1]
    for level in reversed(range(len(config.multipliers))):
        taken = [left.pop() for _ in range(config.res_blocks + 1)]
        levels.append(UpLevel(inputs, taken, config, level))
        inputs = config.width * config.multipliers[level]
    return nn.ModuleList(reversed(levels))
