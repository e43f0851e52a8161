"""Prompt-to-prompt: cross-attention maps of an edit from those of its source, by the words that both share.

M[i, l] is the share that token l has in pixel i (softmax over tokens, rows sum to 1). With R [L, L] from source to
target tokens and f [L] (1 where a target token is new):

    M*[i, j] = sum_l M_source[i, l] R[l, j] + f[j] M_target[i, j]

| mode | R and f |
|---|---|
| replace | word n of the source becomes word n of the target: its share goes evenly to its tokens; f = 0 |
| refine | words of the longest common subsequence keep their maps; new words have their own; rows then sum to 1 again |
| reweight | refine, then M*[i, j] c[j]: a word is stressed (c > 1) or weakened; rows no longer sum to 1, as is meant |

Rows of `replace` sum to 1 by themselves. The method is known here from memory of the paper; the division of `refine` by
its rows' sums is ours, so that deleted words leave no gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from generative.errors import ConfigError, suggestion

Mode = Literal["replace", "refine", "reweight"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Prompt:
    """A text as the encoder's tokens: one for the start, those of the words, then end and padding.

    Args:
        text: as given.
        words: split at spaces.
        bounds: first token of each word, and of what follows the last: one more than words.
        length: L, tokens in all.
    """

    text: str
    words: tuple[str, ...]
    bounds: tuple[int, ...]
    length: int

    def tokens(self, word: int) -> range:
        """Of a word."""
        return range(self.bounds[word], self.bounds[word + 1])


def read_prompt(text: str, tokenize: Callable[[str], list[int]], length: int) -> Prompt:
    """Where the words of a text are among its tokens.

    Args:
        text: any.
        tokenize: text -> numbers, without start and end.
        length: L.

    Raises:
        ConfigError: a text of no tokens, a longer one than the encoder reads, or words that are not apart in tokens.
    """
    words = tuple(text.split())
    parts = [tokenize(word) for word in words]
    if not any(parts):
        raise ConfigError(
            f"the prompt {text!r} has no word that the tokenizer knows",
            "a text such as 'a photo of a cat'",
            "write what the image shows",
        )
    bounds = [1]
    for part in parts:
        bounds.append(bounds[-1] + len(part))
    if tokenize(text) != [number for part in parts for number in part]:
        raise ConfigError(
            f"the prompt {text!r}: its words cannot be told apart among its tokens",
            "words between spaces, as CLIP's tokenizer reads them",
            "leave out unusual signs",
        )
    if bounds[-1] >= length:
        raise ConfigError(
            f"the prompt {text[:60]!r} has {bounds[-1] - 1} tokens",
            f"at most {length - 2}, as the text encoder reads",
            "write a shorter text",
        )
    return Prompt(text, words, tuple(bounds), length)


def replacement(source: Prompt, target: Prompt) -> Tensor:
    """R of `replace`, float32[L, L], rows summing to 1; raises ConfigError where the numbers of words differ."""
    if len(source.words) != len(target.words):
        raise ConfigError(
            f"mode replace with {len(source.words)} words in {source.text!r} and {len(target.words)} in "
            f"{target.text!r}",
            "as many words in both",
            "give --mode refine, which takes words that are added or left out",
        )
    found = _tails(source, target)
    for word in range(len(source.words)):
        there, here = source.tokens(word), target.tokens(word)
        same = source.words[word] == target.words[word]
        for place, one in enumerate(there):
            for other in [here[place]] if same else here:
                found[one, other] = 1.0 if same else 1.0 / len(here)
    return found


def alignment(source: Prompt, target: Prompt) -> list[int | None]:
    """For each word of the target the source's of the longest common subsequence, or None where it is new."""
    a, b = source.words, target.words
    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            best[i][j] = best[i + 1][j + 1] + 1 if a[i] == b[j] else max(best[i + 1][j], best[i][j + 1])
    found: list[int | None] = [None] * len(b)
    i = j = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            found[j] = i
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


def refinement(source: Prompt, target: Prompt) -> tuple[Tensor, Tensor]:
    """R float32[L, L] and f float32[L] of `refine`."""
    mapping, fresh = _tails(source, target), torch.zeros(target.length)
    for word, kept in enumerate(alignment(source, target)):
        for place, token in enumerate(target.tokens(word)):
            if kept is None:
                fresh[token] = 1
            else:
                mapping[source.tokens(kept)[place], token] = 1
    return mapping, fresh


def _tails(source: Prompt, target: Prompt) -> Tensor:
    """R of what is no word: start to start, end and padding one by one; what is left over goes to the last token."""
    found = torch.zeros(source.length, target.length)
    found[0, 0] = 1
    for place, token in enumerate(range(source.bounds[-1], source.length)):
        found[token, min(target.bounds[-1] + place, target.length - 1)] = 1
    return found


@dataclass(frozen=True)
class Control:
    """What is done to attention maps.

    Args:
        mapping: R.
        fresh: f.
        weights: c.
        normalise: whether rows are made to sum to 1 before they are weighed.
        changed: (word, tokens) of the target that the source has not, or that are weighed.
    """

    mapping: Tensor
    fresh: Tensor
    weights: Tensor
    normalise: bool
    changed: tuple[tuple[str, range], ...] = field(default=(), compare=False)

    def cross(self, source: Tensor, target: Tensor) -> Tensor:
        """M* from maps [..., P, L] of both."""
        found = source @ self.mapping.to(source) + target * self.fresh.to(target)
        if self.normalise:
            found = found / found.sum(-1, keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)
        return found * self.weights.to(found)


def make_control(mode: str, source: Prompt, target: Prompt, weights: Mapping[str, float] | None = None) -> Control:
    """The control of a mode.

    Args:
        mode: see the module.
        source, target: prompts of one tokenizer.
        weights: c by word of the target, of `reweight`.

    Raises:
        ConfigError: an unknown mode, prompts that do not go with it, or weights of no word.
    """
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r}{suggestion(mode, MODES)}", f"one of {', '.join(MODES)}", "correct --mode")
    weights = weights or {}
    if bool(weights) != (mode == "reweight"):
        raise ConfigError(
            f"mode {mode} with {'weights of words' if weights else 'no weight of a word'}",
            "weights with mode reweight, and with it alone",
            "give --mode reweight --weight WORD=2",
        )
    for word, weight in weights.items():
        if word not in target.words:
            raise ConfigError(
                f"a weight of {word!r}{suggestion(word, target.words)}",
                f"a word of the target: {', '.join(dict.fromkeys(target.words))}",
                "correct --weight",
            )
        if not math.isfinite(weight):
            raise ConfigError(f"weight {word}={weight}", "a finite number, 1 for no change", "correct --weight")
    if mode == "replace":
        mapping, fresh = replacement(source, target), torch.zeros(target.length)
        new = [a != b for a, b in zip(source.words, target.words, strict=True)]
    else:
        mapping, fresh = refinement(source, target)
        new = [kept is None for kept in alignment(source, target)]
    c = torch.ones(target.length)
    spans = [range(first, last) for first, last in pairwise(target.bounds)]
    for word, tokens in zip(target.words, spans, strict=True):
        c[list(tokens)] = weights.get(word, 1.0)
    told = zip(target.words, spans, new, strict=True)
    changed = tuple((word, tokens) for word, tokens, one in told if one or word in weights)
    return Control(mapping, fresh, c, mode != "replace", changed)
