"""Speech enhancement after a longer training: the bridge against Wiener in all figures, and quality against calls.

As `sgmse`, with one seed and 5,000 steps: about two hours on two cores. GENERATIVE_BENCH names a folder that an
interrupted benchmark goes on from.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
    run_jobs,
    settings_of,
)
from evaluation.estimate import Estimate, Ratio
from evaluation.speech import FileScore, paired_gain, summary


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        steps: of each training.
        items: test mixtures.
        compared: as many of them, from the first on, are drawn by the samplers that are compared.
        validation: mixtures that the parameters of classical baselines are chosen on.
        calls: of the network that samplers may take.
        reference: N of the predictor-corrector sampler, which takes twice as many calls.
        pairs: timings of it and of the sampler that is as good.
    """

    steps: int = 5000
    items: int = 120
    compared: int = 48
    validation: int = 32
    calls: tuple[int, ...] = (5, 8, 10, 15, 20, 30)
    reference: int = 30
    pairs: int = 5


QUICK = Settings(3, 2, 2, 1, (5,), 2, 2)
LEAST_GAIN = 2.0
"""dB of SI-SDR over the noisy input that the reference must have: samplers of a model that fails tell nothing."""
TOLERANCES = {"si_sdr": 0.2, "estoi": 0.01, "pesq_nb": 0.05}
"""How much worse than the reference a sampler may be in each figure."""
REFERENCE = "predictor-corrector"


def samplers(settings: Settings) -> Samplers:
    """The reference, and others at each number of calls."""
    found: dict[str, Mapping[str, object]] = {
        REFERENCE: {"sampler": "predictor_corrector", "steps": settings.reference}
    }
    for calls in settings.calls:
        found[f"exponential {calls}"] = {"sampler": "exponential", "steps": calls}
        found[f"stochastic {calls}"] = {"sampler": "exponential", "steps": calls, "order": 1, "stochastic": True}
        found[f"exponential from 0.7 {calls}"] = {"sampler": "exponential", "steps": calls, "start": 0.7}
    return found


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    settings = QUICK if quick else Settings()
    data = opened(settings.items)
    systems, chosen = classical(data, settings.validation)
    say(f"baselines chosen on the validation part: {chosen}")
    bridge: Samplers = {
        "bridge 1": RECIPE,
        "bridge unlimited 1": UNLIMITED,
        **{f"bridge stochastic {n}": {**RECIPE, "sampler": "bridge_sde", "steps": n} for n in (2, 4)},
        **{f"bridge as released {n}": {"steps": n} for n in (1, 4)},
    }
    with workplace("sgmse_long") as folder:
        jobs = [
            Job("score", SCORE, settings.steps, 0, samplers(settings), settings.items, folder, settings.compared),
            Job("bridge", BRIDGE, settings.steps, 0, bridge, settings.items, folder),
        ]
        outcomes = run_jobs(jobs, os.cpu_count() or 1)
    score, note = outcomes["score", 0], f"{data.description}; {settings.steps} steps, seed 0"
    figures: dict[str, Figure] = {}
    every = {**systems, **score.scores, **outcomes["bridge", 0].scores}
    for metric in metrics(data.sample_rate):
        for name, scores in every.items():
            if metric in (found := summary(scores).figures):
                figures[f"{metric}_{name.replace(' ', '_').replace('-', '_')}"] = figure(found[metric], None, note)
        gain = paired_gain(outcomes["bridge", 0].scores["bridge 1"], systems["wiener"], metric)
        figures[f"bridge_gain_over_wiener_{metric}"] = figure(gain, ">= 0", f"one call, {LIMITED}; {note}")
    told = f"{settings.compared} files; {note}"
    return figures | _calls(score.scores, score.calls, systems["noisy"], settings, told)


def _calls(
    scores: Mapping[str, Sequence[FileScore]],
    calls: Mapping[str, float],
    noisy: Sequence[FileScore],
    settings: Settings,
    note: str,
) -> dict[str, Figure]:
    """The fewest calls that give the reference's quality, over the reference's, and the ratio of times that follows.

    Both are NaN where the reference gains too little to tell anything, or where nothing is as good.
    """
    gain = paired_gain(scores[REFERENCE], noisy, "si_sdr")
    text = f"{REFERENCE} with {calls[REFERENCE]:g} calls gains {gain} over the noisy input"
    good = [name for name in scores if name != REFERENCE and as_good(scores[name], scores[REFERENCE])]
    fewest = min(good, key=lambda name: calls[name], default=None)
    told = f"{fewest}: {calls[fewest]:g} calls" if fewest is not None else "no sampler is as good"
    tells = gain.value >= LEAST_GAIN
    if not tells:
        told = f"less than {LEAST_GAIN:g} dB, so that nothing is compared ({told})"
    unknown = Estimate(math.nan, None, 1, "", f"{text}; {told}; {note}")
    ratio: Estimate = unknown
    faster: Estimate | Ratio = unknown
    if tells and fewest is not None:
        ratio = replace(unknown, value=calls[fewest] / calls[REFERENCE])
        of = samplers(settings)
        faster = sgmse_speed.equal_quality(
            settings_of(SCORE, of[REFERENCE]), settings_of(SCORE, of[fewest]), settings.pairs
        )
    speed_note = f"published form, {REFERENCE}, one file after the other, over ours, {told}; one thread; {note}"
    return {
        "pc_gain_db": figure(gain, f">= {LEAST_GAIN:g}", f"{text}; {note}"),
        "calls_ratio": figure(ratio, "<= 0.25" if tells else None),
        "enhance_speedup_equal_quality": figure(faster, ">= 3" if tells else None, speed_note),
    }


def as_good(scores: Sequence[FileScore], reference: Sequence[FileScore]) -> bool:
    """Whether no mean is worse than the reference's by more than its tolerance."""
    known = [metric for metric in TOLERANCES if any(metric in one.values for one in reference)]
    return all(mean(scores, metric) >= mean(reference, metric) - TOLERANCES[metric] for metric in known)
