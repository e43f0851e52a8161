"""Noise of measurements, each image from a stream of its own: Gaussian, Poisson, salt and pepper."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from generative.errors import ConfigError, suggestion
from generative.randomness import Streams

Kind = Literal["gaussian", "poisson", "salt_pepper"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def deviation(kind: Kind, amount: float) -> float:
    """Standard deviation of a number's noise, at mid-grey where it depends on the number; arguments: `with_noise`."""
    if kind == "gaussian":
        return amount
    check_amount(kind, amount)
    return 2 * math.sqrt(0.5 / (255 * amount)) if kind == "poisson" else math.sqrt(amount)


def check_amount(kind: str, amount: float) -> None:
    """Raises ConfigError: an unknown kind, or an amount that cannot be."""
    if kind not in KINDS:
        raise ConfigError(f"noise {kind!r}{suggestion(kind, KINDS)}", f"one of {', '.join(KINDS)}", "correct it")
    if not 0 < amount < (1 if kind == "salt_pepper" else float("inf")):
        raise ConfigError(
            f"{kind} noise of {amount:g}",
            "a standard deviation or a rate above 0, a share between 0 and 1",
            "give a small one for measurements that are nearly free of noise, such as 0.01",
        )


def with_noise(y: Tensor, kind: Kind, amount: float, ids: Tensor, streams: Streams) -> Tensor:
    """A noisy measurement.

    Args:
        y: [B, ...], in the range of images where the noise is not Gaussian.
        kind: gaussian: y + amount n; poisson: counts of 255 amount u photons for u = (y + 1) / 2 in [0, 1], clamped;
            salt_pepper: a share `amount` of all numbers becomes -1 or 1, by halves.
        amount: standard deviation; photons by grey level; share.
        ids: int64[B], addresses of the noise.
        streams: of the noise.

    Raises:
        ConfigError: an amount that cannot be.
    """
    shape = y.shape[1:]
    check_amount(kind, amount)
    if kind == "gaussian":
        return y + amount * streams.normal("measurement", ids, shape, y.dtype).to(y.device)
    if kind == "poisson":
        rates = 255 * amount * ((y + 1) / 2).clamp(0, 1).cpu().double()
        seeds = streams.integers("poisson", ids.cpu(), 2**52).tolist()
        drawn = [torch.poisson(r, torch.Generator().manual_seed(s)) for r, s in zip(rates, seeds, strict=True)]
        return ((torch.stack(drawn) / (255 * amount)).clamp(0, 1) * 2 - 1).to(y)
    chance = streams.uniform("salt_pepper", ids, shape, torch.float64).to(y.device)
    hit = torch.where(chance < amount / 2, -torch.ones_like(y), torch.ones_like(y))
    return torch.where(chance < amount, hit, y)
