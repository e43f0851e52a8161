"""A soak: one run, killed again and again at random, must end as if nothing had been.

Two workers train the small masked diffusion model on a practice cluster of this machine, first undisturbed, then with
faults drawn from SEED: kind, moment and victim. All of them happen to one and the same run.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.estimate import Estimate, mean_estimate
from launch.chaos import Verdict, chaos
from launch.chaos_faults import FAULTS, Fault
from launch.chaos_run import Damage

SEED = 0
KILLS, QUICK_KILLS = 50, 5
APART = 60
"""Steps between two faults, plus or minus a third: with checkpoints every 10 steps some work is lost each time."""

SMALL = (
    "launch.workers=2",
    "data.max_bytes=200000",
    "data.sequence_length=32",
    "method.network={layers: 2, heads: 2, width: 64, ff_width: 128, max_length: 32}",
    "train.batch_size=12",
    "train.checkpoint={every_steps: 10, keep_last: 3}",
    "train.validation={every_steps: 50, samples: 24}",
    "train.sample_every=null",
    "evaluate.at_end=false",
    "sample.at_end=false",
)
"""A model whose steps take milliseconds: what is measured is the recovery."""


def run(quick: bool) -> dict[str, Figure]:
    """Kills, how many of them were survived, whether the curve is that of the undisturbed run, and what each cost."""
    kills = QUICK_KILLS if quick else KILLS
    faults = draw(kills, SEED)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        settings = [*SMALL, f"train.steps={faults[-1].step + APART}", f"run.dir={Path(folder) / 'run'}"]
        settings.append(f"data.cache={Path(folder) / 'cache'}")
        verdict = chaos(
            "masked_diffusion/quickstart", settings, faults, SEED, lambda label, text: say(f"{label} {text}")
        )
    say(verdict.table())
    return figures(verdict)


def _tell(label: str, text: str) -> None:
    say(f"{label:<7} {text}")


def draw(kills: int, seed: int) -> list[Fault]:
    """So many faults: all kinds in turn in a random order, at random distances."""
    dice = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < kills:
        kinds += dice.sample(sorted(FAULTS), len(FAULTS))
    step, faults = 0, []
    for kind in kinds[:kills]:
        step += dice.randint(APART - APART // 3, APART + APART // 3)
        faults.append(Fault(kind, step))
    return faults


def figures(verdict: Verdict) -> dict[str, Figure]:
    """The metrics of a soak."""
    kills, survived = len(verdict.faults), len(verdict.damages)
    note = "one run of two workers on a practice cluster of one machine; kind, moment and victim of faults at random"
    end = verdict.problem or (verdict.comparison.sentence() if verdict.comparison else "")

    def plain(value: float, goal: str, protocol: str, unit: str = "") -> Figure:
        return figure(Estimate(value, None, kills, unit, protocol), goal)

    found = {
        "kills": plain(kills, ">= 50" if kills >= KILLS else f">= {kills}", note),
        "recovered_fraction": plain(survived / kills, ">= 1", "faults after which training went on, over all"),
        "curves_equal": plain(float(verdict.equal), ">= 1", end),
    }
    for kind in FAULTS:
        found |= _costs(kind, [damage for damage in verdict.damages if damage.kind == kind])
    return found


def _costs(kind: str, damages: Sequence[Damage]) -> Mapping[str, Any]:
    if not damages:
        return {}
    columns = {
        f"{kind}_lost_steps": ([float(d.lost_steps) for d in damages], "steps"),
        f"{kind}_noticed_seconds": ([d.detected_seconds for d in damages], "s"),
        f"{kind}_restart_seconds": ([d.restarted_seconds for d in damages], "s"),
    }
    return {
        name: figure(_mean(values, unit, FAULTS[kind][1]), values=values) for name, (values, unit) in columns.items()
    }


def _mean(values: Sequence[float], unit: str, protocol: str) -> Estimate:
    if len(values) < 2:
        return Estimate(values[0], None, 1, unit, protocol)
    return mean_estimate(values, unit, protocol)
