"""Fully connected GAN networks with codes, for points in the plane and images of a few pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.batch_norm import BatchNorm
from generative.nets.codes import CodeNetwork
from generative.nets.recomputation import recomputed
from generative.nets.spectral_norm import Linear

SLOPE = 0.2


class MlpGenerator(nn.Module):
    """Linear layers with batch normalisation and ReLU, then one without, and tanh where samples are bounded.

    Args:
        latent: Z.
        shape: of a sample.
        widths: hidden units of each layer.
        bounded: tanh at the end.
        init_std: weights from N(0, init_std^2); None: torch's own.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        widths: Sequence[int] = (256, 256, 256),
        bounded: bool = True,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.activation_checkpointing = False
        self.shape, self.bounded = tuple(shape), bounded
        sizes = [latent, *widths]
        # The normalisation takes away any bias before it.
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(sizes, widths, strict=False))
        self.norms = nn.ModuleList(BatchNorm(width) for width in widths)
        self.last = nn.Linear(sizes[-1], math.prod(self.shape))
        _draw(self, init_std)

    def forward(self, z: Tensor, valid: Tensor | None = None) -> Tensor:
        """z[B, Z] -> samples [B, *shape]; `valid`: see `BatchNorm`."""
        x = z
        for i in range(len(self.layers)):
            x = recomputed(self.activation_checkpointing, self._stage, i, x, valid)
        x = self.last(x).view(len(z), *self.shape)
        return torch.tanh(x) if self.bounded else x

    def _stage(self, i: int, x: Tensor, valid: Tensor | None) -> Tensor:
        return F.relu(self.norms[i](self.layers[i](x), valid), inplace=True)

    def multiply_adds(self) -> int:
        """Multiplications and additions of one sample, in pairs: products only."""
        return sum(layer.weight.numel() for layer in [*self.layers, self.last] if isinstance(layer, nn.Linear))


class MlpDiscriminator(CodeNetwork):
    """Linear layers with leaky ReLU or maxout, then a linear head.

    Args:
        shape: of a sample.
        widths: hidden units of each layer.
        code: m.
        maxout: pieces of which a unit takes the largest; 0: leaky ReLU.
        init_std: weights from N(0, init_std^2); None: torch's own.
        reparameterised, spectral, unused_head: see `CodeNetwork`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int],
        code: int,
        *,
        maxout: int = 0,
        init_std: float | None = None,
        reparameterised: bool = True,
        spectral: bool = True,
        unused_head: bool = False,
    ) -> None:
        sizes = [math.prod(shape), *widths]
        heads = {"reparameterised": reparameterised, "unused_head": unused_head}
        super().__init__(sizes[-1], code, spectral=spectral, bias=True, **heads)
        self.maxout = maxout
        pairs = zip(sizes, widths, strict=False)
        self.layers = nn.ModuleList(Linear(a, b * max(1, maxout), spectral=spectral) for a, b in pairs)
        _draw(self, init_std)

    def features(self, x: Tensor, iterate: bool) -> Tensor:
        """[B, *shape] -> [B, last width]."""
        x = x.flatten(1)
        for i in range(len(self.layers)):
            x = recomputed(self.activation_checkpointing, self._stage, i, x, iterate)
        return x

    def _stage(self, i: int, x: Tensor, iterate: bool) -> Tensor:
        y: Tensor = self.layers[i](x, iterate)
        return y.view(len(y), -1, self.maxout).amax(2) if self.maxout else F.leaky_relu(y, SLOPE, inplace=True)

    def multiply_adds(self) -> int:
        """Multiplications and additions of one sample, in pairs: products only."""
        return sum(layer.raw.numel() for layer in self.layers if isinstance(layer, Linear)) + self.head_multiply_adds()


def _draw(network: nn.Module, std: float | None) -> None:
    """All matrices from N(0, std^2) and biases 0; None leaves them as they are."""
    if std is not None:
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, 0.0, std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
