"""Speech enhancement within minutes of training: quality beside classical baselines, and speed beside published code.

Held-out speaker and noises, 120 mixtures of 3 s at 0, 5, 10 and 15 dB; the small network of `configs/sgmse/fsdd8k`
(443,000 parameters), 750 steps of 8 crops of half a second, seeds 0 to 2. `sgmse_long` trains for longer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.benchmarks import sgmse_speed
from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.kept import workplace
from evaluation.benchmarks.speech_systems import (
    BRIDGE,
    LIMITED,
    RECIPE,
    SCORE,
    UNLIMITED,
    Job,
    Samplers,
    classical,
    mean,
    metrics,
    opened,
    over_seeds,
    run_jobs,
)
from evaluation.speech import FileScore, paired_gain, summary


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        seeds: trainings of each system.
        steps: of each training.
        items: test mixtures.
        validation: mixtures that the parameters of classical baselines are chosen on.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 750
    items: int = 120
    validation: int = 32


QUICK = Settings((0,), 3, 2, 1)

OF_BRIDGE: Samplers = {
    "sb": RECIPE,
    "sb_unlimited": UNLIMITED,
    "sb_n4": {**RECIPE, "sampler": "bridge_sde", "steps": 4},
}
OF_SCORE: Samplers = {
    "score": {"sampler": "exponential", "steps": 10},
    "score_pc": {"sampler": "predictor_corrector", "steps": 15},
}
NAMES = {
    "noisy": "unprocessed",
    "spectral_subtraction": "spectral subtraction",
    "wiener": "decision-directed Wiener filter",
    "sb": f"Schroedinger bridge, data prediction, 1 call, {LIMITED}",
    "sb_unlimited": "Schroedinger bridge, data prediction, 1 call",
    "sb_n4": f"Schroedinger bridge, data prediction, stochastic, 4 calls, {LIMITED}",
    "score": "score model (OUVE), exponential integrator, 10 calls",
    "score_pc": "score model (OUVE), predictor-corrector N=15, 30 calls",
}


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    settings = QUICK if quick else Settings()
    speed = sgmse_speed.figures(2, case=sgmse_speed.QUICK) if quick else sgmse_speed.figures(20)
    return {**quality(settings), **speed}


def quality(settings: Settings) -> dict[str, Figure]:
    """SI-SDR, ESTOI and PESQ of all systems, and the bridge's gain over Wiener."""
    data = opened(settings.items)
    systems, chosen = classical(data, settings.validation)
    say(f"baselines chosen on the validation part: {chosen}")
    kinds = (("bridge", BRIDGE, OF_BRIDGE), ("score", SCORE, OF_SCORE))
    with workplace("sgmse") as folder:
        jobs = [
            Job(name, of, settings.steps, seed, samplers, settings.items, folder)
            for name, of, samplers in kinds
            for seed in settings.seeds
        ]
        outcomes = run_jobs(jobs, os.cpu_count() or 1)
    each: dict[str, list[Sequence[FileScore]]] = {}
    for outcome in outcomes.values():
        for name, scores in outcome.scores.items():
            each.setdefault(name, []).append(scores)
    note = f"{data.description}; {settings.steps} steps, seeds {', '.join(map(str, settings.seeds))}"
    figures: dict[str, Figure] = {}
    for metric in metrics(data.sample_rate):
        for name, scores in systems.items():
            figures |= _figure(metric, name, scores, f"{data.description}; {chosen}")
        for name, several in each.items():
            figures |= _figure(metric, name, over_seeds(several), note, [mean(one, metric) for one in several])
    gain = paired_gain(over_seeds(each["sb"]), systems["wiener"], "si_sdr")
    values = [paired_gain(one, systems["wiener"], "si_sdr").value for one in each["sb"]]
    figures["sb_gain_over_wiener_db"] = figure(gain, ">= 1", f"{NAMES['sb']}, over Wiener; {note}", values)
    return figures


def _figure(
    metric: str, system: str, scores: Sequence[FileScore], note: str, values: list[float] | None = None
) -> Mapping[str, Figure]:
    estimate = summary(scores).figures.get(metric)
    if estimate is None:
        say(f"{metric} has no value for any file of {system}")
        return {}
    return {f"{metric}_{system}": figure(estimate, None, f"{NAMES[system]}; {note}", values)}
