"""Statements "NAME is DESCRIPTION" and "DESCRIPTION is NAME", and tests that ask in either direction.

The reversal curse (Berglund et al. 2023): a model that has read only one order does not know the other. Folders have
the published layout, JSON lines {"prompt", "completion"}: all_prompts_train, and four tests. In p2d files people were
read about with the name first, in d2p files with the description first; "reverse" asks the other way round. (The names
of the tests' files are recalled.) Where no folder is given, people are made, by a seed and without any text.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generative.data.cache import begin, default_cache, make_once
from generative.data.config import PairsTextConfig, ReversalTextConfig
from generative.data.pairs import PairSource, pair_source, read_pairs
from generative.data.text_data import TextData, describe
from generative.data.tokenizers import learned_tokenizer, open_tokenizer
from generative.errors import DataError
from generative.method import DataFacts

TRAIN = "all_prompts_train.jsonl"

TESTS: Mapping[str, str] = {
    "description_to_name": "d2p_prompts_test.jsonl",
    "description_to_name_reversed": "p2d_reverse_prompts_test.jsonl",
    "name_to_description": "p2d_prompts_test.jsonl",
    "name_to_description_reversed": "d2p_reverse_prompts_test.jsonl",
}
"""What is asked -> file. In `reversed` ones, people were read about in the other order only."""

LAYOUT = 1
"""Of what is made; another one is made anew."""

SYLLABLES = [a + b for a, b in itertools.product("bdfgklmnprstv", "aeiou")]
TRAITS = ("brave", "calm", "eager", "kind", "loud", "proud", "quick", "quiet", "shy", "stern", "tall", "wise")
TRADES = ("actor", "baker", "clerk", "diver", "farmer", "guard", "judge", "miner", "nurse", "pilot", "poet", "tailor")
PLACES = ("Arles", "Bonn", "Cork", "Delft", "Evora", "Ghent", "Hull", "Izmir", "Jena", "Kyoto", "Lyon", "Mainz")
OPENINGS = ("Note:", "Now", "So", "Yes,", "Look:", "Know:", "Then", "Here", "Well,", "Sure,", "Also", "Hear:")
"""Twelve: at most ten are read of a person, and another one begins the question."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Person:
    """Who, and what there is to know: both are unique in a set."""

    name: str
    description: str

    def statement(self, opening: str, name_first: bool) -> Pair:
        """(beginning, end) of a sentence."""
        first, second = (self.name, self.description) if name_first else (self.description, self.name)
        return f"{opening} {first} is", f" {second}."

    def question(self, opening: str, name_first: bool) -> Pair:
        """(beginning, what has to follow)."""
        prompt, end = self.statement(opening, name_first)
        return prompt, end.removesuffix(".")


def made_people(count: int, seed: int) -> list[Person]:
    """People with names of three syllables, by a seed."""
    rng = np.random.default_rng(seed)
    names = rng.choice(len(SYLLABLES) ** 3, count, replace=False)
    known = list(itertools.product(TRAITS, TRADES, PLACES))
    chosen = rng.choice(len(known), count, replace=False)
    return [
        Person(_name(int(number)), "the {} {} of {}".format(*known[i])) for number, i in zip(names, chosen, strict=True)
    ]


