"""Speed of generation at the quality of the reference sampler, judged so that it cannot be gamed.

Reference: one position a network call in random order, temperature 1, everything computed anew in each call. A faster
way counts if an autoregressive judge, trained on text that the sampled models have not seen, finds it no worse, and if
the entropy of its bytes and the share of different 4-grams lie within two standard errors of the reference's: confident
and cold decoding please a judge by repeating themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.small_runs import Trained, load_run, train_once
from evaluation.benchmarks.timing import interleave
from evaluation.estimate import mean_estimate, ratio_of_medians
from generative.data.order import Indices
from generative.data.partition import Arrays
from generative.data.sources import Source
from generative.data.text import TextData, open_text
from generative.methods.masked_diffusion.config import SamplingConfig
from generative.methods.masked_diffusion.sampling import draw
from generative.randomness import Streams


@dataclass(frozen=True)
class GenerationSettings:
    """Size of the comparison.

    Args:
        train_steps: of each of the three models.
        samples: texts by each way, at least 200 for figures that count.
        length: tokens of a text, a multiple of `block`.
        batch: texts that are drawn together, half of `samples` at most: their times are compared batch by batch.
        others: the same for the fastest way that is good; in small batches a call costs the same, whatever it works on.
        block: tokens of a block.
    """

    train_steps: int = 4000
    samples: int = 400
    length: int = 64
    batch: int = 50
    others: tuple[int, ...] = (1, 4, 16)
    block: int = 8


FULL_GENERATION = GenerationSettings()
QUICK_GENERATION = GenerationSettings(train_steps=40, samples=16, length=32, batch=8, others=(1,))

PAIRS = 5
"""Comparisons of each other batch size."""

REFERENCE = SamplingConfig(name="first_hitting")


def ways(block: int, length: int) -> dict[str, tuple[str, SamplingConfig]]:
    """Model ("plain" or "blocks") and sampler of each way, by name.

    threshold_p: all tokens that were drawn with a chance of p or more; entropy_h: all places of at most h nats, before
    anything is drawn there; random_n: n tokens a call, wherever. Each with the whole canvas, with a dual cache, and by
    block diffusion with its exact cache; block: of 8, of which 6, 5, 4 and 2 calls are made where n is above 1.
    """
    found: dict[str, tuple[str, SamplingConfig]] = {"reference": ("plain", REFERENCE)}
    samplers = {"first_hitting": REFERENCE}
    for level in (0.5, 0.7, 0.9):
        samplers[f"threshold_{level}"] = SamplingConfig(name="confidence", count="threshold", threshold=level)
    for nats in (0.5, 1.0, 2.0):
        samplers[f"entropy_{nats}"] = SamplingConfig(name="entropy", count="threshold", threshold=-nats)
    for calls in (6, 5, 4, 2):
        steps = calls * length // block
        samplers[f"random_{length / steps:.3g}"] = SamplingConfig(name="random", count="even", steps=steps)
    for name, sampler in samplers.items():
        if sampler != REFERENCE:
            found[name] = ("plain", sampler)
        found[f"{name}_dual"] = ("plain", sampler.model_copy(update={"cache": "dual", "block_length": block}))
        found[f"blocks_{name}"] = ("blocks", sampler.model_copy(update={"cache": "exact"}))
    return found


@dataclass(frozen=True)
class Half:
    """Every second sample of a source, from `first` on: two models need not see the same text."""

    source: Source
    first: int

    def __len__(self) -> int:
        return (len(self.source) - self.first + 1) // 2

    def fetch(self, indices: Indices) -> Arrays:
        """See Source."""
        return self.source.fetch(2 * np.asarray(indices, dtype=np.int64) + self.first)


PARTS = {"judged": "bits/byte", "entropy": "bits", "distinct": ""}
"""What is measured of texts, with units: judge's bits a byte, entropy of a text's bytes, share of different 4-grams."""

Quality = Mapping[str, tuple[float, float]]
"""Of each part: mean over texts, and its standard error."""


def distance(ours: Quality, theirs: Quality, part: str) -> float:
    """Difference of a part in standard errors of the difference."""
    (mean, error), (other, other_error) = ours[part], theirs[part]
    return (mean - other) / max(math.hypot(error, other_error), 1e-12)


def as_good_as(ours: Quality, theirs: Quality) -> bool:
    """No worse by the judge, and as varied, each within two standard errors of the difference."""
    varied = all(abs(distance(ours, theirs, part)) <= 2 for part in ("entropy", "distinct"))
    return varied and distance(ours, theirs, "judged") <= 2


def quality(tokens: Tensor, judge: Callable[[Tensor], Tensor]) -> dict[str, NDArray[np.float64]]:
    """Each part of texts int64[n, T], float64[n]; `judge` gives nats of all tokens of a text but the first."""
    T, rows = tokens.shape[1], tokens.tolist()
    return {
        "judged": judge(tokens).cpu().numpy() / (T - 1) / math.log(2),
        "entropy": np.array([entropy(row) for row in rows]),
        "distinct": np.array([len(set(zip(*(row[i:] for i in range(4)), strict=False))) / (T - 3) for row in rows]),
    }


def entropy(row: Sequence[int]) -> float:
    """Bits, of the frequencies of the values in a row."""
    share = np.unique(np.asarray(row), return_counts=True)[1] / len(row)
    return float(-(share * np.log2(share)).sum())


def measure_generation(settings: GenerationSettings, cache: str, kept: Path) -> dict[str, Figure]:
    """`generation_speedup`, and speed and quality of each way. The trained models stay in the folder `kept`."""
    models = _train(settings, cache, kept)
    judge, device = models["judge"].method.likelihood(models["judge"].nets).nats, models["judge"].backend.device
    found = ways(settings.block, settings.length)
    drawers = {name: _masked(models[kind], sampler, settings) for name, (kind, sampler) in found.items()}
    drawers["autoregressive"] = _autoregressive(models["autoregressive"], settings)
    say(f"{settings.samples} texts by each of {', '.join(drawers)}")
    for drawer in drawers.values():
        drawer(torch.arange(2))  # whatever is done once
    seconds: dict[str, list[float]] = {name: [] for name in drawers}
    drawn: dict[str, list[Tensor]] = {name: [] for name in drawers}
    # The ways in turns, so that a drift of the machine is shared.
    for ids in torch.split(torch.arange(settings.samples), settings.batch):
        for name, drawer in drawers.items():
            start = time.perf_counter()
            drawn[name].append(drawer(ids))
            seconds[name].append((time.perf_counter() - start) / len(ids))
    seen = {
        name: quality(torch.cat(texts), lambda tokens: judge({"tokens": tokens.to(device)}, Streams(0)))
        for name, texts in drawn.items()
    }
    where = "one CPU thread" if device.type == "cpu" else device.type
    figures, best = _figures(settings, seen, seconds, where)
    for size in settings.others:
        ids = torch.arange(size)
        pair = interleave(partial(drawers["reference"], ids), partial(drawers[best], ids), PAIRS, warmup=1)
        note = f"{best}, texts of {settings.length} bytes, {size} at a time, {where}"
        figures[f"generation_speedup_batch_{size}"] = figure(ratio_of_medians(*pair), None, note)
    return figures


@dataclass(frozen=True)
class Point:
    """One way: tokens/s and quality."""

    rate: float
    quality: Quality


def points(figures: Mapping[str, Figure]) -> dict[str, Point]:
    """The ways among the figures of the benchmark, by name."""
    names = [key.removeprefix("generation_").removesuffix("_rate") for key in figures if key.endswith("_rate")]
    return {
        name: Point(
            figures[f"generation_{name}_rate"]["value"],
            {part: _mean_and_error(figures[f"generation_{name}_{part}"]) for part in PARTS},
        )
        for name in names
    }


def _mean_and_error(entry: Figure) -> tuple[float, float]:
    return entry["value"], entry["stderr"]


def _figures(
    settings: GenerationSettings,
    seen: dict[str, dict[str, NDArray[np.float64]]],
    seconds: dict[str, list[float]],
    where: str,
) -> tuple[dict[str, Figure], str]:
    """Figures, and the fastest way that is good. `seconds`: a text, in each batch."""
    note = f"{settings.samples} texts of {settings.length} bytes, {settings.batch} at a time, {where}"
    found: dict[str, Figure] = {}
    for name, each in seen.items():
        rates = settings.length / np.array(seconds[name])
        found[f"generation_{name}_rate"] = figure(mean_estimate(rates, "tokens/s", f"{note}; mean of batches"))
        for part, unit in PARTS.items():
            found[f"generation_{name}_{part}"] = figure(mean_estimate(each[part], unit, note))
    drawn = points(found)
    masked = [name for name in drawn if name not in ("reference", "autoregressive")]
    good = [name for name in masked if as_good_as(drawn[name].quality, drawn["reference"].quality)]
    best = min(good, key=lambda name: float(np.median(seconds[name])), default="reference")
    how = f"{note}; fastest of {len(masked)} ways of which {len(good)} are as good as the reference: {best}"
    ratio = ratio_of_medians(seconds["reference"], seconds[best])
    return {"generation_speedup": figure(ratio, ">= 4", how), **found}, best


def _train(settings: GenerationSettings, cache: str, kept: Path) -> dict[str, Trained]:
    """Two masked models and an autoregressive one on one half of the text, the judge on the other."""
    shared = ["data.name=builtin", "data.max_bytes=4000000", "data.tokenizer.name=bytes", f"data.cache={cache}"]
    size = [f"data.sequence_length={settings.length}", f"method.network.max_length={settings.length}"]
    steps = [f"train.steps={settings.train_steps}", f"data.stride={settings.length}"]
    plans: dict[str, tuple[str, list[str], int]] = {
        "plain": ("masked_diffusion", [], 0),
        "blocks": ("masked_diffusion", [f"method.block_size={settings.block}"], 0),
        "autoregressive": ("autoregressive", [], 0),
        "judge": ("autoregressive", ["method.network.layers=4", "method.network.width=128"], 1),
    }
    models, data = {}, None
    for name, (method, changes, half) in plans.items():
        run = load_run(f"{method}/shakespeare", [*shared, *size, *steps, *changes])
        data = data or open_text(run.data)
        say(f"training {name} for {settings.train_steps} steps")
        models[name] = train_once(run, _half(data, half), kept / f"{name}.safetensors")
    return models


def _half(data: TextData, first: int) -> TextData:
    source: Any = data.train
    return replace(data, train=Half(source, first))


def _masked(model: Trained, settings: SamplingConfig, size: GenerationSettings) -> Callable[[Tensor], Tensor]:
    denoiser = model.method.denoiser(model.nets)

    def drawer(ids: Tensor) -> Tensor:
        ids = ids.to(model.backend.device)
        canvas = torch.full((len(ids), size.length), model.method.mask_id, device=ids.device)
        return draw(settings, denoiser, canvas, ids, Streams(0).within("generation")).tokens.cpu()

    return drawer


def _autoregressive(model: Trained, size: GenerationSettings) -> Callable[[Tensor], Tensor]:
    sampler = replace(model.method.sampler(model.nets), length=size.length)

    def drawer(ids: Tensor) -> Tensor:
        ids = ids.to(model.backend.device)
        # The end of a document begins a text.
        condition = {"sample_id": ids, "prompt": torch.full((len(ids), 1), 256, device=ids.device)}
        tokens: Tensor = sampler(condition, Streams(0))
        return tokens.cpu()

    return drawer
