"""MEE GAN as the trainer sees it: a generator, a discriminator, and an optimizer for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.method import Batch, Context, DataFacts, Loss, Mean, Networks, NetworkSpec, Update
from generative.methods.mee_gan.config import MeeGanConfig
from generative.methods.mee_gan.discriminator import discriminator_loss, means_of, sum_of
from generative.methods.mee_gan.losses import ADVERSARIAL, realness
from generative.methods.mee_gan.memory import CodeMemory
from generative.methods.mee_gan.network import build_discriminator, build_generator
from generative.methods.mee_gan.passes import Draws, Pass, encode, rows_that_count
from generative.methods.mee_gan.sampler import GanSampler, standing_generator


@dataclass(frozen=True)
class MeeGan:
    """The method of arXiv 2208.12055, and the entropy as an addition to other GANs.

    Batches hold sample float[B, *shape], images in [-1, 1].
    """

    config: MeeGanConfig
    facts: DataFacts

    def __post_init__(self) -> None:
        if self.config.dlle.weight and self.config.dlle.augmentation == "flip" and len(self.shape) != 3:
            raise ConfigError(
                f"method.dlle.augmentation=flip with samples of shape {self.shape}",
                expected="images [C, H, W], or augmentation by noise alone",
                remedy="set method.dlle.augmentation=noise",
            )

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of a sample: [C, H, W], or [D] for points."""
        if self.facts.sample_shape is None:
            raise ConfigError(
                "the method mee_gan needs samples of a fixed shape, and the data has none",
                expected="images or points",
                remedy="set data.name to digits, stacked_digits, folder, hub or points",
            )
        return self.facts.sample_shape

    def networks(self) -> Mapping[str, NetworkSpec]:
        """The generator, which averages are kept of, and the discriminator."""
        config = self.config
        generator = partial(build_generator, config, self.shape)
        discriminator = partial(build_discriminator, config, self.shape)
        return {
            "generator": NetworkSpec(
                generator, ema=tuple(config.ema), ema_ramp=config.ema_ramp, init_from=config.init_from
            ),
            "discriminator": NetworkSpec(discriminator, init_from=config.init_from),
        }

    def updates(self) -> Sequence[Update]:
        """One update of the discriminator, one of the generator on the same batch and z, the rest of the former.

        The released code steps the generator at every third batch from the first on, which is this order.
        """
        second_order = bool(self.config.r1 or self.config.r2)
        first = Update(
            "discriminator",
            trains="discriminator",
            modes={"generator": "train"},
            second_order=second_order,
            coupled=True,
        )
        generator = Update(
            "generator", trains="generator", batch="previous", modes={"discriminator": "train"}, coupled=True
        )
        rest = self.config.discriminator_updates - 1
        more = Update("discriminator_more", first.trains, 1, rest, "own", first.modes, second_order, coupled=True)
        return [first, generator] + ([more] if rest else [])

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        """Number of samples."""
        return batch["valid"].sum()

    def loss(self, update: Update, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Sum over samples of the loss of the network that is trained."""
        if update.trains == "generator":
            return self._generator_loss(nets, batch, context)
        return discriminator_loss(self.config, nets, batch, context)

    def _generator_loss(self, nets: Networks, batch: Batch, context: Context) -> Loss:
        """L_G = L_adv(D(G(z))) + w L_ent(generated codes)."""
        config, valid = self.config, batch["valid"]
        draws, adversarial = Draws(config, context, batch["sample_id"]), ADVERSARIAL[config.adversarial]
        images = {"generated": nets["generator"](draws.latent(), rows_that_count(batch, context))}
        passes = [Pass(["generated"])]
        if adversarial.paired:
            images["real"] = batch["sample"]
            passes.append(Pass(["real"], graph=False))
        codes = encode(nets["discriminator"], images, passes, draws)
        scores = {name: realness(found) for name, found in codes.items()}
        parts = {
            "adversarial": (1.0, adversarial.generator(scores["generated"], scores.get("real", scores["generated"])))
        }
        value = sum_of(parts, valid)
        term = CodeMemory(config, "generated").term(codes["generated"], value, batch, context)
        metrics = means_of(parts, valid) | {"fake": Mean.of(scores["generated"], valid)} | term.metrics
        return Loss(value if term.value is None else value + term.value, metrics, term.state)

    def state(self) -> Mapping[str, Tensor]:
        """Past codes, real and generated, as far as their entropy is raised."""
        return CodeMemory(self.config, "real").first() | CodeMemory(self.config, "generated").first()

    def sampler(self, nets: Networks) -> GanSampler:
        """Samples from fresh z; with `sampling.statistics=standing` batch statistics are measured first."""
        generator = nets["generator"]
        assert isinstance(generator, torch.nn.Module)
        if self.config.sampling.statistics == "standing":
            generator = standing_generator(generator, self.config.latent, self.config.sampling.standing_samples)
        return GanSampler(generator, self.config.latent)

    @cached_property
    def _multiply_adds(self) -> tuple[int, int]:
        """Of the generator and of the discriminator, for one sample."""
        with torch.device("meta"):
            generator = build_generator(self.config, self.shape)
            discriminator = build_discriminator(self.config, self.shape)
        return generator.multiply_adds(), discriminator.multiply_adds()

    def flops(self, batch: Batch) -> int:
        """Of the matrix products and convolutions of one step: two for each multiply-add, backward twice the forward.

        The frozen discriminator of the generator's update gives gradients of its input only.
        Gradient penalties, which differentiate twice, count as two more passes over their rows.
        """
        config, count = self.config, len(batch["sample"])
        generator, discriminator = self._multiply_adds
        trained, constant = 2 + bool(config.iso.weight), 2 * bool(config.dlle.weight)
        if config.dlle.form == "paper" and constant:
            trained, constant = trained + constant, 0
        penalties = 3 * (bool(config.r1) + bool(config.r2))
        own = generator + discriminator * (3 * trained + constant + penalties)
        other = 3 * generator + (2 + ADVERSARIAL[config.adversarial].paired) * discriminator
        return 2 * count * (config.discriminator_updates * own + other)
