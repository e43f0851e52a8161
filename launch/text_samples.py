"""Samples and infillings of a text model as items of a samples file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from generative.data.text import TextData
from generative.data.tokenizers import Tokenizer
from generative.errors import ConfigError
from generative.method import DataFacts
from generative.randomness import Streams
from launch.sections import TextSampling

Item = dict[str, Any]
BLANK = re.compile("▁")


class Words(Protocol):
    """What must be known of a model's text to write some."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Of its training text."""
        ...

    @property
    def facts(self) -> DataFacts:
        """With the length of its windows."""
        ...


def draw_samples(
    settings: TextSampling,
    data: Words,
    method: Any,
    nets: Mapping[str, nn.Module],
    device: torch.device,
    prompt: str | None,
    numbers: range | None = None,
) -> list[Item]:
    """Texts that begin with the prompt, or with the start of a document: `settings.count`, or those of some numbers."""
    numbers = range(settings.count) if numbers is None else numbers
    given, length = _beginning(settings, data, prompt)
    ids = torch.tensor(numbers, dtype=torch.int64, device=device)
    tokens = torch.tensor(given, dtype=torch.int64, device=device).expand(len(ids), -1)
    if hasattr(method, "mask_id"):
        canvas = tokens.new_full((len(ids), length), method.mask_id)
        canvas[:, : tokens.shape[1]] = tokens
        return _fill("sample", canvas, ids, settings, data, method, nets, [None] * len(ids))
    condition = {"sample_id": ids} | ({"prompt": tokens} if given else {})
    drawn = replace(_sampler(data, method, nets), length=length)(condition, _streams(settings))
    shown = data.tokenizer.readable(given) if given else ""
    return [_item("sample", shown, data.tokenizer.readable(row), []) for row in drawn.tolist()]


def _beginning(settings: TextSampling, data: Words, prompt: str | None) -> tuple[list[int], int]:
    """Tokens that samples begin with, and how many they have in all."""
    if prompt == "":
        raise ConfigError(
            "an empty prompt", "text that samples begin with", "give some, or leave out --prompt for whole new texts"
        )
    start = [] if data.tokenizer.eos_id is None else [data.tokenizer.eos_id]
    given = list(data.tokenizer.encode(prompt)) if prompt else start
    length = settings.length or data.facts.sequence_length or 0
    if len(given) >= length:
        raise ConfigError(
            f"a prompt of {len(given)} tokens leaves no room in a sample of {length}",
            expected=f"fewer than {length} tokens",
            remedy="shorten the prompt, or raise sample.length",
        )
    return given, length


def check_samples(settings: TextSampling, data: Words, method: Any) -> None:
    """Refuse what would keep a trained model from drawing samples, or infillings of held-out text, without a prompt.

    Raises:
        ConfigError: settings of `method.sampling` that these texts, or the tokenizer, do not allow.
    """
    _check_ending(data, method)
    given, length = _beginning(settings, data, None)
    if hasattr(method, "check_sampling"):
        places = torch.arange(length)
        method.check_sampling((places >= len(given))[None])
        if settings.infill:
            hidden = torch.zeros(data.facts.sequence_length or 0, dtype=torch.bool)
            hidden[_middle(len(hidden))] = True
            method.check_sampling(hidden[None])


def draw_infills(
    settings: TextSampling,
    data: TextData,
    method: Any,
    nets: Mapping[str, nn.Module],
    device: torch.device,
) -> list[Item]:
    """Fill the middle quarters of held-out windows."""
    canvas, truths = _held_out(settings.infill, data, method.mask_id)
    ids = torch.arange(len(canvas), device=device)
    return _fill("infill", canvas.to(device), ids, settings, data, method, nets, truths)


def draw_texts(
    settings: TextSampling,
    data: Words,
    method: Any,
    nets: Mapping[str, nn.Module],
    device: torch.device,
    prompt: str | None,
    text: str | None,
) -> list[Item]:
    """`draw_samples`, or where there is a `text`: that with its blanks ("▁", one a token) filled in, `settings.count`
    times."""
    if text is None:
        return draw_samples(settings, data, method, nets, device, prompt)
    if not hasattr(method, "mask_id"):
        raise ConfigError(
            f"this model's method ({type(method).__name__}) writes from left to right and cannot fill gaps",
            expected="a masked diffusion model",
            remedy="leave out --infill and give the beginning with --prompt",
        )
    canvas = _canvas_of(text, data, method.mask_id).to(device).expand(settings.count, -1)
    ids = torch.arange(settings.count, device=device)
    return _fill("infill", canvas, ids, settings, data, method, nets, [None] * len(ids))


