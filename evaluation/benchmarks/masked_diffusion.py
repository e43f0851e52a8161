"""What masked diffusion saves: the head on masked rows only, and the stratified estimate of its likelihood bound.

Sources: sections 2.3, 11 and 15 of the masked diffusion specification. The other side of each comparison is the
released code's way: logits of all positions with the masked ones selected from their losses, and independent draws of
(t, mask).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.kept import once, workplace
from evaluation.benchmarks.masked_generation import (
    FULL_GENERATION,
    QUICK_GENERATION,
    GenerationSettings,
    measure_generation,
)
from evaluation.benchmarks.masked_generation_picture import draw as draw_generation
from evaluation.benchmarks.masked_pairs import FULL_PAIRS, QUICK_PAIRS, PairSettings, measure_pairs
from evaluation.benchmarks.masked_step import FULL_STEP, GPU_STEP, QUICK_STEP, StepSettings, measure_step
from evaluation.benchmarks.memory import peak_bytes
from evaluation.benchmarks.small_runs import Trained, load_run, train
from evaluation.benchmarks.timing import interleave, one_thread
from evaluation.estimate import Estimate, Ratio, mean_estimate, ratio_of_medians
from evaluation.text import evenly_spaced
from generative.data.text import TextData, open_text
from generative.method import Batch
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.likelihood import Scorer, independent_draws
from generative.nets.linear_cross_entropy import linear_cross_entropy
from generative.randomness import Streams


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        pairs: steps of each head that are compared.
        vocab: outputs V of the head.
        width: features d.
        samples: sequences B.
        length: positions T.
        train_steps: of the small model whose bound is estimated.
        windows: held-out windows of T = 64 of that model.
        draws: network evaluations that each estimate of a window takes.
        repeats: estimates of each window.
        step: of the comparison of whole training steps.
        gpu_step: of the same where there is a GPU.
        options: of the comparison of continuations.
        generation: of the comparison of samplers.
    """

    pairs: int = 200
    vocab: int = 32000
    width: int = 256
    samples: int = 2
    length: int = 512
    train_steps: int = 1500
    windows: int = 16
    draws: int = 16
    repeats: int = 400
    step: StepSettings = FULL_STEP
    gpu_step: StepSettings = GPU_STEP
    options: PairSettings = FULL_PAIRS
    generation: GenerationSettings = FULL_GENERATION


QUICK = Settings(
    pairs=5,
    train_steps=100,
    windows=8,
    draws=8,
    repeats=20,
    step=QUICK_STEP,
    gpu_step=replace(GPU_STEP, pairs=2),
    options=QUICK_PAIRS,
    generation=QUICK_GENERATION,
)


def run(quick: bool) -> dict[str, Figure]:
    """Speed and memory of the head and of a step, spread of the likelihood estimators, common noise, samplers."""
    settings = QUICK if quick else Settings()
    with workplace("masked_diffusion") as folder, one_thread():
        place, data = folder / ("quick" if quick else "whole"), folder / "data"
        place.mkdir(exist_ok=True)

        @cache
        def small() -> tuple[Trained, TextData]:
            return small_model(settings, data)

        parts: dict[str, Callable[[], dict[str, Figure]]] = {
            "head": lambda: measure_head(settings),
            "step": lambda: measure_step(settings.step),
            **({"gpu_step": lambda: measure_step(settings.gpu_step)} if torch.cuda.is_available() else {}),
            "estimators": lambda: measure_estimators(settings, *small()),
            "pairs": lambda: measure_pairs(*small(), settings.options),
            "generation": lambda: measure_generation(settings.generation, str(data), place),
        }
        return {key: found for name, part in parts.items() for key, found in once(place / f"{name}.json", part).items()}


def draw(figures: Mapping[str, Figure]) -> Any:
    """Quality over speed of generation; see `masked_generation_picture`."""
    return draw_generation(figures)


# ---------------------------------------------------------------------- the head


