"""Small discriminators on the features of a frozen diffusion network: logits of "real" from maps of features.

Sources: Yin et al. 2024 (DMD2, arXiv 2405.14867) and NVlabs/FastGen, whose parameter names these modules share.
Shapes: feature maps float[B, C, R, R] (U-Nets) or [B, D, H, W] (transformers), logits float[B, K] of K heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from generative.errors import ConfigError
from generative.nets.recomputation import recomputed

COARSEST = 4
"""Resolution at which a head takes the whole map at once."""


def norm_groups(channels: int) -> int:
    """Groups of the normalisation: the largest divisor up to 32, or up to a quarter of 32 channels or less."""
    most = 32 if channels > 32 else max(1, channels // 4)
    return max(groups for groups in range(1, most + 1) if channels % groups == 0)


def _stage(
    channels: int, outputs: int, stride: int, padding: int, activation: nn.Module, size: int = 4
) -> list[nn.Module]:
    """Convolution of `size` x `size` places, normalisation, activation."""
    convolution = nn.Conv2d(channels, outputs, size, stride, padding)
    return [convolution, nn.GroupNorm(norm_groups(outputs), outputs), activation]


class UnetHeads(nn.Module):
    """One head for each feature map of an encoder: halved down to 4 x 4, then one number.

    Args:
        channels: C of each map.
        resolutions: R of each map, a power of two of at least 4; or 1 for features without places.

    Raises:
        ConfigError: a resolution or a number of channels that does not fit, or no map.
    """

    def __init__(self, channels: Sequence[int], resolutions: Sequence[int]) -> None:
        super().__init__()
        if not channels or len(channels) != len(resolutions):
            raise ConfigError(
                f"heads for maps of {list(channels)} channels and of resolutions {list(resolutions)}",
                "one number of channels and one resolution for each of one or more maps",
                "choose levels of the network that there are",
            )
        self.channels, self.resolutions = tuple(channels), tuple(resolutions)
        self.activation_checkpointing = False
        self.discriminator_heads = nn.ModuleList(map(self._head, channels, resolutions))

    @staticmethod
    def _head(channels: int, resolution: int) -> nn.Sequential:
        if resolution != 1 and (resolution < COARSEST or resolution & (resolution - 1)):
            raise ConfigError(
                f"a discriminator's head on features of resolution {resolution}",
                f"a power of two of at least {COARSEST}, or 1",
                "choose other levels of the network",
            )
        layers: list[nn.Module] = []
        while resolution > COARSEST:
            layers += _stage(channels, channels, 2, 1, nn.SiLU())
            resolution //= 2
        layers += _stage(channels, channels, resolution, 0, nn.SiLU(), resolution)
        return nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps [B, C, R, R] in the order of `channels` -> logits [B, K]."""
        heads, again = zip(self.discriminator_heads, features, strict=True), self.activation_checkpointing
        return torch.cat([recomputed(again, head, feature).flatten(1) for head, feature in heads], 1)

    def multiply_adds(self) -> int:
        """Multiplications and additions for one sample, in pairs: products only."""
        total = 0
        for channels, resolution in zip(self.channels, self.resolutions, strict=True):
            while resolution > COARSEST:
                resolution //= 2
                total += 16 * channels**2 * resolution**2
            total += resolution**2 * channels**2 + channels
        return total


class TransformerHeads(nn.Module):
    """One head for each map of tokens of a diffusion transformer, averaged over places.

    Args:
        width: D of the tokens, even.
        maps: how many of them.
    """

    def __init__(self, width: int, maps: int = 1) -> None:
        super().__init__()
        self.cls_pred_heads = nn.ModuleList(
            nn.Sequential(*_stage(width, width // 2, 2, 1, nn.LeakyReLU(0.2)), nn.Conv2d(width // 2, 1, 1))
            for _ in range(maps)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps [B, D, H, W] -> logits [B, K]."""
        heads = zip(self.cls_pred_heads, features, strict=True)
        return torch.cat([head(feature).mean((2, 3)) for head, feature in heads], 1)
