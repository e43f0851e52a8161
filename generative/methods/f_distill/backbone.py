"""Whose features the discriminator sees, and how the networks are asked together, so that no pass is run twice.

Released f-distill looks at the frozen teacher's encoder, and trains heads alone. DMD2 looks at the fake score's, which
the discriminator's loss trains too: then both are one network, with one optimizer. In between, heads alone are trained
on the fake score's features. A joint critic may also be had where nothing asks for it: it draws samples of the student
once for both losses.

Shapes: x_t [B, *shape], t float64[B], labels [B, ...] or None, logits [B, K] of K heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from generative.method import Networks
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.denoiser import Call, DenoiserParts
from generative.methods.f_distill.losses import guided

FAKE, HEADS = "fake", "heads"
"""The parts of `JointCritic`."""

Shown = Sequence[tuple[Tensor, Tensor]]
"""(x_t, t) of several batches of the same size and labels."""


class JointCritic(nn.Module):
    """Fake score and discriminator's heads as one network, which one update trains.

    Args:
        fake: the diffusion network.
        heads: on features of an encoder.
        levels: of these features.
        coupled: the heads' loss trains the encoder of the fake score too, where they look at it.
    """

    def __init__(self, fake: nn.Module, heads: nn.Module, levels: Sequence[int], coupled: bool) -> None:
        super().__init__()
        self.fake, self.heads, self.levels, self.coupled = fake, heads, list(levels), coupled

    @property
    def activation_checkpointing(self) -> bool:
        """Whether the backward pass computes activations again; not to be had where the fake score offers it not."""
        return bool(self.fake.activation_checkpointing)

    @activation_checkpointing.setter
    def activation_checkpointing(self, on: bool) -> None:
        for part in (self.fake, self.heads):
            part.activation_checkpointing = on  # type: ignore[assignment]

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        labels: Tensor | None = None,
        *,
        others: Shown = (),
        features: Sequence[Tensor] | None = None,
        base: Call | None = None,
        frozen: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The estimate of x from x_t, and logits of x_t and of all `others`, which go through the encoder alone.

        Args:
            x_t: noised samples.
            t: their times.
            labels: of them, and of each of the others.
            others: further batches.
            features: of another network, of all these batches, which the heads look at instead.
            base: the network that `fake` changes, where it is a set of adapters.
            frozen: the student is trained: the estimate is a constant, and features have their gradient by x_t.
        """
        fake = self.fake if base is None else partial(self.fake, base=base)
        if features is not None:
            return fake(x_t, t, labels), self.heads(features).chunk(1 + len(others))
        estimate, found = fake(x_t, t, labels, features=self.levels, decoder_gradient=not frozen)
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self.coupled or frozen)):
            if others:
                further = fake(*joined(others, labels), features=self.levels, encoder_only=True)
                found = [torch.cat(both) for both in zip(found, further, strict=True)]
        if not (self.coupled or frozen):
            found = [each.detach() for each in found]
        return estimate, self.heads(found).chunk(1 + len(others))


