"""The contract between a paper and the trainer.

A method is a small value that holds hyper-parameters only: which networks there are, which updates make one step, and
the loss of each update. Tensors, devices, ranks, files and optimizers belong to the trainer (`generative.training`).

Shapes: B is the number of samples in a micro-batch of this rank; a global batch is spread over ranks and micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from generative.randomness import Streams

Batch = Mapping[str, Tensor]
"""What the loader hands to a loss. Besides the data it always holds, for each of its B samples:

sample_id  int64[B]  counter of the sample over the whole run (addresses its noise)
position   int64[B]  place of the sample in the global batch, 0 .. global_batch - 1
valid      bool[B]   False for padding rows that give ranks and micro-batches equal shapes: they must weigh nothing
"""

Networks = Mapping[str, Callable[..., Any]]
"""Networks by name as a loss sees them. Only `forward` may be used: wrappers (DDP, FSDP, ZeRO) know no other door."""


@dataclass(frozen=True)
class PowerProfile:
    """An average over all weights so far, with weights that grow as a power of the step (Karras et al. 2024, eq. 1).

    Its width is in proportion to the steps taken, and averages of other widths can be made of several afterwards
    (`generative.training.post_hoc`).

    Args:
        width: standard deviation of the profile over the steps so far, in (0, 0.28].
    """

    width: float

    def __str__(self) -> str:
        """Its name in checkpoints and on the command line."""
        return f"power-{self.width:g}"


Average = float | PowerProfile
"""What is kept of a network beside its weights: an exponential average by its decay rate, or a profile."""


def average_name(average: Average) -> str:
    """ "0.999" or "power-0.1"."""
    return str(average) if isinstance(average, PowerProfile) else f"{average:g}"


@dataclass(frozen=True)
class NetworkSpec:
    """One network of a method.

    Args:
        build: makes the module with its initial weights on the current default device; called under a fixed seed.
        trainable: whether some update trains it; others are frozen and held in eval mode.
        ema: the averages kept of it (several are possible): decay rates in (0, 1), or profiles, which need no ramp.
        ema_ramp: the half-life of an average is at most this part of the steps so far, so that the first weights are
            soon forgotten; None for the same half-life from the start.
        ema_warmup: after n steps the rate is at most (1 + n) / (10 + n), which does the same.
        init_from: where its weights start instead: "network:NAME" (another network of this method), or a path of a run
            folder, checkpoint or export, optionally followed by "#NAME" of the network in it, and by "@0.999" for one
            of the averages kept of it.
        init_part: the submodule that `init_from` fills, where the rest of the network starts fresh; None: all of it.
        clip_parts: children whose gradients are clipped each by its own norm, where one engine holds what are
            several networks to the paper; (): the gradient of the whole network is.
    """

    build: Callable[[], nn.Module]
    trainable: bool = True
    ema: tuple[Average, ...] = ()
    ema_ramp: float | None = None
    ema_warmup: bool = False
    init_from: str | None = None
    init_part: str | None = None
    clip_parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Update:
    """One optimizer step of one network within a training step.

    Args:
        name: names the update in metrics, streams and messages.
        trains: the network whose parameters it changes; all others are frozen while it runs.
        every: it is due in steps divisible by this.
        repeats: optimizer steps in a row, each on a batch of its own.
        batch: "own" draws a new global batch, "previous" takes that of the update before it.
        modes: networks that run in another mode than train (trained one) or eval (others) in it: {"critic": "train"}.
        second_order: needs gradients of gradients; refused where the engine cannot.
        coupled: its loss couples the samples of a batch (entropy, ratio statistics), so micro-batches are refused.
    """

    name: str
    trains: str
    every: int = 1
    repeats: int = 1
    batch: Literal["own", "previous"] = "own"
    modes: Mapping[str, Literal["train", "eval"]] = field(default_factory=dict)
    second_order: bool = False
    coupled: bool = False


@dataclass(frozen=True)
class Mean:
    """A metric as a sum and a count, so that it can be added up over micro-batches and ranks before it is divided.

    total and count have the same shape: [] for a number, [K] for a curve (loss by noise level).
    """

    total: Tensor
    count: Tensor

    @staticmethod
    def of(values: Tensor, weights: Tensor | None = None) -> Mean:
        """Mean of `values`, each counted once or by `weights` of the same shape."""
        weights = torch.ones_like(values) if weights is None else weights.to(values.dtype)
        return Mean((values * weights).sum().detach(), weights.sum().detach())


@dataclass(frozen=True)
class Loss:
    """What a loss returns for one micro-batch.

    Args:
        value: scalar with gradient: the SUM over this micro-batch's valid samples. The trainer divides it by the global
            sum of `Method.divisor`, so that any micro-batches and shares give the mean over the global batch.
        metrics: detached means to report.
        new_state: the method's memory after this update; committed only if the optimizer step was taken.
    """

    value: Tensor
    metrics: Mapping[str, Mean] = field(default_factory=dict)
    new_state: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Bins:
    """What the entries of a metric that is a curve stand for, for a chart of it.

    Methods that can tell have a further door for it: `curves() -> Mapping[str, Bins]`, by the metric's name.

    Args:
        label: of the axis, as "noise level sigma".
        edges: n + 1 borders of the bins, finite and ascending; of a bin without end, where it begins to hold little.
        log: whether the axis is logarithmic, as noise levels are; borders are above 0 then.
    """

    label: str
    edges: tuple[float, ...]
    log: bool = False


class Collectives(Protocol):
    """Exact sums and gathers over all ranks, for losses that couple samples and for sharded evaluation."""

    rank: int
    world: int

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks (no gradient); the same tensor on every rank."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenation along the first axis in rank order (no gradient); shares may be of unequal length."""
        ...


