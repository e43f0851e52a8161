"""What a step of f-distill costs: time and kept activations of the straight form over those of ours.

A step is one update of fake score and discriminator and one of the student. Ours has a joint critic
(`critic: joint`), so that both of its losses share a draw of the student; it runs the teacher's encoder alone on real
and student's samples at once, and keeps no graph of the teacher's decoder. Operations promise (6 + 6.5) / (4.9 + 5.5),
about 1.2, where the encoder has 0.45 of a U-Net's operations; activations 2 networks against 1.45, about 0.72.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.benchmarks.figure import Figure, figure
from evaluation.benchmarks.plain_f_distill import Draws, PlainStep
from evaluation.benchmarks.timing import interleave, one_thread
from evaluation.estimate import Estimate, ratio_of_medians
from generative.method import Alone, Context
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.denoiser import DenoiserParts, FeatureMap
from generative.methods.f_distill.method import FDistill
from generative.nets.edm_config import SongConfig
from generative.nets.edm_precond import EdmNetwork
from generative.nets.edm_unet import UNetSize
from generative.randomness import Streams
from generative.training.config import OptimizerConfig
from generative.training.optimizers import build_optimizer

CPU = torch.device("cpu")
TOLERANCE = 1e-4
"""Greatest relative difference of two losses in float32."""


@dataclass(frozen=True)
class Case:
    """What is timed: networks of the CIFAR-10 teacher's form, with fewer channels.

    Args:
        width: channels of the finest level over 2 (the published network has 128).
        blocks: of each level.
        multipliers: of the width.
        batch: samples of an update.
        side: of an image.
        classes: that the networks are told.
    """

    width: int = 16
    blocks: int = 4
    multipliers: tuple[int, ...] = (2, 2, 2)
    batch: int = 16
    side: int = 32
    classes: int = 10
    config: FDistillConfig = field(
        default_factory=lambda: FDistillConfig.model_validate(
            {
                "critic": "joint",
                "critic_updates": 1,
                "levels": [0, 1, 2],
                "ratio": {"normalise": False, "minimum_ess": 0.0},
            }
        )
    )

    def parts(self) -> DenoiserParts:
        """The kind of network."""
        network = SongConfig(width=self.width, multipliers=self.multipliers, blocks=self.blocks, dropout=0.0)
        size = UNetSize(self.side, 3, self.classes)
        maps = [FeatureMap(self.width * m, self.side >> level) for level, m in enumerate(self.multipliers)]
        return DenoiserParts(lambda: EdmNetwork(network, size), (3, self.side, self.side), self.classes, maps)


class Steps:
    """Both forms on the same networks: neither changes what the other costs.

    Args:
        case: sizes.
        device: of the networks.
    """

    def __init__(self, case: Case, device: torch.device = CPU) -> None:
        self.case, self.method = case, FDistill(case.config, case.parts())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.nets = {name: spec.build().to(device) for name, spec in self.method.networks().items()}
            for net in self.nets.values():
                # A new network reads out next to nothing.
                for parameter in net.parameters():
                    if parameter.ndim > 1:
                        nn.init.xavier_uniform_(parameter)
        settings = OptimizerConfig(lr=1e-5, betas=(0.9, 0.999), weight_decay=0.01)
        self.optimizers = {name: build_optimizer(settings, self.nets[name]) for name in ("critic", "student")}
        self.nets["teacher"].requires_grad_(False)
        critic: Any = self.nets["critic"]
        config = case.config
        self.plain = PlainStep(
            self.nets["student"],
            critic.fake,
            self.nets["teacher"],
            critic.heads,
            self.method.levels,
            config.student_sigma,
            config.gan_weight,
            config.joint_weight,
            config.sigma_data,
        )
        ids = torch.arange(case.batch)
        everyone = torch.ones(case.batch, dtype=torch.bool)
        batch = {"sample_id": ids, "position": ids, "valid": everyone, "label": ids % case.classes}
        batch["sample"] = 2 * Streams(0).uniform("real", ids, self.method.parts.shape) - 1
        self.batch = {name: tensor.to(device) for name, tensor in batch.items()}

    def context(self, name: str) -> Context:
        """Of an update; its noise is the same each time."""
        return Context(0, Streams(0).within(name), self.case.batch, self.method.state(), Alone())

    def draws(self, name: str) -> Draws:
        """The numbers that our update of this name draws."""
        streams, ids, shape = self.context(name).streams, self.batch["sample_id"], self.method.parts.shape
        grid = self.method.matching_times
        noises = [streams.normal(each, ids, shape) for each in ("z", "noise.fake", "noise.real")]
        times = [grid.draw(streams, ids, f"t.{each}") for each in ("fake", "real")]
        return Draws(noises[0], times[0], noises[1], times[1], noises[2])

    def our_loss(self, name: str) -> tuple[Tensor, object]:
        """The method's loss of an update, mean over the batch."""
        update = next(each for each in self.method.updates() if each.name == name)
        return self.method.loss(update, self.nets, self.batch, self.context(name)).value / self.case.batch, None

    def plain_loss(self, name: str) -> tuple[Tensor, object]:
        """The same written straight, with what it holds until the backward pass."""
        if name == "critic":
            return self.plain.critic_loss(self.batch, self.draws(name)), None
        return self.plain.student_loss(self.batch, self.draws(name))

    def train(self, loss_of: Callable[[str], tuple[Tensor, object]]) -> None:
        """An update of the critic, and one of the student."""
        for name, optimizer in self.optimizers.items():
            self.only(name)
            loss, _kept = loss_of(name)
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()

    def only(self, name: str) -> None:
        """Gradients for one network."""
        for other in self.optimizers:
            self.nets[other].requires_grad_(other == name)

    def check(self) -> None:
        """Both forms have the same losses.

        Raises:
            RuntimeError: they have not.
        """
        for name in self.optimizers:
            with torch.no_grad():
                ours, plain = float(self.our_loss(name)[0]), float(self.plain_loss(name)[0])
            if not abs(ours - plain) <= TOLERANCE * abs(plain):
                raise RuntimeError(f"the {name}'s loss is {ours:.7g} and {plain:.7g}: not the same computation")

    def kept_bytes(self, name: str, loss_of: Callable[[str], tuple[Tensor, object]]) -> int:
        """Bytes that the forward pass of an update keeps for its backward pass, beside the networks' weights."""
        self.only(name)
        weights = {p.untyped_storage().data_ptr() for net in self.nets.values() for p in _tensors(net)}
        kept: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            _graph = loss_of(name)
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
        return sum(size for place, size in storages.items() if place not in weights)


