"""What a step of the MEE GAN costs: fused passes against the released form, and the entropy term."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.benchmarks.figure import Figure, figure
from evaluation.benchmarks.timing import interleave, one_thread
from evaluation.estimate import ratio_of_medians
from generative.method import Alone, Context, DataFacts
from generative.methods.mee_gan.config import MeeGanConfig
from generative.methods.mee_gan.method import MeeGan
from generative.randomness import Streams

SHAPE, BATCH, WIDTH = (3, 32, 32), 64, 32


class Steps:
    """Discriminator and generator updates of one configuration, again and again on the same images.

    Args:
        method: settings on top of a DCGAN of width 32 with z of 64 and codes of 16.
    """

    def __init__(self, **method: object) -> None:
        config = {"network": {"name": "dcgan", "width": WIDTH}, "latent": 64, "code": 16, "discriminator_updates": 1}
        self.method = MeeGan(MeeGanConfig.model_validate(config | method), DataFacts(sample_shape=SHAPE))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.nets: dict[str, nn.Module] = {k: spec.build() for k, spec in self.method.networks().items()}
        self.optimizers = {
            name: torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-4, (0.0, 0.999), foreach=True)
            for name, net in self.nets.items()
        }
        self.trained = {name: [p for p in net.parameters() if p.requires_grad] for name, net in self.nets.items()}
        ids = torch.arange(BATCH)
        real = Streams(0).uniform("real", ids, SHAPE) * 2 - 1
        self.batch = {"sample": real, "sample_id": ids, "position": ids, "valid": torch.ones(BATCH, dtype=torch.bool)}
        self.state, self.step = dict(self.method.state()), 0

    def update(self, number: int, fake: Tensor | None = None) -> None:
        """One update: 0 of the discriminator, 1 of the generator.

        Args:
            number: which.
            fake: images that stand for what the generator would make, so that only the discriminator is timed.
        """
        update = self.method.updates()[number]
        nets = self.nets if fake is None else self.nets | {"generator": lambda z, valid: fake}
        for name, parameters in self.trained.items():
            for parameter in parameters:
                parameter.requires_grad_(name == update.trains)
        streams = Streams(0, self.step)
        context = Context(self.step, streams, BATCH, self.state, Alone(), streams.within("shared"))
        loss = self.method.loss(update, nets, self.batch, context)
        torch.autograd.backward(loss.value / BATCH)
        self.optimizers[update.trains].step()
        self.optimizers[update.trains].zero_grad()
        self.state |= loss.new_state or {}

    def both(self) -> None:
        """A whole step."""
        self.update(0)
        self.update(1)
        self.step += 1


class ReleasedUpdate:
    """The discriminator's update in the released form: five forward passes, each with a power iteration, and four
    backward passes over one graph; every sample is compared with the batch before, where the buffer has shrunk to.

    Args:
        steps: networks and images to run it on.
    """

    def __init__(self, steps: Steps) -> None:
        self.steps, self.code = steps, steps.method.config.code
        self.last = torch.randn(BATCH, self.code)

    def __call__(self, fake: Tensor | None = None) -> None:
        discriminator, real = self.steps.nets["discriminator"], self.steps.batch["sample"]
        if fake is None:
            fake = self.steps.nets["generator"](torch.randn(BATCH, 64)).detach()
        t, f = self._code(discriminator, real), self._code(discriminator, fake)
        torch.autograd.backward(f.mean() - t.mean(), retain_graph=True)
        pairs = ((real, t), (fake, f))
        dlle = torch.stack([F.mse_loss(v, self._code(discriminator, _augmented(x)).detach()) for x, v in pairs]).sum()
        torch.autograd.backward(dlle, retain_graph=True)
        alpha = torch.randn(BATCH, 1)
        mixed = alpha.view(-1, 1, 1, 1) * real + (1 - alpha.view(-1, 1, 1, 1)) * fake
        target = alpha * t + (1 - alpha) * f + 0.05 * torch.randn_like(t)
        torch.autograd.backward(F.mse_loss(self._code(discriminator, mixed), target.detach()), retain_graph=True)
        torch.autograd.backward(-5e-4 * (t - self.last).square().mean(1).mean().log())
        self.last = t.detach()
        self.steps.optimizers["discriminator"].step()
        self.steps.optimizers["discriminator"].zero_grad()

    def _code(self, discriminator: Callable[..., Tensor], images: Tensor) -> Tensor:
        return discriminator(images, torch.randn(BATCH, self.code), True)


def _augmented(images: Tensor) -> Tensor:
    return images.flip(2 if torch.rand(()) < 0.5 else 3) + 1e-3 * torch.randn_like(images)


def figures(pairs: int) -> dict[str, Figure]:
    """fused_speedup and entropy_overhead, each timed in turns in this process."""
    note = f"DCGAN of width {WIDTH}, 32 x 32, batch {BATCH}, one thread"
    with one_thread():
        ours = Steps(preset="default")
        theirs = ReleasedUpdate(Steps(preset="default"))
        fake = torch.rand(BATCH, *SHAPE) * 2 - 1
        released, fused = interleave(lambda: theirs(fake), lambda: ours.update(0, fake), pairs)
        released_step, fused_step = interleave(theirs, lambda: ours.update(0), pairs)
        without = Steps(preset="plugin", r1=0.0, entropy={"weight": 0.0})
        entropy = Steps(preset="plugin", r1=0.0)
        with_it, plain = interleave(entropy.both, without.both, pairs)
    form = "update of the discriminator on given images: five forward and four backward passes over two and one"
    whole = "the same with the generator's forward pass, which both have in common"
    term = "step of the non-saturating GAN with the entropy of generated codes over one without"
    return {
        "fused_speedup": figure(ratio_of_medians(released, fused), ">= 1.5", f"{form}; {note}"),
        "fused_update_speedup": figure(ratio_of_medians(released_step, fused_step), None, f"{whole}; {note}"),
        "entropy_overhead": figure(ratio_of_medians(with_it, plain), "<= 1.10", f"{term}; {note}"),
    }
