"""Methods small enough to check by hand, for the trainer's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from generative.data.loader import Loader
from generative.method import Batch, Context, Loss, Mean, NetworkSpec, Update
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig


class Points:
    """Map-style source of points x[3] with targets y = x . (1, -2, 3) + 0.1 sin(i)."""

    def __init__(self, count: int = 37) -> None:
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(count, 3, generator=generator)
        self.y = self.x @ torch.tensor([1.0, -2.0, 3.0]) + 0.1 * torch.sin(torch.arange(count))

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, indices: np.ndarray) -> dict[str, Tensor]:
        rows = torch.as_tensor(indices)
        return {"x": self.x[rows], "y": self.y[rows], "index": rows.clone()}


def loaders(
    rank: int = 0, world: int = 1, batch_size: int = 6, micro: int | None = None, count: int = 37, seed: int = 0
):
    """What Trainer takes as `batches`."""

    def open_at(state):
        return Loader(
            Points(count), batch_size=batch_size, micro_batch_size=micro, seed=seed, rank=rank, world=world, state=state
        )

    return open_at


class Net(nn.Module):
    def __init__(self, inputs: int = 3, width: int = 5, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, 1)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.last(self.dropout(self.norm(self.first(x).tanh())))[:, 0]


@dataclass(frozen=True)
class Regression:
    """Least squares on inputs with per-sample noise; padding rows weigh nothing."""

    noise: float = 0.1
    ema: tuple[float, ...] = (0.9,)
    dropout: float = 0.0
    poison: int | None = None
    """This sample id gives a NaN loss."""

    def networks(self) -> Mapping[str, NetworkSpec]:
        return {"net": NetworkSpec(lambda: Net(dropout=self.dropout), ema=self.ema)}

    def updates(self) -> Sequence[Update]:
        return [Update("fit", "net")]

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        return batch["valid"].sum()

    def loss(self, update: Update, nets, batch: Batch, context: Context) -> Loss:
        noise = context.streams.normal("input", batch["sample_id"], (3,))
        error = nets["net"](batch["x"] + self.noise * noise) - batch["y"]
        squares = error.square() * batch["valid"]
        if self.poison is not None:
            squares = torch.where(batch["sample_id"] == self.poison, torch.nan, squares)
        return Loss(squares.sum(), {"absolute": Mean.of(error.abs(), batch["valid"])})

    def state(self) -> Mapping[str, Tensor]:
        return {}

    def sampler(self, nets):
        raise NotImplementedError

    def flops(self, batch: Batch) -> int:
        return 0

    @staticmethod
    def probe(nets) -> Tensor:
        """A number that shows which weights the networks wear."""
        return sum(net(torch.linspace(-1, 1, 3)[None]).sum() for net in nets.values())


@dataclass(frozen=True)
class Duel:
    """Two trained networks with an update each, a frozen third, and a memory: the shape of a distillation or GAN.

    The critic (twice a step) learns to tell the student's outputs from the teacher's; the student learns from the
    critic's gradient on the same batch, and towards a running mean kept in the state.
    """

    critic_repeats: int = 2
    student_every: int = 1
    seen_modes: list = field(default_factory=list, compare=False)

    def networks(self) -> Mapping[str, NetworkSpec]:
        return {
            "teacher": NetworkSpec(Net, trainable=False),
            "student": NetworkSpec(Net, ema=(0.5, 0.9), init_from="network:teacher"),
            "critic": NetworkSpec(lambda: Net(inputs=4)),
        }

    def updates(self) -> Sequence[Update]:
        return [
            Update("critic", trains="critic", repeats=self.critic_repeats, modes={"student": "train"}),
            Update("student", trains="student", every=self.student_every, batch="previous"),
        ]

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        return batch["valid"].sum()

    def loss(self, update: Update, nets, batch: Batch, context: Context) -> Loss:
        x = batch["x"] + context.streams.normal("x", batch["sample_id"], (3,))
        fake = nets["student"](x)
        real = nets["teacher"](x)
        judge = lambda y: nets["critic"](torch.cat([x, y[:, None]], dim=1))  # noqa: E731
        weight = batch["valid"].float()
        self.seen_modes.append(update.name)
        if update.name == "critic":
            both = nets["critic"](torch.cat([torch.cat([x, y[:, None]], 1) for y in (real, fake.detach())]))
            good, bad = both.chunk(2)
            loss = nn.functional.softplus(-good) + nn.functional.softplus(bad)
            return Loss((loss * weight).sum())
        loss = nn.functional.softplus(-judge(fake)) + 0.1 * (fake - context.state["mean"]).square()
        total = context.collectives.sum((fake.detach() * weight).sum()) / context.global_batch
        mean = 0.9 * context.state["mean"] + 0.1 * total
        return Loss((loss * weight).sum(), {"fake": Mean.of(fake, weight)}, {"mean": mean})

    def state(self) -> Mapping[str, Tensor]:
        return {"mean": torch.tensor(0.25)}

    def sampler(self, nets):
        raise NotImplementedError

    def flops(self, batch: Batch) -> int:
        return 0

    @staticmethod
    def probe(nets) -> Tensor:
        x = torch.linspace(-1, 1, 3)[None]
        return nets["student"](x).sum() + nets["teacher"](x).sum() + nets["critic"](torch.ones(1, 4)).sum()


class Gpt(Regression):
    """A small GPT on rows of tokens made from the points."""

    def networks(self) -> Mapping[str, NetworkSpec]:
        config = TransformerConfig(
            layers=2, heads=2, width=16, ff_width=24, vocab_size=24, padding_multiple=1, max_length=16
        )
        return {"net": NetworkSpec(lambda: Transformer(config, causal=True, mask_row=False), ema=(0.9,))}

    def loss(self, update: Update, nets, batch: Batch, context: Context) -> Loss:
        ids = (batch["index"][:, None] * torch.arange(1, 10) + batch["index"][:, None] // 3) % 24
        rows = torch.arange(8).repeat(len(ids)) + 9 * torch.arange(len(ids)).repeat_interleave(8)
        weights = batch["valid"].float().repeat_interleave(8) / 8
        value, _ = nets["net"](ids, rows, ids[:, 1:].flatten(), weights)
        return Loss(value)

    @staticmethod
    def probe(nets) -> Tensor:
        return nets["net"](torch.arange(8)[None]).square().sum()


class Penalty(Regression):
    """Least squares with a penalty on the gradient of the network (R1): second order."""

    def updates(self) -> Sequence[Update]:
        return [Update("fit", "net", second_order=True)]

    def loss(self, update: Update, nets, batch: Batch, context: Context) -> Loss:
        x = batch["x"].clone().requires_grad_(True)
        out = nets["net"](x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        weight = batch["valid"].float()
        return Loss((((out - batch["y"]).square() + 0.3 * slope.square().sum(1)) * weight).sum())


class AwkwardNet(nn.Module):
    """What strategies trip over: a shared parameter, a fixed one, one that nothing reaches, buffers that change (one of
    them complex), and inputs that bf16 would ruin."""

    def __init__(self, fixed: bool = False, idle: bool = False) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(3, 6), nn.Linear(3, 6, bias=False)
        self.out.weight = self.into.weight
        self.scale = nn.Parameter(torch.full((6,), 1 / 7), requires_grad=not fixed)
        if idle:
            self.idle = nn.Parameter(torch.ones(4))
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("turned", torch.zeros(3, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.seen.lerp_(x.mean(0), 0.1)
                self.turned.lerp_(torch.exp(1j * x).mean(0), 0.1)
        hidden = self.into(torch.sin(300 * x)) * self.scale
        return nn.functional.linear(hidden, self.out.weight.T).sum(1)


@dataclass(frozen=True)
class Awkward(Regression):
    """Least squares with the awkward network; may report metrics under names that depend on the batch."""

    fixed: bool = False
    idle: bool = False
    fickle: bool = False
    noise: float = 0.0

    def networks(self) -> Mapping[str, NetworkSpec]:
        return {"net": NetworkSpec(lambda: AwkwardNet(self.fixed, self.idle), ema=self.ema)}

    def loss(self, update: Update, nets, batch: Batch, context: Context) -> Loss:
        loss = super().loss(update, nets, batch, context)
        name = "odd" if self.fickle and int(batch["sample_id"][0]) % 2 else "even"
        return Loss(loss.value, {name: Mean.of(batch["y"], batch["valid"])})

    @staticmethod
    def probe(nets) -> Tensor:
        net = nets["net"]
        net = getattr(net, "module", net)
        return Regression.probe(nets) + net.seen.sum() + net.turned.sum().abs() + net.scale.sum()


@dataclass(frozen=True)
class Anchored(Regression):
    """Least squares, held near the first weights, which a frozen network keeps."""

    def networks(self) -> Mapping[str, NetworkSpec]:
        return {"first": NetworkSpec(Net, trainable=False, init_from="network:net"), **super().networks()}

    def loss(self, update: Update, nets, batch: Batch, context: Context) -> Loss:
        apart = (nets["net"](batch["x"]) - nets["first"](batch["x"])).square()
        return Loss(super().loss(update, nets, batch, context).value + (apart * batch["valid"]).sum())
