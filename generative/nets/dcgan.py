"""DCGAN with codes for any power-of-two size: the networks of the released MEE code (`models.py`, from RealnessGAN).

Names in the state dict are the released ones: `model.N...`, where activations count as members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.batch_norm import BatchNorm
from generative.nets.codes import CodeNetwork, image_size
from generative.nets.recomputation import recomputed
from generative.nets.spectral_norm import Conv2d

KERNEL = 4
SLOPE = 0.2


class DcganGenerator(nn.Module):
    """z -> 4 x 4, then twice the size with each transposed convolution, up to tanh.

    Hidden layers have width * S/8, ..., 2 width, width channels, each with batch normalisation and ReLU.

    Args:
        latent: Z.
        shape: [C, S, S] of a sample, S a power of two, at least 8.
        width: channels of the last hidden layer.

    Raises:
        ConfigError: another shape.
    """

    def __init__(self, latent: int, shape: Sequence[int], width: int) -> None:
        super().__init__()
        channels, size = image_size(shape, "dcgan")
        self.activation_checkpointing = False
        self.latent = latent
        hidden = [width * size // 8 >> i for i in range(int(math.log2(size // 8)) + 1)]
        layers: list[nn.Module] = []
        for inputs, outputs in zip([latent, *hidden], [*hidden, channels], strict=True):
            stride, padding = (2, 1) if layers else (1, 0)
            layers.append(nn.ConvTranspose2d(inputs, outputs, KERNEL, stride, padding, bias=False))
            layers += [BatchNorm(outputs), nn.ReLU(inplace=True)]
        self.model = nn.Sequential(*layers[:-2], nn.Tanh())
        for module in self.model.children():
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, BatchNorm):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, z: Tensor, valid: Tensor | None = None) -> Tensor:
        """z[B, Z] -> images [B, C, S, S] in [-1, 1]; `valid`: see `BatchNorm`."""
        x = z.view(len(z), self.latent, 1, 1)
        layers = list(self.model.children())
        for first in range(0, len(layers), 3):
            x = recomputed(self.activation_checkpointing, _stage, layers[first : first + 3], x, valid)
        return x

    def multiply_adds(self) -> int:
        """Multiplications and additions of one sample, in pairs: convolutions only."""
        convolutions = [layer for layer in self.model.children() if isinstance(layer, nn.ConvTranspose2d)]
        sides = [1, *(4 << i for i in range(len(convolutions) - 1))]
        return sum(layer.weight.numel() * side**2 for layer, side in zip(convolutions, sides, strict=True))


def _stage(layers: Sequence[nn.Module], x: Tensor, valid: Tensor | None) -> Tensor:
    """A convolution with the norm and activation after it."""
    for layer in layers:
        x = layer(x, valid) if isinstance(layer, BatchNorm) else layer(x)
    return x


class DcganDiscriminator(CodeNetwork):
    """Convolutions that halve the size down to 4 x 4, then a linear head; leaky ReLU, no batch normalisation.

    Args:
        shape: [C, S, S] of a sample, S a power of two, at least 8.
        width: channels of the first layer; each further one has twice as many.
        code: m.
        reparameterised, spectral, unused_head: see `CodeNetwork`.

    Raises:
        ConfigError: another shape.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int,
        code: int,
        *,
        reparameterised: bool = True,
        spectral: bool = True,
        unused_head: bool = False,
    ) -> None:
        channels, size = image_size(shape, "dcgan")
        hidden = [width << i for i in range(int(math.log2(size // 4)))]
        heads = {"reparameterised": reparameterised, "unused_head": unused_head}
        super().__init__(hidden[-1] * 4 * 4, code, spectral=spectral, bias=False, **heads)
        self.size = size
        layers: list[nn.Module] = []
        for inputs, outputs in zip([channels, *hidden[:-1]], hidden, strict=True):
            layers.append(Conv2d(inputs, outputs, KERNEL, stride=2, padding=1, bias=False, spectral=spectral))
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
        self.model = nn.Sequential(*layers)
        for convolution in self._convolutions():
            nn.init.normal_(convolution.raw, 0.0, 0.02)
        for head in (self.fc, self.reparam):
            if head is not None:
                nn.init.orthogonal_(head.raw)

    def _convolutions(self) -> list[Conv2d]:
        return [layer for layer in self.model.children() if isinstance(layer, Conv2d)]

    def features(self, x: Tensor, iterate: bool) -> Tensor:
        """[B, C, S, S] -> [B, 16 * width * S/8]."""
        # Convolutions keep the order of their input; on CPUs this one saves them a tenth of their time.
        x = x.contiguous(memory_format=torch.channels_last)
        for convolution in self._convolutions():
            x = recomputed(self.activation_checkpointing, _down, convolution, x, iterate)
        return x.flatten(1)

    def multiply_adds(self) -> int:
        """Multiplications and additions of one sample, in pairs: convolutions and head."""
        inner = sum(c.raw.numel() * (self.size >> i) ** 2 for i, c in enumerate(self._convolutions(), start=1))
        return inner + self.head_multiply_adds()


def _down(convolution: Conv2d, x: Tensor, iterate: bool) -> Tensor:
    return F.leaky_relu(convolution(x, iterate), SLOPE, inplace=True)