class Heads:
    """Head and loss, forward and backward, in the two ways; about half of the tokens are masked, anew each time.

    Both give the gradients of the weighted sum of the masked tokens' cross-entropies by the hidden states [B * T, d]
    and by the head's weight [V, d].
    """

    def __init__(self, settings: Settings) -> None:
        generator = torch.Generator().manual_seed(0)
        rows = settings.samples * settings.length
        self.hidden = torch.randn(rows, settings.width, generator=generator).requires_grad_()
        self.weight = (torch.randn(settings.vocab, settings.width, generator=generator) / 16).requires_grad_()
        self.targets = torch.randint(settings.vocab, (rows,), generator=generator)
        self.loss_weights = 1 + torch.rand(rows, generator=generator)
        self.masked = torch.tensor([], dtype=torch.int64)
        self._generator = generator
        self.draw()

    def draw(self) -> None:
        """Choose the masked rows, for one step of each way."""
        self.masked = (torch.rand(len(self.targets), generator=self._generator) < 0.5).nonzero()[:, 0]

    def masked_rows(self) -> Tensor:
        """The head on masked rows only, in chunks, with the gradient computed in the forward pass."""
        self.clear()
        rows = self.masked
        total, _ = linear_cross_entropy(self.hidden[rows], self.weight, self.targets[rows], self.loss_weights[rows])
        return self._backward(total)

    def all_positions(self) -> Tensor:
        """All logits, then the losses of the masked rows."""
        self.clear()
        nll = F.cross_entropy(self.hidden @ self.weight.T, self.targets, reduction="none")
        return self._backward((self.loss_weights[self.masked] * nll[self.masked]).sum())

    def clear(self) -> None:
        """Forget the gradients."""
        self.hidden.grad = self.weight.grad = None

    def _backward(self, total: Tensor) -> Tensor:
        torch.autograd.backward(total)
        return total.detach()


def measure_head(settings: Settings) -> dict[str, Figure]:
    """Time and peak memory of both ways."""
    heads = Heads(settings)

    def masked_rows() -> None:
        heads.draw()
        heads.masked_rows()

    say(f"{settings.pairs} steps of each head in turns")
    ours, theirs = interleave(masked_rows, heads.all_positions, settings.pairs, warmup=2)
    note = (
        f"V {settings.vocab}, d {settings.width}, {settings.samples} x {settings.length} tokens, 50 % masked, "
        "forward and backward of head and loss, one CPU thread"
    )
    times = f"{note}, medians {1000 * np.median(theirs):.0f} and {1000 * np.median(ours):.0f} ms"
    heads.draw()
    peaks = [peak_bytes(way, heads.clear) for way in (heads.masked_rows, heads.all_positions)]
    sizes = f"{note}, peaks {peaks[0] / 2**20:.0f} and {peaks[1] / 2**20:.0f} MiB by the profiler's memory events"
    return {
        "head_speedup": figure(ratio_of_medians(theirs, ours), ">= 1.6", times),
        "head_memory_ratio": figure(Estimate(peaks[0] / peaks[1], None, 1), "<= 0.25", sizes),
    }


# ---------------------------------------------------------------------- the estimators of the bound


def small_model(settings: Settings, folder: Path) -> tuple[Trained, TextData]:
    """A masked diffusion model of bytes of Python's library, trained here."""
    overrides = ["data.name=builtin", "data.max_bytes=1200000", "data.tokenizer.name=bytes", f"data.cache={folder}"]
    run = load_run("masked_diffusion/shakespeare", [*overrides, f"train.steps={settings.train_steps}"])
    data = open_text(run.data)
    say(f"training a small model for {settings.train_steps} steps")
    return train(run, data), data