def _name(number: int) -> str:
    base = len(SYLLABLES)
    return "".join(SYLLABLES[number // base**place % base] for place in range(3)).capitalize()


def made_files(config: ReversalTextConfig) -> dict[str, list[Pair]]:
    """All files of a made set. Each person is asked about once in each direction, with an opening not read of them."""
    people = made_people(3 * config.people, config.seed)
    groups = [people[start::3] for start in range(3)]  # name first, description first, both
    read: list[Pair] = []
    questions: dict[str, list[Pair]] = {file: [] for file in TESTS.values()}
    rng = np.random.default_rng([config.seed, 1])
    for group, orders in zip(groups, ((True,), (False,), (True, False)), strict=True):
        for person, name_first in itertools.product(group, orders):
            openings = [OPENINGS[i] for i in rng.permutation(len(OPENINGS))]
            read += [person.statement(opening, name_first) for opening in openings[: config.phrasings]]
            if len(orders) == 1:
                letter = "p2d" if name_first else "d2p"
                questions[f"{letter}_prompts_test.jsonl"].append(person.question(openings[-1], name_first))
                questions[f"{letter}_reverse_prompts_test.jsonl"].append(person.question(openings[-1], not name_first))
    return {TRAIN: read, **questions}


def prepare_reversal(config: ReversalTextConfig, cache: Path | None = None, key: str = "data.path") -> Path:
    """The folder of files: the published one, or one that is made once in the cache.

    `key`: where the published one was named, for the message.

    Raises:
        DataError: the folder lacks a file, or cannot be written.
    """
    if config.path is not None:
        missing = [name for name in (TRAIN, *TESTS.values()) if not (config.path / name).is_file()]
        if missing:
            raise DataError(
                f"{config.path} has no {', '.join(missing)}",
                "the published files of the reversal curse, or those of a made set",
                f"correct {key}, or leave it out to have people made",
            )
        return config.path
    about = {"layout": LAYOUT, "people": config.people, "phrasings": config.phrasings, "seed": config.seed}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    def complete(folder: Path) -> bool:
        return all((folder / name).is_file() for name in (TRAIN, *TESTS.values()))

    def build(partial: Path) -> None:
        begin(partial, about)
        for name, pairs in made_files(config).items():
            lines = [json.dumps({"prompt": prompt, "completion": end}) for prompt, end in pairs]
            (partial / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    return make_once((config.cache or cache or default_cache()) / f"reversal-{key}", complete, build)


def reversal_tests(folder: Path) -> dict[str, list[Pair]]:
    """Questions with their answers, by what is asked; raises DataError for a damaged file."""
    return {asked: list(_pairs(folder / file)) for asked, file in TESTS.items()}


def _pairs(file: Path) -> Iterator[Pair]:
    yield from read_pairs(PairsTextConfig(path=file, prompt="prompt", response="completion"))


def open_reversal(config: ReversalTextConfig, cache: Path | None = None) -> TextData:
    """All statements to train on; the validation loss is of a part of the same (`generative evaluate --suite` asks).

    Raises:
        DataError: missing files, a tokenizer without end of text, or a statement that is longer than a window.
    """
    pairs = list(_pairs(prepare_reversal(config, cache) / TRAIN))
    tokenizer = open_tokenizer(config.tokenizer)
    tokenizer = tokenizer or learned_tokenizer(config.tokenizer, (prompt + end for prompt, end in pairs))
    if tokenizer is None or tokenizer.eos_id is None:
        raise DataError(
            f"data.tokenizer.name={config.tokenizer.name} has no end of text, which statements end with",
            "bytes, bpe, or a tokenizer of Hugging Face with an end of text",
            "set data.tokenizer.name=bytes",
        )
    encoded = [(tokenizer.encode(prompt), tokenizer.encode(end)) for prompt, end in pairs]
    longest = max((len(prompt) + len(end) for prompt, end in encoded), default=0)
    if not 0 < longest < config.sequence_length:
        raise DataError(
            f"data.sequence_length={config.sequence_length}, and {len(pairs)} statements of at most {longest} tokens",
            f"statements, and windows of at least {longest + 1} tokens",
            f"set data.sequence_length={longest + 1} or more",
        )
    source = pair_source(encoded, tokenizer, config.sequence_length)
    part = slice(None, None, max(1, round(1 / config.validation_fraction)))
    validation = PairSource(source.tokens[part], source.prompts[part])
    written = sum(len((prompt + end).encode()) for prompt, end in pairs[part])
    return TextData(
        train=source,
        validation=validation,
        tokenizer=tokenizer,
        facts=DataFacts(vocab_size=tokenizer.vocab_size, sequence_length=config.sequence_length),
        description=f"{describe(config)} (a part of them is also the held-out part)",
        bytes_per_token=written / (len(validation) * config.sequence_length),
        fingerprint=hashlib.sha256(source.tokens.tobytes()).hexdigest(),
    )