def _tensors(net: nn.Module) -> list[Tensor]:
    return [*net.parameters(), *net.buffers()]


def figures(pairs: int, device: torch.device = CPU, case: Case = Case()) -> dict[str, Figure]:
    """step_speedup and activation_memory_ratio.

    Args:
        pairs: timings of each form, taken in turns.
        device: of the networks.
        case: what is timed.

    Raises:
        RuntimeError: the two forms do not compute the same.
    """
    with one_thread():
        steps = Steps(case, device)
        steps.check()
        kept = [steps.kept_bytes("student", each) for each in (steps.our_loss, steps.plain_loss)]
        times = interleave(lambda: steps.train(steps.plain_loss), lambda: steps.train(steps.our_loss), pairs, 1, device)
    where = f"one thread, {device.type}"
    sizes = f"SongUNet, {case.width} x {list(case.multipliers)} channels, {case.blocks} blocks a level, "
    sizes += f"{case.batch} images of {case.side} x {case.side}"
    note = f"one update of the critic and one of the student, straight form over ours (critic: joint); {sizes}; {where}"
    memory = Estimate(kept[0] / kept[1], None, 1, "", f"student's update, ours over the straight form; {sizes}")
    told = f"bytes that autograd keeps, weights left out: {kept[0]:,} and {kept[1]:,}"
    return {
        "step_speedup": figure(ratio_of_medians(*times), ">= 1.15", note),
        "activation_memory_ratio": figure(memory, "<= 0.8", told),
    }


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    return figures(3 if quick else 12)
