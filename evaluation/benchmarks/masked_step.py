"""A whole training step of masked diffusion against a straight transcription of its published formulation.

The other side computes logits of all positions, takes the losses of the masked ones from them, divides by all tokens
(arXiv 2410.18514, section 2; released train_mdm.py), and lets AdamW make its step as torch does unless told otherwise;
ours makes it as the trainer does, in one fused kernel. Network, data and noise are the same. What the head alone brings
is told too: the other side is taken a third time, with our optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.memory import gpu_peak_bytes, peak_bytes
from evaluation.benchmarks.timing import in_turns
from evaluation.estimate import Estimate, mean_estimate, ratio_of_medians
from generative.method import Context, DataFacts
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.losses import draw_masking
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.nets.transformer_config import TransformerConfig
from generative.randomness import Streams
from generative.training.config import OptimizerConfig
from generative.training.optimizers import build_optimizer
from generative.training.precision import under_autocast
from generative.training.throughput import peak_rate

NETWORK = TransformerConfig(layers=8, heads=6, width=384, ff_width=1536, vocab_size=32000)
"""The paper's 19M size."""

LARGE = TransformerConfig(layers=18, heads=12, width=768, ff_width=3072, vocab_size=32000)
"""Its 170M size."""


@dataclass(frozen=True)
class StepSettings:
    """Size of the comparison.

    Args:
        pairs: steps of each side, in turns.
        peaks: steps of each side whose memory is measured.
        samples: windows B of a step.
        length: tokens T of a window.
        network: sizes.
        device: cpu or cuda.
        precision: fp32, or bf16 under autocast.
    """

    pairs: int = 40
    peaks: int = 8
    samples: int = 2
    length: int = 512
    network: TransformerConfig = NETWORK
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"


FULL_STEP = StepSettings()
QUICK_STEP = StepSettings(pairs=2, peaks=2, length=128)
GPU_STEP = StepSettings(samples=8, length=2048, network=LARGE, device="cuda", precision="bf16")


OPTIMIZER = OptimizerConfig(name="adamw", lr=1e-4, betas=(0.9, 0.95))


class Steps:
    """The ways to take a step; each has a copy of the network and an optimizer, and sees the same noise."""

    def __init__(self, settings: StepSettings) -> None:
        config = MaskedDiffusionConfig(network=settings.network, time_sampler="iid")
        self.method = MaskedDiffusion(config, DataFacts(settings.network.vocab_size, settings.length))
        self.device = torch.device(settings.device)
        self.nets: list[Any] = []
        for _ in range(3):
            torch.manual_seed(0)
            net = self.method.networks()["net"].build().to(self.device)
            self.nets.append(under_autocast(net, settings.precision, self.device))
        usual = torch.optim.AdamW(
            self.nets[1].parameters(), lr=OPTIMIZER.lr, betas=OPTIMIZER.betas, weight_decay=OPTIMIZER.weight_decay
        )
        self.optimizers = [build_optimizer(OPTIMIZER, self.nets[0]), usual, build_optimizer(OPTIMIZER, self.nets[2])]
        shape = (settings.samples, settings.length + 1)
        ids = torch.arange(settings.samples, device=self.device)
        tokens = torch.randint(self.method.mask_id, shape, generator=torch.Generator().manual_seed(0))
        self.batch = {
            "tokens": tokens.to(self.device),
            "sample_id": ids,
            "position": ids,
            "valid": torch.ones_like(ids, dtype=torch.bool),
        }
        self.taken = [0, 0, 0]

    def ours(self) -> Tensor:
        """The method's own loss."""
        (update,), context = self.method.updates(), self._context(0)
        total = self.method.loss(update, {"net": self.nets[0]}, self.batch, context).value
        return self._step(0, total / self.method.divisor(update, self.batch, context))

    def published(self) -> Tensor:
        """Logits of all positions, and the optimizer as it comes."""
        return self._all_positions(1)

    def published_with_our_optimizer(self) -> Tensor:
        """Logits of all positions."""
        return self._all_positions(2)

    def _all_positions(self, side: int) -> Tensor:
        masking = draw_masking(self.method.config, self.batch, self._context(side), None)
        ids = self.batch["tokens"][:, :-1]
        logits = self.nets[side](torch.where(masking.mask, self.method.mask_id, ids))
        nll = F.cross_entropy(logits[masking.mask], ids[masking.mask], reduction="none")
        probability = masking.level[:, None].expand(ids.shape)[masking.mask]
        return self._step(side, (nll / probability).sum() / ids.numel())

    def _context(self, side: int) -> Context:
        return Context(
            step=self.taken[side], streams=Streams(0, self.taken[side]), global_batch=len(self.batch["valid"])
        )

    def _step(self, side: int, loss: Tensor) -> Tensor:
        self.optimizers[side].zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.nets[side].parameters(), 1.0)
        self.optimizers[side].step()
        self.taken[side] += 1
        return loss.detach()

    def clear(self, side: int) -> Callable[[], None]:
        """Forget the gradients of a side."""
        return lambda: self.optimizers[side].zero_grad(set_to_none=True)


