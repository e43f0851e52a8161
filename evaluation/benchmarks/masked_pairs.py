"""What common random numbers save when continuations are compared.

Protocol: held-out windows; option A is the true continuation of some tokens, option B the same with one uniformly
chosen word replaced by another word of equal length from the held-out text (or, for comparison, the continuation of
another window). The difference of the two bounds is estimated many times with common noise and with noise of its own
for each option, at equally many network evaluations; the figure is Var(own) / Var(common), geometric mean over windows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.small_runs import Trained
from evaluation.estimate import Estimate
from evaluation.text import evenly_spaced
from generative.data.text import TextData
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.likelihood import Scorer
from generative.methods.masked_diffusion.options import score_options
from generative.randomness import Streams

WORD = re.compile(rb"[A-Za-z_]{2,}")


@dataclass(frozen=True)
class PairSettings:
    """Size of the comparison.

    Args:
        windows: of held-out text.
        tokens: of a continuation.
        draws: network evaluations of each option and estimate.
        repeats: estimates of each difference, from which its variance is taken.
    """

    windows: int = 200
    tokens: int = 16
    draws: int = 8
    repeats: int = 64


FULL_PAIRS = PairSettings()
QUICK_PAIRS = PairSettings(windows=12, repeats=12)


def measure_pairs(trained: Trained, data: TextData, settings: PairSettings) -> dict[str, Figure]:
    """`paired_variance_ratio`, and the same for unrelated continuations. The tokens must be bytes."""
    say(f"differences between two continuations in {settings.windows} windows")
    cases = pairs_of_options(data, settings)
    score = Scorer(Denoiser(trained.nets["net"], trained.method.mask_id))
    logs: dict[str, list[float]] = {"paired_variance_ratio": [], "unrelated_variance_ratio": []}
    for number, case in enumerate(cases):
        context, true, changed, other = (tokens.to(trained.backend.device) for tokens in case)
        for name, second in (("paired_variance_ratio", changed), ("unrelated_variance_ratio", other)):
            spread = [_variance(score, context, (true, second), settings, number, common) for common in (False, True)]
            logs[name].append(float(np.log(spread[0] / spread[1])))
    note = (
        f"{len(cases)} held-out windows, {settings.tokens} tokens, {settings.draws} evaluations of each option, "
        f"variances over {settings.repeats} estimates; geometric mean"
    )
    return {
        name: figure(_geometric(np.array(values)), ">= 4" if name.startswith("paired") else None, note)
        for name, values in logs.items()
    }


def _variance(
    score: Scorer, context: Tensor, options: tuple[Tensor, Tensor], settings: PairSettings, number: int, common: bool
) -> float:
    """Of the difference between two options, with `settings.draws` evaluations of each."""
    found = score_options(
        score,
        context,
        options,
        Streams(0).within("pairs"),
        number,
        draws=settings.draws * settings.repeats,
        replicates=settings.repeats,
        common=common,
    )
    return float((found.replicates[0] - found.replicates[1]).var())


def _geometric(logs: NDArray[np.float64]) -> Estimate:
    """Mean of logarithms as a ratio; its standard error by the delta method, over windows."""
    value = float(np.exp(logs.mean()))
    return Estimate(value, value * float(logs.std(ddof=1)) / len(logs) ** 0.5, len(logs))


def pairs_of_options(data: TextData, settings: PairSettings) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(context, true continuation, the same with a word replaced, that of another window), int64 each."""
    rng = np.random.default_rng(0)
    tokens = data.validation.fetch(evenly_spaced(len(data.validation), 2 * settings.windows).numpy())["tokens"][:, :-1]
    start = tokens.shape[1] - settings.tokens
    # Tokens that are no bytes (ends of documents) stand between words.
    texts = [bytes(i if i < 256 else 0 for i in row) for row in tokens.tolist()]
    words: dict[int, set[bytes]] = defaultdict(set)
    for word in (word for text in texts for word in WORD.findall(text)):
        words[len(word)].add(word)
    spans = [
        [(a, b) for a, b in (match.span() for match in WORD.finditer(text, start)) if words[b - a] - {text[a:b]}]
        for text in texts
    ]
    usable = [row for row, found in enumerate(spans) if found]
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for index in evenly_spaced(len(usable), settings.windows).tolist():
        number = usable[index]
        row, text = tokens[number], texts[number]
        a, b = spans[number][rng.integers(len(spans[number]))]
        others = sorted(words[b - a] - {text[a:b]})
        changed = row.clone()
        changed[a:b] = torch.tensor(list(others[rng.integers(len(others))]))
        # Options that are equal have no difference whose variance could be compared.
        apart = (tokens[:, start:] != row[start:]).any(1).nonzero()[:, 0]
        unrelated = tokens[apart[rng.integers(len(apart))]]
        found.append((row[:start], row[start:], changed[start:], unrelated[start:]))
    return found
