"""Layers whose weight is divided by its largest singular value, estimated by power iteration (arXiv 1802.05957).

Names in the state dict (weight_orig, weight_u, weight_v) and numbers are those of torch.nn.utils.spectral_norm. There
every forward pass in training iterates; here the caller says which does, so that all forward passes of one update can
see the same weights. Ranks with the same weights get the same bits: no batch enters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.precision import WideBuffers, wide, without_autocast
from generative.nets.recomputation import once

EPS = 1e-12


class _Normed(WideBuffers):
    """A weight matrix W [rows, ...] and its bias; W / sigma with `spectral`, where sigma = u^T W v."""

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, shape: tuple[int, ...], bias: bool, spectral: bool) -> None:
        super().__init__()
        self.spectral = spectral
        weight = nn.Parameter(torch.empty(shape))
        self.register_parameter("weight_orig" if spectral else "weight", weight)
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        if spectral:
            self.register_buffer("weight_u", F.normalize(torch.randn(shape[0]), dim=0, eps=EPS))
            self.register_buffer("weight_v", F.normalize(torch.randn(weight[0].numel()), dim=0, eps=EPS))
        bound = weight[0].numel() ** -0.5  # torch's own: uniform in +-1/sqrt(fan-in)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @property
    def raw(self) -> nn.Parameter:
        """The weight as it is trained."""
        found: nn.Parameter = self.weight_orig if self.spectral else self.weight  # type: ignore[assignment]
        return found

    def normed(self, iterate: bool) -> Tensor:
        """The weight as it is applied.

        Args:
            iterate: take one power iteration first; in training only, and not while activations are recomputed.
        """
        if not self.spectral:
            return self.raw
        u, v = once(lambda: self.vectors(iterate))
        with without_autocast(self.raw):
            weight = wide(self.raw)
            sigma = torch.dot(u, torch.mv(weight.flatten(1), v))
            return (weight / sigma).to(self.raw.dtype)

    @torch.no_grad()
    def vectors(self, iterate: bool) -> tuple[Tensor, Tensor]:
        """u and v, after a power iteration with `iterate` in training. With `spectral` only.

        They are copies: the backward pass needs them as they are now, and a later iteration changes them.
        """
        if iterate and self.training:
            with without_autocast(self.raw):
                matrix = wide(self.raw).flatten(1)
                F.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=EPS, out=self.weight_v)
                F.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=EPS, out=self.weight_u)
        return self.weight_u.clone(), self.weight_v.clone()


class Linear(_Normed):
    """x W^T + b with a normalised W [outputs, inputs]."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, spectral: bool = True) -> None:
        super().__init__((outputs, inputs), bias, spectral)

    def forward(self, x: Tensor, iterate: bool = True) -> Tensor:
        """[B, inputs] -> [B, outputs]; `iterate`: see `normed`."""
        return F.linear(x, self.normed(iterate), self.bias)


class Conv2d(_Normed):
    """Convolution with a normalised W [outputs, inputs * kernel * kernel]."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        spectral: bool = True,
    ) -> None:
        super().__init__((outputs, inputs, kernel, kernel), bias, spectral)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor, iterate: bool = True) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H', W']; `iterate`: see `normed`."""
        return F.conv2d(x, self.normed(iterate), self.bias, self.stride, self.padding)
