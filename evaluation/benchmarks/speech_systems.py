"""What speech benchmarks share: the data, trainings in processes of their own, systems and their scores.

Spoken digits and recorded noises do not come with the distribution: the environment variables GENERATIVE_SPEECH and
GENERATIVE_NOISE name their folders. Without them everything is measured on made speech, and the figures say so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from evaluation.benchmarks.figure import say
from evaluation.benchmarks.trainings import Training, train
from evaluation.images.extractors import identity
from evaluation.process_pool import in_pool
from evaluation.quantities import duration
from evaluation.speech import FileScore, SpeechItem, available_metrics, score_files
from evaluation.speech_baselines import GRIDS, choose, enhance
from generative.config import load_layers
from generative.data.files import write_aside
from generative.data.speech import SpeechData, open_speech
from generative.data.speech_config import SpeechDataConfig
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.enhancer import Enhancer
from generative.methods.sgmse.network import build_network
from generative.randomness import Streams
from generative.training.checkpoint import CheckpointStore

SPEECH, NOISE = "GENERATIVE_SPEECH", "GENERATIVE_NOISE"
CONFIG = "sgmse/fsdd8k"
"""The configuration that the benchmark trains, with its own budgets."""

BRIDGE = {"process": {"name": "sbve", "t_eps": 1e-4}, "wrapping": {"loss_type": "data_prediction"}}
SCORE = {"process": {"name": "ouve"}, "wrapping": {"loss_type": "score_matching", "network_scaling": "1/sigma"}}
RECIPE: Mapping[str, Any] = load_layers(CONFIG).values["method"]["sampling"]
"""How the configuration draws from a bridge: one call, and a limit of what is taken away."""
LIMITED = f"at most {RECIPE['attenuation_limit']:g} dB taken away"
UNLIMITED = {**RECIPE, "attenuation_limit": None}
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
        drawn: as many of them are enhanced, from the first on; None: all.
        folder: where trainings and drawings are kept.
    """

    name: str
    of: Mapping[str, Any]
    steps: int
    seed: int
    samplers: Samplers
    items: int
    folder: Path
    drawn: int | None = None

    @property
    def title(self) -> str:
        """For lines of progress."""
        return f"{self.name}, seed {self.seed}"

    @property
    def kept(self) -> str:
        """Name of its checkpoints in the folder: the same for the same training."""
        run = training(self.of)
        return f"{self.name}-{identity(asdict(run), opened(self.items).description, self.steps, self.seed)[:24]}"


@dataclass(frozen=True)
class Outcome:
    """Scores, and network calls of a file, by the sampler's name."""

    scores: Mapping[str, Sequence[FileScore]]
    calls: Mapping[str, float]


@dataclass(frozen=True)
class Drawing:
    """One sampler with the averaged weights of a finished training.

    Args:
        job: the training.
        sampler: its name among the job's.
        weights: of the network by name.
    """

    job: Job
    sampler: str
    weights: Mapping[str, NDArray[Any]]

    @property
    def kept(self) -> Path:
        """File of its outcome."""
        job = self.job
        what = identity(job.kept, settings_of(job.of, job.samplers[self.sampler]).model_dump(mode="json"), job.drawn)
        return job.folder / f"{what[:24]}.json"


def run_jobs(jobs: Sequence[Job], workers: int) -> dict[tuple[str, int], Outcome]:
    """Train all, then score each sampler, `workers` at a time, each on one thread: all are busy to the end."""
    trained = [(job, _whole(weights, job)) for job, weights in in_pool(train_job, jobs, min(workers, len(jobs)))]
    drawings = [Drawing(job, sampler, weights) for job, weights in trained for sampler in job.samplers]
    # The longest first, so that none is left alone at the end.
    drawings.sort(key=lambda one: -one.job.samplers[one.sampler].get("steps", 0))
    found: dict[tuple[str, str], tuple[list[FileScore], float]] = {}
    for drawing, drawn in in_pool(draw_scores, drawings, min(workers, len(drawings))):
        scores, calls = found[drawing.job.title, drawing.sampler] = _whole(drawn, drawing.job)
        say(f"{drawing.job.title}: {drawing.sampler}, {calls:g} calls: SI-SDR {mean(scores, 'si_sdr'):.2f} dB")
    return {(job.name, job.seed): _outcome({name: found[job.title, name] for name in job.samplers}) for job in jobs}


def _outcome(drawn: Mapping[str, tuple[Sequence[FileScore], float]]) -> Outcome:
    return Outcome({k: scores for k, (scores, _) in drawn.items()}, {k: calls for k, (_, calls) in drawn.items()})


ResultT = TypeVar("ResultT")


def _whole(result: ResultT | None, job: Job) -> ResultT:
    assert result is not None, f"the process of {job.title} was killed"
    return result


def train_job(job: Job) -> dict[str, NDArray[Any]]:
    """Train; the averaged weights by name."""
    torch.set_num_threads(1)
    store = CheckpointStore(job.folder / job.kept, keep_last=1)
    trainer, seconds = train(training(job.of), opened(job.items), job.steps, job.seed, name=job.title, store=store)
    say(f"{job.title}: {job.steps:,} steps in {duration(seconds)}")
    with trainer.evaluating("ema") as nets:
        return {name: value.numpy().copy() for name, value in nets["net"].state_dict().items()}


def draw_scores(drawing: Drawing) -> tuple[list[FileScore], float]:
    """Enhance the job's part of the test utterances and score them; the network calls of a file."""
    if drawing.kept.is_file():
        told = json.loads(drawing.kept.read_text(encoding="utf-8"))
        return [FileScore.from_json(one) for one in told["scores"]], told["calls"]
    torch.set_num_threads(1)
    job, data = drawing.job, opened(drawing.job.items)
    settings = settings_of(job.of, job.samplers[drawing.sampler])
    net = build_network(settings)
    net.load_state_dict({name: torch.from_numpy(value) for name, value in drawing.weights.items()})
    items, calls = enhanced(Enhancer(settings, net.eval()), data, job.drawn)
    scores = score(items, data)
    write_aside(drawing.kept, json.dumps({"calls": calls, "scores": [one.to_json() for one in scores]}).encode())
    return scores, calls


def enhanced(enhancer: Enhancer, data: SpeechData, count: int | None) -> tuple[list[SpeechItem], float]:
    """The first utterances of the test part, enhanced, and the network calls of a file."""
    pairs = list(islice(test_pairs(data), count))
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
