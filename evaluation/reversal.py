"""The reversal curse: does a model know "DESCRIPTION is NAME" that has read only "NAME is DESCRIPTION"?

Protocol of arXiv 2410.18514: text goes on from each question without chance; it is right where the answer stands
anywhere in it, upper and lower case alike. Descriptions are also compared by BLEU of their characters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from evaluation.estimate import Estimate, mean_estimate
from evaluation.harness.jobs import Continue
from evaluation.harness.tokens import TextModel
from generative.errors import ConfigError

Questions = Mapping[str, Sequence[tuple[str, str]]]
"""(question, answer) pairs by what is asked."""

ORDER = 4
"""Longest n-grams of BLEU."""


def reversal_jobs(model: TextModel, questions: Questions, length: int, guidance: float) -> list[Continue]:
    """What is asked of a model: each question, filled up to `length` tokens.

    Raises:
        ConfigError: a question that leaves no room for its answer.
    """
    jobs = []
    for asked, pairs in questions.items():
        for number, (prompt, answer) in enumerate(pairs):
            given, wanted = (len(model.encoded(text)) for text in (prompt, answer))
            if given + wanted > length:
                raise ConfigError(
                    f"a question of {given} tokens with an answer of {wanted}, in {length}",
                    f"at least {given + wanted} tokens",
                    "raise suite.length (and the model's context)",
                )
            jobs.append(Continue(asked, number, prompt, (), length - given, 0.0, guidance))
    return jobs


def reversal_figures(questions: Questions, texts: Sequence[str]) -> dict[str, Estimate]:
    """Share of right answers for each thing asked, and BLEU (0 to 1) where descriptions are wanted ("NAME_bleu").

    Args:
        questions: by what is asked.
        texts: what was written, in the order of `reversal_jobs`.
    """
    written = iter(texts)
    found: dict[str, Estimate] = {}
    for asked, pairs in questions.items():
        answers = [(answer, next(written)) for _, answer in pairs]
        note = f"{len(pairs)} questions, taken as independent"
        found[asked] = mean_estimate([float(is_right(*each)) for each in answers], "", f"exact match, {note}")
        if asked.startswith("name_to"):
            found[f"{asked}_bleu"] = mean_estimate([bleu(*each) for each in answers], "", f"character BLEU, {note}")
    return found


def is_right(answer: str, written: str) -> bool:
    """Whether the answer stands in what was written."""
    return answer.strip().lower() in written.lower()


def bleu(reference: str, written: str) -> float:
    """BLEU of characters: geometric mean of the shares of the 1- to 4-grams of `written` that stand in `reference`
    (each at most as often as there), times exp(1 - r/c) where it is shorter; 0 where some n has none."""
    if len(written) < ORDER:
        return 0.0
    total = 0.0
    for n in range(1, ORDER + 1):
        grams, known = _grams(written, n), _grams(reference, n)
        shared = sum(min(count, known[gram]) for gram, count in grams.items())
        if shared == 0:
            return 0.0
        total += math.log(shared / sum(grams.values())) / ORDER
    return math.exp(total + min(0.0, 1.0 - len(reference) / len(written)))


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))