def joined(shown: Shown, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Several batches as one, with their common labels."""
    x_t, t = (torch.cat(parts) for parts in zip(*shown, strict=True))
    return x_t, t, None if labels is None else torch.cat([labels] * len(shown))


@dataclass(frozen=True)
class Estimates:
    """What the networks say of noised samples of the student.

    Args:
        teacher: its estimate of the samples, with guidance, without gradient.
        fake: that of the fake score, without gradient.
        logits: of the discriminator, with gradient where there is an adversarial loss; None: there is no discriminator.
    """

    teacher: Tensor
    fake: Tensor
    logits: Tensor | None


@dataclass(frozen=True)
class Views:
    """How the networks of the method are asked.

    Args:
        config: backbone, guidance, weight of the adversarial loss.
        parts: the kind of network.
        levels: of the encoder that the discriminator looks at.
        judged: whether there is a discriminator.
    """

    config: FDistillConfig
    parts: DenoiserParts
    levels: list[int]
    judged: bool

    @property
    def joint(self) -> bool:
        """Whether fake score and discriminator are one network, `critic`."""
        return self.judged and (self.config.critic == "joint" or self.config.backbone == "fake")

    @property
    def adversarial(self) -> bool:
        """Whether the loss goes back through the encoder into the student's samples."""
        return torch.is_grad_enabled() and self.config.gan_weight > 0

    def fake(self, nets: Networks) -> Call:
        """The fake score as a denoiser; not where it is part of `critic`."""
        return nets[FAKE] if self.config.lora is None else partial(nets[FAKE], base=nets["teacher"])

    def critic(self, nets: Networks) -> Call:
        """Fake score and heads where they are one."""
        return nets["critic"] if self.config.lora is None else partial(nets["critic"], base=nets["teacher"])

    def logits(self, nets: Networks, shown: Shown, labels: Tensor | None) -> tuple[Tensor, ...]:
        """Logits of several batches, in one pass of the encoder, without gradient, and one of the heads."""
        backbone = nets["teacher"] if self.config.backbone == "teacher" else self.fake(nets)
        logits: Tensor = nets["discriminator"](self._features(backbone, shown, labels))
        return logits.chunk(len(shown))

    def judged_scores(self, nets: Networks, shown: Shown, labels: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Of a joint critic: the fake score's estimate for the first batch, and the logits of all."""
        (x_t, t), *others = shown
        features = self._features(nets["teacher"], shown, labels) if self.config.backbone == "teacher" else None
        found: tuple[Tensor, tuple[Tensor, ...]] = self.critic(nets)(x_t, t, labels, others=others, features=features)
        return found

    @torch.no_grad()
    def _features(self, backbone: Call, shown: Shown, labels: Tensor | None) -> list[Tensor]:
        found: list[Tensor] = backbone(*joined(shown, labels), features=self.levels, encoder_only=True)
        return found

    def estimates(self, nets: Networks, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Estimates:
        """For the student's update: each network once, and twice the teacher where there is guidance.

        The adversarial loss goes back through heads and encoder into x_t, so that their activations are kept; those of
        decoders, and of networks that the heads do not look at, are not.
        """
        if self.judged and self.config.backbone == "teacher":
            teacher, features = self._teacher_seen(nets["teacher"], x_t, t, labels)
            with torch.set_grad_enabled(self.adversarial):
                if self.joint:
                    # The heads' gradient comes by the features: the fake score's pass keeps nothing.
                    fake, (logits,) = self.critic(nets)(x_t.detach(), t, labels, features=features)
                else:
                    logits = nets["discriminator"](features)
            if not self.joint:
                with torch.no_grad():
                    fake = self.fake(nets)(x_t, t, labels)
            return Estimates(teacher, fake.detach(), logits)
        with torch.no_grad():
            teacher = self.guided(nets["teacher"], x_t, t, labels)
            if not self.judged:
                return Estimates(teacher, self.fake(nets)(x_t, t, labels), None)
        with torch.set_grad_enabled(self.adversarial):
            if self.joint:
                fake, (logits,) = self.critic(nets)(x_t, t, labels, frozen=True)
            else:
                fake, features = self.fake(nets)(x_t, t, labels, features=self.levels, decoder_gradient=False)
                logits = nets["discriminator"](features)
        return Estimates(teacher, fake.detach(), logits)

    def _teacher_seen(
        self, teacher: Call, x_t: Tensor, t: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The teacher's estimate, and the features of its encoder on the way."""
        through = self.adversarial
        pair = self._guides(labels) and not through
        with torch.set_grad_enabled(through):
            inputs = self._pair(x_t, t, labels) if pair else (x_t, t, labels)
            estimate, features = teacher(*inputs, features=self.levels, decoder_gradient=False)
        estimate = estimate.detach()
        if pair:
            return self._mixed(estimate), [each[: len(x_t)] for each in features]
        if self._guides(labels):
            assert labels is not None
            # A pair in one batch would keep the encoder's activations of its second half for nothing.
            with torch.no_grad():
                without = teacher(x_t, t, self.parts.unconditional(labels))
            estimate = guided(estimate, without, self.config.guidance)
        return estimate, features

    def guided(self, teacher: Call, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The teacher's estimate, with classifier-free guidance in one batch of twice the size where there is any."""
        if not self._guides(labels):
            found: Tensor = teacher(x_t, t, labels)
            return found
        return self._mixed(teacher(*self._pair(x_t, t, labels)))

    def _mixed(self, both: Tensor) -> Tensor:
        """From the estimates of `_pair`."""
        told, without = both.chunk(2)
        return guided(told, without, self.config.guidance)

    def _guides(self, labels: Tensor | None) -> bool:
        return self.config.guidance != 1.0 and labels is not None

    def _pair(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        assert labels is not None
        return torch.cat([x_t] * 2), torch.cat([t] * 2), torch.cat([labels, self.parts.unconditional(labels)])
