"""The reversal curse on made people: masked diffusion beside its autoregressive counterpart, and what guidance does.

Three models of one size read the same statements: `ar`; `mdm`, which noises prompts like all else (published); and
`sft`, which learns ends of sentences given their beginnings and misses the beginnings in a tenth of the samples, for
supervised guidance. Each is asked in the order that was read and in the other (see `evaluation.reversal`), masked
models with and without guidance, which for `mdm` is the unsupervised one. Each seed has other people and weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.kept import workplace
from evaluation.benchmarks.small_runs import Trained, load_run, train
from evaluation.benchmarks.timing import one_thread
from evaluation.estimate import mean_estimate
from evaluation.harness.scoring import answer
from evaluation.harness.tokens import TextModel
from evaluation.process_pool import in_pool
from evaluation.reversal import reversal_figures, reversal_jobs
from generative.data.cache import available_cores
from generative.data.config import ReversalTextConfig
from generative.data.reversal import TESTS, prepare_reversal, reversal_tests
from generative.data.text import TextData, open_text
from generative.training.runfolder import write_json

MODELS: dict[str, tuple[str, ...]] = {
    "ar": ("autoregressive/reversal",),
    "mdm": ("masked_diffusion/reversal", "method.answers.noise_prompts=true"),
    "sft": (
        "masked_diffusion/reversal",
        "method.answers.noise_prompts=false",
        "method.answers.prompt_dropping=0.1",
    ),
}
"""Name -> configuration and what is changed in it."""

MASKED = ("method.sampling.name=confidence", "method.sampling.steps=32")
REVERSED = tuple(asked for asked in TESTS if asked.endswith("reversed"))
READ = tuple(asked for asked in TESTS if asked not in REVERSED)

Shares = dict[str, float]
"""Right answers by what was asked."""


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        people: of each of three groups.
        steps: of training.
        seeds: trainings of each model.
        guidance: scale w of masked models.
        small: further settings of all runs.
    """

    people: int = 30
    steps: int = 3000
    seeds: int = 3
    guidance: float = 0.8
    small: tuple[str, ...] = ()


QUICK = Settings(
    people=3, steps=20, seeds=1, small=("method.network.layers=2", "method.network.width=32", "train.batch_size=16")
)


@dataclass(frozen=True)
class Job:
    """One model of one seed, in the folder where what is known of it lies."""

    settings: Settings
    seed: int
    name: str
    folder: Path


def run(quick: bool) -> dict[str, Figure]:
    """Shares of right answers: each model, in each direction, with and without guidance."""
    settings, cells = QUICK if quick else Settings(), {}
    with workplace("masked_reverse") as folder, one_thread():
        place = folder / ("quick" if quick else f"steps_{settings.steps}")
        place.mkdir(exist_ok=True)
        jobs = [Job(settings, seed, name, place) for seed in range(settings.seeds) for name in MODELS]
        for job, cell in in_pool(run_cell, jobs, 1 if quick else min(len(jobs), available_cores())):
            assert cell is not None, f"the process of {job.name}, seed {job.seed} was killed"
            cells[job.seed, job.name] = cell
    return summary(settings, {(job.seed, job.name): cells[job.seed, job.name] for job in jobs})


def summary(settings: Settings, cells: dict[tuple[int, str], dict[str, Shares]]) -> dict[str, Figure]:
    """Means over seeds, and differences within seeds. `cells`: of (seed, model), shares by kind of sampling."""
    note = f"{3 * settings.people} made people, {settings.steps} steps, {settings.seeds} seeds"
    whole: dict[str, list[Shares]] = {}
    for (_, name), found in cells.items():
        for kind, shares in found.items():
            whole.setdefault(f"{name}{kind}", []).append(shares)

    def mean(name: str, asked: tuple[str, ...]) -> list[float]:
        return [sum(shares[each] for each in asked) / len(asked) for shares in whole[name]]

    def entry(values: list[float], what: str) -> Figure:
        return figure(mean_estimate(values), None, f"{what}; {note}", values)

    figures = {f"{name}_{asked}": entry(mean(name, (asked,)), "exact match") for name in whole for asked in TESTS}
    for name, (one, other, asked) in {
        "mdm_over_ar_reversed": ("mdm", "ar", REVERSED),
        "mdm_over_ar_as_read": ("mdm", "ar", READ),
        "unsupervised_guidance_gain_reversed": ("mdm_guided", "mdm", REVERSED),
        "supervised_guidance_gain_as_read": ("sft_guided", "sft", READ),
    }.items():
        pairs = zip(mean(one, asked), mean(other, asked), strict=True)
        figures[name] = entry([a - b for a, b in pairs], f"difference of exact match, {one} less {other}")
    return figures


def run_cell(job: Job) -> dict[str, Shares]:
    """One model of one seed, asked; what is known of it already is read."""
    file, settings = job.folder / f"{job.name}_{job.seed}.json", job.settings
    if file.is_file():
        return dict(json.loads(file.read_text()))
    config, *changes = MODELS[job.name]
    size = (f"data.people={settings.people}", f"train.steps={settings.steps}", f"data.cache={job.folder / 'data'}")
    own = (f"data.seed={job.seed}", f"train.seed={job.seed}", *(() if job.name == "ar" else MASKED))
    run = load_run(config, [*changes, *size, *own, *settings.small])
    assert isinstance(run.data, ReversalTextConfig)
    with one_thread():
        data = open_text(run.data)
        say(f"{job.name}, seed {job.seed}: {settings.steps} steps")
        trained = train(run, data)
        scales = {"": 0.0} if job.name == "ar" else {"": 0.0, "_guided": settings.guidance}
        found = {kind: _shares(trained, data, run.data, scale) for kind, scale in scales.items()}
    write_json(file, found)
    return found


def _shares(trained: Trained, data: TextData, config: ReversalTextConfig, guidance: float) -> Shares:
    questions = reversal_tests(prepare_reversal(config))
    model = TextModel(trained.method, trained.nets, data.tokenizer, trained.backend.device, begin="none")
    jobs = reversal_jobs(model, questions, config.sequence_length, guidance)
    figures = reversal_figures(questions, [answer(model, job) for job in jobs])
    return {asked: figures[asked].value for asked in TESTS}
