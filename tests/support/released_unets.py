"""Forward passes of the networks of guided-diffusion and latent-diffusion over state dicts under their names.

A `Store` makes a tensor of random numbers the first time that a layer asks for it, so that one forward pass gives the
state dict that belongs to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

GROUPS = 32


class Store(dict[str, Tensor]):
    """Tensors by name."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def of(self, name: str, *shape: int, offset: float = 0.0) -> Tensor:
        if name not in self:
            scale = 0.1 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5
            self[name] = offset + scale * torch.randn(shape, generator=self.generator)
        return self[name]

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        c = x.shape[1]
        return F.group_norm(x, GROUPS, self.of(f"{name}.weight", c, offset=1.0), self.of(f"{name}.bias", c), eps)

    def conv(self, name: str, x: Tensor, out: int, kernel: int = 3, **how: int) -> Tensor:
        weight = self.of(f"{name}.weight", out, x.shape[1], kernel, kernel)
        return F.conv2d(x, weight, self.of(f"{name}.bias", out), **({"padding": kernel // 2} | how))

    def linear(self, name: str, x: Tensor, out: int) -> Tensor:
        return F.linear(x, self.of(f"{name}.weight", out, x.shape[1]), self.of(f"{name}.bias", out))


@dataclass(frozen=True)
class UNet:
    """guided-diffusion's UNetModel, of which latent-diffusion's without conditions is a form.

    Args:
        residual: sides are halved and doubled by residual blocks (ADM), else by convolutions.
        shifted: the embedding scales and shifts after normalisation, else it is added before.
    """

    out: int
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention: tuple[int, ...] = (1,)
    head_width: int = 32
    residual: bool = True
    shifted: bool = True
    classes: int = 0

    def __call__(self, s: Store, x: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
        half = self.width // 2
        angles = times[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
        e = s.linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1), 4 * self.width)
        e = s.linear("time_embed.2", F.silu(e), 4 * self.width)
        if labels is not None:
            e = e + s.of("label_emb.weight", self.classes, 4 * self.width)[labels]
        h = s.conv("input_blocks.0.0", x, self.width)
        kept, i = [h], 1
        for level, multiplier in enumerate(self.multipliers):
            for _ in range(self.blocks):
                h = self.res(s, f"input_blocks.{i}.0", h, e, multiplier * self.width)
                h = self.attend(s, f"input_blocks.{i}.1", h) if level in self.attention else h
                kept.append(h)
                i += 1
            if level + 1 < len(self.multipliers):
                name = f"input_blocks.{i}.0"
                if self.residual:
                    h = self.res(s, name, h, e, h.shape[1], lambda t: F.avg_pool2d(t, 2))
                else:
                    h = s.conv(f"{name}.op", h, h.shape[1], stride=2)
                kept.append(h)
                i += 1
        h = self.res(s, "middle_block.0", h, e, h.shape[1])
        h = self.res(s, "middle_block.2", self.attend(s, "middle_block.1", h), e, h.shape[1])
        i = 0
        for level in reversed(range(len(self.multipliers))):
            for block in range(self.blocks + 1):
                h = torch.cat([h, kept.pop()], 1)
                h = self.res(s, f"output_blocks.{i}.0", h, e, self.multipliers[level] * self.width)
                h = self.attend(s, f"output_blocks.{i}.1", h) if level in self.attention else h
                if level and block == self.blocks:
                    name = f"output_blocks.{i}.{2 if level in self.attention else 1}"
                    if self.residual:
                        h = self.res(s, name, h, e, h.shape[1], twice)
                    else:
                        h = s.conv(f"{name}.conv", twice(h), h.shape[1])
                i += 1
        return s.conv("out.2", F.silu(s.norm("out.0", h, 1e-5)), self.out)

    def res(self, s: Store, name: str, x: Tensor, e: Tensor, out: int, resampled=lambda t: t) -> Tensor:
        h = resampled(F.silu(s.norm(f"{name}.in_layers.0", x, 1e-5)))
        x, h = resampled(x), s.conv(f"{name}.in_layers.2", h, out)
        told = s.linear(f"{name}.emb_layers.1", F.silu(e), 2 * out if self.shifted else out)[:, :, None, None]
        if self.shifted:
            scale, shift = told.chunk(2, 1)
            h = s.norm(f"{name}.out_layers.0", h, 1e-5) * (1 + scale) + shift
        else:
            h = s.norm(f"{name}.out_layers.0", h + told, 1e-5)
        h = s.conv(f"{name}.out_layers.3", F.silu(h), out)
        return h + (x if x.shape[1] == out else s.conv(f"{name}.skip_connection", x, out, 1))

    def attend(self, s: Store, name: str, x: Tensor) -> Tensor:
        c, flat = x.shape[1], x.flatten(2)
        normed = s.norm(f"{name}.norm", flat, 1e-5)
        qkv = F.conv1d(normed, s.of(f"{name}.qkv.weight", 3 * c, c, 1), s.of(f"{name}.qkv.bias", 3 * c))
        q, k, v = qkv.unflatten(1, (c // self.head_width, 3, self.head_width)).unbind(2)
        weight = (torch.einsum("bhct,bhcs->bhts", q, k) * self.head_width**-0.5).softmax(-1)
        found = torch.einsum("bhts,bhcs->bhct", weight, v).flatten(1, 2)
        found = F.conv1d(found, s.of(f"{name}.proj_out.weight", c, c, 1), s.of(f"{name}.proj_out.bias", c))
        return x + found.view_as(x)


def twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


@dataclass(frozen=True)
class FirstStage:
    """latent-diffusion's autoencoders; `codes`: size of the codebook, 0 for a KL autoencoder."""

    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    layers: int = 1
    latent: int = 3
    codes: int = 0

    def encode(self, s: Store, x: Tensor) -> Tensor:
        """The mean of the posterior, or what is quantised."""
        h = s.conv("encoder.conv_in", x, self.width)
        for level, multiplier in enumerate(self.multipliers):
            for block in range(self.layers):
                h = res(s, f"encoder.down.{level}.block.{block}", h, multiplier * self.width)
            if level + 1 < len(self.multipliers):
                h = s.conv(
                    f"encoder.down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), h.shape[1], stride=2, padding=0
                )
        h = self.middle(s, "encoder", h)
        twofold = 1 if self.codes else 2
        h = s.conv("encoder.conv_out", F.silu(s.norm("encoder.norm_out", h, 1e-6)), twofold * self.latent)
        return s.conv("quant_conv", h, twofold * self.latent, 1)[:, : self.latent]

    def decode(self, s: Store, z: Tensor) -> Tensor:
        if self.codes:
            table = s.of("quantize.embedding.weight", self.codes, self.latent)
            nearest = torch.cdist(z.movedim(1, -1).flatten(0, -2), table).argmin(1)
            z = table[nearest].view(len(z), *z.shape[2:], self.latent).movedim(-1, 1)
        h = s.conv("decoder.conv_in", s.conv("post_quant_conv", z, self.latent, 1), self.multipliers[-1] * self.width)
        h = self.middle(s, "decoder", h)
        for level in reversed(range(len(self.multipliers))):
            for block in range(self.layers + 1):
                h = res(s, f"decoder.up.{level}.block.{block}", h, self.multipliers[level] * self.width)
            if level:
                h = s.conv(f"decoder.up.{level}.upsample.conv", twice(h), h.shape[1])
        return s.conv("decoder.conv_out", F.silu(s.norm("decoder.norm_out", h, 1e-6)), 3)

    def middle(self, s: Store, half: str, h: Tensor) -> Tensor:
        h = res(s, f"{half}.mid.block_1", h, h.shape[1])
        return res(s, f"{half}.mid.block_2", attend(s, f"{half}.mid.attn_1", h), h.shape[1])


def res(s: Store, name: str, x: Tensor, out: int) -> Tensor:
    h = s.conv(f"{name}.conv1", F.silu(s.norm(f"{name}.norm1", x, 1e-6)), out)
    h = s.conv(f"{name}.conv2", F.silu(s.norm(f"{name}.norm2", h, 1e-6)), out)
    return h + (x if x.shape[1] == out else s.conv(f"{name}.nin_shortcut", x, out, 1))


def attend(s: Store, name: str, x: Tensor) -> Tensor:
    c, normed = x.shape[1], s.norm(f"{name}.norm", x, 1e-6)
    q, k, v = (s.conv(f"{name}.{part}", normed, c, 1).flatten(2) for part in "qkv")
    weight = (torch.einsum("bct,bcs->bts", q, k) * c**-0.5).softmax(-1)
    found = torch.einsum("bts,bcs->bct", weight, v).view_as(x)
    return x + s.conv(f"{name}.proj_out", found, c, 1)