def _canvas_of(text: str, data: Words, mask_id: int) -> Tensor:
    pieces: list[int] = []
    for index, part in enumerate(BLANK.split(text)):
        pieces += ([mask_id] if index else []) + (list(data.tokenizer.encode(part)) if part else [])
    longest = data.facts.sequence_length or 0
    if mask_id not in pieces or len(pieces) > longest:
        raise ConfigError(
            f"a text to fill in with {pieces.count(mask_id)} blanks and {len(pieces)} tokens",
            expected=f'one "▁" for each token to fill in, and at most {longest} tokens',
            remedy="write a ▁ where a token is wanted",
        )
    return torch.tensor(pieces, dtype=torch.int64)


def _held_out(count: int, data: TextData, mask_id: int) -> tuple[Tensor, list[list[int] | None]]:
    """Windows with masks in their middle [B, T], and what they were."""
    places = np.linspace(0, len(data.validation) - 1, count + 2).round().astype(np.int64)[1:-1]
    tokens = data.validation.fetch(places)["tokens"][:, :-1].clone()
    truths: list[list[int] | None] = tokens.tolist()
    tokens[:, _middle(tokens.shape[1])] = mask_id
    return tokens, truths


def _middle(length: int) -> slice:
    """Places of a window of held-out text that are filled in."""
    return slice(length * 3 // 8, length * 5 // 8)


def _streams(settings: TextSampling) -> Streams:
    return Streams(settings.seed).within("samples")


def _sampler(data: Words, method: Any, nets: Mapping[str, nn.Module]) -> Any:
    """The method's sampler, which ends texts where its settings say so."""
    _check_ending(data, method)
    eos_id = data.tokenizer.eos_id if method.config.sampling.stop_at_eos else None
    return replace(method.sampler(nets), eos_id=eos_id)


def _check_ending(data: Words, method: Any) -> None:
    if method.config.sampling.stop_at_eos and data.tokenizer.eos_id is None:
        raise ConfigError(
            f"method.sampling.stop_at_eos=true, but the tokenizer {data.tokenizer.name!r} has no end of text",
            expected="a tokenizer with an end of text (bytes, or one of Hugging Face)",
            remedy="set method.sampling.stop_at_eos=false",
        )


def _fill(
    kind: str,
    canvas: Tensor,
    ids: Tensor,
    settings: TextSampling,
    data: Words,
    method: Any,
    nets: Mapping[str, nn.Module],
    truths: Sequence[list[int] | None],
) -> list[Item]:
    """Fill canvases, keeping what each looked like after each step that changed it."""
    states: list[list[dict[str, Any]]] = [[] for _ in canvas]

    def observe(step: Any) -> None:
        for row in step.new.any(1).nonzero()[:, 0].tolist():
            states[row].append(
                {
                    "call": int(step.calls[row]),
                    "text": data.tokenizer.display(step.canvas[row].tolist(), method.mask_id),
                    "new": step.new[row].nonzero()[:, 0].tolist(),
                    "masked": step.masked[row].nonzero()[:, 0].tolist(),
                }
            )

    condition = {"sample_id": ids, "canvas": canvas}
    drawn = _sampler(data, method, nets).draw(condition, _streams(settings).within(kind), observe)
    words = data.tokenizer
    return [
        _item(kind, words.readable(before, method.mask_id), words.readable(after), steps) | _truth(words, truth)
        for before, after, truth, steps in zip(canvas.tolist(), drawn.tokens.tolist(), truths, states, strict=True)
    ]


def _item(kind: str, prompt: str, text: str, states: list[dict[str, Any]]) -> Item:
    return {"kind": kind, "prompt": prompt, "text": text, "truth": None, "states": states}


def _truth(words: Tokenizer, ids: list[int] | None) -> Item:
    return {} if ids is None else {"truth": words.readable(ids), "truth_cells": words.display(ids)}
