"""One rank of test_gan_ranks.py: a small GAN on the toy points, by the trainer's strategies."""

import json
import sys
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from generative.method import Loss, NetworkSpec, Update
from generative.nets.batch_norm import counted_rows
from generative.nets.dcgan import DcganDiscriminator, DcganGenerator
from generative.training.state import persistent_buffers
from tests.distributed import train_toy
from tests.support.toys import Regression

SHAPE = (1, 8, 8)


@dataclass(frozen=True)
class Gan(Regression):
    """A non-saturating GAN with codes, batch and spectral normalisation, and R1 if `penalty`."""

    penalty: float = 0.0

    def networks(self):
        return {
            "generator": NetworkSpec(lambda: DcganGenerator(4, SHAPE, 4), ema=(0.9,)),
            "discriminator": NetworkSpec(lambda: DcganDiscriminator(SHAPE, 4, 3, unused_head=True)),
        }

    def updates(self):
        return [
            Update("judge", "discriminator", modes={"generator": "train"}, second_order=self.penalty > 0, coupled=True),
            Update("make", "generator", batch="previous", modes={"discriminator": "train"}, coupled=True),
        ]

    def loss(self, update, nets, batch, context):
        valid, weight = counted_rows(batch["valid"]), batch["valid"].float()
        ids = batch["sample_id"]
        z, noise = context.streams.normal("z", ids, (4,)), context.streams.normal("code", ids, (2, 3))
        if update.name == "make":
            made = nets["discriminator"](nets["generator"](z, valid), noise[:, 0]).mean(1)
            return Loss((F.softplus(-made) * weight).sum())
        with torch.no_grad():
            fake = nets["generator"](z, valid)
        real = torch.sin(batch["x"] @ torch.linspace(-1, 1, 192).view(3, 64)).view(-1, *SHAPE)
        real.requires_grad_(self.penalty > 0)
        good = nets["discriminator"](real, noise[:, 0]).mean(1)
        bad = nets["discriminator"](fake, noise[:, 1], iterate=False).mean(1)
        value = F.softplus(-good) + F.softplus(bad)
        if self.penalty:
            (slope,) = torch.autograd.grad(good.sum(), real, create_graph=True)
            value = value + self.penalty * slope.square().flatten(1).sum(1)
        return Loss((value * weight).sum())

    @staticmethod
    def probe(nets):
        """Every weight and buffer counts."""
        total = torch.zeros((), dtype=torch.float64)
        for module in nets.values():
            module = getattr(module, "module", module)
            for tensor in [*module.parameters(), *(buffer for _, buffer in persistent_buffers(module))]:
                total += (tensor.detach().double().flatten() * torch.linspace(1, 2, tensor.numel())).sum()
        return total


if __name__ == "__main__":
    train_toy.METHODS["gan"] = Gan
    train_toy.main(json.loads(sys.argv[1]))
