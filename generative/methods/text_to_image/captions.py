"""Captions as tokens: a vocabulary of whole words, with CLIP's start and end tokens, padded with the end token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from generative.methods.text_to_image.config import TextToImageConfig

END, START, UNKNOWN = "<|endoftext|>", "<|startoftext|>", "<|unknown|>"
SPECIAL = (END, START, UNKNOWN)


@dataclass(frozen=True)
class Captions:
    """What a configuration can say of its classes.

    Args:
        words: of the classes.
        templates: with {} for the word.
        length: L.
    """

    words: tuple[str, ...]
    templates: tuple[str, ...]
    length: int

    @staticmethod
    def of(config: TextToImageConfig) -> Captions:
        """Of a configuration."""
        return Captions(tuple(config.words), tuple(config.templates), config.network.length)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Tokens by number: special ones, the words of the classes, those of the templates."""
        said = (word for template in self.templates for word in template.replace("{}", "").lower().split())
        return tuple(dict.fromkeys((*SPECIAL, *(word.lower() for word in self.words), *said)))

    def say(self, label: int, template: int = 0) -> str:
        """The caption of a class."""
        return self.templates[template].format(self.words[label])

    def encode(self, texts: Sequence[str]) -> Tensor:
        """int64[N, L]: start, words, end, and more end tokens; longer texts are cut."""
        numbers = {word: i for i, word in enumerate(self.vocabulary)}
        rows = torch.full((len(texts), self.length), numbers[END])
        for row, text in zip(rows, texts, strict=True):
            content = [numbers.get(word, numbers[UNKNOWN]) for word in text.lower().split()][: self.length - 2]
            row[: len(content) + 1] = torch.tensor([numbers[START], *content])
        return rows

    @cached_property
    def table(self) -> Tensor:
        """int64[K, templates, L]: tokens of every caption."""
        said = [self.say(label, t) for label in range(len(self.words)) for t in range(len(self.templates))]
        return self.encode(said).reshape(len(self.words), len(self.templates), self.length)

    def tokenizer(self) -> Any:
        """The same as a tokenizer of transformers, for folders that other programs read."""
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        numbers = {word: i for i, word in enumerate(self.vocabulary)}
        made = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
        made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        made.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(word, numbers[word]) for word in (START, END)]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=made,
            bos_token=START,
            eos_token=END,
            pad_token=END,
            unk_token=UNKNOWN,
            model_max_length=self.length,
        )
