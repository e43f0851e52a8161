"""How prompts are attacked: which attack, how long, and by which norms; what is published stands as the default."""

from __future__ import annotations

import math
from dataclasses import dataclass

from generative.errors import ConfigError
from generative.registry import Registry

LEVELS, P4D_PROBES = 50, 50
"""Noise levels of UnlearnDiffAtk; noisy images that P4D goes round."""
STEPS = {"soft-prompt": 40, "unlearndiffatk": 40, "p4d": 3000, "ring-a-bell-tokens": 3000}
FREE = {"unlearndiffatk": 5, "p4d": 16, "ring-a-bell-tokens": 16}
PROTOCOLS: Registry[str] = Registry(
    "attack",
    {
        "soft-prompt": "free embeddings, P4D's loss on {K} noisy images, {steps} steps of Adam, from c' and E(prompt)",
        "unlearndiffatk": f"UnlearnDiffAtk, {{free}} tokens as a prefix, {{steps}} steps at each of {LEVELS} levels",
        "p4d": f"P4D as in Diffusion-MU-Attack, {{free}} tokens as a prefix, {{steps}} steps over {P4D_PROBES} images",
        "ring-a-bell": "Ring-A-Bell in the space of embeddings, E(prompt) + {eta:g} v, without its search over tokens",
        "ring-a-bell-tokens": "Ring-A-Bell, {free} tokens nearest to E(prompt) + {eta:g} v after {steps} generations",
        "rece": "c' of RECE's derivation from the edited model, with the edit's own lam",
    },
)


@dataclass(frozen=True)
class AttackSettings:
    """How prompts are attacked; None: as published, or as the benchmark does.

    Args:
        name: of the attack.
        rhos: norms that are allowed, infinity for any.
        steps: of the search: soft-prompt 40; p4d and ring-a-bell-tokens 3,000; unlearndiffatk 40 at each of 50 levels.
        free: tokens before the prompt: unlearndiffatk 5, p4d 16; in its place: ring-a-bell-tokens 16.
        probes: noisy images that soft prompts are compared on.
        eta: of Ring-A-Bell's direction.
        seed: of all that is drawn.
    """

    name: str
    rhos: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, math.inf)
    steps: int | None = None
    free: int | None = None
    probes: int = 8
    eta: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        _ = PROTOCOLS[self.name]  # raises ConfigError, with the nearest name
        if not self.rhos or any(not rho > 0 for rho in self.rhos):
            raise ConfigError(f"norms {self.rhos}", "one or more above 0, in units of the prompt's", "correct --norm")
        if not math.isfinite(self.eta):
            raise ConfigError(f"--eta {self.eta}", "a finite number, such as 3", "correct it")

    @property
    def protocol(self) -> str:
        """In one line."""
        return PROTOCOLS[self.name].format(steps=self.search_steps, free=self.free_tokens, eta=self.eta, K=self.probes)

    @property
    def search_steps(self) -> int:
        """Of the search; 0 where there is none."""
        return self.steps or STEPS.get(self.name, 0)

    @property
    def free_tokens(self) -> int:
        """Before the prompt, or in its place; 0 where there are none."""
        return self.free or FREE.get(self.name, 0)
