"""Made text whose words change with time, to measure a model on later text than it was trained on.

Sentences are walks over word numbers: each word is followed by one of a few others, with fixed chances. A period gives
a share of the numbers new spellings; grammar and frequencies stay. So a model of period 0 finds later text harder to
the degree that it relies on spellings.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from generative.data.cache import begin, default_cache, make_once
from generative.data.config import DriftingTextConfig, FilesTextConfig, WindowConfig

WORDS, FOLLOWERS, SENTENCES, LONGEST = 200, 8, 12, 9
"""Words of the language, what can follow each, sentences of a document, words of a sentence at most."""
LAYOUT = 1
SYLLABLES = ["".join(pair) for pair in itertools.product("bdfgklmnprst", "aeiou")]


def spellings(config: DriftingTextConfig) -> list[str]:
    """The words by number. Each has one of two spellings; the order in which they turn new is fixed by the seed."""
    rng = np.random.default_rng([config.seed, 0])
    numbers = rng.choice(len(SYLLABLES) ** 2, 2 * WORDS, replace=False)
    known = [SYLLABLES[n // len(SYLLABLES)] + SYLLABLES[n % len(SYLLABLES)] for n in numbers]
    turns = rng.permutation(WORDS)
    new = round(config.period * WORDS)
    return [known[word + WORDS * bool(turns[word] < new)] for word in range(WORDS)]


def made_documents(config: DriftingTextConfig) -> Iterator[str]:
    """Texts of a period; other periods have other sentences of the same language."""
    grammar = np.random.default_rng([config.seed, 1])
    follow = grammar.integers(WORDS, size=(WORDS, FOLLOWERS))
    chances = grammar.dirichlet(np.ones(FOLLOWERS), WORDS)
    words = spellings(config)
    rng = np.random.default_rng([config.seed, 2, round(config.period * 1e6)])
    for _ in range(config.documents):
        sentences = []
        for _ in range(SENTENCES):
            walk = [int(rng.integers(WORDS))]
            for _ in range(int(rng.integers(3, LONGEST))):
                walk.append(int(rng.choice(follow[walk[-1]], p=chances[walk[-1]])))
            sentences.append(" ".join(words[word] for word in walk).capitalize() + ".")
        yield " ".join(sentences) + "\n"


def drifting_files(config: DriftingTextConfig, cache: Path | None = None) -> FilesTextConfig:
    """The same settings of a folder of text files, which is made once in the cache. Raises DataError: a full disk."""
    about = {"layout": LAYOUT, "period": config.period, "documents": config.documents, "seed": config.seed}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    def name(number: int) -> str:
        return f"{number:06d}.txt"

    def complete(folder: Path) -> bool:
        return (folder / name(config.documents - 1)).is_file()

    def build(partial: Path) -> None:
        begin(partial, about)
        for number, text in enumerate(made_documents(config)):
            (partial / name(number)).write_text(text, encoding="utf-8")

    folder = make_once((config.cache or cache or default_cache()) / f"drifting-{key}", complete, build)
    return FilesTextConfig(path=folder, **{name: getattr(config, name) for name in WindowConfig.model_fields})
