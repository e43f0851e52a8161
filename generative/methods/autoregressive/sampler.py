"""Left-to-right sampling with a memory of keys and values, so that each token costs one position.

Noise is addressed by (sample id, position), so that a sample does not depend on the batch that it is in.

Shapes: B samples, P tokens of a prompt, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.diffusion.categorical import inverse_cdf, restrict
from generative.errors import ConfigError
from generative.method import Batch
from generative.nets.attention import Memory, Recall
from generative.nets.vocabulary import check_ids
from generative.randomness import Streams

Observer = Callable[[int, Tensor], None]
"""Told each position with its tokens int64[B] as soon as they are drawn."""


@dataclass(frozen=True)
class AutoregressiveSampler:
    """Draws from a trained causal network.

    Args:
        net: forward of the transformer.
        length: tokens of a finished sample, the prompt included.
        vocab_size: ids from here on (padding of the vocabulary) are never drawn.
        temperature: of the softmax; 0 takes the most probable token.
        top_k: only the most probable are drawn; None: all.
        top_p: only the nucleus is drawn; 1: all.
        eos_id: a sample ends at the first one that it draws, and is filled up with it; None: none ends.
        memory: keep keys and values of earlier tokens; without, each token takes a pass over all before it.
    """

    net: Callable[..., Any]
    length: int
    vocab_size: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    eos_id: int | None = None
    memory: bool = True

    @torch.no_grad()
    def __call__(self, condition: Batch, streams: Streams, observer: Observer | None = None) -> Tensor:
        """Samples int64[B, length] that begin with condition["prompt"] int64[B, P], P >= 1.

        Without a prompt the first token is drawn uniformly: the network has learned no distribution of first tokens.

        Raises:
            ConfigError: an empty prompt, one longer than a sample, or with tokens that the network does not know.
        """
        ids = condition["sample_id"]
        prompt = condition["prompt"] if "prompt" in condition else self._first(ids, streams)
        B, P = prompt.shape
        if not 1 <= P <= self.length:
            raise ConfigError(f"a prompt of {P} tokens", f"1 to {self.length} tokens", "give a prompt of that length")
        tokens = torch.cat([prompt, prompt.new_full((B, self.length - P), self.eos_id or 0)], dim=1)
        check_ids(prompt, self.vocab_size)
        memory = Memory(B, self.length) if self.memory else None
        active = torch.arange(B, device=tokens.device)
        for place in range(P, self.length):
            start = 0 if place == P or memory is None else place - 1
            logits = self._logits(tokens[active, start:place], start, place, memory, active)
            uniform = streams.at(place).uniform("token", ids[active], dtype=torch.float64)
            following = inverse_cdf(
                restrict(logits, self.top_k, self.top_p, self.temperature), uniform, self.temperature
            )
            tokens[active, place] = following
            if observer is not None:
                observer(place, tokens[:, place].clone())
            active = active if self.eos_id is None else active[following != self.eos_id]
            if len(active) == 0:
                break
        return tokens

    def _first(self, sample_id: Tensor, streams: Streams) -> Tensor:
        if self.vocab_size is None:
            raise ConfigError("a sample without a prompt", "a known vocabulary", "give condition['prompt']")
        return streams.at(0).integers("token", sample_id, self.vocab_size)[:, None]

    def _logits(self, tokens: Tensor, start: int, stop: int, memory: Memory | None, members: Tensor) -> Tensor:
        """Logits [B, V] of the token at `stop`, after tokens[B, stop - start] and what is remembered before them."""
        B, T = tokens.shape
        last = torch.arange(1, B + 1, device=tokens.device) * T - 1
        options: dict[str, Any] = {}
        if memory is not None:
            everyone = memory.sequences == B
            options["recall"] = Recall(memory, start, stop, None if everyone else members)
        logits: Tensor = self.net(tokens, last, **options)
        if self.vocab_size is not None:
            logits[:, self.vocab_size :] = -torch.inf
        return logits
