"""Attacks by name: what an attacker finds who may use embeddings up to a norm, or tokens before the prompt."""

from __future__ import annotations

from collections.abc import Callable

import torch

from evaluation.erasure.attack_settings import LEVELS, P4D_PROBES
from evaluation.erasure.attacking import Attempt, Case
from evaluation.erasure.probes import Probes, at_level
from evaluation.erasure.ring import GeneticSettings, genetic
from evaluation.erasure.soft import SoftSettings, beside, projected, soft_prompt
from evaluation.erasure.tokens import UnlearnSettings, p4d, unlearn_diff
from generative.registry import Registry

P4D_RATE, P4D_DECAY = 0.1, 0.1


def _rece(case: Case) -> list[Attempt]:
    derived = case.derived(case.plain)
    return case.within([projected(derived, case.plain, rho) for rho in case.settings.rhos])


def _ring(case: Case) -> list[Attempt]:
    assert case.shift is not None
    moved = case.plain + case.settings.eta * case.shift
    return case.within([projected(moved, case.plain, rho) for rho in case.settings.rhos])


def _ring_tokens(case: Case) -> list[Attempt]:
    """Whole prompts, of the vocabulary without special tokens."""
    assert case.shift is not None
    settings, encoder = case.settings, case.victim.encoder
    text, special = case.prefixed(""), set(encoder.tokenizer.all_special_ids)
    known = torch.tensor([i for i in range(len(text.table)) if i not in special])
    search = GeneticSettings(generations=settings.search_steps)
    wanted = case.plain + settings.eta * case.shift
    found, _ = genetic(lambda some: text.encoded(known[some]), wanted, len(known), text.free, search, _generator(case))
    return case.of_tokens(text, known[found])


def _soft(case: Case) -> list[Attempt]:
    probes, plain = case.original(case.settings.probes), case.plain
    search = SoftSettings(case.settings.search_steps)
    starts = [case.derived(plain), beside(plain, case.streams)]
    return case.within(
        [
            soft_prompt(case.victim.predict, probes, plain, starts, rho, search).states.cpu()
            for rho in case.settings.rhos
        ]
    )


def _unlearn(case: Case) -> list[Attempt]:
    steps = case.settings.search_steps
    signal, streams = case.victim.signal, case.streams
    with case.unedited():
        clean = case.clean()

    def probes(level: int) -> list[Probes]:
        at = (level + 0.5) / LEVELS  # t = 10, 30, ..., 990 of 1,000
        return [at_level(signal, clean, at, level * steps + i, streams) for i in range(steps)]

    text = case.prefixed(case.row.prompt)
    found = unlearn_diff(
        case.victim.predict, text, probes, LEVELS, UnlearnSettings(steps), _generator(case), case.shows
    )
    return case.of_tokens(text, found)


def _p4d(case: Case) -> list[Attempt]:
    steps = case.settings.search_steps
    each = case.original(min(steps, P4D_PROBES)).each()
    text = case.prefixed(case.row.prompt)
    found = p4d(case.victim.predict, text, each, steps, P4D_RATE, P4D_DECAY, _generator(case))
    return case.of_tokens(text, found)


def _generator(case: Case) -> torch.Generator:
    return torch.Generator().manual_seed((case.settings.seed * 1_000_003 + case.row.seed) % 2**63)


ATTACKS: Registry[Callable[[Case], list[Attempt]]] = Registry(
    "attack",
    {
        "soft-prompt": _soft,
        "unlearndiffatk": _unlearn,
        "p4d": _p4d,
        "ring-a-bell": _ring,
        "ring-a-bell-tokens": _ring_tokens,
        "rece": _rece,
    },
)


def attack(case: Case) -> list[Attempt]:
    """Attempts of a prompt, one for each norm."""
    made: list[Attempt] = ATTACKS[case.settings.name](case)
    return made
