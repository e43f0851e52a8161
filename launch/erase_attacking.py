"""How many prompts attacks bring a concept back for, by the norm that they may use: here, or by Ray workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from evaluation.erasure.attack_settings import AttackSettings
from evaluation.erasure.attacking import Attempt, Case, told
from evaluation.erasure.attacks import attack
from evaluation.erasure.opening import open_detector
from evaluation.erasure.prompts import PromptRow, read_pairs
from evaluation.erasure.rates import share
from evaluation.erasure.ring import direction
from evaluation.estimate import Estimate
from generative.data.cache import default_cache
from generative.errors import ConfigError
from launch.erase_measuring import Measured, opened_erasure
from launch.erase_victims import deriver, victim_of
from launch.ray_map import Progress, map_items
from launch.sections import LaunchConfig

RING = ("ring-a-bell", "ring-a-bell-tokens")


@dataclass(frozen=True)
class Attacked:
    """Success of an attack.

    Args:
        settings: of it.
        by_norm: (rho, share of the prompts), in the order of the norms.
        attempts: of each prompt.
    """

    settings: AttackSettings
    by_norm: Sequence[tuple[float, Estimate]]
    attempts: Sequence[Sequence[Attempt]]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "protocol": self.settings.protocol,
            "success": {f"{rho:g}": one.to_json() for rho, one in self.by_norm},
            "attempts": [told(some) for some in self.attempts],
        }


def check_pairs(attacks: Sequence[AttackSettings], pairs: Path | None) -> None:
    """Raises ConfigError, DataError: Ring-A-Bell without pairs, or with a file that has none."""
    name = next((one.name for one in attacks if one.name in RING), None)
    if name is None:
        return
    if pairs is None:
        raise ConfigError(
            f"--attack {name} without pairs of texts",
            "a CSV file with the columns sensitive and normal: texts that differ in the concept alone",
            "give one with --pairs",
        )
    read_pairs(pairs)


def attack_all(
    folder: Path,
    rows: Sequence[PromptRow],
    measured: Measured,
    detector: str,
    attacks: Sequence[AttackSettings],
    pairs: Path | None,
    launch: LaunchConfig,
    progress: Progress | None = None,
) -> list[Attacked]:
    """Attack every prompt in every way; a prompt that needs no attack counts where its own norm (1) is allowed.

    Args:
        folder: of an erasure, with its transform.
        rows: prompts.
        measured: what they show without an attack.
        detector: name, see `evaluation.erasure.opening`.
        attacks: which, and how.
        pairs: CSV file of Ring-A-Bell's pairs.
        launch: one worker without an address is this process.
        progress: told the prompts that are done, and all.

    Raises:
        ConfigError, CheckpointError, DataError: something that cannot be attacked so.
    """
    cache = default_cache().parent / "erasure"
    work = [(row, settings) for settings in attacks for row in rows]
    make = partial(_attacker, folder.resolve(), detector, cache, None if pairs is None else pairs.resolve())
    found = map_items(work, make, launch, cache / "ray_map.log", progress)
    needless = [after for _, after in measured.flags]
    return [
        summed(settings, found[i * len(rows) : (i + 1) * len(rows)], needless, measured.after.protocol)
        for i, settings in enumerate(attacks)
    ]


def summed(
    settings: AttackSettings, attempts: Sequence[Sequence[Attempt]], needless: Sequence[bool], told_of: str
) -> Attacked:
    """Shares by norm, with their binomial errors; a prompt that needs no attack counts, as UnlearnDiffAtk has it."""
    protocol = f"{settings.protocol}; prompts that need no attack count from norm 1 on; {told_of}"
    by_norm = []
    for i, rho in enumerate(settings.rhos):
        hits = [some[i].hit or (plain and rho >= 1) for some, plain in zip(attempts, needless, strict=True)]
        by_norm.append((rho, share(sum(hits), len(hits), protocol)))
    return Attacked(settings, by_norm, attempts)


def _attacker(
    folder: Path, detector: str, cache: Path, pairs: Path | None
) -> Callable[[tuple[PromptRow, AttackSettings]], list[Attempt]]:
    model, edits, weights, edited = opened_erasure(folder)
    victim, derived = victim_of(model, weights, edited), deriver(model, edits)
    judge = open_detector(detector, cache)
    shift = None if pairs is None else direction(victim.embed, read_pairs(pairs))

    def attacked(item: tuple[PromptRow, AttackSettings]) -> list[Attempt]:
        row, settings = item

        def shows(states: Tensor) -> bool:
            return bool(judge(victim.image(states, row.seed, row.guidance)[None])[0])

        victim.use(True)
        return attack(Case(victim, victim.embed([row.prompt])[0], row, settings, derived, shift, shows))

    return attacked
