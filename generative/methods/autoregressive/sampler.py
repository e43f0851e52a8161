"""Plain left-to-right sampling.

Noise is addressed by (sample id, position), so that a sample does not depend on the batch that it is in. Each token
takes a forward pass over all before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.diffusion.categorical import inverse_cdf
from generative.errors import ConfigError
from generative.method import Batch
from generative.randomness import Streams


@dataclass(frozen=True)
class AutoregressiveSampler:
    """Draws from a trained causal network.

    Args:
        net: forward of the transformer.
        length: tokens of a finished sample, the prompt included.
        vocab_size: ids from here on (padding of the vocabulary) are never drawn.
        temperature: of the softmax; 0 takes the most probable token.
    """

    net: Callable[..., Any]
    length: int
    vocab_size: int | None = None
    temperature: float = 1.0

    @torch.no_grad()
    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """Samples int64[B, length] that begin with condition["prompt"] int64[B, P], P >= 1.

        Without a prompt the first token is drawn uniformly: the network has learned no distribution of first tokens.
        """
        ids = condition["sample_id"]
        tokens = condition["prompt"] if "prompt" in condition else self._first(ids, streams)
        if not 1 <= tokens.shape[1] <= self.length:
            raise ConfigError(
                f"a prompt of {tokens.shape[1]} tokens", f"1 to {self.length} tokens", "give a prompt of that length"
            )
        for place in range(tokens.shape[1], self.length):
            uniform = streams.at(place).uniform("token", ids, dtype=torch.float64)
            following = inverse_cdf(self._logits(tokens), uniform, self.temperature)
            tokens = torch.cat([tokens, following[:, None]], dim=1)
        return tokens

    def _first(self, sample_id: Tensor, streams: Streams) -> Tensor:
        if self.vocab_size is None:
            raise ConfigError("a sample without a prompt", "a known vocabulary", "give condition['prompt']")
        return streams.at(0).integers("token", sample_id, self.vocab_size)[:, None]

    def _logits(self, tokens: Tensor) -> Tensor:
        """Logits [B, V] of the token after tokens[B, P]."""
        B, P = tokens.shape
        last = torch.arange(1, B + 1, device=tokens.device) * P - 1
        logits: Tensor = self.net(tokens, last)
        if self.vocab_size is not None:
            logits[:, self.vocab_size :] = -torch.inf
        return logits
