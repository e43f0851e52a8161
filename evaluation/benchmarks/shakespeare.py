"""Bits per character of the autoregressive model, masked diffusion and block diffusion on tiny Shakespeare.

Source: the small benchmark of the masked diffusion specification: width 64, 3 layers, 4 heads, feed-forward 256,
windows of 64 characters, batches of 16, 1500 steps (configs/*/shakespeare.yaml); block diffusion is trained the same
way, and the first two also for 4000 steps, at the learning rate of the reference's rows. The text does not come with
the distribution: the environment variable GENERATIVE_SHAKESPEARE names the file. Without it the same is run on the
built-in corpus, byte by byte, and the figures are named builtin_*.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.kept import workplace
from evaluation.benchmarks.small_runs import SmallRun, load_run, train
from evaluation.benchmarks.timing import one_thread
from evaluation.estimate import Bound, Estimate, mean_estimate
from evaluation.infill import infill_check
from evaluation.ngram import evaluate_ngrams
from evaluation.text import evaluate_likelihood
from generative.data.sources import StreamingSource
from generative.data.text import TextData, open_text
from generative.errors import DataError
from generative.randomness import Streams
from generative.training.runfolder import write_json

VARIABLE = "GENERATIVE_SHAKESPEARE"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
METHODS = {"ar": "autoregressive/shakespeare", "mdm": "masked_diffusion/shakespeare"}
ALL = 10**9
"""More windows than there are: all of them."""

REFERENCE = {
    "ar_1500_steps_lr_3e-3": 2.475,
    "mdm_stratified_1500_steps_lr_3e-3": 3.451,
    "mdm_iid_1500_steps_lr_4e-3": 3.430,
    "mdm_stratified_1500_steps_lr_4e-3": 3.497,
    "mdm_exact_1500_steps_lr_4e-3": 3.465,
    "ar_3218_of_4000_steps_lr_4e-3": 2.359,
    "mdm_iid_3651_of_4000_steps_lr_4e-3": 3.178,
    "mdm_exact_3125_of_4000_steps_lr_4e-3": 3.242,
    "unigram": 4.829,
    "bigram": 3.583,
    "trigram": 2.957,
}
"""Bits per character of the reference's code on the same split: one seed each, the bound from 4 draws a window."""

GOALS = {"ar": "<= 2.50", "mdm": "<= 3.52", "ar_long": "<= 2.36", "mdm_long": "<= 3.20"}
"""What the specification proposes for 1500 steps on this text, and for 4000."""


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        seeds: trainings of each method.
        steps: training steps.
        blocks: sizes of block diffusion's blocks.
        long_steps: training steps of the longer trainings; 0: there are none.
        windows: held-out windows of the likelihood.
        draws: network evaluations a window for masked diffusion's bound.
        infill_windows: held-out windows of the infilling check.
        span: characters to fill in, in the middle of a window.
        workers: processes that train, one thread each; 1 trains in this process.
    """

    seeds: int = 3
    steps: int = 1500
    blocks: tuple[int, ...] = (4, 16)
    long_steps: int = 4000
    windows: int = ALL
    draws: int = 16
    infill_windows: int = 436
    span: int = 16
    workers: int = 1


QUICK = Settings(seeds=2, steps=100, blocks=(16,), long_steps=0, windows=64, draws=8, infill_windows=32)


@dataclass(frozen=True)
class Job:
    """One training and its evaluation, which is kept in `file`."""

    kind: str
    run: SmallRun
    settings: Settings
    file: Path


@dataclass(frozen=True)
class Score:
    """What one trained model reaches: bits per character; nats per character of an infilled span."""

    kind: str
    bits: float
    infill: dict[str, float]
    protocol: str
    bound: Bound | None


def run(quick: bool) -> dict[str, Figure]:
    """Train both methods with some seeds, next to n-gram baselines and the reference's rows."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sizes = QUICK if quick else Settings(workers=min(workers, 6))
    with workplace("shakespeare") as folder, one_thread():
        return measure(sizes, text_overrides(os.environ.get(VARIABLE)), folder)


def text_overrides(path: str | None) -> list[str]:
    """Overrides that name the text: the file, or the built-in corpus where there is none.

    Raises:
        DataError: there is no such file.
    """
    if not path:
        say(f"{VARIABLE} is not set: tiny Shakespeare is not there, and the built-in corpus takes its place")
        return ["data.name=builtin", "data.max_bytes=1200000", "data.tokenizer.name=bytes"]
    if not Path(path).is_file():
        raise DataError(
            f"{VARIABLE}={path}: there is no such file",
            expected="the text known as tiny Shakespeare (1,115,394 characters)",
            remedy="correct the path, or unset the variable to use the built-in corpus",
        )
    if hashlib.sha256(Path(path).read_bytes()).hexdigest() != SHA256:
        say(f"{path} is not the reference's text (its sha256 differs): do not compare with the reference's rows")
    return [f"data.path={path}"]


def measure(settings: Settings, text: Sequence[str], folder: Path) -> dict[str, Figure]:
    """All figures for a text given by overrides of the section `data`; scores are kept in the folder."""
    runs = _runs(settings, [*text, f"data.cache={folder / 'data'}"])
    prefix = "builtin_" if runs["ar"].data.name == "builtin" else ""
    data = open_text(runs["ar"].data)  # prepared once, before the processes that share it
    place = folder / f"{data.fingerprint[:12]}_{settings.windows}_{settings.draws}"
    place.mkdir(exist_ok=True)
    jobs = [
        Job(kind, one.model_copy(update={"train": one.train.model_copy(update={"seed": seed})}), settings, place / file)
        for seed in range(settings.seeds)
        for kind, one in runs.items()
        for file in [f"{kind}_{one.train.steps}_{seed}.json"]
    ]
    scores = list(_work(jobs, settings.workers))
    tables = _baselines(runs["ar"], data, settings)
    figures = tables | _compare(scores, settings, tables["bigram_bits"]["value"], reference=not prefix)
    figures = {f"{prefix}{name}": entry for name, entry in figures.items()}
    return figures if prefix else figures | _reference_rows()


