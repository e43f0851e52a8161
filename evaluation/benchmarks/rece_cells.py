"""One erased class of one trained model: all settings measured on images. Everything done is kept on the disk."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.benchmarks.mee_gan import judge
from evaluation.benchmarks.rece_variants import KEEP_TEMPLATES, TRY_TEMPLATES, Variant, few_variants, variants
from evaluation.benchmarks.trainings import Training, train
from evaluation.erasure.probes import of_original
from evaluation.erasure.soft import SoftSettings, beside, projected, soft_prompt
from evaluation.erasure.tokens import best_words
from evaluation.images.small import SmallExtractor
from generative.data.files import write_aside
from generative.data.image_config import DigitsConfig
from generative.data.images import open_images
from generative.data.lock import locked
from generative.hub.open_text_to_image import open_model
from generative.hub.pixel_pipeline import PixelPipeline, read_pipeline, write_pipeline
from generative.methods.rece.closed_form import gram
from generative.methods.rece.erase import SharedTransform, derive_all, erase
from generative.methods.rece.request import Request, keep_groups, keep_sums, tasks
from generative.methods.rece.tokens import Prompt
from generative.methods.rece.transform import Transform
from generative.methods.text_to_image.captions import Captions
from generative.methods.text_to_image.config import TextToImageConfig
from generative.methods.text_to_image.sampler import predictor
from generative.randomness import Streams

METHOD: dict[str, Any] = {"name": "text_to_image"}
OPTIMIZER = {"name": "adamw", "lr": 4e-3, "betas": [0.9, 0.99], "weight_decay": 0.01, "clip_norm": 1.0}
TRAIN = {
    "batch_size": 64,
    "optimizer": OPTIMIZER,
    "schedule": {"name": "cosine", "warmup_steps": 100, "min_ratio": 0.01},
}


@dataclass(frozen=True)
class Settings:
    """Size of a cell.

    Args:
        steps: of the model's training.
        images: of the erased class, and of the others together, of each setting.
        attack_images: of each norm.
        probes: noisy images that attacks compare on.
        attack_steps: of the search for a soft prompt.
        rhos: norms of attacks, in units of the concept's.
        words: longest prompt of all that are tried, in words.
        quick: only a few settings of each method.
    """

    steps: int = 2000
    images: int = 200
    attack_images: int = 100
    probes: int = 16
    attack_steps: int = 40
    rhos: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, math.inf)
    words: int = 2
    quick: bool = False

    def variants(self) -> list[Variant]:
        """What is compared."""
        return few_variants() if self.quick else variants()


@dataclass(frozen=True)
class Job:
    """A cell, as it is told to another process: seed of the model, erased class, size, and the folder of results."""

    seed: int
    label: int
    settings: Settings
    folder: str


@dataclass(frozen=True)
class Bench:
    """A trained model with what measures it."""

    pipeline: PixelPipeline
    captions: Captions
    classifier: SmallExtractor
    gram: Tensor
    encode: Any


def run(job: Job) -> list[dict[str, Any]]:
    """Measurements of all settings; those that are on the disk are not made again."""
    torch.set_num_threads(1)
    cells = Path(job.folder) / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    found = []
    for variant in job.settings.variants():
        path = cells / f"seed{job.seed}_class{job.label}_{variant.name}_{variant.key}.json"
        if not path.is_file():
            measured = _measure(_bench(job.seed, job.settings.steps, job.folder), job, variant)
            write_aside(path, json.dumps(measured).encode())
        found.append(json.loads(path.read_text()))
    return found


@lru_cache(maxsize=1)
def _bench(seed: int, steps: int, folder: str) -> Bench:
    """The model of a seed, trained where it is not there yet."""
    target = Path(folder) / f"model{seed}"
    config = TextToImageConfig.model_validate(METHOD)
    Path(folder).mkdir(parents=True, exist_ok=True)
    with locked(Path(folder) / f"model{seed}.lock"):
        if not target.is_dir():
            data = open_images(DigitsConfig())
            trainer, _ = train(Training(METHOD, TRAIN), data, steps, seed)
            with trainer.evaluating("ema") as nets:
                write_pipeline(target, config, data.facts, nets["net"].state_dict())
    model = open_model(str(target))
    stream = model.streams()[0]
    weights = model.read(stream.readers)
    encode = model.encoders().encode
    pipeline = read_pipeline(target)
    return Bench(pipeline, Captions.of(config), judge(Path(folder)), gram(weights.values(), stream.width), encode)


def _measure(bench: Bench, job: Job, variant: Variant) -> dict[str, Any]:
    settings, label = job.settings, job.label
    concept = bench.captions.words[label]
    transform, derived = _erased(bench, label, variant)
    edited = _edited(bench, transform)
    streams = Streams(job.seed).within(f"bench_rece/{label}")
    others = [k for k in range(len(bench.captions.words)) if k != label]
    record: dict[str, Any] = {"seed": job.seed, "class": label, "method": variant.method, "dial": variant.dial}
    for part in ("validation", "test"):
        count = settings.images if part == "test" else settings.images // 2
        rows = range(len(bench.captions.templates))
        own = [bench.captions.say(label, rows[i % len(rows)]) for i in range(count)]
        rest = [others[i % len(others)] for i in range(count)]
        told = _captions(bench, rest)
        erased = _judged(bench, edited, bench.pipeline.embed(own), streams.within(f"{part}/erased"))
        kept = _judged(bench, edited, bench.pipeline.embed(told), streams.within(f"{part}/others"))
        record[part] = {
            "images": count,
            "erased": int((erased == label).sum()),
            "others": int((kept == torch.tensor(rest)).sum()),
        }
    if variant.but_one:
        there = [_next(bench, label)] * (settings.images // 2)
        left = _judged(bench, edited, bench.pipeline.embed(_captions(bench, there)), streams.within("left_out"))
        record["left_out"] = {"images": len(there), "hits": int((left == torch.tensor(there)).sum())}
    return record | {"attacks": _attacked(bench, edited, derived, transform, concept, label, settings, streams)}


def _attacked(
    bench: Bench,
    edited: Any,
    derived: Tensor,
    transform: Transform,
    concept: str,
    label: int,
    settings: Settings,
    streams: Streams,
) -> dict[str, Any]:
    """Successes of attacks by their name or norm, with what they took."""
    plain = bench.pipeline.embed([concept])[0]
    attack = streams.within("attack")
    clean = _drawn(bench, predictor(bench.pipeline.unet), plain.expand(settings.probes, *plain.shape), attack)
    signal = bench.pipeline.scheduler.alphas_cumprod.float()
    probes = of_original(predictor(bench.pipeline.unet), signal, clean, plain, attack)
    near = beside(plain, attack)
    search = SoftSettings(settings.attack_steps)

    def hits(states: Tensor) -> int:
        told = states.expand(settings.attack_images, *states.shape)
        return int((_judged(bench, edited, told, streams.within("attack_images")) == label).sum())

    found: dict[str, Any] = {"images": settings.attack_images, "soft": {}}
    for rho in settings.rhos:
        best = soft_prompt(edited, probes, plain, [derived, near], rho, search)
        found["soft"][f"{rho:g}"] = {"hits": hits(best.states), "loss": best.loss, "start": best.start}
    found["derived"] = hits(projected(derived, plain, 1.0))
    words = [word for word in bench.captions.vocabulary if not word.startswith("<|")]
    text, _ = best_words(edited, bench.pipeline.embed, probes, words, settings.words)
    found |= {"words": hits(bench.pipeline.embed([text])[0]), "text": text}
    inverse = torch.linalg.lstsq(transform.matrix, plain.double().T).solution
    return found | {"inverse_ratio": float(inverse.norm() / plain.double().norm())}


def _captions(bench: Bench, classes: Sequence[int]) -> list[str]:
    """Held-out captions: each template for a round of all classes but one."""
    count = len(bench.captions.words) - 1
    return [bench.captions.say(k, TRY_TEMPLATES[i // count % 3]) for i, k in enumerate(classes)]


def _next(bench: Bench, label: int) -> int:
    return (label + 1) % len(bench.captions.words)


def _erased(bench: Bench, label: int, variant: Variant) -> tuple[Transform, Tensor]:
    """T, and the embedding c' that RECE derives from the result (lam 0.1, in units of the model), float32[L, d]."""
    state = SharedTransform.of(bench.gram)
    config, words = variant.config, bench.captions.words
    if config is None:
        return state.total, bench.pipeline.embed([words[label]])[0]
    gone = {label, _next(bench, label)} if variant.but_one else {label}
    kept = [k for k in range(len(words)) if k not in gone] if variant.keeps else []
    said = [bench.captions.say(k, t) for k in kept for t in KEEP_TEMPLATES]
    guide = words[_next(bench, label)] if variant.relative else " "
    request = Request([words[label]], [guide], config, keep=said)
    task = tasks(request, bench.encode, keep_sums(said, bench.encode, keep_groups(config)))["text"]
    after = erase(state, task, config).state
    derived: Prompt = derive_all(after, task, config, 0.1 * after.mean_diagonal())[0]
    return after.total, derived.segments[0].rows.float()


def _edited(bench: Bench, transform: Transform) -> Any:
    """eps of the edited model: that of the original, told T h."""
    predict = predictor(bench.pipeline.unet)
    matrix = transform.matrix.float().T
    return lambda x, time, states: predict(x, time, states @ matrix)


def _drawn(bench: Bench, predict: Any, states: Tensor, streams: Streams) -> Tensor:
    noise = streams.normal("z", torch.arange(len(states)), bench.pipeline.shape)
    return bench.pipeline.draw_with(predict, states, noise)


def _judged(bench: Bench, predict: Any, states: Tensor, streams: Streams) -> Tensor:
    """The classifier's class of an image of each row of states, int64[B]."""
    return bench.classifier.class_probabilities(_drawn(bench, predict, states, streams))[:, 0].argmax(1)


def told(settings: Settings) -> str:
    """What names the folder of results; what a setting changes is in the names of its files."""
    return json.dumps([asdict(settings), METHOD, TRAIN], sort_keys=True)
