"""Forward passes of the two updates, and what is drawn for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.method import Batch, Context
from generative.methods.mee_gan.config import MeeGanConfig


@dataclass(frozen=True)
class Draws:
    """The noise of one update, addressed by samples.

    Args:
        config: of the method.
        context: of the update.
        ids: int64[B], sample ids.
    """

    config: MeeGanConfig
    context: Context
    ids: Tensor

    def latent(self) -> Tensor:
        """z ~ N(0, I), float[B, latent]: the generator's update sees that of the discriminator's on the same batch."""
        return self.context.shared.normal("z", self.ids, (self.config.latent,))

    def code(self, name: str) -> Tensor | None:
        """What spreads the codes of one pass, float[B, m]; None for discriminators without spread."""
        if not self.config.reparameterised:
            return None
        return self.context.streams.normal(f"code.{name}", self.ids, (self.config.code,))

    def alpha(self) -> Tensor:
        """How much of the real image is in a mix, float[B]."""
        if self.config.iso.alpha == "uniform":
            return self.context.streams.uniform("alpha", self.ids)
        return self.context.streams.normal("alpha", self.ids)

    def iso(self) -> Tensor:
        """Noise on the mixed codes, float[B, m]."""
        return self.config.iso.noise * self.context.streams.normal("iso", self.ids, (self.config.code,))

    def augmented(self, images: Tensor, name: str) -> Tensor:
        """F(x): one random flip of the whole batch, with noise; or noise alone (spec 2.3)."""
        streams, settings = self.context.streams, self.config.dlle
        if settings.augmentation == "flip":
            upright = float(streams.shared_uniform(f"flip.{name}")) < 0.5
            images = images.flip(2 if upright else 3)
        return images + settings.noise * streams.normal(f"augment.{name}", self.ids, images.shape[1:])


def rows_that_count(batch: Batch, context: Context) -> Tensor | None:
    """The mask of valid rows where some rank has padding, else None, which batch statistics take faster.

    All ranks must come to the same answer, without looking at the mask, which a GPU would have to wait for.
    """
    return batch["valid"] if context.global_batch % context.collectives.world else None


@dataclass(frozen=True)
class Pass:
    """One forward pass of the discriminator over several batches.

    Args:
        names: of the batches.
        graph: whether gradients flow back through it.
    """

    names: Sequence[str]
    graph: bool = True


def encode(
    discriminator: Callable[..., Any],
    images: Mapping[str, Tensor],
    passes: Sequence[Pass],
    draws: Draws,
    iterate_each: bool = False,
) -> dict[str, Tensor]:
    """Codes of each batch, {name: float[B, m]}.

    The power iteration of spectral normalisation runs before the first pass only, so that all see the same weights;
    with `iterate_each` before every one, as released.
    """
    codes: dict[str, Tensor] = {}
    for number, one in enumerate(passes):
        noise = [draws.code(name) for name in one.names]
        spread = None if noise[0] is None else torch.cat([part for part in noise if part is not None])
        with torch.set_grad_enabled(one.graph and torch.is_grad_enabled()):
            rows = torch.cat([images[name] for name in one.names]) if len(one.names) > 1 else images[one.names[0]]
            found: Tensor = discriminator(rows, spread, iterate_each or number == 0)
        codes |= dict(zip(one.names, found.chunk(len(one.names)), strict=True))
    return codes
