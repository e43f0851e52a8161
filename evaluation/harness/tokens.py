"""Texts as token ids, as the harness of arXiv 2410.18514 cuts them: context and continuation are encoded together.

Shapes: P tokens of a context, L of a continuation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from generative.data.tokenizers import Tokenizer
from generative.errors import ConfigError, DataError

Begin = Literal["none", "bos"]
"""What stands before every context. bos: the token that begins texts, or else the one that ends them, if there is one
(the released harness prepends it, although training did not); none: nothing."""


@dataclass(frozen=True)
class TextModel:
    """A trained text model with its tokenizer.

    Args:
        method: masked diffusion or autoregressive.
        nets: its networks, in eval mode.
        tokenizer: that its training text was encoded with.
        device: where the networks are.
        begin: see `Begin`.
    """

    method: Any
    nets: Mapping[str, nn.Module]
    tokenizer: Tokenizer
    device: torch.device
    begin: Begin = "bos"

    @property
    def masked(self) -> bool:
        """Whether it fills in masked tokens; else it predicts the next one."""
        return hasattr(self.method, "mask_id")

    @property
    def longest(self) -> int:
        """Tokens that the network takes at most."""
        return int(self.method.network.max_length)

    def first(self, empty: bool) -> list[int]:
        """What stands before a context, [0 or 1 ids]; a causal network needs something to predict a first token from.

        Args:
            empty: whether the context is.
        """
        found = begin_id(self.tokenizer) if self.begin == "bos" or (empty and not self.masked) else None
        return [] if found is None else [found]

    def encoded(self, text: str) -> NDArray[np.int64]:
        """Ids int64[T].

        Raises:
            DataError: an id that the network does not know.
        """
        ids = self.tokenizer.encode(text)
        known = self.method.network.vocab_size or self.method.network.padded_vocab
        if len(ids) and int(ids.max()) >= known:
            raise DataError(
                f"the tokenizer makes the token {int(ids.max())} of {text[:60]!r}; the network knows {known} tokens",
                "the tokenizer that the network was trained with",
                "name it with --tokenizer",
            )
        return ids

    def tensor(self, ids: list[int] | NDArray[np.int64]) -> Tensor:
        """Ids int64[T] where the networks are."""
        return torch.as_tensor(np.asarray(ids, dtype=np.int64), device=self.device)

    def check_guidance(self, scale: float | None) -> None:
        """Refuse guidance where there is no mask token to hide the prompt with. Raises ConfigError."""
        if scale and not self.masked:
            raise ConfigError(
                f"guidance={scale:g} with a model of {self.method.config.name}, which has no mask token",
                "a masked diffusion model, whose prompt can be hidden",
                "leave guidance out, or set it to 0",
            )

    def checked(self, tokens: int, what: str, unread: int = 0) -> None:
        """Refuse what does not fit the network (nothing is cut off); `unread` of the tokens are not put into it.

        Raises:
            ConfigError: too many.
        """
        if tokens - unread > self.longest:
            raise ConfigError(
                f"{what} has {tokens} tokens",
                f"at most {self.longest + unread}, for the context of this model (method.network.max_length)",
                "take a task with shorter texts or fewer examples in its prompts, or a model with a longer context",
            )


def begin_id(tokenizer: Tokenizer) -> int | None:
    """The token that begins a text: of a Hugging Face tokenizer its own, else the one that ends documents."""
    own = getattr(getattr(tokenizer, "tokenizer", None), "bos_token_id", None)
    return tokenizer.eos_id if own is None else int(own)


def split_pair(model: TextModel, context: str, continuation: str) -> tuple[Tensor, Tensor]:
    """(context int64[P], continuation int64[L]): spaces that end the context belong to the continuation.

    Both are encoded together, and the continuation is what goes beyond the tokens of the context alone.

    Raises:
        DataError: nothing is left of the continuation, or a token is not known.
        ConfigError: too long for the model.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    whole, before = model.encoded(kept + continuation), model.encoded(kept)
    after = whole[len(before) :]
    if len(after) == 0:
        raise DataError(
            f"the continuation {continuation[:60]!r} adds no token to its context",
            "a continuation of at least one token",
            "correct the task's answers",
        )
    first = model.first(len(before) == 0)
    if len(first) + len(before) == 0 and not model.masked:
        raise ConfigError(
            "an empty context, with a tokenizer that has no token to begin with",
            "a context of at least one token, which a causal network predicts the next from",
            "give a context, or take a model of bytes",
        )
    what = f"a context with its continuation ({continuation.strip()[:40]!r})"
    model.checked(len(first) + len(whole), what, unread=0 if model.masked else 1)
    return model.tensor([*first, *whole[: len(before)].tolist()]), model.tensor(after)