def measure_step(settings: StepSettings) -> dict[str, Figure]:
    """Time and peak memory of the ways, and how far their losses are apart."""
    steps = Steps(settings)
    say(f"{settings.pairs} whole steps of each kind in turns")
    ways = (steps.ours, steps.published, steps.published_with_our_optimizer)
    losses: list[list[float]] = [[] for _ in ways]

    def noted(way: Callable[[], Tensor], into: list[float]) -> Callable[[], None]:
        return lambda: into.append(float(way()))

    actions = [noted(way, into) for way, into in zip(ways, losses, strict=True)]
    seconds = in_turns(actions, settings.pairs, warmup=1, device=steps.device)
    apart = float(np.abs(np.subtract(losses[0], losses[1:]) / np.array(losses[1:])).max())
    network = settings.network
    note = (
        f"{network.layers} layers, d {network.width}, V {network.vocab_size}, {settings.samples} x {settings.length} "
        f"tokens, forward, backward, clipping and AdamW, {_where(settings)}; losses differ by at most {apart:.1e}"
    )
    medians = [float(np.median(each)) for each in seconds]
    # The first step of an optimizer makes its memory; those above have been taken, so only what a step needs is left.
    measure = peak_bytes if settings.device == "cpu" else gpu_peak_bytes
    # How much the other side needs depends on how many tokens a step masks: the mean of several.
    peaks = [
        float(np.mean([measure(way, steps.clear(side)) for _ in range(settings.peaks)]))
        for side, way in enumerate(ways[:2])
    ]
    sizes = (
        f"{note}, peaks beyond weights and optimizer {peaks[0] / 2**20:.0f} and {peaks[1] / 2**20:.0f} MiB, means of "
        f"{settings.peaks} steps"
    )
    prefix = "" if settings.device == "cpu" else "gpu_"
    return {
        f"{prefix}step_speedup": figure(
            ratio_of_medians(seconds[1], seconds[0]),
            ">= 1.3",
            f"{note}, medians {medians[1]:.2f} and {medians[0]:.2f} s",
        ),
        f"{prefix}step_speedup_same_optimizer": figure(
            ratio_of_medians(seconds[2], seconds[0]),
            None,
            f"{note}, both in one fused kernel, medians {medians[2]:.2f} and {medians[0]:.2f} s",
        ),
        f"{prefix}step_memory_ratio": figure(Estimate(peaks[0] / peaks[1], None, settings.peaks), "<= 0.7", sizes),
    } | _utilisation(steps, settings, seconds[0], note)


def _utilisation(steps: Steps, settings: StepSettings, seconds: Sequence[float], note: str) -> dict[str, Figure]:
    """Of a GPU whose rate is known: the share of it that the operations of our step come to."""
    peak = None if settings.device == "cpu" else peak_rate(steps.device, settings.precision)
    if peak is None:
        return {}
    shares = steps.method.flops(steps.batch) / (np.array(seconds) * peak.flops)
    return {"gpu_step_mfu": figure(mean_estimate(shares, "", f"{note}; {peak.source}"))}


def _where(settings: StepSettings) -> str:
    if settings.device == "cpu":
        return "one CPU thread"
    return f"{torch.cuda.get_device_name()} in {settings.precision}"