def measure_estimators(settings: Settings, trained: Trained, data: TextData) -> dict[str, Figure]:
    """Standard errors of the estimators at equal network evaluations."""
    say(f"{settings.repeats} estimates of {settings.windows} windows by each estimator")
    exact, iid, spread = estimates(trained, data, settings)
    length = data.facts.sequence_length
    assert length is not None
    note = (
        f"{settings.repeats} estimates of {settings.windows} held-out windows of {length} bytes with {settings.draws} "
        f"forward passes a window each; model of {trained.method.network.width} features, {settings.train_steps} steps"
    )
    difference = mean_estimate(((exact - iid) / length).mean(axis=1), "nats/token", f"{note}; both are unbiased")
    forwards = "the square is the ratio of forward passes for equal variance"
    return {
        "elbo_stderr_ratio": figure(
            ratio_of_spreads(iid, exact), ">= 2", f"iid (t, mask) over exact counts; {forwards}; {note}"
        ),
        "elbo_stderr_ratio_spread_times": figure(
            ratio_of_spreads(spread, exact), None, f"t in strata, iid masks over exact counts; {forwards}; {note}"
        ),
        "elbo_difference": figure(difference),
    }


def estimates(trained: Trained, data: TextData, settings: Settings) -> tuple[NDArray[np.float64], ...]:
    """Estimates in nats by exact counts, by iid times and by times that are spread over strata, the last two with
    independent masks: float64[repeats, windows] each, all with noise of their own."""
    tokens = data.validation.fetch(evenly_spaced(len(data.validation), settings.windows).numpy())["tokens"]
    door = trained.method.likelihood(trained.nets, settings.draws)
    score = Scorer(Denoiser(trained.nets["net"], trained.method.mask_id))
    streams = Streams(0).within("benchmark")

    def independent(batch: Batch, streams: Streams, spread: bool) -> Tensor:
        ids, number = batch["tokens"][:, :-1], batch["sample_id"]
        everything = torch.ones_like(ids, dtype=torch.bool)
        # epsilon as in the reference's validation: without it 1/t has no finite second moment.
        return independent_draws(score, ids, everything, streams, number, settings.draws, spread=spread, epsilon=1e-3)

    def repeat(estimate: Callable[[Batch, Streams], Tensor], name: str) -> NDArray[np.float64]:
        count = len(tokens)
        rounds = torch.split(torch.arange(settings.repeats * count), 8 * count)
        batches = ({"tokens": tokens[ids % count], "sample_id": ids} for ids in rounds)
        with torch.no_grad():
            nats = [estimate(_on(batch, trained), streams.within(name)).cpu() for batch in batches]
        return torch.cat(nats).view(settings.repeats, count).numpy()

    ways = {"iid": partial(independent, spread=False), "spread": partial(independent, spread=True)}
    return repeat(door.nats, "exact"), *(repeat(way, name) for name, way in ways.items())


def _on(batch: dict[str, Tensor], trained: Trained) -> Batch:
    return {name: tensor.to(trained.backend.device) for name, tensor in batch.items()}


def ratio_of_spreads(a: NDArray[np.float64], b: NDArray[np.float64], resamples: int = 2000, seed: int = 0) -> Ratio:
    """Standard error of the mean over windows by estimator a over that by b, with a bootstrap interval over repeats.

    The noise of windows is independent, so the variance of the mean over W windows is the sum of the windows' variances
    over repeats, divided by W^2, which cancels.

    Args:
        a: float64[repeats, windows].
        b: of the same shape.
        resamples: draws of the bootstrap, which takes repeats as wholes.
        seed: of these draws.
    """
    repeats = len(a)

    def ratio(rows_a: NDArray[np.int64], rows_b: NDArray[np.int64]) -> float:
        return math.sqrt(a[rows_a].var(axis=0, ddof=1).sum() / b[rows_b].var(axis=0, ddof=1).sum())

    chosen = np.random.default_rng(seed).integers(0, repeats, (resamples, 2, repeats))
    draws = np.array([ratio(rows[0], rows[1]) for rows in chosen])
    low, high = np.quantile(draws, [0.025, 0.975])
    everything = np.arange(repeats)
    estimate = Estimate(
        ratio(everything, everything), float(draws.std(ddof=1)), repeats, "", "95 % bootstrap over estimates"
    )
    return Ratio(estimate, float(low), float(high))
