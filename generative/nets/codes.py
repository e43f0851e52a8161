"""Discriminators that map a sample to a code instead of a number; their realness is the code's mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from generative.errors import ConfigError
from generative.nets.precision import wide, without_autocast
from generative.nets.spectral_norm import Linear

SMALLEST = 8
"""Pixels on a side of the smallest image."""


class CodeNetwork(nn.Module):
    """features(x), then a linear head.

    With `reparameterised` (from RealnessGAN) the head gives mu and logvar, and the code is mu + exp(logvar / 2) noise.
    The names of the heads are those of the released code: `fc` the plain one, `reparam` the other.

    Args:
        features: numbers in the features of a sample.
        code: m.
        reparameterised: which head is used.
        spectral: spectral normalisation of it.
        bias: whether heads have one.
        unused_head: keep the plain head beside the reparameterised one. It is never trained (and says so), but its
            power iteration runs, as in the released code.
    """

    def __init__(
        self, features: int, code: int, *, reparameterised: bool, spectral: bool, bias: bool, unused_head: bool = False
    ) -> None:
        super().__init__()
        self.activation_checkpointing = False
        self.code = code
        self.fc = self.reparam = None
        if unused_head or not reparameterised:
            self.fc = Linear(features, code, bias, spectral)
        if reparameterised:
            self.reparam = Linear(features, 2 * code, bias, spectral)
            if self.fc is not None:
                self.fc.requires_grad_(False)

    def features(self, x: Tensor, iterate: bool) -> Tensor:
        """x[B, *shape] -> [B, features]."""
        raise NotImplementedError

    def forward(self, x: Tensor, noise: Tensor | None = None, iterate: bool = True) -> Tensor:
        """Codes of samples.

        Args:
            x: [B, *shape], images in [-1, 1].
            noise: fp32[B, m], N(0, 1) of the reparameterised code; None: the code is mu.
            iterate: take a power iteration of each spectral norm first (in training only). Give False where an earlier
                forward pass of the same update has taken it.

        Returns:
            fp32[B, m] (float64 where the weights are).

        Raises:
            ValueError: noise for a network whose code has no spread.
        """
        features = self.features(x, iterate)
        with without_autocast(x):
            return self._code(wide(features), noise, iterate)

    def _code(self, features: Tensor, noise: Tensor | None, iterate: bool) -> Tensor:
        if self.reparam is None:
            if noise is not None:
                raise ValueError("noise for a code that is not reparameterised")
            assert self.fc is not None
            code: Tensor = self.fc(features, iterate)
            return code
        if self.fc is not None and self.fc.spectral:
            self.fc.vectors(iterate)
        both: Tensor = self.reparam(features, iterate)
        mu, logvar = both.chunk(2, dim=1)
        return mu if noise is None else mu + torch.exp(0.5 * logvar) * noise

    def head_multiply_adds(self) -> int:
        """Multiplications and additions of the head on one sample."""
        head = self.fc if self.reparam is None else self.reparam
        assert head is not None
        return head.raw.numel()


def image_size(shape: Sequence[int], network: str) -> tuple[int, int]:
    """Channels and side of square images [C, S, S] with S a power of two, at least 8.

    Raises:
        ConfigError: samples of another shape.
    """
    shape = tuple(shape)
    if len(shape) == 3 and shape[1] == shape[2] >= SMALLEST and shape[1] & (shape[1] - 1) == 0 and shape[0] > 0:
        return shape[0], shape[1]
    raise ConfigError(
        f"samples of shape {list(shape)}, which network {network} cannot make",
        expected=f"square images [channels, S, S] with S = {SMALLEST}, 16, 32, 64, ...",
        remedy="resize the images (data.size), or set method.network.name=mlp for small or odd shapes",
    )
