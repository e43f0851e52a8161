"""What speech benchmarks share: the data, trainings in processes of their own, systems and their scores.

Spoken digits and recorded noises do not come with the distribution: the environment variables GENERATIVE_SPEECH and
GENERATIVE_NOISE name their folders. Without them everything is measured on made speech, and the figures say so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from evaluation.benchmarks.figure import say
from evaluation.benchmarks.trainings import Training, train
from evaluation.speech import FileScore, SpeechItem, available_metrics, score_files
from evaluation.speech_baselines import GRIDS, choose, enhance
from evaluation.speech_pool import in_pool
from generative.config import load_layers
from generative.data.speech import SpeechData, open_speech
from generative.data.speech_config import SpeechDataConfig
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.enhancer import Enhancer
from generative.methods.sgmse.method import Sgmse
from generative.randomness import Streams

SPEECH, NOISE = "GENERATIVE_SPEECH", "GENERATIVE_NOISE"
CONFIG = "sgmse/fsdd8k"
"""The configuration that the benchmark trains, with its own budgets."""

BRIDGE = {"process": {"name": "sbve", "t_eps": 1e-4}, "wrapping": {"loss_type": "data_prediction"}}
SCORE = {"process": {"name": "ouve"}, "wrapping": {"loss_type": "score_matching", "network_scaling": "1/sigma"}}
METRICS = ("si_sdr", "estoi", "pesq_nb")

Samplers = Mapping[str, Mapping[str, Any]]
"""Sections `sampling` by a name."""


@cache
def opened(items: int) -> SpeechData:
    """Training, validation and test speech; `items`: mixtures of the test part."""
    section: dict[str, Any] = dict(load_layers(CONFIG).values["data"])
    folders = os.environ.get(SPEECH), os.environ.get(NOISE)
    if all(folders):
        section |= {"speech": folders[0], "noise": folders[1]}
    else:
        kept = ("sample_rate", "length", "size", "seconds", "validation_size")
        section = {"name": "made", **{key: section[key] for key in kept}}
    adapter: TypeAdapter[Any] = TypeAdapter(SpeechDataConfig)
    return open_speech(adapter.validate_python(section | {"test_size": items}))


def training(of: Mapping[str, Any]) -> Training:
    """The configuration's training with another process and loss."""
    sections = load_layers(CONFIG).values
    kept = {key: sections["train"][key] for key in ("batch_size", "optimizer", "schedule")}
    return Training({**sections["method"], "sampling": {}, **of}, kept)


def settings_of(of: Mapping[str, Any], sampling: Mapping[str, Any]) -> SgmseConfig:
    """The method's section of a training, with a sampler of its own."""
    return SgmseConfig.model_validate({**training(of).method, "sampling": dict(sampling)})


@dataclass(frozen=True)
class Job:
    """One training, and what is drawn from it.

    Args:
        name: of the system.
        of: process and loss, on top of the configuration.
        steps: of training.
        seed: of the training.
        samplers: by name.
        items: of the test part.
    """

    name: str
    of: Mapping[str, Any]
    steps: int
    seed: int
    samplers: Samplers
    items: int


@dataclass(frozen=True)
class Outcome:
    """Scores and network calls of a file by the sampler's name; seconds that the training took; its last loss."""

    scores: Mapping[str, Sequence[FileScore]]
    calls: Mapping[str, float]
    seconds: float


def run_jobs(jobs: Sequence[Job], workers: int) -> dict[tuple[str, int], Outcome]:
    """Train and score, `workers` at a time, each on one thread."""
    found: dict[tuple[str, int], Outcome] = {}
    for job, outcome in in_pool(run_job, jobs, min(workers, len(jobs))):
        assert outcome is not None, f"the process of {job.name}, seed {job.seed} was killed"
        found[job.name, job.seed] = outcome
        told = [f"{name} {mean(scores, 'si_sdr'):.2f} dB" for name, scores in outcome.scores.items()]
        say(f"{job.name}, seed {job.seed}, {job.steps} steps in {outcome.seconds:.0f} s: SI-SDR {', '.join(told)}")
    return found


def run_job(job: Job) -> Outcome:
    """Train, then enhance and score the test part with each sampler."""
    torch.set_num_threads(1)
    data = opened(job.items)
    name = f"{job.name}, seed {job.seed}"
    trainer, seconds = train(training(job.of), data, job.steps, job.seed, name=name)
    method = trainer.method
    assert isinstance(method, Sgmse)
    scores: dict[str, list[FileScore]] = {}
    calls: dict[str, float] = {}
    with trainer.evaluating("ema") as nets:
        for sampler, section in job.samplers.items():
            begun = time.perf_counter()
            items, calls[sampler] = enhanced(Enhancer(settings_of(job.of, section), nets["net"]), data)
            scores[sampler] = score(items, data)
            say(f"  {name}: {sampler} in {time.perf_counter() - begun:.0f} s")
    return Outcome(scores, calls, seconds)


def enhanced(enhancer: Enhancer, data: SpeechData) -> tuple[list[SpeechItem], float]:
    """The test part, enhanced, and the network calls of a file."""
    pairs = list(test_pairs(data))
    waves = [torch.from_numpy(np.ascontiguousarray(noisy)) for _, _, noisy in pairs]
    found = enhancer.enhance(waves, range(len(waves)), Streams(0).within("enhance"))
    items = [SpeechItem(n, clean, one.wave.numpy(), noisy) for (n, clean, noisy), one in zip(pairs, found, strict=True)]
    return items, sum(one.calls for one in found) / len(found)


def test_pairs(data: SpeechData) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, clean, noisy) of each test utterance."""
    for number in range(len(data.whole["test"])):
        clean, noisy = data.whole_pair("test", number)
        yield data.whole["test"].name(number), clean, noisy


def score(items: Sequence[SpeechItem], data: SpeechData) -> list[FileScore]:
    """Figures of each file: those of METRICS whose packages are installed."""
    return score_files(items, data.sample_rate, metrics(data.sample_rate))


def metrics(rate: int) -> list[str]:
    """Those of METRICS whose packages are installed."""
    return [name for name in METRICS if name in available_metrics(rate)]


def classical(data: SpeechData, most: int) -> tuple[dict[str, list[FileScore]], str]:
    """Scores of noisy, spectral subtraction and Wiener; which parameters were chosen, on `most` validation pairs."""
    rate = data.sample_rate
    validation = [data.whole_pair("validation", number) for number in range(min(most, len(data.whole["validation"])))]
    pairs = list(test_pairs(data))
    found = {"noisy": score([SpeechItem(n, clean, noisy) for n, clean, noisy in pairs], data)}
    told = []
    for name, grid in GRIDS.items():
        choice = choose(grid, validation, rate)
        told.append(str(choice))
        items = [SpeechItem(n, clean, enhance(noisy, rate, choice.baseline), noisy) for n, clean, noisy in pairs]
        found[name] = score(items, data)
    return found, "; ".join(told)


def mean(scores: Sequence[FileScore], metric: str) -> float:
    """Of a metric over the files that have it."""
    return float(np.mean([one.values[metric] for one in scores if metric in one.values]))


def over_seeds(several: Sequence[Sequence[FileScore]]) -> list[FileScore]:
    """The mean over seeds, file by file, of metrics that all seeds have a value of."""
    found = []
    for ones in zip(*several, strict=True):
        shared = set.intersection(*(set(one.values) for one in ones))
        values = {name: float(np.mean([one.values[name] for one in ones])) for name in sorted(shared)}
        found.append(FileScore(ones[0].name, ones[0].rate, values))
    return found
