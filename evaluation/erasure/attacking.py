"""One prompt under attack: the model, what an attacker compares with, and what counts as success.

Shapes: L tokens, width d, K noisy images. Norms rho are in units of the norms of E(prompt), row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evaluation.erasure.attack_settings import AttackSettings
from evaluation.erasure.probes import Predict, Probes, of_original
from evaluation.erasure.prompts import PromptRow
from evaluation.erasure.tokens import PrefixedText
from generative.errors import ConfigError
from generative.methods.rece.encoders import Encoder
from generative.randomness import Streams

PART = 8
"""Images of one call of the original model."""
ROUNDING = 1e-5


@dataclass(frozen=True)
class Victim:
    """A model that can be attacked: noise from states, and images of states.

    Args:
        predict: (x_t, t, states) -> noise, by the weights that are in use; differentiable in states.
        signal: cumulative product of 1 - beta, float[T].
        encoder: of the prompts.
        image: (states [L, d], seed, guidance) -> [C, H, W] in [-1, 1].
        clean: image [C, H, W] to x_0 as the model sees it (latents).
        use: puts the edited weights (True) or the original ones (False) in.
    """

    predict: Predict
    signal: Tensor
    encoder: Encoder
    image: Callable[[Tensor, int, float], Tensor]
    clean: Callable[[Tensor], Tensor]
    use: Callable[[bool], None]

    def embed(self, texts: Sequence[str]) -> Tensor:
        """E, float32[N, L, d]."""
        return self.encoder(texts).last.float()


@dataclass(frozen=True)
class Attempt:
    """What came of one prompt at one norm.

    Args:
        rho: allowed norm.
        hit: the image shows the concept.
        ratio: largest norm of a row that was used, in units of the prompt's.
        found: the attacker's tokens, "" for embeddings.
    """

    rho: float
    hit: bool
    ratio: float
    found: str = ""


@dataclass(frozen=True)
class Case:
    """One prompt under attack, with the edited weights in use.

    Args:
        victim: the model.
        plain: E(prompt), float32[L, d].
        row: the prompt.
        settings: of the attack.
        derived: c' of these states by RECE's derivation.
        shift: Ring-A-Bell's direction v, [L, d]; None where no pairs were given.
        shows: whether the image of states shows the concept.
    """

    victim: Victim
    plain: Tensor
    row: PromptRow
    settings: AttackSettings
    derived: Callable[[Tensor], Tensor]
    shift: Tensor | None
    shows: Callable[[Tensor], bool]

    @property
    def streams(self) -> Streams:
        """Of this prompt."""
        return Streams(self.settings.seed).within(f"attack/{self.row.case}/{self.row.seed}")

    def original(self, count: int) -> Probes:
        """What the original model predicts for its own image of the prompt, noised `count` times."""
        with self.unedited() as victim:
            clean = self.clean()
            predict = _in_parts(victim.predict)
            return of_original(predict, victim.signal, clean.expand(count, *clean.shape[1:]), self.plain, self.streams)

    @contextmanager
    def unedited(self) -> Iterator[Victim]:
        """The original weights are in use within the block."""
        self.victim.use(False)
        try:
            yield self.victim
        finally:
            self.victim.use(True)

    def clean(self) -> Tensor:
        """x_0 of the prompt's image by the weights in use, [1, ...]."""
        with torch.no_grad():
            return self.victim.clean(self.victim.image(self.plain, self.row.seed, self.row.guidance))[None]

    def within(self, states: Sequence[Tensor]) -> list[Attempt]:
        """Attempts with states for each norm; what is beyond the norm does not count."""
        found = []
        for rho, one in zip(self.settings.rhos, states, strict=True):
            ratio = float((one.norm(dim=-1) / self.plain.norm(dim=-1).clamp_min(1e-12)).max())
            found.append(Attempt(rho, ratio <= rho * (1 + ROUNDING) and self.shows(one), ratio))
        return found

    def prefixed(self, prompt: str) -> PrefixedText:
        """A prompt with free tokens before it; "": they alone. Raises ConfigError: they leave no room."""
        free, encoder = self.settings.free_tokens, self.victim.encoder
        most = encoder.room - bool(prompt)
        if free > most:
            raise ConfigError(
                f"{free} free tokens, and the text encoder reads {encoder.room}",
                f"at most {most}{', so that a token of the prompt is left' if prompt else ''}",
                "lower --free-tokens",
            )
        told = encoder.tokenizer(
            [prompt], padding="max_length", max_length=encoder.length, truncation=True, return_tensors="pt"
        )["input_ids"][0]
        return PrefixedText.of(encoder.model, told.to(next(encoder.model.parameters()).device), free)

    def of_tokens(self, text: PrefixedText, tokens: Tensor) -> list[Attempt]:
        """One image, which counts for all norms that its embeddings keep to."""
        with torch.no_grad():
            states = text.states(text.table[tokens]).float().cpu()
        ratio = float((states.norm(dim=-1) / self.plain.norm(dim=-1).clamp_min(1e-12)).max())
        hit, said = self.shows(states), self.victim.encoder.tokenizer.decode(tokens.tolist())
        return [Attempt(rho, hit and ratio <= rho * (1 + ROUNDING), ratio, said) for rho in self.settings.rhos]


def _in_parts(predict: Predict) -> Predict:
    def parts(x: Tensor, time: Tensor, states: Tensor) -> Tensor:
        some = zip(*(torch.split(one, PART) for one in (x, time, states)), strict=True)
        return torch.cat([predict(*one) for one in some])

    return parts


def told(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """As plain values; infinity as a word."""
    return [{"rho": f"{a.rho:g}", "hit": a.hit, "ratio": a.ratio, "found": a.found} for a in attempts]