def _runs(settings: Settings, overrides: Sequence[str]) -> dict[str, SmallRun]:
    """What is trained, by kind."""
    usual, longer = f"train.steps={settings.steps}", f"train.steps={settings.long_steps}"
    found = {kind: load_run(name, [*overrides, usual]) for kind, name in METHODS.items()}
    for size in settings.blocks:
        found[f"blocks_{size}"] = load_run(METHODS["mdm"], [*overrides, usual, f"method.block_size={size}"])
    if settings.long_steps:
        rate = "train.optimizer.lr=4e-3"
        found |= {f"{kind}_long": load_run(name, [*overrides, longer, rate]) for kind, name in METHODS.items()}
    return found


def _work(jobs: Sequence[Job], workers: int) -> Iterator[Score]:
    steps = sum(job.run.train.steps or 0 for job in jobs)
    say(f"{len(jobs)} trainings of {steps} steps in all, {workers} at a time, one thread each")
    if workers == 1:
        yield from map(work, jobs)
        return
    # Spawned, since a forked process would inherit the locks of threads that it does not have.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, jobs)


def work(job: Job) -> Score:
    """Train one model and score it on the held-out text; what is known of it already is read."""
    if job.file.is_file():
        return Score(**json.loads(job.file.read_text()))
    with one_thread():
        data = open_text(job.run.data)
        trained = train(job.run, data)
        sizes = job.settings
        door = trained.method.likelihood(trained.nets, sizes.draws)
        shared: dict[str, Any] = {
            "batch_size": 128,
            "streams": Streams(0).within("evaluation"),
            "tokens_per_window": job.run.data.sequence_length,
            "device": trained.backend.device,
            "protocol": door.protocol,
            "bound": door.bound,
        }
        likelihood = evaluate_likelihood(
            door.nats, data.validation, sizes.windows, bytes_per_token=data.bytes_per_token, **shared
        ).bits_per_byte
        infill = {}
        if job.kind in METHODS and hasattr(trained.method, "span_likelihood"):
            span = trained.method.span_likelihood(trained.nets, sizes.draws)
            found = infill_check(span, data.validation, sizes.infill_windows, span=sizes.span, **shared)
            infill = {
                "both_sides": found.both_sides.value,
                "left_only": found.left_only.value,
                "gain": found.gain.value,
            }
        say(f"{job.kind}, seed {job.run.train.seed}: {likelihood}")
        score = Score(job.kind, likelihood.value, infill, likelihood.protocol, likelihood.bound)
        write_json(job.file, asdict(score))
        return score


def _compare(scores: Sequence[Score], settings: Settings, bigram: float, reference: bool) -> dict[str, Figure]:
    """Mean and spread over seeds, the gap (paired by seed), and the checks: below the bigram table, infilling."""
    bits = {kind: [s.bits for s in scores if s.kind == kind] for kind in dict.fromkeys(s.kind for s in scores)}
    note = f"{settings.seeds} seeds, {settings.steps} steps; standard error over seeds"
    full = reference and (settings.steps, settings.long_steps) == (Settings.steps, Settings.long_steps)
    figures = {}
    for kind, values in bits.items():
        one = next(s for s in scores if s.kind == kind)
        steps = settings.long_steps if kind.endswith("_long") else settings.steps
        how = f"{settings.seeds} seeds, {steps} steps; standard error over seeds"
        estimate = mean_estimate(values, "bits/character", f"{how}; {one.protocol}", one.bound)
        figures[f"{kind}_bits"] = figure(estimate, GOALS.get(kind) if full else None, values=values)
    gap = [mdm - ar for ar, mdm in zip(bits["ar"], bits["mdm"], strict=True)]
    figures["mdm_minus_ar_bits"] = figure(mean_estimate(gap, "bits/character", f"{note}; a bound minus a likelihood"))
    over = mean_estimate([mdm - bigram for mdm in bits["mdm"]], "bits/character", note)
    figures["mdm_minus_bigram_bits"] = figure(over, "<= 0" if full else None)
    infills = [s.infill for s in scores if s.infill]
    for key in ("both_sides", "left_only", "gain"):
        values = [infill[key] / math.log(2) for infill in infills]
        estimate = mean_estimate(values, "bits/character", f"{note}; {settings.span} characters in the middle")
        figures[f"infill_{key}_bits"] = figure(estimate, ">= 0" if key == "gain" else None, values=values)
    return figures


def _baselines(run: SmallRun, data: TextData, settings: Settings) -> dict[str, Figure]:
    """n-gram tables on the same held-out windows, each token of which has at least one token before it."""
    # At stride 1 every n-gram would be counted many times over, which misleads the choice of the smoothing.
    apart = open_text(run.data.model_copy(update={"stride": None})).train
    assert not isinstance(apart, StreamingSource)
    length = run.data.sequence_length
    found = evaluate_ngrams(
        apart,
        data.validation,
        settings.windows,
        vocab_size=data.tokenizer.vocab_size,
        tokens_per_window=length,
        bytes_per_token=data.bytes_per_token,
        context=1,
    )
    return {f"{name}_bits": figure(likelihood.bits_per_byte) for name, likelihood in found.items()}


def _reference_rows() -> dict[str, Figure]:
    note = "measured with the reference's code, one seed, as the specification states it; not measured here"
    return {
        f"reference_{name}_bits": figure(Estimate(bits, None, 1, "bits/character", note))
        for name, bits in REFERENCE.items()
    }