class Alone:
    """The collectives of a single process."""

    rank = 0
    world = 1

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor.detach().clone()

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor.detach().clone()


@dataclass(frozen=True)
class Context:
    """What a loss may know besides its batch.

    Args:
        step: training steps completed before this one.
        streams: noise of this step and update; address it by `batch["sample_id"]`.
        state: the method's memory.
        collectives: sums and gathers over ranks.
        global_batch: number of valid samples in the global batch.
        shared: noise of this step that all its updates share (a latent that two networks see in turn).
    """

    step: int
    streams: Streams
    global_batch: int
    state: Mapping[str, Tensor] = field(default_factory=dict)
    collectives: Collectives = field(default_factory=Alone)
    shared: Streams = field(default_factory=lambda: Streams(0))


@dataclass(frozen=True)
class DataFacts:
    """What a method must know of its data in order to build its networks.

    Args:
        vocab_size: of tokens.
        sequence_length: tokens of a window.
        sample_shape: of an image [C, H, W], a point or a wave.
        classes: labels are 0 .. classes - 1; None: there are none, or they are not known yet.
        text_shape: of a caption's embedding, (tokens, width).
    """

    vocab_size: int | None = None
    sequence_length: int | None = None
    sample_shape: tuple[int, ...] | None = None
    classes: int | None = None
    text_shape: tuple[int, int] | None = None


class Sampler(Protocol):
    """Draws from a trained model; results do not depend on the batch that a sample is drawn in."""

    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """One sample a row of `condition` (which holds sample_id and whatever the method conditions on)."""
        ...


@dataclass(frozen=True)
class Likelihood:
    """How probable data are under a trained model: a further door of methods that can tell.

    Args:
        nats: negative log-likelihood, or a bound of it, of each sample of a batch: float64[B].
        name: of the figure, "nll" or "elbo".
        bound: "upper" where the expectation of `nats` bounds the negative log-likelihood; None where it is exact.
        protocol: how it is estimated, in a few words.
        given: leading tokens of a window that are not scored.
        tokens: int64[B], how many tokens of each sample are scored; None: all that are not given.
    """

    nats: Callable[[Batch, Streams], Tensor]
    name: str
    bound: Literal["upper"] | None
    protocol: str
    given: int = 0
    tokens: Callable[[Batch], Tensor] | None = None


class Method(Protocol):
    """What a paper has to say to be trained."""

    def networks(self) -> Mapping[str, NetworkSpec]:
        """All networks by name."""
        ...

    def updates(self) -> Sequence[Update]:
        """The updates of one training step, in order."""
        ...

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        """The divisor that belongs to `loss` on this micro-batch (tokens, items): scalar, known before the forward."""
        ...

    def loss(self, update: Update, nets: Networks, batch: Batch, context: Context) -> Loss:
        """The loss of one micro-batch. Its graph must reach every parameter of `nets[update.trains]`."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """Initial memory between steps (replay buffer, ratio bins); checkpointed and replicated. Empty for most."""
        ...

    def sampler(self, nets: Networks) -> Sampler:
        """How to draw from the trained networks, with the method's default settings.

        A method of images that has `reconstructs = True` is given held-out ones as `sample`, and makes them anew.
        """
        ...

    def flops(self, batch: Batch) -> int:
        """Floating-point operations of one training step on the samples of `batch` (forward and backward)."""
        ...
